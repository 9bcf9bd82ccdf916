"""Databases of PostgreSQL whose texts need not be UTF-8: nothing of them is hidden, and nothing hides the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest

from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.postgresql.texts import ServerTexts
from app.connectors.values.bad_bytes import NOT_UTF8
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.types.postgresql import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.found("D2", "D12")]

ENCODINGS = {"SQL_ASCII": b"\xe9", "WIN1252": b"\x81", "LATIN7": b"\xa5", "LATIN1": b"\xe9"}
"""A byte that stands for nothing in UTF-8; in LATIN7 and LATIN1 each byte stands for something."""
STATEMENTS = (
    b'CREATE SCHEMA "s#"',
    b"CREATE TABLE good (id int, t text)",
    b"INSERT INTO good VALUES (1, 'plain')",
    b'CREATE TABLE "s#"."t#" ("c#" text, n int)',
    b'INSERT INTO "s#"."t#" VALUES (\'v#\', 7)',
    b"CREATE TYPE \"e#\" AS ENUM ('l#', 'm')",
    b'CREATE TYPE pair AS ("m#" text, b bytea)',
    b'CREATE TABLE kinds (t text, j json, a text[], p pair, e "e#", b bytea, d numeric, v varchar(3), at timestamptz)',
    b"INSERT INTO kinds VALUES ('a#b', '{\"k\": \"x#\", \"k#\": [1.50]}', '{y#,z}', ROW('w#', '\\x00ff'), 'l#', '\\xe9', 1.10,"
    b" 'abc', '2024-01-02 03:04:05+00')",
    b"INSERT INTO kinds (t) VALUES ('plain')",
    b"CREATE TABLE long AS SELECT repeat('\xc3\xbc', 1000) AS t",
    b'GRANT USAGE ON SCHEMA "s#" TO reader',
    b'GRANT SELECT ON ALL TABLES IN SCHEMA public, "s#" TO reader',
)


@contextmanager
def encoded_databases(server: PostgresServer) -> Iterator[int]:
    asyncio.run(_make(server))
    yield server.port


async def _make(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url())
    for encoding in ENCODINGS:
        options = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER libc"
        await connection.execute(f"CREATE DATABASE in_{encoding} {options}")
    await connection.close()
    for encoding, byte in ENCODINGS.items():
        connection = await asyncpg.connect(server.url(f"in_{encoding.lower()}"))
        for statement in STATEMENTS:
            content = statement.replace(b"#", byte)
            if encoding == "WIN1252":
                content = content.replace("ü".encode(), b"\xfc")
            digits = content.hex()
            text = f"convert_from(decode('{digits}', 'hex'), 'SQL_ASCII')"
            await connection.execute(f"DO $do$ BEGIN EXECUTE {text}; END $do$")
        await connection.close()


@pytest.fixture
def port(start: Start, filled_postgres: PostgresServer) -> int:
    return start(encoded_databases, filled_postgres)


def source(port: int, encoding: str) -> tuple[str, dict[str, Any], dict[str, str]]:
    config = {"host": "localhost", "port": port, "database": f"in_{encoding.lower()}", "username": "reader"}
    return "postgresql", config, {"password": f"pw-{CANARY}"}


async def listed(
    sandbox: ConnectorSandbox, policy: EgressPolicy, port: int, encoding: str
) -> dict[str, DiscoveredObject]:
    pages = sandbox.discover(*source(port, encoding), policy)
    return {item.qualified_name: item async for page in pages for item in page}


async def shown(
    sandbox: ConnectorSandbox, policy: EgressPolicy, port: int, encoding: str, *path: str, **request: Any
) -> PreviewResult:
    return await sandbox.preview(*source(port, encoding), policy, PreviewRequest(path=path, **request))


CHARACTERS = {"SQL_ASCII": "\\xe9", "WIN1252": "\\x81", "LATIN7": "„", "LATIN1": "é"}
AS_SHOWN = pytest.mark.parametrize(("encoding", "byte"), CHARACTERS.items())


@AS_SHOWN
async def test_names_are_listed_and_lead_to_rows(
    encoding: str, byte: str, port: int, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    assert (await sandbox.check(*source(port, encoding), loopback)).status == "passed"
    found = await listed(sandbox, loopback, port, encoding)
    assert set(found) == {"public.good", "public.kinds", "public.long", f"s{byte}.t{byte}"}
    odd = found[f"s{byte}.t{byte}"]
    assert [(field.name, field.type) for field in odd.fields] == [(f"c{byte}", "string"), ("n", "integer")]
    rows = await shown(sandbox, loopback, port, encoding, f"s{byte}", f"t{byte}")
    assert rows.rows == [[f"v{byte}", 7]]
    some = await shown(sandbox, loopback, port, encoding, f"s{byte}", f"t{byte}", columns=("n", f"c{byte}"))
    assert some.rows == [[7, f"v{byte}"]]


@AS_SHOWN
async def test_values_of_every_kind_are_shown_whole(
    encoding: str, byte: str, port: int, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await shown(sandbox, loopback, port, encoding, "public", "kinds")
    assert result.rows == [
        [
            *(f"a{byte}b", {"k": f"x{byte}", f"k{byte}": [1.5]}, [f"y{byte}", "z"]),
            *({f"m{byte}": f"w{byte}", "b": "AP8="}, f"l{byte}", "6Q==", "1.10", "abc", "2024-01-02T03:04:05Z"),
        ],
        ["plain", *[None] * 8],
    ]
    assert result.notes == ((NOT_UTF8,) if byte.startswith("\\") else ())
    assert [column.type for column in result.columns][:6] == ["string", "json", "array", "object", "string", "binary"]
    plain = await shown(sandbox, loopback, port, encoding, "public", "good")
    assert (plain.rows, plain.notes) == ([[1, "plain"]], ())


async def test_a_text_that_is_cut_inside_a_character_is_no_bad_byte(
    port: int, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    for max_bytes in (100, 101):
        result = await shown(sandbox, loopback, port, "SQL_ASCII", "public", "long", max_value_bytes=max_bytes)
        assert (result.rows, result.truncated, result.notes) == ([["ü" * 50]], True, ())


def test_a_name_that_is_shown_so_may_be_either() -> None:
    texts = ServerTexts("utf-8")
    assert texts.named("caf\\xe9") == [b"caf\\xe9".hex(), b"caf\xe9".hex()]
    assert texts.named("ü") == ["ü".encode().hex()] * 2
    assert ServerTexts("cp1252").named("日本") == []
    assert ServerTexts(None).named("caf\\xe9") == ["caf\\xe9"]
