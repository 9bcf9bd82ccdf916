"""What PostgreSQL does beyond the contract: roles and databases with settings of their own, ways to be refused, poolers,
and values that lose something if they are read carelessly."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult
from app.connectors.contract.steps import TestResult
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import pipe, scripted_server, server_context
from tests.connectors.types.postgresql import PostgresServer

pytestmark = pytest.mark.anyio

PASSWORD = {"password": f"pw-{CANARY}"}

SETUP = f"""
CREATE ROLE plain LOGIN PASSWORD 'pw-{CANARY}';
CREATE ROLE own_settings LOGIN PASSWORD 'pw-{CANARY}' IN ROLE plain;
ALTER ROLE own_settings SET extra_float_digits = -5;
ALTER ROLE own_settings SET search_path = 'app';
ALTER ROLE own_settings SET quote_all_identifiers = on;
ALTER ROLE own_settings SET standard_conforming_strings = off;
ALTER ROLE own_settings SET row_security = off;
ALTER ROLE own_settings SET xmlbinary = 'hex';
ALTER ROLE own_settings SET lock_timeout = 1;
ALTER ROLE own_settings SET DateStyle = 'German, DMY';
ALTER ROLE own_settings SET TimeZone = 'Asia/Kathmandu';
ALTER ROLE own_settings SET IntervalStyle = 'sql_standard';
ALTER ROLE own_settings SET bytea_output = 'escape';
ALTER ROLE own_settings SET transform_null_equals = on;
ALTER ROLE own_settings SET default_transaction_isolation = 'serializable';
CREATE ROLE hurried LOGIN PASSWORD 'pw-{CANARY}' IN ROLE plain;
ALTER ROLE hurried SET search_path = 'app';
ALTER ROLE hurried SET statement_timeout = 1;
ALTER ROLE hurried SET restrict_nonsystem_relation_kind = 'view';
CREATE ROLE serializable LOGIN PASSWORD 'pw-{CANARY}' IN ROLE plain;
ALTER ROLE serializable SET default_transaction_isolation = 'serializable';
ALTER ROLE serializable SET default_transaction_deferrable = on;
CREATE ROLE expired LOGIN PASSWORD 'pw-{CANARY}' VALID UNTIL '2001-01-01';
CREATE ROLE cannot_log_in PASSWORD 'pw-{CANARY}';
CREATE ROLE has_no_connection LOGIN PASSWORD 'pw-{CANARY}' CONNECTION LIMIT 0;
CREATE ROLE stranger LOGIN PASSWORD 'pw-{CANARY}'
"""
OBJECTS = """
CREATE SCHEMA app;
CREATE TYPE app.money AS (amount numeric, at timestamptz);
CREATE DOMAIN app.amounts AS numeric[];
CREATE TABLE app.values_ (
    ratio double precision, doc jsonb, text_doc json, pair app.money, amounts app.amounts, blobs bytea[], mac macaddr,
    letter "char", numbers int2vector
);
INSERT INTO app.values_ VALUES (
    0.1234567890123456, '{"amount": 12345678901234567890.123456789, "small": 0.1}', '{"huge": 1e400, "small": 0.10}',
    ROW(12345678901234567890.123456789, '2024-01-02 03:04:05+02'), '{12345678901234567890.123456789, 0.1}',
    '{"\\\\x00ff",NULL}', '08:00:2b:01:02:03', 'x', '1 2'
);
CREATE FUNCTION app.count_of_values() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM values_); END';
CREATE VIEW app.calls_a_function AS SELECT app.count_of_values() AS n;
CREATE VIEW app.divides_by_zero AS SELECT 1 / (n - n) AS x FROM app.calls_a_function;
CREATE FUNCTION app.write() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM app.values_; RETURN 1; END';
CREATE VIEW app.writes AS SELECT app.write() AS x;
CREATE MATERIALIZED VIEW app.never_filled AS SELECT 1 AS x WITH NO DATA;
CREATE TABLE app.half_open (mine integer, theirs integer);
INSERT INTO app.half_open VALUES (1, 2);
GRANT USAGE ON SCHEMA app TO plain;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO plain;
REVOKE SELECT ON app.half_open FROM plain;
GRANT SELECT (mine) ON app.half_open TO plain
"""


@contextmanager
def odd_database(server: PostgresServer) -> Iterator[dict[str, Any]]:
    asyncio.run(_make(server))
    yield {"host": "localhost", "port": server.port, "database": "odd", "username": "plain"}


async def _make(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.url())
    await connection.execute(SETUP)
    await connection.execute("CREATE DATABASE odd")
    await _refuse_by_rule(connection, "stranger")
    await connection.close()
    connection = await asyncpg.connect(server.url("odd"))
    await connection.execute(OBJECTS)
    await connection.close()


async def _refuse_by_rule(connection: asyncpg.Connection[Any], role: str) -> None:
    """Puts a line before the others of the server's pg_hba.conf, by the server itself."""
    path = await connection.fetchval("SELECT current_setting('hba_file')")
    rules = await connection.fetchval("SELECT pg_read_file($1)", path)
    lines = f"host all {role} all reject\n{rules}".replace("'", "''")
    await connection.execute(f"COPY (SELECT unnest(string_to_array('{lines}', E'\\n'))) TO '{path}'")
    await connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def odd(start: Start, filled_postgres: PostgresServer) -> dict[str, Any]:
    return start(odd_database, filled_postgres)


