"""What ClickHouse sources do beyond the contract: accounts of every kind, and what other versions answer."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.clickhouse import (
    Clickhouse,
    ClickhouseConfig,
    ClickhouseSecrets,
    Kind,
    _portable,
    _value,
    parse,
)
from app.connectors.values.bad_bytes import NOT_UTF8
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import scripted_server, tls_front
from tests.connectors.types.clickhouse import ODD_PASSWORD, PASSWORD, ClickhouseServer, filled_clickhouse

pytestmark = pytest.mark.anyio

SECRETS = {"password": PASSWORD}


@pytest.fixture
def clickhouse(start: Start) -> ClickhouseServer:
    return start(filled_clickhouse)


def config(port: int, **more: Any) -> dict[str, Any]:
    return {"url": f"http://localhost:{port}", "username": "reader", **more}


# The real server ------------------------------------------------------------------------------------------------------


@pytest.mark.services
@pytest.mark.parametrize("username", ["reader", "setter", "writer"])
async def test_every_kind_of_account_reads(
    username: str, clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """`reader` may change no setting at all, `setter` may not change `readonly`, `writer` may change all."""
    values = config(clickhouse.port, username=username)
    assert (await sandbox.check("clickhouse", values, SECRETS, loopback)).status == "passed"
    request = PreviewRequest(path=("shop", "codes"), limit=1)
    shown = await sandbox.preview("clickhouse", values, SECRETS, loopback, request)
    assert (shown.rows, shown.truncated) == ([[1, "one"]], True)


@pytest.mark.services
async def test_a_password_that_no_header_can_carry_signs_in(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(clickhouse.port, username="odd")
    result = await sandbox.check("clickhouse", values, {"password": ODD_PASSWORD}, loopback)
    assert result.status == "passed", result


@pytest.mark.services
async def test_over_tls_every_step_passes(
    clickhouse: ClickhouseServer, start: Start, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    url = f"https://localhost:{start(tls_front, clickhouse.port)}"
    values = {"url": url, "username": "reader", "ca_certificate": authority.pem.decode()}
    result = await sandbox.check("clickhouse", values, SECRETS, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"


@pytest.mark.services
async def test_databases_can_be_included_and_excluded(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    for scope, expected in (
        ({"database": "shop"}, {"shop"}),
        ({"include_databases": ["sh*"]}, {"shop"}),
        ({"include_databases": ["sho_", "sho%"]}, set()),
        ({"exclude_databases": ["s*p"]}, {"odd.base"}),
        ({"include_databases": ["*"], "exclude_databases": ["odd.*"]}, {"shop"}),
        ({"include_databases": ["' OR 1 -- ", "\\' OR 1 -- ", "\\"]}, set()),
    ):
        values = config(clickhouse.port, **scope)
        batches = [batch async for batch in sandbox.discover("clickhouse", values, SECRETS, loopback)]
        assert {item.path[0] for batch in batches for item in batch} == expected


@pytest.mark.services
@pytest.mark.parametrize(
    "path",
    [
        ("system", "tables"),
        ("shop", "url('http://127.0.0.1/', 'TSV', 'a String')"),
        ("shop", "orders` UNION ALL SELECT * FROM `closed`.`secret"),
        ("shop", "orders\\` -- "),
        ("shop", "' OR 1 -- "),
        ("", "file('/etc/passwd', 'TSV', 'a String')"),
        ("closed", "secret"),
        ("shop", ".inner.totals"),
        ("shop", "or\0ders"),
        ("shop",),
    ],
)
async def test_a_name_is_never_more_than_a_name(
    path: tuple[str, ...], clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    with pytest.raises(ConnectorError) as caught:
        await sandbox.preview("clickhouse", config(clickhouse.port), SECRETS, loopback, PreviewRequest(path=path))
    assert caught.value.code == "not_found"


@pytest.mark.services
async def test_a_table_may_be_named_like_a_function(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    name = "url('http://127.0.0.1/')"
    clickhouse.run(rf"CREATE TABLE `odd.base`.`{name}` (`now()` String) ENGINE = Memory")
    try:
        clickhouse.run(rf"INSERT INTO `odd.base`.`{name}` VALUES ('x')")
        request = PreviewRequest(path=("odd.base", name))
        shown = await sandbox.preview("clickhouse", config(clickhouse.port), SECRETS, loopback, request)
    finally:
        clickhouse.run(f"DROP TABLE `odd.base`.`{name}`")
    assert shown.rows == [["x"]]


@pytest.mark.services
async def test_long_values_are_cut_and_said_to_be(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(clickhouse.port, username="admin")
    clickhouse.run(
        "CREATE TABLE closed.long ENGINE = Memory AS"
        " SELECT arrayStringConcat(arrayMap(x -> 'ü', range(1000000))) AS t, range(1000000) AS a"
    )
    try:
        request = PreviewRequest(path=("closed", "long"), max_value_bytes=64)
        shown = await sandbox.preview("clickhouse", values, SECRETS, loopback, request)
    finally:
        clickhouse.run("DROP TABLE closed.long")
    assert shown.rows == [["ü" * 32, ("[" + ",".join(str(number) for number in range(100)))[:64]]]
    assert shown.truncated


@pytest.mark.services
@pytest.mark.parametrize("username", ["reader", "admin"])
async def test_large_decimals_keep_every_digit(
    username: str, clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    digits = ["-1234567890123456789012345678.1234567891", "0.0000000001", "1000000000000000000000000000.5000000000"]
    clickhouse.run("CREATE TABLE shop.money (d Decimal(38, 10), l Array(Nullable(Decimal(38, 10)))) ENGINE = Memory")
    for number in digits:
        clickhouse.run(f"INSERT INTO shop.money VALUES ('{number}', ['{number}', NULL])")
    try:
        request = PreviewRequest(path=("shop", "money"))
        shown = await sandbox.preview(
            "clickhouse", config(clickhouse.port, username=username), SECRETS, loopback, request
        )
    finally:
        clickhouse.run("DROP TABLE shop.money")
    assert sorted(shown.rows) == sorted([number, [number, None]] for number in digits)


@pytest.mark.services
async def test_a_slow_view_is_stopped_by_the_server(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    clickhouse.run("CREATE VIEW closed.slow AS SELECT count() AS x FROM system.numbers WHERE sleep(0.4) = 1")
    try:
        values = config(clickhouse.port, username="admin", statement_timeout_s=1)
        with pytest.raises(ConnectorError) as caught:
            request = PreviewRequest(path=("closed", "slow"))
            await sandbox.preview("clickhouse", values, SECRETS, loopback, request)
        assert caught.value.code == "timeout"
    finally:
        clickhouse.run("DROP TABLE closed.slow")


@pytest.mark.services
async def test_the_server_is_the_version_that_is_claimed(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    told = (await sandbox.check("clickhouse", config(clickhouse.port), SECRETS, loopback)).server
    assert f"ClickHouse {'.'.join(told['version'].split('.')[:2])}" in Clickhouse.verified_with


# What other versions and other servers answer -------------------------------------------------------------------------

Answers = Callable[[str, dict[str, list[str]]], bytes]
"""From a query and its parameters to an answer."""


def http(body: bytes | str, status: str = "200 OK", headers: str = "") -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n{headers}Connection: close\r\n\r\n".encode() + raw


@contextmanager
def answering(answers: Answers) -> Iterator[tuple[int, list[str]]]:
    """Yields its port and the queries that it was sent."""
    heard: list[str] = []

    def talk(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65_536)
        head, _, body = request.partition(b"\r\n\r\n")
        if head.startswith(b"HEAD"):
            connection.sendall(http(""))
            return
        length = re.search(rb"content-length: (\d+)", head.lower())
        assert length
        while len(body) < int(length[1]):
            body += connection.recv(65_536)
        heard.append(body.decode())
        parameters = parse_qs(urlsplit(head.split(b" ")[1].decode()).query)
        connection.sendall(answers(body.decode(), parameters))

    with scripted_server(talk) as port:
        yield port, heard


def connector(port: int, **more: Any) -> Clickhouse:
    values = msgspec.convert(config(port, **more), ClickhouseConfig)
    return Clickhouse(values, ClickhouseSecrets(password=PASSWORD), EgressPolicy(loopback_allowed=True))


async def failed(port: int) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        _ = [batch async for batch in connector(port).discover()]
    assert CANARY not in caught.value.message
    return caught.value


def row(engine: str, **columns: str) -> str:
    names, types = list(columns), list(columns.values())
    values = {"database": "shop", "name": "t", "engine": engine, "hub_names": names, "hub_types": types}
    return json.dumps(values) + "\n"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (516, "authentication_failed"),
        (193, "authentication_failed"),
        (192, "authentication_failed"),
        (194, "authentication_failed"),
        (81, "not_found"),
        (60, "not_found"),
        (497, "permission_denied"),
        (291, "permission_denied"),
        (195, "permission_denied"),
        (159, "timeout"),
        (201, "rate_limited"),
        (202, "rate_limited"),
        (164, "permission_denied"),
        (999, "server_error"),
    ],
)
async def test_errors_are_told_by_their_number(number: int, code: str) -> None:
    text = f"Code: {number}. DB::Exception: {PASSWORD} (version 25.3.1.1)"
    header = f"X-ClickHouse-Exception-Code: {number}\r\n"
    old = f"Code: {number}, e.displayText() = DB::Exception: {PASSWORD}, e.what() = DB::Exception"
    for answer in (
        http("", "500 Internal Server Error", header),
        http(text, "403 Forbidden"),
        http(old, "401 Unauthorized"),
        http(text, headers=header),
        http(row("Memory") + text + "\n"),
        http(row("Memory") + json.dumps({"exception": text}) + "\n"),
        http(row("Memory") + "__exception__\r\n" + text),
    ):
        with answering(lambda *_, answer=answer: answer) as (port, _):
            assert (await failed(port)).code == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http("<html>It works!</html>"), "response_invalid"),
        (http("<html>", "404 Not Found"), "protocol_mismatch"),
        (http("<html>", "405 Method Not Allowed"), "protocol_mismatch"),
        (http("", "401 Unauthorized"), "authentication_failed"),
        (http("", "403 Forbidden"), "permission_denied"),
        (http("", "503 Service Unavailable"), "server_error"),
        (http("", "429 Too Many Requests"), "rate_limited"),
        (http("[1, 2]\n"), "response_invalid"),
        (http("[" * 100_000), "response_invalid"),
        (http(b"\xff\xfe\n"), "response_invalid"),
        (http(b'{"\xff": \xff}\n'), "response_invalid"),
        (http('{"a": 1}\n'), "response_invalid"),
        (http(row("Memory").replace("[]", "7")), "response_invalid"),
    ],
)
async def test_what_is_not_clickhouse_is_understood(answer: bytes, code: str) -> None:
    with answering(lambda *_: answer) as (port, _):
        assert (await failed(port)).code == code


async def test_a_redirect_takes_nothing_along() -> None:
    with answering(lambda *_: http("")) as (other, heard):
        to_other = http("", "307 Temporary Redirect", f"Location: http://localhost:{other}/\r\n")
        with answering(lambda *_: to_other) as (port, _):
            assert (await failed(port)).code == "protocol_mismatch"
    assert heard == []


@pytest.mark.parametrize("engine", ["Kafka", "RabbitMQ", "NATS", "S3Queue"])
async def test_a_preview_never_takes_messages_out_of_a_queue(engine: str) -> None:
    with answering(lambda *_: http(row(engine, a="String"))) as (port, heard):
        with pytest.raises(ConnectorError) as caught:
            await connector(port).preview(PreviewRequest(path=("shop", "t")))
        assert caught.value.code == "unsupported"
    assert all("FROM `shop`.`t`" not in query for query in heard)


async def test_settings_are_given_up_one_after_the_other() -> None:
    told: list[dict[str, list[str]]] = []

    def answers(query: str, parameters: dict[str, list[str]]) -> bytes:
        told.append(parameters)
        if "readonly" in parameters:
            return http("Code: 164. DB::Exception: Cannot modify 'readonly'", "500 Internal Server Error")
        if parameters:
            return http("Code: 452. DB::Exception: should not be changed", "500 Internal Server Error")
        if "system.settings" in query:
            return http('{"names": ["limit"], "values": ["5"]}\n')
        return http(row("Memory", a="UInt8") if "system.tables" in query else '{"hub_0": "1"}\n')

    with answering(answers) as (port, _):
        shown = await connector(port).preview(PreviewRequest(path=("shop", "t")))
    assert shown.rows == [[1]]
    names = [set(parameters) for parameters in told]
    assert all(later < earlier or "readonly" in earlier - later for earlier, later in pairwise(names[:-2]))
    assert names[-4:] == [{"max_execution_time"}, set(), set(), set()]
    assert shown.notes == ("What is set for reader may leave rows out: limit = 5.",)


async def test_a_row_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.connectors.types.clickhouse._MAX_LINE_BYTES", 100_000)
    with answering(lambda *_: http("x" * 200_000)) as (port, _):
        assert (await failed(port)).code == "response_too_large"


async def test_types_of_new_servers_are_shown() -> None:
    columns = {
        "m": "Map(String, Array(UInt64))",
        "t": "DateTime64(3, 'UTC')",
        "b": "Bool",
        "n": "Nested(a UInt8, b Nullable(Float64))",
        "j": "JSON(max_dynamic_paths=8)",
        "p": "Point",
        "d": "Decimal(76, 3)",
        "v": "Variant(String, UInt8)",
        "e": "Tuple()",
        "h": "Int256",
    }
    cells = [
        [["k"], [["18446744073709551615"]]],
        "2024-01-02 03:04:05.678",
        "true",
        [["1", None], ["2", "nan"]],
        {"a": 1.5, "b": [2**60]},
        [1.5, 2.25],
        "1.5",
        None,
        [],
        str(2**200),
    ]

    def answers(query: str, _: dict[str, list[str]]) -> bytes:
        if "system.tables" in query:
            return http(row("Memory", **columns))
        assert "mapKeys(`m`)" in query
        return http(json.dumps({f"hub_{number}": cell for number, cell in enumerate(cells)}))

    with answering(answers) as (port, _):
        shown = await connector(port).preview(PreviewRequest(path=("shop", "t")))
    assert [column.type for column in shown.columns] == [
        *("object", "timestamp_tz", "boolean", "array", "json", "geometry", "decimal", "json", "object", "integer")
    ]
    assert shown.rows == [
        [
            {"k": ["18446744073709551615"]},
            "2024-01-02T03:04:05.678Z",
            True,
            [{"a": 1, "b": None}, {"a": 2, "b": "NaN"}],
            {"a": 1.5, "b": [str(2**60)]},
            [1.5, 2.25],
            "1.500",
            None,
            [],
            str(2**200),
        ]
    ]


async def test_a_value_that_is_not_of_its_type_ends_the_preview() -> None:
    def answers(query: str, _: dict[str, list[str]]) -> bytes:
        return http(row("Memory", a="UInt8") if "system.tables" in query else '{"hub_0": "many"}\n')

    with answering(answers) as (port, _):
        with pytest.raises(ConnectorError) as caught:
            await connector(port).preview(PreviewRequest(path=("shop", "t")))
        assert caught.value.code == "response_invalid"


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "portable", "is_nullable"),
    [
        ("LowCardinality(Nullable(FixedString(3)))", "string", True),
        ("SimpleAggregateFunction(sum, Nullable(Decimal(12, 2)))", "decimal", True),
        ("AggregateFunction(quantiles(0.5, 0.9), Float64)", "unknown", False),
        ("Array(Nullable(UInt8))", "array", False),
        ("Dynamic", "json", True),
        ("IPv6", "string", False),
        ("UInt256", "integer", False),
        ("Date32", "date", False),
        ("Enum16('a' = 1)", "string", False),
        ("Nothing", "unknown", False),
        ("", "unknown", False),
        (")(", "unknown", False),
        ("Nullable(" * 1000, "unknown", False),
    ],
)
def test_types_are_read(text: str, portable: str, is_nullable: bool) -> None:
    kind = parse(text)
    assert (_portable(kind), kind.is_nullable) == (portable, is_nullable)


def test_names_in_tuples_may_hold_anything() -> None:
    kind = parse(r"Tuple(`a\`, (b` Enum8('x, (' = 1), c Array(Tuple(d UInt8)))")
    assert kind == Kind("Tuple", (("a`, (b", "Enum8('x, (' = 1)"), ("c", "Array(Tuple(d UInt8))")), is_nullable=False)
    assert _value(kind, ["x, (", [["1"]]]) == {"a`, (b": "x, (", "c": [{"d": 1}]}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"url": "http://user:pw@localhost"}, "url"),
        ({"url": "http://localhost/?password=x"}, "url"),
        ({"url": "http://"}, "url"),
        ({"username": "a:b"}, "username"),
        ({"database": "a", "include_databases": ["b"]}, "include_databases"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({**config(8123), **values}, ClickhouseConfig)
    if isinstance(caught.value.__cause__, InvalidField):
        assert caught.value.__cause__.path == (field,)
    else:
        assert f"$.{field}" in str(caught.value)


@pytest.mark.found("D12")
async def test_bytes_that_are_no_utf_8_are_shown_and_noted() -> None:
    def answers(query: str, _: Any) -> bytes:
        return http(
            row("Memory", a="String") if "system.tables" in query else b'{"hub_0":"caf\xe9"}\n{"hub_0":"\xc3\xa9"}\n'
        )

    with answering(answers) as (port, _):
        shown = await connector(port).preview(PreviewRequest(path=("shop", "t")))
    assert (shown.rows, shown.notes) == ([["caf\\xe9"], ["é"]], (NOT_UTF8,))


@pytest.mark.found("D12")
async def test_a_character_that_the_server_cut_is_no_bad_byte() -> None:
    def answers(query: str, _: Any) -> bytes:
        text = ("x" * 63 + "€€€").encode()[:68]
        return http(row("Memory", a="String") if "system.tables" in query else b'{"hub_0":"' + text + b'"}\n')

    with answering(answers) as (port, heard):
        shown = await connector(port).preview(PreviewRequest(path=("shop", "t"), max_value_bytes=64))
    assert "substring(`a`, 1, 68)" in heard[-1]
    assert (shown.rows, shown.truncated, shown.notes) == ([["x" * 63]], True, ())


@pytest.mark.services
@pytest.mark.found("D8")
async def test_a_profile_that_cuts_answers_off_leaves_nothing_out(
    clickhouse: ClickhouseServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    async def found_as(username: str) -> tuple[list[Any], Any]:
        work = sandbox.discover("clickhouse", config(clickhouse.port, username=username), SECRETS, loopback)
        pages = [item async for page in work for item in page]
        request = PreviewRequest(path=("shop", "orders"))
        rows = await sandbox.preview(
            "clickhouse", config(clickhouse.port, username=username), SECRETS, loopback, request
        )
        return sorted(pages, key=lambda item: item.path), rows.rows

    plain = await found_as("writer")
    assert len(plain[0]) > 2
    assert await found_as("cut") == plain


@pytest.mark.services
@pytest.mark.found("D8")
async def test_an_account_that_cuts_and_lets_nothing_be_changed_is_shown_everything(
    clickhouse: ClickhouseServer,
) -> None:
    """Its answers have one row each."""
    plain = connector(clickhouse.port, username="writer")
    source = connector(clickhouse.port, username="held")
    everything = [item async for page in plain.discover() for item in page]
    assert len(everything) > 2
    assert [item async for page in source.discover() for item in page] == everything
    assert source.stopped_because is None


@pytest.mark.services
@pytest.mark.found("D8")
async def test_what_such_an_account_may_miss_is_told(clickhouse: ClickhouseServer) -> None:
    source = connector(clickhouse.port, username="blinkered")
    assert [item async for page in source.discover() for item in page]
    assert source.stopped_because == "What is set for blinkered may leave objects out: read_overflow_mode."
    shown = await source.preview(PreviewRequest(path=("shop", "orders")))
    assert shown.notes == ("What is set for blinkered may leave rows out: read_overflow_mode = break.",)
    assert shown.truncated
    filled = await source.preview(PreviewRequest(path=("shop", "orders"), limit=1))
    assert (len(filled.rows), filled.notes) == (1, ())


@pytest.mark.services
@pytest.mark.found("D2", "D12")
@pytest.mark.parametrize("username", ["writer", "held"])
async def test_names_that_are_no_utf_8_are_listed_and_lead_to_rows(username: str, clickhouse: ClickhouseServer) -> None:
    """One that looks like them, and what is behind them in the order of names, is there as well."""
    tables = {b"odd\xe9": "odd\\xe9", b"odd\\\\xe8": "odd\\xe8", "oddü".encode(): "oddü", b"oddz": "oddz"}
    for name in tables:
        clickhouse.run(b"CREATE TABLE shop.`%b` (`c\xff` String, n UInt8) ENGINE = Memory" % name)
        clickhouse.run(b"INSERT INTO shop.`%b` VALUES ('v\xfe', 7)" % name)
    try:
        source = connector(clickhouse.port, username=username)
        found = [item.name async for page in source.discover() for item in page if item.name.startswith("odd")]
        assert set(found) == set(tables.values())
        for shown_name in ("odd\\xe9", "oddü"):
            shown = await connector(clickhouse.port, username=username).preview(
                PreviewRequest(path=("shop", shown_name))
            )
            assert ([column.name for column in shown.columns], shown.rows) == (["c\\xff", "n"], [["v\\xfe", 7]])
    finally:
        for name in tables:
            clickhouse.run(b"DROP TABLE shop.`%b`" % name)
