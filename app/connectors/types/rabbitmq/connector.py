"""RabbitMQ: AMQP 0-9-1 to sign in and to read streams, the management API to list what a virtual host has.

**A preview shows streams only.** Whoever takes a message from a classic or a quorum queue, by AMQP's `get` or `consume`
or by the management API's `get`, and puts it back, marks it as redelivered, may move it behind others, counts against
the delivery limit of a quorum queue, and keeps it from its consumers for that time. RabbitMQ has no way to look into
such a queue that leaves it as it was, so the hub does not look: the answer is `unsupported`. A stream is a log; reading
it takes nothing away. Exchanges keep no messages.

The address of AMQP is pinned as `rabbitmq_amqp` says; the management API is dialled by `HttpClient`, which judges and
pins its host by itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlencode

from msgspec import Struct

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.network.http import HttpClient, Response
from app.connectors.network.oauth import basic
from app.connectors.network.tls_fields import refuse_half_an_identity
from app.connectors.types.rabbitmq.amqp import OFFSET, Amqp, StreamEnd, offset_of
from app.connectors.types.rabbitmq.config import RabbitmqConfig, RabbitmqSecrets
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.describing import Describer, Description
from app.connectors.values.message_rows import Facts, as_fields, read_bodies
from app.connectors.values.names import members_of
from app.connectors.values.preview import Preview
from app.connectors.values.values import json_safe
from app.connectors.values.wildcards import is_shown

if TYPE_CHECKING:
    import aiormq
    from aiormq.abc import DeliveredMessage

MAX_PREVIEW_BYTES: Final = 8 * 1024 * 1024
"""Of the bodies that are read for one preview."""
MAX_SAMPLE_BYTES: Final = 512 * 1024
"""Of the bodies that are read of one stream for its fields."""
Kind = Literal["queues", "exchanges"]
Item = dict[str, Any]
"""A queue or an exchange, as the management API tells of it."""
_KINDS: Final[dict[str, Kind]] = {"queues": "queues", "exchanges": "exchanges"}
"""The outer names of paths, and what the management API calls them."""
_COLUMNS: Final = "name,type,exclusive,internal"
_PAGE: Final = 100
_MAX_AMQPLAIN_BYTES: Final = 127
_PROPERTIES: Final = (
    *("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration"),
    *("message_id", "timestamp", "message_type", "user_id", "app_id"),
)


class Rabbitmq(Connector[RabbitmqConfig, RabbitmqSecrets]):
    type = "rabbitmq"
    label = "RabbitMQ"
    category = "stream"
    description = "Queues, streams and exchanges of one RabbitMQ virtual host, and the newest messages of its streams."
    config_type = RabbitmqConfig
    secrets_type = RabbitmqSecrets
    driver = "aiormq"
    warm_modules = ("httpx", "httpcore", "anyio._backends._asyncio", "app.connectors.network.http", "yarl")
    extra = "rabbitmq"
    verified_with = ("RabbitMQ 3.10",)
    destination_fields = frozenset(
        {"host", "port", "virtual_host", "username", "auth_mechanism"}
        | {"tls_mode", "ca_certificate", "client_certificate"}
        | {"management_url", "management_verify_tls", "management_ca_certificate"}
    )

    @classmethod
    def validate(cls, config: RabbitmqConfig, secrets: RabbitmqSecrets) -> None:
        if secrets.password is None:
            raise InvalidField(("secrets", "password"), "password is needed; the management API takes nothing else.")
        refuse_half_an_identity(config.client_certificate, secrets)
        if config.auth_mechanism == "AMQPLAIN":
            for path, text in ((("config", "username"), config.username), (("secrets", "password"), secrets.password)):
                if len(text.encode()) > _MAX_AMQPLAIN_BYTES:
                    raise InvalidField(path, f"{path[1]} is too long for AMQPLAIN: use PLAIN.")

    async def check(self, steps: Steps) -> None:
        amqp = Amqp(self.network, self.config, self.secrets)
        await amqp.reach(steps)
        refused: ConnectorError | None = None
        async with AsyncExitStack() as stack:
            with steps.step("authenticate", f"{self.config.host} knows the credentials."):
                try:
                    connection = await stack.enter_async_context(amqp.signed_in())
                    steps.server.update(_about(connection.server_properties))
                except ConnectorError as error:
                    if error.code not in {"not_found", "permission_denied"}:
                        raise
                    refused = error  # The server looks for the virtual host only after it has checked the credentials.
            with steps.step("list", f"Queues and exchanges of {self.config.virtual_host} can be listed."):
                if refused is not None:
                    raise refused
                async with self._client() as client:
                    management = Management(client, self.config, self.secrets)
                    for kind in _KINDS.values():
                        await management.page(kind, 1, 1)

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        """A stream whose messages may not be read is shown with what is known of every message."""
        async with AsyncExitStack() as stack:
            management = Management(await stack.enter_async_context(self._client()), self.config, self.secrets)
            streams: Streams | None = None
            if self.config.sample_messages:
                streams = await stack.enter_async_context(self._signed_in())
            describer = Describer(most_borne=sys.maxsize)
            for kind in _KINDS.values():
                async for page in management.pages(kind):
                    shown = [item for item in page if self._shows(item)]
                    yield [await self._described(describer, kind, item, streams) for item in shown]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        """The newest messages of a stream come first."""
        preview, texts = Preview(request), ByteTexts()
        await self._refuse_unless_stream(request.path)
        async with self._signed_in() as streams:
            end = streams.end(request.path[1], MAX_PREVIEW_BYTES)
            messages = await end.newest(max(request.limit + 1, self.config.sample_messages))
        facts, rows = _read(messages, texts, is_stream=True)
        columns = preview.choose(as_fields(facts), "stream")
        for row in rows:
            if not preview.add([row.get(column.name) for column in columns]):
                break
        return preview.result(has_more=end.is_cut, notes=texts.notes)

    @asynccontextmanager
    async def _signed_in(self) -> AsyncIterator[Streams]:
        amqp = Amqp(self.network, self.config, self.secrets)
        await amqp.reach(Steps())
        async with amqp.signed_in() as connection:
            yield Streams(amqp, connection)

    def _client(self) -> HttpClient:
        config = self.config
        return HttpClient(
            self.network,
            verify_tls=config.management_verify_tls,
            ca_certificate=config.management_ca_certificate,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )

    # Queues and exchanges ---------------------------------------------------------------------------------------------

    def _shows(self, item: Item) -> bool:
        """Not what belongs to one connection, and not what the broker names by itself (AMQP 0-9-1, section 2.1.4)."""
        name = item["name"]
        if not name or name.startswith("amq.") or item.get("exclusive") or item.get("internal"):
            return False
        return is_shown(name, self.config.include_names, self.config.exclude_names)

    async def _described(
        self, describer: Describer, kind: Kind, item: Item, streams: Streams | None
    ) -> DiscoveredObject:
        called = _called(kind, item)

        async def look() -> Description:
            sample: list[DeliveredMessage] = []
            if called == "stream" and streams is not None:
                sample = await streams.end(item["name"], MAX_SAMPLE_BYTES).newest(self.config.sample_messages)
            return Description(_fields(sample, called))

        return await describer.describe((kind, item["name"]), called, look, _fields([], called))

    async def _refuse_unless_stream(self, path: Sequence[str]) -> None:
        item: Item | None = None
        kind = _KINDS.get(path[0]) if len(path) == 2 else None
        if kind is not None:
            async with self._client() as client:
                item = await Management(client, self.config, self.secrets).find(kind, path[1])
        if kind is None or item is None or not self._shows(item):
            raise ConnectorError("not_found", f"There is no such queue or exchange in {self.config.virtual_host}.")
        if kind == "exchanges":
            raise ConnectorError("unsupported", "An exchange keeps no messages that could be shown.")
        if _called(kind, item) != "stream":
            raise ConnectorError(
                "unsupported",
                "A queue cannot be looked into without taking its messages out for a while; only streams are shown.",
            )


def _called(kind: Kind, item: Item) -> str:
    if kind == "exchanges":
        return "exchange"
    return "stream" if item.get("type") == "stream" else "queue"


# The management API ---------------------------------------------------------------------------------------------------


class Management:
    """What it says of one virtual host."""

    def __init__(self, client: HttpClient, config: RabbitmqConfig, secrets: RabbitmqSecrets) -> None:
        self._headers = {"authorization": basic(f"{config.username}:{secrets.password or ''}")}
        self._client = client
        self._config = config

    async def pages(self, kind: Kind) -> AsyncIterator[list[Item]]:
        number = 1
        while True:
            items, count = await self.page(kind, number, _PAGE)
            yield items
            if number >= count:
                return
            number += 1

    async def page(self, kind: Kind, number: int, size: int) -> tuple[list[Item], int]:
        """Items, and the number of pages."""
        query = {"page": str(number), "page_size": str(size), "sort": "name", "columns": _COLUMNS}
        response = await self._get(f"/api/{kind}/{_part(self._config.virtual_host)}?{urlencode(query)}")
        answer = response.json()
        if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
            raise ConnectorError("response_invalid", "The management API answered with something that is no list.")
        count = answer.get("page_count")
        if type(count) is not int:
            raise ConnectorError("response_invalid", "The management API does not say how many pages there are.")
        items = [item for item in answer["items"] if isinstance(item, dict) and isinstance(item.get("name"), str)]
        return items, count

    async def find(self, kind: Kind, name: str) -> Item | None:
        """None for a name that there is not."""
        if not name:
            return None
        query = urlencode({"columns": _COLUMNS})
        try:
            response = await self._get(f"/api/{kind}/{_part(self._config.virtual_host)}/{_part(name)}?{query}")
        except ConnectorError as error:
            if error.code == "not_found":
                return None
            raise
        item = response.json()
        return item if isinstance(item, dict) and item.get("name") == name else None

    async def _get(self, path: str) -> Response:
        try:
            response = await self._client.get(self._config.management + path, headers=self._headers)
        except ConnectorError as error:
            raise ConnectorError(error.code, f"The management API cannot be used: {error.message}") from error
        if response.status != 200:
            raise self._explain(response)
        return response

    def _explain(self, response: Response) -> ConnectorError:
        """It answers 401 for all that is not allowed; the reason tells a wrong password apart and is never shown."""
        config = self._config
        if response.status == 401 and b"Login failed" in response.body:
            return ConnectorError("authentication_failed", f"The management API did not let {config.username} sign in.")
        if response.status in {401, 403}:
            return ConnectorError(
                "permission_denied",
                f"{config.username} may not use the management API for {config.virtual_host}: "
                "it asks for the tag `management`, and for rights in the virtual host.",
            )
        if response.status in {400, 404, 405}:
            return ConnectorError(
                "not_found", f"The management API knows no virtual host {config.virtual_host}, or is not RabbitMQ's."
            )
        return ConnectorError("server_error", f"The management API answered with status {response.status}.")


def _part(name: str) -> str:
    return quote(name, safe="")


# Messages -------------------------------------------------------------------------------------------------------------


class Streams(Struct, frozen=True):
    """A connection to read streams by."""

    amqp: Amqp
    connection: aiormq.Connection

    def end(self, queue: str, max_bytes: int) -> StreamEnd:
        return StreamEnd(self.amqp, self.connection, queue, max_bytes)


def _fields(sample: Sequence[DeliveredMessage], called: str) -> Sequence[DiscoveredField]:
    return as_fields(_read(sample, ByteTexts(), is_stream=called == "stream")[0])


def _read(
    messages: Sequence[DeliveredMessage], texts: ByteTexts, *, is_stream: bool
) -> tuple[list[Facts], list[dict[str, object]]]:
    """Columns and rows of messages; only streams number them. `texts` learns whether what should be a text is none."""
    payloads = read_bodies("payload", [bytes(message.body) for message in messages])
    facts: list[Facts] = [("offset", "integer", "long", False)] if is_stream else []
    facts += [
        ("exchange", "string", "shortstr", False),
        ("routing_key", "string", "shortstr", False),
        ("properties", "object", "basic-properties", False),
        ("headers", "object", "table", False),
        *payloads.facts,
    ]
    return facts, [{**_envelope(it, texts), **values} for it, values in zip(messages, payloads.values, strict=True)]


def _envelope(message: DeliveredMessage, texts: ByteTexts) -> dict[str, object]:
    properties = message.header.properties
    found = {"type" if name == "message_type" else name: getattr(properties, name) for name in _PROPERTIES}
    headers = {name: value for name, value in (properties.headers or {}).items() if name != OFFSET}
    return {
        "offset": json_safe(offset_of(message)),
        "exchange": texts.shown_text(message.exchange or ""),
        "routing_key": texts.shown_text(message.routing_key or ""),
        "properties": json_safe(_shown({name: value for name, value in found.items() if value is not None}, texts)),
        "headers": json_safe(_shown(headers, texts)),
    }


def _shown(value: object, texts: ByteTexts) -> object:
    """Long strings come as bytes where they are no UTF-8; byte arrays, as `bytearray`, were never to be texts."""
    if isinstance(value, bytes):
        return texts.shown(value)
    if isinstance(value, str):
        return texts.shown_text(value)
    if isinstance(value, dict):
        return members_of((texts.shown_text(name), _shown(item, texts)) for name, item in value.items())
    return [_shown(item, texts) for item in value] if isinstance(value, list) else value


def _about(properties: Mapping[str, object]) -> dict[str, str]:
    """What the server says of itself, if it is what a name and a version look like."""
    found = {name: str(properties.get(name, "")) for name in ("product", "version")}
    return {name: text for name, text in found.items() if re.fullmatch(r"[\w .+~-]{1,40}", text)}
