"""A Redis stream, cut off at about so many entries."""

from collections.abc import Sequence
from typing import Any

from app.core.publishing import TAKEN, Confirmation, DestinationAway
from app.domain.events.destinations import DestinationName, WaitingEvent
from app.settings import Settings

TIMEOUT_S = 10.0


class RedisStream:
    name: DestinationName = "stream"

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url is not None
        assert settings.events_redis_stream is not None
        self._url = settings.redis_url
        self._stream = settings.events_redis_stream
        self._length = settings.events_redis_length
        self._client: Any = None

    def __str__(self) -> str:
        return f"the stream {self._stream}"

    @property
    def is_connected(self) -> bool:
        return self._client is not None

    async def connect(self) -> None:
        if self._client is not None:
            return
        try:
            from redis import asyncio as redis
            from redis.backoff import NoBackoff
            from redis.exceptions import AuthenticationError, RedisError
            from redis.retry import Retry
        except ImportError:
            raise DestinationAway("the driver is missing: install data-fusion-hub[redis]") from None
        # One connection, and no attempt of the driver's own: what is sent again is for the relay to say.
        client = redis.Redis.from_url(
            self._url,
            single_connection_client=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S / 2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            await client.ping()
        except AuthenticationError as error:
            await client.aclose()
            raise DestinationAway(f"Redis refuses: {error}; check user and password in HUB_REDIS_URL") from None
        except (RedisError, OSError) as error:
            await client.aclose()
            raise DestinationAway(f"Redis cannot be reached: {type(error).__name__}") from None
        self._client = client

    async def publish(self, events: Sequence[WaitingEvent]) -> list[Confirmation]:
        from redis.exceptions import RedisError

        pipeline = self._client.pipeline(transaction=False)
        for event in events:
            entry = {"event": event.in_envelope(), "tenant": event.slug}
            pipeline.xadd(self._stream, entry, maxlen=self._length, approximate=True)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            await self.close()
            return [Confirmation("unknown", f"Redis left: {type(error).__name__}")] * len(events)
        return [Confirmation("refused", str(answer)) if isinstance(answer, Exception) else TAKEN for answer in answers]

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()
