"""Redis, as long as it answers: every call ends within its deadline, and one that fails opens the circuit.

While the circuit is open nothing is asked of Redis, and whoever wanted to goes on without it. It is tried again every
second by a task of its own, never by a request. The client is imported where an address is set, and not before.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from prometheus_client import Counter

from app.core.deadlines import PatientDeadlines
from app.core.metrics import ProcessGauge

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("hub.redis")

TURNS: Final = 5
TURN_S: Final = 0.05
"""Redis has a quarter of a second for what it is sent. It is counted in turns of the event loop: a process on a busy
machine is late itself, and to go on without Redis for that makes limits inexact."""
CONNECT_S: Final = 2.0
"""Until all connections are there, or Redis is taken to be away for now."""
RETRY_S: Final = 1.0
CONNECTIONS: Final = 4
"""Of a process. They are opened before the circuit closes, so that no request waits for one to be made. Calls for which
none is free are sent together by the next one that is: each is a step of its own in Redis all the same."""
SENT_TOGETHER: Final = 100

Reason = Literal["timeout", "connection", "answer"]
_failures = Counter("hub_redis_failures_total", "Calls to Redis that failed and opened the circuit.", ("reason",))
_without = ProcessGauge("hub_redis_circuit_open", "Processes that go on without Redis, which is set and away.")


class RedisAway(Exception):
    """Nothing was done, or nobody knows whether it was."""


class Script:
    """Runs in Redis as one step. Answers with so many whole numbers."""

    def __init__(self, text: str, *, numbers: int) -> None:
        self.text = text
        self.digest = sha1(text.encode()).hexdigest()  # noqa: S324 - how Redis names scripts
        self.numbers = numbers


class _Call(NamedTuple):
    script: Script
    key: str
    arguments: Sequence[str | int]
    answered: "asyncio.Future[Sequence[int]]"

    def end(self, answer: Sequence[int] | None) -> None:
        """None where there is none; whoever asked may have left."""
        if self.answered.done():
            return
        if answer is None:
            self.answered.set_exception(RedisAway())
        else:
            self.answered.set_result(answer)


PROBE: Final = Script("redis.call('TIME') return {1}", numbers=1)


class RedisLink:
    def __init__(self, url: str, *, turns: int = TURNS, retry_s: float = RETRY_S) -> None:
        self._url = url
        self._deadlines = PatientDeadlines(turns, turn_s=TURN_S)
        self._retry_s = retry_s
        self._client: Redis | None = None
        self._watch: asyncio.Task[None] | None = None
        self._has_failed = asyncio.Event()
        self._waiting: deque[_Call] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._busy = 0
        """Connections on which something is under way."""
        self.is_up = False

    async def start(self) -> None:
        """Tries once before it returns: what comes first is counted by all together where that can be."""
        self._client = _client(self._url)
        await self._try()
        self._tell_start()
        self._watch = asyncio.create_task(self._watch_forever(), name="redis")

    async def stop(self) -> None:
        self.is_up = False
        _without.set(0)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, *self._sending, return_exceptions=True)
        if self._client is not None:
            await _disconnect(self._client)

    async def call(self, script: Script, key: str, *arguments: str | int) -> Sequence[int]:
        """Raises RedisAway, at once or when Redis has had its time."""
        if not self.is_up:
            raise RedisAway
        call = _Call(script, key, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._busy < CONNECTIONS:
            self._busy += 1
            task = asyncio.create_task(self._send_waiting(), name="to redis", context=Context())  # for others, too
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await call.answered

    async def _send_waiting(self) -> None:
        """Until none is left: that there is none, and that one more is free, is known in the same step."""
        assert self._client is not None
        try:
            while self._waiting:
                calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), SENT_TOGETHER))]
                for call, answer in zip(calls, await self._answers_to(self._client, calls), strict=True):
                    call.end(answer)
        finally:
            self._busy -= 1

    async def _answers_to(self, client: "Redis", calls: Sequence[_Call]) -> Sequence[Sequence[int] | None]:
        try:
            with self._deadlines.start():
                return await _run(client, calls)
        except Exception as error:
            self._open(error)
            return [None] * len(calls)

    async def answers(self) -> bool:
        """At this moment."""
        with contextlib.suppress(RedisAway):
            await self.call(PROBE, "hub:probe")
        return self.is_up

    def _open(self, error: Exception) -> None:
        if not self.is_up:
            return
        self.is_up = False
        while self._waiting:
            self._waiting.popleft().end(None)
        _failures.labels(_reason(error)).inc()
        _without.set(1)
        log.warning("Redis is away (%s): limits are per process", type(error).__name__)
        self._has_failed.set()

    async def _watch_forever(self) -> None:
        while True:
            if self.is_up:
                await self._has_failed.wait()
            self._has_failed.clear()
            await asyncio.sleep(self._retry_s)
            await self._try()
            if self.is_up:
                log.info("Redis is back: limits are shared")

    async def _try(self) -> None:
        """On new connections: nobody knows what the old ones still have to say."""
        assert self._client is not None
        try:
            async with asyncio.timeout(CONNECT_S):
                await _disconnect(self._client)
                await asyncio.gather(*(_run(self._client, [_probe()]) for _ in range(CONNECTIONS)))
            with self._deadlines.start():
                await _run(self._client, [_probe()])
        except Exception as error:
            log.debug("Redis does not answer: %s", type(error).__name__)
            return
        self.is_up = True
        _without.set(0)

    def _tell_start(self) -> None:
        if not self.is_up:
            _without.set(1)
            log.warning("Redis does not answer: limits are per process")


async def ask_once(url: str) -> None:
    """Raises whatever goes wrong, within two seconds."""
    client = _client(url)
    try:
        async with asyncio.timeout(CONNECT_S):
            await _run(client, [_probe()])
    finally:
        await _disconnect(client)


def _client(url: str) -> "Redis":
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    pool = BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
    )
    return Redis(connection_pool=pool)


async def _disconnect(client: "Redis") -> None:
    """Whatever state its connections are in. uvloop raises RuntimeError for a transport that is closed already."""
    from redis.exceptions import RedisError

    with contextlib.suppress(OSError, RuntimeError, RedisError):
        await client.connection_pool.disconnect(inuse_connections=True)


def _probe() -> _Call:
    return _Call(PROBE, "hub:probe", (), asyncio.get_running_loop().create_future())


async def _run(client: "Redis", calls: Sequence[_Call]) -> list[Sequence[int]]:
    """In one go. Raises whatever is wrong with any of the answers."""
    from redis.exceptions import NoScriptError

    answers = await _sent(client, [("EVALSHA", each.script.digest, 1, each.key, *each.arguments) for each in calls])
    for at, each in enumerate(calls):
        if isinstance(answers[at], NoScriptError):  # a Redis that has just begun knows none
            (answers[at],) = await _sent(client, [("EVAL", each.script.text, 1, each.key, *each.arguments)])
    return [_checked(answer, each.script) for answer, each in zip(answers, calls, strict=True)]


async def _sent(client: "Redis", commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    return answers


def _checked(answer: Any, script: Script) -> Sequence[int]:
    if isinstance(answer, Exception):
        raise answer
    if not (isinstance(answer, list) and len(answer) == script.numbers and all(type(each) is int for each in answer)):
        raise ValueError("Redis answered with something else")
    return answer


def _reason(error: Exception) -> Reason:
    if isinstance(error, TimeoutError):
        return "timeout"
    from redis.exceptions import ConnectionError as Lost

    return "connection" if isinstance(error, Lost | OSError) else "answer"
