"""RabbitMQ beyond the contract: that nothing is disturbed by looking, ways to sign in, and the ends of long streams."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pamqp.decode
import pamqp.encode
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.rabbitmq.amqp import take_names_as_they_are, take_texts_as_they_are
from app.connectors.types.rabbitmq.config import RabbitmqConfig, RabbitmqSecrets
from app.connectors.types.rabbitmq.connector import Rabbitmq, _shown
from app.connectors.values.bad_bytes import NOT_UTF8, ByteTexts
from app.connectors.values.values import json_safe
from app.core.egress import EgressPolicy
from tests.connectors.contract import Start
from tests.connectors.servers.any_bytes import AnyBytes
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import scripted_server, tls_front
from tests.connectors.types.rabbitmq import CLIENT, PASSWORD, SPARE_VHOST, VHOST, publish, rabbit_server, writing
from tests.connectors.types.rabbitmq import RabbitServer as Server

pytestmark = [pytest.mark.anyio, pytest.mark.services]

SECRETS = {"password": PASSWORD}
STREAM = {"x-queue-type": "stream"}


@pytest.fixture
def server(start: Start) -> Server:
    return start(rabbit_server)


def config(server: Server, **change: Any) -> dict[str, Any]:
    base = {"host": "localhost", "port": server.port, "virtual_host": SPARE_VHOST, "username": "reader"}
    return {**base, "management_url": server.management_url, **change}


async def preview(
    sandbox: ConnectorSandbox, values: dict[str, Any], policy: EgressPolicy, name: str, **request: Any
) -> Any:
    wanted = PreviewRequest(path=("queues", name), **request)
    return await sandbox.preview("rabbitmq", values, SECRETS, policy, wanted)


# Looking only ---------------------------------------------------------------------------------------------------------


async def test_looking_leaves_every_queue_as_it_was(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Order, counts, delivery counts and the redelivered mark, on each kind of queue, after all that a hub does."""
    async with writing(server, SPARE_VHOST) as channel:
        for kind in ("classic", "quorum", "stream"):
            await channel.queue_declare(kind, durable=True, arguments={"x-queue-type": kind})
            for number in range(5):
                await publish(channel, "", kind, b"%d" % number)
        values = config(server)
        for _ in range(2):
            assert (await sandbox.check("rabbitmq", values, SECRETS, loopback)).status == "passed"
            paths = [
                item.path async for page in sandbox.discover("rabbitmq", values, SECRETS, loopback) for item in page
            ]
            assert len(paths) == 3
            for kind in ("classic", "quorum"):
                with pytest.raises(ConnectorError) as caught:
                    await preview(sandbox, values, loopback, kind)
                assert caught.value.code == "unsupported"
            shown = await preview(sandbox, values, loopback, "stream", columns=("offset", "payload"))
            assert shown.rows == [[number, str(number)] for number in (4, 3, 2, 1, 0)]
        for kind in ("classic", "quorum"):
            declared = await channel.queue_declare(kind, passive=True)
            assert (declared.message_count, declared.consumer_count) == (5, 0)
        for kind in ("classic", "quorum"):
            for number in range(5):
                message = await channel.basic_get(kind, no_ack=True)
                assert message.body == b"%d" % number
                assert not message.delivery.redelivered
                assert (message.header.properties.headers or {}).get("x-delivery-count", 0) == 0
        for kind in ("classic", "quorum", "stream"):
            await channel.queue_delete(kind)


