"""Apache Kafka, and what speaks its protocol, through aiokafka's connections.

Every broker is dialled here, one by one: its name is resolved and judged by the egress policy, the connection goes to
the pinned address, and `NamedContext` checks the certificate against the name. That holds for the brokers that the
cluster advertises, too. aiokafka's own client and consumer would dial whatever the metadata says and hide why it
failed, so that only its connections, their sign-in and its messages are used. Nothing joins a group or commits, and no
request names a topic in a way that would create it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.network.tls_fields import refuse_half_an_identity
from app.connectors.types.kafka.config import KafkaConfig, KafkaSecrets
from app.connectors.types.kafka.dialling import Dialler, Server
from app.connectors.types.kafka.log import TopicLog
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.batches import slices
from app.connectors.values.describing import Describer, Description, together
from app.connectors.values.message_rows import Facts, as_fields, read_bodies, text_or_base64
from app.connectors.values.preview import Preview
from app.connectors.values.values import json_safe
from app.connectors.values.wildcards import is_shown

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord
    from aiokafka.conn import AIOKafkaConnection
    from aiokafka.protocol.metadata import MetadataResponse

MAX_PREVIEW_BYTES: Final = 8 * 1024 * 1024
"""Fetched for one preview, as the brokers store it."""
MAX_SAMPLE_BYTES: Final = 512 * 1024
"""Fetched of one topic for its fields."""
MAX_GREETED_BROKERS: Final = 16
"""Brokers that a check connects to, the first by their ids; the rest are only resolved and judged."""
_BATCH: Final = 50
_SAMPLES_AT_ONCE: Final = 8
_FETCH: Final = 1
# Highest version of Fetch, and the Kafka that brought it (the protocol's FetchRequest.json).
_SINCE: Final = {
    **{4: "0.11", 6: "1.0", 7: "1.1", 8: "2.0", 10: "2.1", 11: "2.3"},
    **{12: "2.7", 13: "3.1", 15: "3.5", 16: "3.7", 17: "3.9"},
}


class Kafka(Connector[KafkaConfig, KafkaSecrets]):
    type = "kafka"
    label = "Apache Kafka"
    category = "stream"
    description = "Topics of one Kafka cluster, 0.11 or newer, and the newest of their messages."
    config_type = KafkaConfig
    secrets_type = KafkaSecrets
    driver = "aiokafka"
    warm_modules = (
        *("aiokafka.conn", "aiokafka.consumer.fetcher", "aiokafka.protocol.metadata"),
        *("aiokafka.protocol.offset", "app.connectors.network.http", "httpx"),
    )
    extra = "kafka"
    verified_with = ("librdkafka's mock cluster 2.16", "a scripted broker for SASL, TLS and errors")
    destination_fields = frozenset(
        {"bootstrap_servers", "security_protocol", "tls_mode", "ca_certificate", "client_certificate"}
        | {"sasl_mechanism", "username", "token_url", "token_ca_certificate", "client_id"}
    )

    @classmethod
    def validate(cls, config: KafkaConfig, secrets: KafkaSecrets) -> None:
        refuse_half_an_identity(config.client_certificate, secrets)
        needed = None
        if config.sasl_mechanism == "OAUTHBEARER":
            needed = "client_secret" if config.token_url else "token"
        elif config.sasl_mechanism is not None:
            needed = "password"
        if needed and getattr(secrets, needed) is None:
            raise InvalidField(("secrets", needed), f"{needed} is needed for {config.sasl_mechanism}.")

    async def check(self, steps: Steps) -> None:
        dialler = self._dialler()
        server = await dialler.reach(steps)
        async with AsyncExitStack() as stack:
            with steps.step("authenticate", self._signed_in()):
                await dialler.fetch_token()
                connection = await stack.enter_async_context(dialler.admitted(server))
            with steps.step("list", "Topics can be listed, and the brokers that the cluster advertises answer."):
                cluster = await stack.enter_async_context(Cluster.opened(dialler, server, connection))
                await cluster.greet_all()
                steps.server.update(await cluster.about(connection))

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        """A topic whose messages may not be read, or cannot be, is shown with what is known of every message."""
        async with self._cluster() as cluster:
            topics = [topic for topic in sorted(cluster.topics) if self._shows(topic, cluster)]
            describer, known = Describer(_SAMPLES_AT_ONCE, most_borne=sys.maxsize), as_fields(_read([], ByteTexts())[0])
            for some in slices(topics, _BATCH):
                yield await together(
                    describer.describe((topic,), "topic", partial(self._look_into, cluster, topic), known)
                    for topic in some
                )

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        """The newest messages come first. Types and members of values are told by all messages that were read."""
        preview, texts = Preview(request), ByteTexts()
        async with self._cluster() as cluster:
            topic = request.path[0] if len(request.path) == 1 else ""
            if topic not in cluster.topics or not self._shows(topic, cluster):
                raise ConnectorError("not_found", "There is no such topic in the cluster.")
            log = cluster.log(topic, MAX_PREVIEW_BYTES)
            facts, rows = _read(await log.newest(max(request.limit + 1, self.config.sample_messages)), texts)
        columns = preview.choose(as_fields(facts), "topic")
        for row in rows:
            if not preview.add([row.get(column.name) for column in columns]):
                break
        return preview.result(has_more=log.is_cut, notes=texts.notes)

    def _dialler(self) -> Dialler:
        return Dialler(self.network, self.config, self.secrets)

    @asynccontextmanager
    async def _cluster(self) -> AsyncIterator[Cluster]:
        dialler = self._dialler()
        server = await dialler.reach(Steps())
        await dialler.fetch_token()
        async with dialler.admitted(server) as connection, Cluster.opened(dialler, server, connection) as cluster:
            yield cluster

    def _signed_in(self) -> str:
        if self.config.signs_in:
            return f"Signed in by {self.config.sasl_mechanism}."
        return "The broker answers without a SASL sign-in."

    def _shows(self, topic: str, cluster: Cluster) -> bool:
        """Internal topics are those that the cluster calls so, and by custom all that start with two underscores."""
        if topic in cluster.internal or topic.startswith("__"):
            return False
        return is_shown(topic, self.config.include_topics, self.config.exclude_topics)

    async def _look_into(self, cluster: Cluster, topic: str) -> Description:
        sample: list[ConsumerRecord] = []
        if self.config.sample_messages:
            sample = await cluster.log(topic, MAX_SAMPLE_BYTES).newest(self.config.sample_messages)
        return Description(as_fields(_read(sample, ByteTexts())[0]))


# The cluster ----------------------------------------------------------------------------------------------------------


class Cluster:
    """What a cluster tells of itself. Its brokers are judged and dialled when they are first asked."""

    def __init__(self, dialler: Dialler, metadata: MetadataResponse) -> None:
        self.topics: dict[str, dict[int, int]] = {}
        """Topic to partition to node id; -1 where no broker leads."""
        self.internal: set[str] = set()
        self._dialler = dialler
        self._brokers = {broker[0]: Server(broker[1], broker[2]) for broker in metadata.brokers}
        self._connections: dict[int, AIOKafkaConnection] = {}
        self._turn = asyncio.Lock()
        for error, topic, *is_internal, partitions in metadata.topics:
            if error == 0:
                self.topics[topic] = {number: leader for _, number, leader, *_ in partitions}
            if any(is_internal):
                self.internal.add(topic)

    @classmethod
    @asynccontextmanager
    async def opened(cls, dialler: Dialler, server: Server, connection: AIOKafkaConnection) -> AsyncIterator[Cluster]:
        """Asks for all topics: asking for one by its name creates it where brokers are set up that way."""
        from aiokafka.protocol.metadata import MetadataRequest

        cluster = cls(dialler, await dialler.ask(connection, MetadataRequest(None), server))
        try:
            yield cluster
        finally:
            for opened in cluster._connections.values():
                opened.close()

    def log(self, topic: str, max_bytes: int) -> TopicLog:
        return TopicLog(topic, self.topics[topic], self.ask, max_bytes)

    async def ask(self, node: int, request: object) -> Any:
        connection = await self._connection(node)
        return await self._dialler.ask(connection, request, self._brokers[node])

    async def greet_all(self) -> None:
        """Judges every advertised broker, and signs in to the first of them. The one fault that connections to Kafka
        have most often is a broker that advertises an address which only its neighbours can reach."""
        if not self._brokers:
            raise ConnectorError("server_error", "The cluster advertises no broker.")
        for node in sorted(self._brokers)[:MAX_GREETED_BROKERS]:
            await self._connection(node)
        for node in sorted(self._brokers)[MAX_GREETED_BROKERS:]:
            try:
                await self._dialler.judge(self._brokers[node])
            except ConnectorError as error:
                raise _advertised(self._brokers[node], error) from error

    async def about(self, connection: AIOKafkaConnection) -> dict[str, str]:
        """Brokers do not tell their version; the requests that they know tell which it is at least."""
        from aiokafka.protocol.admin import ApiVersionRequest

        answer = await self._dialler.ask(connection, ApiVersionRequest(), next(iter(self._brokers.values())))
        highest = max((top for key, _, top in answer.api_versions if key == _FETCH), default=0)
        since = [version for fetch, version in _SINCE.items() if fetch <= highest]
        about = {"product": "Kafka", "brokers": str(len(self._brokers))}
        return {**about, "version": f"{since[-1]} or newer"} if since else about

    async def _connection(self, node: int) -> AIOKafkaConnection:
        async with self._turn:
            if node not in self._connections:
                broker = self._brokers.get(node)
                if broker is None:
                    raise ConnectorError("server_error", "A partition is led by a broker that is not advertised.")
                try:
                    await self._dialler.judge(broker)
                    self._connections[node] = await self._dialler.open(broker)
                except ConnectorError as error:
                    raise _advertised(broker, error) from error
            return self._connections[node]


def _advertised(broker: Server, error: ConnectorError) -> ConnectorError:
    if error.code == "response_invalid":
        return error
    return ConnectorError(
        error.code,
        f"The cluster sends its clients on to the broker {broker}, and the hub cannot use it: {error.message} "
        "What a broker advertises is set by its advertised.listeners.",
    )


# Messages -------------------------------------------------------------------------------------------------------------


def _read(records: Sequence[ConsumerRecord], texts: ByteTexts) -> tuple[list[Facts], list[dict[str, object]]]:
    """Columns and rows of messages. `texts` learns whether the name of a header is no UTF-8."""
    keys = read_bodies("key", [record.key for record in records], with_members=False)
    values = read_bodies("value", [record.value for record in records])
    facts: list[Facts] = [
        ("partition", "integer", "int32", False),
        ("offset", "integer", "int64", False),
        ("timestamp", "timestamp_tz", "int64", True),
        *keys.facts,
        ("headers", "array", "headers", False),
        *values.facts,
    ]
    rows = [
        {**_envelope(record, texts), **key, **value}
        for record, key, value in zip(records, keys.values, values.values, strict=True)
    ]
    return facts, rows


def _envelope(record: ConsumerRecord, texts: ByteTexts) -> dict[str, object]:
    return {
        "partition": record.partition,
        "offset": json_safe(record.offset),
        "timestamp": _time(record.timestamp),
        "headers": [{"key": texts.shown_text(key), **_header(value)} for key, value in record.headers],
    }


def _header(value: bytes | None) -> Mapping[str, str | None]:
    return {"value": None} if value is None else text_or_base64(value)


def _time(milliseconds: int) -> str | None:
    """-1 stands for none; what no calendar has stays a number."""
    if milliseconds < 0:
        return None
    try:
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)
    except OverflowError:
        return str(milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