async def checked(
    sandbox: ConnectorSandbox, policy: EgressPolicy, config: dict[str, Any], **secrets: str
) -> TestResult:
    return await sandbox.check("postgresql", config, PASSWORD | secrets, policy)


def failure(result: TestResult) -> tuple[str, str]:
    (step,) = [step for step in result.steps if step.status == "failed"]
    return step.name, step.code


# Values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.found("D8")
@pytest.mark.parametrize("username", ["plain", "own_settings"])
async def test_no_value_loses_anything(
    username: str, odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    request = PreviewRequest(path=("app", "values_"))
    shown = await sandbox.preview("postgresql", {**odd, "username": username}, PASSWORD, loopback, request)
    exact = "12345678901234567890.123456789"
    assert by_name(shown) == {
        "ratio": 0.1234567890123456,
        "doc": {"amount": exact, "small": 0.1},
        "text_doc": {"huge": "1e400", "small": 0.1},
        "pair": {"amount": exact, "at": "2024-01-02T01:04:05Z"},
        "amounts": [exact, "0.1"],
        "blobs": ["AP8=", None],
        "mac": "08:00:2b:01:02:03",
        "letter": "x",
        "numbers": [1, 2],
    }
    types = {column.name: column.type for column in shown.columns}
    assert (types["mac"], types["letter"], types["numbers"]) == ("string", "string", "array")


def by_name(shown: PreviewResult) -> dict[str, Any]:
    (row,) = shown.rows
    return dict(zip((column.name for column in shown.columns), row, strict=True))


# Views ----------------------------------------------------------------------------------------------------------------


async def test_a_function_of_a_view_finds_what_its_author_meant(
    odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {**odd, "username": "own_settings"}
    request = PreviewRequest(path=("app", "calls_a_function"))
    assert (await sandbox.preview("postgresql", config, PASSWORD, loopback, request)).rows == [[1]]


@pytest.mark.parametrize(
    ("view", "code"),
    [
        ("calls_a_function", "not_found"),
        ("writes", "unsupported"),
        ("never_filled", "server_error"),
        ("half_open", "permission_denied"),
    ],
)
async def test_a_view_that_cannot_be_read_says_why(
    view: str, code: str, odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    with pytest.raises(ConnectorError) as caught:
        await sandbox.preview("postgresql", odd, PASSWORD, loopback, PreviewRequest(path=("app", view)))
    assert caught.value.code == code
    assert "SQLSTATE" not in caught.value.message


async def test_a_value_that_cannot_be_worked_out_is_told_by_its_number(
    odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {**odd, "username": "own_settings"}
    with pytest.raises(ConnectorError, match="SQLSTATE 22012"):
        await sandbox.preview("postgresql", config, PASSWORD, loopback, PreviewRequest(path=("app", "divides_by_zero")))


async def test_columns_that_may_be_read_are_shown_alone(
    odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    request = PreviewRequest(path=("app", "half_open"), columns=("mine",))
    assert (await sandbox.preview("postgresql", odd, PASSWORD, loopback, request)).rows == [[1]]


# Signing in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "code"),
    [
        ("expired", "authentication_failed"),
        ("cannot_log_in", "authentication_failed"),
        ("has_no_connection", "rate_limited"),
        ("stranger", "permission_denied"),
    ],
)
async def test_a_role_that_is_not_let_in_is_told_why(
    username: str, code: str, odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await checked(sandbox, loopback, {**odd, "username": username})
    assert failure(result) == ("authenticate", code)


async def test_a_client_certificate_that_is_not_taken_is_a_matter_of_tls(
    odd: dict[str, Any], authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    certificate, key = (pem.decode() for pem in Authority("Somebody else").certificate_for("plain"))
    with front_that_asks_for_a_certificate(authority, odd["port"]) as port:
        config = {**odd, "port": port, "tls_mode": "require", "client_certificate": certificate}
        refused = await checked(sandbox, loopback, config, client_key=key)
        certificate, key = (pem.decode() for pem in authority.certificate_for("plain"))
        taken = await checked(sandbox, loopback, {**config, "client_certificate": certificate}, client_key=key)
    assert failure(refused) == ("authenticate", "tls_failed")
    assert taken.status == "passed"


@contextmanager
def front_that_asks_for_a_certificate(authority: Authority, plain_port: int) -> Iterator[int]:
    context = server_context()
    context.load_verify_locations(cadata=authority.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED

    def end_tls(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as plain:
            try:
                plain.do_handshake()
            except ssl.SSLError:
                while socket.socket.recv(plain, 4096):  # With anything unread, the alert would be lost.
                    pass
                return
            pipe(plain, plain_port)

    with scripted_server(end_tls) as port:
        yield port


# Servers that speak the protocol --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sqlstate", "text", "expected"),
    [
        ("08P01", "password authentication failed", ("authenticate", "authentication_failed")),
        ("08P01", "no such user: plain", ("authenticate", "authentication_failed")),
        ("08P01", 'database "odd" does not exist', ("list", "not_found")),
        ("08P01", "no such database: odd", ("list", "not_found")),
        ("08P01", "something else", ("authenticate", "server_error")),
        ("28000", 'no pg_hba.conf entry for host "1.2.3.4", no encryption', ("authenticate", "permission_denied")),
        ("57P03", "the database system is starting up", ("authenticate", "server_error")),
        (None, "", ("authenticate", "connection_lost")),
    ],
)
async def test_what_a_server_or_pooler_answers_to_the_sign_in(
    sqlstate: str | None, text: str, expected: tuple[str, str], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    def refuse(connection: socket.socket) -> None:
        if connection.recv(8)[4:] == bytes.fromhex("04d2162f"):
            connection.sendall(b"N")
            connection.recv(4096)
        if sqlstate is not None:
            connection.sendall(error_response(sqlstate, text))

    with scripted_server(refuse) as port:
        config = {"host": "localhost", "port": port, "database": "odd", "username": "plain"}
        result = await checked(sandbox, loopback, config)
    assert failure(result) == expected


def error_response(sqlstate: str, text: str) -> bytes:
    """PostgreSQL documentation, "ErrorResponse"."""
    fields = b"SFATAL\x00C%b\x00M%b\x00" % (sqlstate.encode(), text.encode())
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\x00"


@pytest.mark.found("D8")
async def test_what_is_set_for_the_role_changes_nothing_that_is_discovered(
    odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    async def found_as(username: str) -> list[Any]:
        pages = sandbox.discover("postgresql", {**odd, "username": username}, PASSWORD, loopback)
        return sorted([item async for page in pages for item in page], key=lambda item: item.path)

    plain = await found_as("plain")
    assert plain
    assert await found_as("own_settings") == plain


@pytest.mark.found("D8")
async def test_time_limits_and_closed_views_of_a_role_are_the_hubs_own(
    odd: dict[str, Any], sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """A millisecond is enough for the statement that replaces it, at least mostly, and for none behind it."""
    request = PreviewRequest(path=("app", "calls_a_function"))
    failures: list[str] = []
    for _ in range(10):
        try:
            shown = await sandbox.preview("postgresql", {**odd, "username": "hurried"}, PASSWORD, loopback, request)
        except ConnectorError as error:
            failures.append(error.message)
        else:
            assert shown.rows == [[1]]
            return
    pytest.fail(f"never in time: {failures}")


@pytest.mark.found("D8")
async def test_a_role_that_waits_for_the_transactions_of_others_does_not(
    odd: dict[str, Any], filled_postgres: PostgresServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    other = await asyncpg.connect(filled_postgres.url("odd"))
    try:
        await other.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE app.half_open SET mine = 2")
        result = await checked(sandbox, loopback, {**odd, "username": "serializable"})
        assert result.status == "passed"
    finally:
        await other.close()