async def test_an_exchange_has_nothing_to_show(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    request = PreviewRequest(path=("exchanges", "orders.topic"))
    with pytest.raises(ConnectorError) as caught:
        await sandbox.preview("rabbitmq", config(server, virtual_host=VHOST), SECRETS, loopback, request)
    assert caught.value.code == "unsupported"


# Signing in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_tls_passes_every_step_and_previews(
    mode: str, server: Server, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(server, port=server.tls_port, tls_mode=mode, virtual_host=VHOST)
    if mode != "require":
        values["ca_certificate"] = authority.pem.decode()
    result = await sandbox.check("rabbitmq", values, SECRETS, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"
    assert f"RabbitMQ {result.server['version'].rpartition('.')[0]}" in Rabbitmq.verified_with
    assert len((await preview(sandbox, values, loopback, "events")).rows) == 2


async def test_a_client_certificate_signs_in_and_none_does_not(
    server: Server, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(
        server,
        port=server.tls_port,
        tls_mode="verify-full",
        ca_certificate=authority.pem.decode(),
        auth_mechanism="EXTERNAL",
        username=CLIENT,
        virtual_host=VHOST,
    )
    for name, code in ((CLIENT, "ok"), ("stranger", "authentication_failed")):
        certificate, key = (part.decode() for part in authority.certificate_for(name))
        secrets = {**SECRETS, "client_key": key}
        result = await sandbox.check("rabbitmq", {**values, "client_certificate": certificate}, secrets, loopback)
        assert result.steps[3].code == code
    assert "stranger" not in repr(result)


async def test_a_mechanism_that_is_not_offered_is_named(
    start: Start, server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy, authority: Authority
) -> None:
    """RabbitMQ offers EXTERNAL over TLS only; here the front ends it."""
    certificate, key = (part.decode() for part in authority.certificate_for(CLIENT))
    values = config(
        server,
        port=start(tls_front, server.port),
        tls_mode="verify-full",
        ca_certificate=authority.pem.decode(),
        auth_mechanism="EXTERNAL",
        client_certificate=certificate,
    )
    result = await sandbox.check("rabbitmq", values, {**SECRETS, "client_key": key}, loopback)
    assert result.steps[3].code == "invalid_configuration"
    assert "EXTERNAL" in result.steps[3].message


async def test_amqplain_signs_in_with_any_characters(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(server, auth_mechanism="AMQPLAIN")
    assert (await sandbox.check("rabbitmq", values, SECRETS, loopback)).status == "passed"
    result = await sandbox.check("rabbitmq", {**values, "username": "rëader"}, {"password": "ü" * 63}, loopback)
    assert result.steps[3].code == "authentication_failed"


async def test_the_management_api_has_a_tls_of_its_own(
    start: Start, server: Server, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    front = start(tls_front, server.management_port)
    trusted = {"management_ca_certificate": authority.pem.decode()}
    for change, code in (
        (trusted, "ok"),
        ({"management_verify_tls": False}, "ok"),
        ({}, "tls_certificate_invalid"),
        ({**trusted, "management_url": f"https://127.0.0.1:{front}"}, "tls_certificate_invalid"),
    ):
        values = {**config(server, management_url=f"https://localhost:{front}"), **change}
        assert (await sandbox.check("rabbitmq", values, SECRETS, loopback)).steps[4].code == code


# Listing --------------------------------------------------------------------------------------------------------------


async def test_queues_come_page_by_page_and_those_of_one_connection_not_at_all(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    names = [f"q-{number:03d}" for number in range(250)]
    async with writing(server, SPARE_VHOST) as channel:
        for name in names:
            await channel.queue_declare(name, auto_delete=True)
        await channel.queue_declare("mine", exclusive=True)
        await channel.queue_declare("")
        pages = [page async for page in sandbox.discover("rabbitmq", config(server), SECRETS, loopback)]
        assert [item.name for page in pages for item in page] == names
        assert max(len(page) for page in pages) <= 100
        narrow = config(server, include_names=["q-00*", "q-1?1"], exclude_names=["*7"])
        found = [item async for page in sandbox.discover("rabbitmq", narrow, SECRETS, loopback) for item in page]
        assert [item.name for item in found] == [name for name in names[:10] if not name.endswith("7")]
        for name in names:
            await channel.queue_delete(name)


async def test_a_stream_that_may_not_be_read_is_discovered_all_the_same(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(server, username="blind", virtual_host=VHOST)
    found = [item async for page in sandbox.discover("rabbitmq", values, SECRETS, loopback) for item in page]
    events = next(item for item in found if item.name == "events")
    assert (events.kind, events.fields[-1].name, events.fields[-1].type) == ("stream", "payload", "unknown")
    with pytest.raises(ConnectorError) as caught:
        await preview(sandbox, values, loopback, "events")
    assert caught.value.code == "permission_denied"


# Streams --------------------------------------------------------------------------------------------------------------


async def test_the_newest_messages_of_a_stream_come_first(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    async with writing(server, SPARE_VHOST) as channel:
        await channel.queue_declare("long", durable=True, arguments=STREAM)
        for first in range(0, 1200, 300):  # Many at once share a chunk, single ones have a chunk each.
            await asyncio.gather(
                *(publish(channel, "", "long", b"%d" % number) for number in range(first, first + 290))
            )
            for number in range(first + 290, first + 300):
                await publish(channel, "", "long", b"%d" % number)
        for limit in (0, 1, 100, 1000):
            shown = await preview(sandbox, config(server), loopback, "long", columns=("offset", "payload"), limit=limit)
            assert shown.rows == [[number, str(number)] for number in range(1199, 1199 - limit, -1)]
            assert shown.truncated
        await channel.queue_delete("long")


async def test_a_stream_whose_beginning_is_gone_is_shown_from_where_it_starts(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Each new segment starts with an entry of the broker's own, so that there are gaps between the offsets, too."""
    retention = {"x-max-length-bytes": 20_000, "x-stream-max-segment-size-bytes": 1000}
    async with writing(server, SPARE_VHOST) as channel:
        await channel.queue_declare("short", durable=True, arguments={**STREAM, **retention})
        for number in range(500):
            await publish(channel, "", "short", b"%0100d" % number)
        shown = await preview(sandbox, config(server), loopback, "short", columns=("offset", "payload"), limit=1000)
        offsets, numbers = [row[0] for row in shown.rows], [int(row[1]) for row in shown.rows]
        assert 4 < len(numbers) < 500
        assert numbers == list(range(499, 499 - len(numbers), -1))
        assert offsets[0] - offsets[-1] > len(offsets)
        assert not shown.truncated
        await channel.queue_delete("short")


async def test_large_messages_stop_a_preview_before_it_has_read_them_all(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    async with writing(server, SPARE_VHOST) as channel:
        await channel.queue_declare("large", durable=True, arguments=STREAM)
        for _ in range(20):
            await publish(channel, "", "large", b"x" * 1_500_000)
        shown = await preview(sandbox, config(server), loopback, "large", columns=("offset", "payload"))
        assert 1 <= len(shown.rows) < 8
        assert shown.rows[0][0] == 19
        assert len(shown.rows[0][1]) == 65_536
        assert shown.truncated
        await channel.queue_delete("large")


# Configuration --------------------------------------------------------------------------------------------------------

REQUIRED: dict[str, Any] = {"host": "a", "username": "b"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"ca_certificate": "-----BEGIN X"}, "ca_certificate"),
        ({"tls_mode": "require", "ca_certificate": "-----BEGIN X"}, "ca_certificate"),
        ({"client_certificate": "-----BEGIN X"}, "client_certificate"),
        ({"tls_mode": "require", "auth_mechanism": "EXTERNAL"}, "client_certificate"),
        ({"management_url": "amqp://a"}, "management_url"),
        ({"management_url": "http://user:pw@a"}, "management_url"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({**REQUIRED, **values}, RabbitmqConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path[0] == field


@pytest.mark.parametrize(
    ("change", "secrets", "path"),
    [
        ({}, {}, ("secrets", "password")),
        ({"tls_mode": "require", "client_certificate": "-----BEGIN X"}, SECRETS, ("secrets", "client_key")),
        ({"auth_mechanism": "AMQPLAIN"}, {"password": "ü" * 64}, ("secrets", "password")),
    ],
)
def test_config_and_secrets_are_judged_together(change: Any, secrets: Any, path: tuple[str, ...]) -> None:
    with pytest.raises(InvalidField) as caught:
        Rabbitmq.validate(RabbitmqConfig(**REQUIRED, **change), RabbitmqSecrets(**secrets))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://a:15672"),
        ({"tls_mode": "require"}, "https://a:15671"),
        ({"host": "::1"}, "http://[::1]:15672"),
        ({"management_url": "https://b/rabbit/"}, "https://b/rabbit"),
    ],
)
def test_the_management_api_is_beside_amqp_unless_it_is_said(values: dict[str, Any], url: str) -> None:
    assert RabbitmqConfig(**{**REQUIRED, **values}).management == url


@pytest.mark.parametrize("count", ["many", None, 1.5, True])
async def test_an_answer_that_does_not_count_its_pages_is_no_list(loopback: EgressPolicy, count: Any) -> None:
    body = msgspec.json.encode({"items": [], "page_count": count})

    def answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with scripted_server(answer) as port:
        values = {"host": "localhost", "username": "reader", "management_url": f"http://localhost:{port}"}
        source_config = msgspec.convert({**values, "sample_messages": 0}, RabbitmqConfig)
        source = Rabbitmq(source_config, RabbitmqSecrets(password=PASSWORD), loopback)
        with pytest.raises(ConnectorError) as caught:
            _ = [batch async for batch in source.discover()]
    assert caught.value.code == "response_invalid"


# Names ----------------------------------------------------------------------------------------------------------------

ODD_NAMES = ("ü", "a?b=c&d", "100%", "with space", "a/b#c", "日本語", "%41", "{x}", "+plus+", "semi;colon", "é" * 100)


@pytest.mark.found("D7")
async def test_streams_of_any_name_are_listed_and_read(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    take_names_as_they_are()
    async with writing(server, SPARE_VHOST) as channel:
        for name in ODD_NAMES:
            await channel.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
            await publish(channel, "", name, b'{"n": 1}')
        try:
            values = config(server)
            found = [item async for page in sandbox.discover("rabbitmq", values, SECRETS, loopback) for item in page]
            assert {item.path[1] for item in found} >= set(ODD_NAMES)
            for name in ODD_NAMES:
                shown = await preview(sandbox, values, loopback, name, columns=("offset", "payload.n"))
                assert shown.rows == [[0, 1]], name
        finally:
            for name in ODD_NAMES:
                await channel.queue_delete(name)


@pytest.mark.found("D2", "D12")
async def test_bytes_that_are_no_utf_8_hide_no_message(
    server: Server, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """In routing keys, properties, names of headers and their values."""
    async with writing(server, SPARE_VHOST) as channel:
        await channel.queue_declare("odd", durable=True, arguments=STREAM)
        await channel.exchange_declare("fan", exchange_type="fanout")
        await channel.queue_bind("odd", "fan")
        try:
            await publish(channel, "fan", "good", b"0", headers={"é": "ü"})
            headers = {AnyBytes("caf\xe9"): AnyBytes("na\xefve"), "x": bytearray(b"\x00\xff")}
            await publish(channel, "fan", AnyBytes("k\xe9"), b"1", headers=headers, message_id=AnyBytes("\xe9"))
            await publish(channel, "fan", "good", b"2")
            values = config(server)
            found = [item async for page in sandbox.discover("rabbitmq", values, SECRETS, loopback) for item in page]
            assert [(item.notes, len(item.fields)) for item in found if item.name == "odd"] == [((), 6)]
            shown = await preview(sandbox, values, loopback, "odd", columns=("routing_key", "properties", "headers"))
        finally:
            await channel.queue_delete("odd")
            await channel.exchange_delete("fan")
    assert [row[0] for row in shown.rows] == ["good", "k\\xe9", "good"]
    assert [row[1]["message_id"] for row in shown.rows] == ["m-0", "\\xe9", "m-0"]
    assert [row[2] for row in shown.rows] == [
        {},
        {"caf\\xe9": "na\\xefve", "x": "AP8="},
        {"é": "ü"},
    ]
    assert shown.notes == (NOT_UTF8,)


@pytest.mark.found("D4")
def test_a_header_that_is_there_twice_is_told_apart() -> None:
    take_texts_as_they_are()
    entries = b"\x01at\x01\x01at\x00\x01bS\x00\x00\x00\x02\xc3\xa9"
    assert pamqp.decode.by_type(len(entries).to_bytes(4, "big") + entries, "table") == (
        4 + len(entries),
        {"a": True, "a_2": False, "b": "é"},
    )
    with pytest.raises(ValueError, match="ends before"):
        pamqp.decode.by_type(b"\x00\x00\x00\xff" + entries, "table")


@pytest.mark.found("D12")
def test_what_is_nested_in_a_header_is_read_too() -> None:
    """A stream of RabbitMQ 3.10 keeps no such header."""
    take_texts_as_they_are()
    inner: Any = {AnyBytes("\xff"): [AnyBytes("\xfe"), bytearray(b"\x00\xff")], "n": 1}
    _, read = pamqp.decode.by_type(pamqp.encode.field_table({"t": inner}), "table")
    texts = ByteTexts()
    assert json_safe(_shown(read, texts)) == {"t": {"\\xff": ["\\xfe", "AP8="], "n": 1}}
    assert texts.notes == (NOT_UTF8,)
