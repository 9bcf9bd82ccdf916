"""Apache Kafka, on the mock cluster inside librdkafka, which speaks the protocol and keeps messages as they come.

It knows neither TLS nor SASL nor access rights: `tests/connectors/servers/kafka_broker.py` has a broker for those.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.kafka_broker import PASSWORD, USER, ScriptedBroker, ScriptedTopic, scripted_broker

_CLUSTER = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 3, "log_level": 0})
print(",".join(str(broker) .partition("/")[0] for broker in producer.list_topics(timeout=20).brokers.values()), flush=True)
sys.stdin.read()
"""

Message = tuple[str, int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Topic, partition, milliseconds since 1970, key, value, headers."""

_NOON = 1_704_196_800_000  # 2024-01-02T12:00:00Z
_ORDER = '{"id": 9007199254740993, "name": "Zoë 李雷 🦆", "total": 10.5, "tags": ["a", null], "who": {"x": 1}}'.encode()
MESSAGES: tuple[Message, ...] = (
    ("orders", 0, _NOON, b"z", _ORDER, [("trace", "ü".encode()), ("trace", b"\xff"), ("none", None)]),
    ("orders", 2, _NOON + 1, b"l", b' {"id": 2, "name": null}', []),
    ("orders", 0, _NOON + 2, b"z", None, []),
    ("logs", 0, _NOON, None, "Größe 1".encode(), []),
    ("logs", 0, _NOON, None, b"{not json", []),
    ("logs", 0, _NOON, None, b"", []),
    ("blobs", 1, _NOON, b"\x00\x01", b"\x00\xff", []),
    ("blobs", 1, _NOON + 1, None, b"text", []),
    ("__hidden", 0, _NOON, None, b"x", []),
)


@contextmanager
def mock_cluster() -> Iterator[str]:
    """Three brokers in a process of their own, which ends with its standard input. Yields the bootstrap servers."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        servers = process.stdout.readline().strip()
        assert servers
        yield servers
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


@contextmanager
def filled_cluster() -> Iterator[str]:
    with mock_cluster() as servers:
        produce(servers, MESSAGES, "gzip")
        touch(servers, "empty")
        yield servers


def produce(servers: str, messages: Any, codec: str = "none") -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "compression.type": codec, "log_level": 0})
    for topic, partition, moment, key, value, headers in messages:
        producer.produce(topic, value, key, partition, timestamp=moment, headers=headers)
    assert producer.flush(20) == 0


def touch(servers: str, topic: str) -> None:
    """The mock cluster creates what is asked for."""
    from confluent_kafka import Producer

    assert topic in Producer({"bootstrap.servers": servers, "log_level": 0}).list_topics(topic, timeout=20).topics


