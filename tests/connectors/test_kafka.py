"""Kafka beyond the contract: ways to sign in, what the brokers advertise, and logs with holes in them.

SASL, TLS, transactions and refusals are proven against the scripted broker; the mock cluster has none of them.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import TestResult
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.kafka.config import KafkaConfig, KafkaSecrets
from app.connectors.types.kafka.connector import Kafka
from app.connectors.values.bad_bytes import NOT_UTF8
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Ports, Start
from tests.connectors.servers.any_bytes import AnyBytes
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.kafka_broker import (
    PASSWORD,
    TOKEN,
    USER,
    ScriptedBroker,
    ScriptedTopic,
    batch,
    batch_with_headers,
    end_of_transaction,
    scripted_broker,
)
from tests.connectors.servers.starting import scripted_server
from tests.connectors.types.kafka import mock_cluster, produce

pytestmark = pytest.mark.anyio

PLAIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "username": USER}
BEARER = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}


def at(port: int) -> dict[str, Any]:
    return {"bootstrap_servers": [f"localhost:{port}"]}


def codes(result: TestResult) -> list[str]:
    return [step.code for step in result.steps]


async def rows(
    sandbox: ConnectorSandbox, config: dict[str, Any], topic: str, policy: EgressPolicy, **request: Any
) -> list[list[Any]]:
    """Offsets and values."""
    wanted = PreviewRequest(path=(topic,), columns=("offset", "value"), **request)
    return (await sandbox.preview("kafka", config, {}, policy, wanted)).rows


# Signing in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_each_mechanism_signs_in(
    mechanism: str, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker(mechanisms=(mechanism,)))
    config = {**at(port), **PLAIN, "sasl_mechanism": mechanism}
    secrets = {"token": TOKEN} if mechanism == "OAUTHBEARER" else {"password": PASSWORD}
    result = await sandbox.check("kafka", config, secrets, loopback)
    assert result.status == "passed", result


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_tls_and_sasl_together_pass_every_step(
    mode: str, start: Start, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker(mechanisms=("PLAIN",), is_encrypted=True))
    config = {**at(port), **PLAIN, "security_protocol": "SASL_SSL", "tls_mode": mode}
    if mode != "require":
        config["ca_certificate"] = authority.pem.decode()
    result = await sandbox.check("kafka", config, {"password": PASSWORD}, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"


async def test_a_client_certificate_signs_in_and_none_does_not(
    start: Start, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker(is_encrypted=True, asks_for_certificate=True))
    config = {**at(port), "security_protocol": "SSL", "ca_certificate": authority.pem.decode()}
    certificate, key = (part.decode() for part in authority.certificate_for(USER))
    with_certificate = {**config, "client_certificate": certificate}
    assert (await sandbox.check("kafka", with_certificate, {"client_key": key}, loopback)).status == "passed"
    result = await sandbox.check("kafka", config, {}, loopback)
    assert codes(result)[:4] == ["ok", "ok", "ok", "tls_failed"]


def give_tokens(connection: socket.socket) -> None:
    """A token server that knows one client (RFC 6749, section 4.4)."""
    question = b""
    while b"grant_type" not in question:
        question += connection.recv(65_536)
    is_known = b"aHViOnB3LWNhbmFyeS03ZjNhOWM=" in question  # hub:pw-canary-7f3a9c
    status, answer = (b"200 OK", {"access_token": TOKEN}) if is_known else (b"401 Unauthorized", {"error": TOKEN})
    body = json.dumps(answer).encode()
    connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


async def test_client_credentials_are_changed_for_a_token(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker(mechanisms=("OAUTHBEARER",)))
    tokens = start(scripted_server, give_tokens)
    config = {**at(port), **BEARER, "token_url": f"http://localhost:{tokens}/token", "client_id": "hub"}
    result = await sandbox.check("kafka", config, {"client_secret": PASSWORD}, loopback)
    assert result.status == "passed", result
    for change, secret, code in (
        ({}, f"wrong-{CANARY}", "authentication_failed"),
        ({"token_url": "http://169.254.169.254/token"}, PASSWORD, "egress_refused"),
        ({"token_url": "http://nowhere.invalid/token"}, PASSWORD, "name_not_resolved"),
    ):
        result = await sandbox.check("kafka", {**config, **change}, {"client_secret": secret}, loopback)
        assert codes(result)[3] == code
        assert CANARY not in repr(result)


# Brokers --------------------------------------------------------------------------------------------------------------


async def test_one_bootstrap_server_that_answers_is_enough(
    start: Start, ports: Ports, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker())
    servers = ["nowhere.invalid", f"localhost:{ports.closed}", f"localhost:{ports.silent}", f"localhost:{port}"]
    result = await sandbox.check("kafka", {"bootstrap_servers": servers}, {}, loopback, deadline_s=4)
    assert result.status == "passed", result


async def test_a_port_of_http_is_told_from_a_broker_that_says_nothing(
    sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Such a server waits for a request to end, which Kafka's first one never does."""

    def wait_for_request(connection: socket.socket) -> None:
        heard = b""
        while not heard.endswith(b"\r\n\r\n") and (more := connection.recv(4096)):
            heard += more
        if heard.endswith(b"\r\n\r\n"):
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with scripted_server(wait_for_request) as port:
        result = await sandbox.check("kafka", {**at(port), "connect_timeout_s": 0.5}, {}, loopback)
    assert codes(result)[:2] == ["ok", "protocol_mismatch"]


async def test_an_advertised_address_is_named_as_the_cluster_told_it(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker(advertised=(("kafka-7.invalid", 9092),)))
    result = await sandbox.check("kafka", at(port), {}, loopback)
    assert "the broker kafka-7.invalid:9092" in result.steps[4].message
    assert "advertised.listeners" in result.steps[4].message


async def test_an_advertised_loopback_is_refused_where_loopback_is(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """The bootstrap server is allowed by its address; what it advertises is denied by another."""
    port = start(scripted_broker, ScriptedBroker(advertised=(("127.0.0.2", 9092),)))
    policy = EgressPolicy(loopback_allowed=True, deny=("127.0.0.2",))
    result = await sandbox.check("kafka", {"bootstrap_servers": [f"127.0.0.1:{port}"]}, {}, policy)
    assert codes(result) == ["ok", "ok", "not_applicable", "ok", "egress_refused"]


async def test_a_preview_goes_to_no_refused_broker_either(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    broker = ScriptedBroker(advertised=(("169.254.169.254", 80),), topics=(ScriptedTopic("t"),))
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, at(start(scripted_broker, broker)), "t", loopback)
    assert caught.value.code == "egress_refused"


async def test_a_secret_in_an_advertised_name_is_not_shown(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    broker = ScriptedBroker(mechanisms=("PLAIN",), advertised=((f"{PASSWORD}.invalid", 9092),))
    config = {**at(start(scripted_broker, broker)), **PLAIN}
    result = await sandbox.check("kafka", config, {"password": PASSWORD}, loopback)
    assert codes(result)[4] == "response_invalid"
    assert CANARY not in repr(result)


@pytest.mark.parametrize(("request_key", "step"), [(17, 3), (36, 3), (3, 3)])
async def test_a_broker_that_falls_silent_is_a_timeout_of_its_step(
    request_key: int, step: int, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    broker = ScriptedBroker(mechanisms=("PLAIN",), silent_about=(request_key,))
    hasty = {"connect_timeout_s": 0.5, "read_timeout_s": 0.5}
    config = {**at(start(scripted_broker, broker)), **PLAIN, **hasty}
    result = await sandbox.check("kafka", config, {"password": PASSWORD}, loopback)
    assert codes(result)[step] == "timeout"


async def test_a_broker_that_gives_no_messages_is_a_timeout(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    broker = ScriptedBroker(topics=(ScriptedTopic("t", (batch(0, [b"x"]),)),), silent_about=(1,))
    config = {**at(start(scripted_broker, broker)), "read_timeout_s": 0.5}
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, config, "t", loopback)
    assert caught.value.code == "timeout"


async def test_every_broker_is_checked_against_its_own_name(
    start: Start, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """The certificates are made for `localhost`."""
    other = start(scripted_broker, ScriptedBroker(mechanisms=("PLAIN",), is_encrypted=True))
    broker = ScriptedBroker(mechanisms=("PLAIN",), is_encrypted=True, advertised=(("127.0.0.1", other),))
    config = {**at(start(scripted_broker, broker)), **PLAIN, "security_protocol": "SASL_SSL"}
    config["ca_certificate"] = authority.pem.decode()
    result = await sandbox.check("kafka", config, {"password": PASSWORD}, loopback)
    assert codes(result) == ["ok", "ok", "ok", "ok", "tls_certificate_invalid"]


# Topics ---------------------------------------------------------------------------------------------------------------


async def test_topics_can_be_included_and_excluded(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    names = ("a.orders", "a.logs", "b.orders", "b.[x]")
    topics = (*map(ScriptedTopic, names), ScriptedTopic("offsets", is_internal=True), ScriptedTopic("__state"))
    port = start(scripted_broker, ScriptedBroker(topics=topics))
    for scope, expected in (
        ({}, set(names)),
        ({"include_topics": ["a.*"]}, {"a.orders", "a.logs"}),
        ({"include_topics": ["*.orders"], "exclude_topics": ["b.*"]}, {"a.orders"}),
        ({"include_topics": ["?.orders"]}, set()),
        ({"include_topics": ["b.[x]", "*set*", "__*"]}, {"b.[x]"}),
    ):
        batches = sandbox.discover("kafka", {**at(port), **scope}, {}, loopback)
        assert {item.name async for found in batches for item in found} == expected
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, {**at(port), "exclude_topics": ["a.*"]}, "a.logs", loopback)
    assert caught.value.code == "not_found"


async def test_a_topic_that_may_not_be_read_is_discovered_all_the_same(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    port = start(scripted_broker, ScriptedBroker(topics=(ScriptedTopic("t", (batch(0, [b"x"]),), error=29),)))
    ((found,),) = [batches async for batches in sandbox.discover("kafka", at(port), {}, loopback)]
    assert [(field.name, field.type) for field in found.fields][-1] == ("value", "unknown")
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, at(port), "t", loopback)
    assert caught.value.code == "permission_denied"


async def test_asking_for_a_topic_does_not_create_it(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """The mock cluster creates whatever is asked for by name, as brokers do by default."""
    config = {"bootstrap_servers": start(mock_cluster).split(",")}
    for _ in range(2):
        with pytest.raises(ConnectorError) as caught:
            await rows(sandbox, config, "not-yet", loopback)
        assert caught.value.code == "not_found"


# Logs -----------------------------------------------------------------------------------------------------------------


async def test_the_newest_messages_of_all_partitions_come_first(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    servers = start(mock_cluster)
    moments = [1_700_000_000_000 + number for number in range(3000)]
    produce(servers, [("many", n * n % 4, moment, None, b"%d" % n, []) for n, moment in enumerate(moments)])
    config = {"bootstrap_servers": servers.split(",")}
    for limit in (0, 1, 100, 1000):
        shown = await rows(sandbox, config, "many", loopback, limit=limit)
        assert [value for _, value in shown] == [str(number) for number in range(2999, 2999 - limit, -1)]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_codec_is_read_or_its_package_named(
    codec: str, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    from aiokafka.codec import has_snappy

    servers = start(mock_cluster)
    produce(servers, [(f"in-{codec}", 0, 1_700_000_000_000, None, b"x" * 1000, [])], codec)
    config = {"bootstrap_servers": servers.split(",")}
    if codec == "gzip" or has_snappy():
        assert await rows(sandbox, config, f"in-{codec}", loopback) == [[0, "x" * 1000]]
        return
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, config, f"in-{codec}", loopback)
    assert caught.value.code == "driver_missing"
    assert "cramjam" in caught.value.message


def values(*numbers: int) -> list[bytes | None]:
    return [b"%d" % number for number in numbers]


HOLES = {
    "compacted": ScriptedTopic("t", (batch(0, values(0)), batch(500, values(500, 501), last=900)), begin=0),
    "gap_at_the_end": ScriptedTopic("t", (batch(0, values(0), last=999), batch(1000, values(), last=5000))),
    "trimmed": ScriptedTopic("t", (batch(0, values(*range(10))),), begin=8),
    "aborted": ScriptedTopic(
        "t",
        (
            batch(0, values(0, 1)),
            batch(2, values(*range(2, 400)), producer=7),
            end_of_transaction(400, producer=7, is_commit=False),
            batch(401, values(401), producer=7),
            end_of_transaction(402, producer=7, is_commit=True),
        ),
        aborted=((7, 2),),
    ),
    "nothing_but_control": ScriptedTopic(
        "t", tuple(end_of_transaction(at, producer=7, is_commit=True) for at in range(50))
    ),
}


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("compacted", [501, 500, 0]),
        ("gap_at_the_end", [0]),
        ("trimmed", [9, 8]),
        ("aborted", [401, 1, 0]),
        ("nothing_but_control", []),
    ],
)
async def test_a_log_with_holes_ends_with_what_there_is(
    log: str, expected: list[int], start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    broker = ScriptedBroker(topics=(HOLES[log],))
    config = {**at(start(scripted_broker, broker)), "read_timeout_s": 2.0}
    found = await rows(sandbox, config, "t", loopback)
    assert found == [[number, str(number)] for number in expected]


async def test_a_preview_reads_little_more_than_it_shows(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """And asks for nothing but metadata, offsets and messages: no group is joined, nothing is committed."""
    broker = ScriptedBroker(topics=(ScriptedTopic("t", tuple(batch(at, values(at)) for at in range(2000))),))
    config = at(start(scripted_broker, broker))
    assert len(await rows(sandbox, config, "t", loopback, limit=20)) == 20
    starts = [request.topics[0][1][0][1] for request in broker.asked if hasattr(request, "max_wait_time")]
    assert min(starts) == 1979
    assert {type(request).__name__ for request in broker.asked} == {
        *("MetadataRequest_v1", "OffsetRequest_v2", "FetchRequest_v4")
    }


async def test_large_messages_stop_a_preview_before_it_has_read_them_all(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    large = b"x" * 3_000_000
    broker = ScriptedBroker(topics=(ScriptedTopic("t", tuple(batch(at, [large]) for at in range(50))),))
    request = PreviewRequest(path=("t",), columns=("offset",))
    shown = await sandbox.preview("kafka", at(start(scripted_broker, broker)), {}, loopback, request)
    assert 1 <= len(shown.rows) < 10
    assert shown.rows[0] == [49]
    assert shown.truncated


async def test_a_damaged_message_is_told_from_a_good_one(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    damaged = batch(0, [b"good"]).replace(b"good", b"evil")
    port = start(scripted_broker, ScriptedBroker(topics=(ScriptedTopic("t", (damaged,)),)))
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, at(port), "t", loopback)
    assert caught.value.code == "response_invalid"


@pytest.mark.found("D2", "D12")
@pytest.mark.parametrize("codec", [0, 1])
async def test_a_name_of_a_header_that_is_no_utf_8_hides_no_message(
    codec: int, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Neither those of its batch, nor those before and behind it."""
    odd = batch_with_headers(
        10,
        [
            [("good", b"1"), ("é", "ü".encode())],
            [(AnyBytes("caf\xe9"), b"2"), ("a", None)],
            [(AnyBytes("\xff\xfe"), b"\xff")],
            [],
        ],
        codec=codec,
    )
    batches = (batch(9, values(9)), odd, batch(14, values(14)), end_of_transaction(15, producer=7, is_commit=True))
    port = start(scripted_broker, ScriptedBroker(topics=(ScriptedTopic("t", batches),)))
    request = PreviewRequest(path=("t",), columns=("offset", "value", "headers"))
    shown = await sandbox.preview("kafka", at(port), {}, loopback, request)
    assert shown.rows == [
        [14, "14", []],
        [13, "13", []],
        [12, "12", [{"key": "\\xff\\xfe", "base64": "/w=="}]],
        [11, "11", [{"key": "caf\\xe9", "value": "2"}, {"key": "a", "value": None}]],
        [10, "10", [{"key": "good", "value": "1"}, {"key": "é", "value": "ü"}]],
        [9, "9", []],
    ]
    assert shown.notes == (NOT_UTF8,)
    found = [one async for some in sandbox.discover("kafka", at(port), {}, loopback) for one in some]
    assert [(one.name, one.notes, len(one.fields)) for one in found] == [("t", (), 6)]


@pytest.mark.found("D12")
async def test_damaged_headers_are_told_from_odd_ones(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    odd = batch_with_headers(0, [[(AnyBytes("\xe9"), b"x" * 20)]])
    port = start(scripted_broker, ScriptedBroker(topics=(ScriptedTopic("t", (odd.replace(b"x" * 20, b"y" * 20),)),)))
    with pytest.raises(ConnectorError) as caught:
        await rows(sandbox, at(port), "t", loopback)
    assert caught.value.code == "response_invalid"


# Configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"bootstrap_servers": ["kafka://a:9092"]}, "bootstrap_servers"),
        ({"bootstrap_servers": ["a:0"]}, "bootstrap_servers"),
        ({"bootstrap_servers": ["a b:9092"]}, "bootstrap_servers"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism"),
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "username"),
        ({"ca_certificate": "-----BEGIN X"}, "ca_certificate"),
        ({"security_protocol": "SSL", "tls_mode": "require", "ca_certificate": "-----BEGIN X"}, "ca_certificate"),
        ({**BEARER, "token_url": "ftp://a"}, "token_url"),
        ({**BEARER, "token_url": "http://a"}, "client_id"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"bootstrap_servers": ["a"], **values}, KafkaConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path[0] == field


@pytest.mark.parametrize("server", ["a", "a:1", "10.0.0.1:9092", "[::1]", "[::1]:65535", "kafka-1.example.org:9092"])
def test_a_bootstrap_server_is_a_host_with_or_without_a_port(server: str) -> None:
    assert KafkaConfig(bootstrap_servers=(server,)).bootstrap_servers == (server,)


@pytest.mark.parametrize(
    ("change", "secrets", "field"),
    [
        (PLAIN, {}, "password"),
        (BEARER, {}, "token"),
        ({**BEARER, "token_url": "http://a", "client_id": "b"}, {"token": "x"}, "client_secret"),
        ({"security_protocol": "SSL", "client_certificate": "-----BEGIN X"}, {}, "client_key"),
    ],
)
def test_config_and_secrets_are_judged_together(change: Any, secrets: Any, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        Kafka.validate(KafkaConfig(bootstrap_servers=("a",), **change), KafkaSecrets(**secrets))
    assert caught.value.path == ("secrets", field)