def kind(start: Start, ports: Ports) -> Kind:
    servers = start(filled_cluster)
    config = {"bootstrap_servers": servers.split(",")}
    plain = {"sasl_mechanism": "PLAIN", "security_protocol": "SASL_PLAINTEXT", "username": USER}
    password = {"password": PASSWORD}

    def at(port: int, host: str = "localhost") -> dict[str, Any]:
        return {"bootstrap_servers": [f"{host}:{port}"]}

    def broker(*topics: ScriptedTopic, **options: Any) -> dict[str, Any]:
        return at(start(scripted_broker, ScriptedBroker(topics=topics, **options)))

    sasl = broker(mechanisms=("PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"))
    tls = {**broker(is_encrypted=True), "security_protocol": "SSL"}
    ca = {"ca_certificate": authority().pem.decode()}
    hasty = {"connect_timeout_s": HASTY_S}
    wrong = {"password": f"wrong-{CANARY}"}
    unknown = broker(advertised=(("broker-7.invalid", 9092),))
    metadata = broker(advertised=(("169.254.169.254", 80),))
    nonsense = broker(advertised=(("a b", 80),))
    gone = broker(advertised=(("localhost", ports.closed),))
    return Kind(
        "kafka",
        config,
        {},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {**sasl, **plain}, wrong),
            Case(
                "wrong_user", "authenticate", "authentication_failed", {**sasl, **plain, "username": "nobody"}, password
            ),
            Case(
                "wrong_scram_password",
                "authenticate",
                "authentication_failed",
                {**sasl, **plain, "sasl_mechanism": "SCRAM-SHA-256"},
                wrong,
            ),
            Case(
                "wrong_token",
                "authenticate",
                "authentication_failed",
                {**sasl, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"},
                {"token": f"wrong-{CANARY}"},
            ),
            Case(
                "mechanism_not_offered",
                "authenticate",
                "invalid_configuration",
                {**sasl, **plain, "sasl_mechanism": "SCRAM-SHA-512"},
                password,
            ),
            Case("no_sasl_offered", "authenticate", "invalid_configuration", {**config, **plain}, password),
            Case("no_sign_in", "authenticate", "authentication_failed", sasl),
            Case("closed_port", "connect", "connection_refused", at(ports.closed)),
            Case("unknown_name", "resolve", "name_not_resolved", at(9092, "nowhere.invalid")),
            Case("link_local", "resolve", "egress_refused", at(9092, "169.254.169.254")),
            Case("silent", "connect", "timeout", {**at(ports.silent), **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", at(ports.ssh)),
            Case("no_tls", "tls", "tls_unavailable", {"security_protocol": "SSL"}),
            Case("silent_tls", "tls", "timeout", {**at(ports.silent), **hasty, "security_protocol": "SSL"}),
            Case("tls_needed", "connect", "tls_required", {**tls, "security_protocol": "PLAINTEXT"}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", tls),
            Case(
                "other_name",
                "tls",
                "tls_certificate_invalid",
                {**tls, **ca, "bootstrap_servers": [tls["bootstrap_servers"][0].replace("localhost", "127.0.0.1")]},
            ),
            Case("broken_ca", "tls", "invalid_configuration", {**tls, "ca_certificate": "-----BEGIN X\n"}),
            Case("advertised_unknown_name", "list", "name_not_resolved", unknown),
            Case("advertised_link_local", "list", "egress_refused", metadata),
            Case("advertised_nonsense", "list", "response_invalid", nonsense),
            Case("advertised_closed_port", "list", "connection_refused", gone),
        ),
        {
            ("blobs",): ("topic", _fields("binary", "binary")),
            ("empty",): ("topic", _fields("unknown", "unknown")),
            ("logs",): ("topic", _fields("unknown", "string")),
            ("orders",): (
                "topic",
                (
                    *_fields("string", "json"),
                    ("value.id", "integer", "integer", True),
                    ("value.name", "string", "string", True),
                    ("value.total", "number", "number", True),
                    ("value.tags", "array", "array", True),
                    ("value.who", "object", "object", True),
                ),
            ),
        },
        {
            ("orders",): _ORDERS,
            ("logs",): [
                [0, 2, "2024-01-02T12:00:00.000Z", None, [], ""],
                [0, 1, "2024-01-02T12:00:00.000Z", None, [], "{not json"],
                [0, 0, "2024-01-02T12:00:00.000Z", None, [], "Größe 1"],
            ],
            ("blobs",): [
                [1, 1, "2024-01-02T12:00:00.001Z", None, [], "dGV4dA=="],
                [1, 0, "2024-01-02T12:00:00.000Z", "AAE=", [], "AP8="],
            ],
            ("empty",): [],
        },
    )


_ID = "9007199254740993"
_WHOLE = {"id": _ID, "name": "Zoë 李雷 🦆", "total": 10.5, "tags": ["a", None], "who": {"x": 1}}
_HEADERS = [{"key": "trace", "value": "ü"}, {"key": "trace", "base64": "/w=="}, {"key": "none", "value": None}]
_ORDERS: list[list[Any]] = [
    [0, 1, "2024-01-02T12:00:00.002Z", "z", [], None, *[None] * 5],
    [2, 0, "2024-01-02T12:00:00.001Z", "l", [], {"id": 2, "name": None}, 2, *[None] * 4],
    [0, 0, "2024-01-02T12:00:00.000Z", "z", _HEADERS, _WHOLE, *_WHOLE.values()],
]


def _fields(key: str, value: str) -> tuple[tuple[str, str, str, bool], ...]:
    return (
        ("partition", "integer", "int32", False),
        ("offset", "integer", "int64", False),
        ("timestamp", "timestamp_tz", "int64", True),
        ("key", key, "bytes", True),
        ("headers", "array", "headers", False),
        ("value", value, "bytes", True),
    )
