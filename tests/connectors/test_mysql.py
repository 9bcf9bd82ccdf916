"""What MySQL sources do beyond the contract: TLS, and servers that mean harm."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest
from mysql_mimic import MysqlServer, Session  # type: ignore[import-untyped]

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.mysql import connector as mysql
from app.connectors.types.mysql.catalog import Catalog
from app.connectors.types.mysql.connector import Mysql, MysqlConfig, MysqlSecrets, _introduction, _literal
from app.core.egress import EgressPolicy
from tests.connectors.contract import Start
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import scripted_server
from tests.connectors.types.mysql import GREETING, PASSWORD, MariadbServer, filled_mariadb, packet

pytestmark = pytest.mark.anyio

SECRETS = {"password": PASSWORD}
OK = b"\0\0\0\2\0\0\0"


@pytest.fixture
def mariadb(start: Start) -> MariadbServer:
    return start(filled_mariadb)


def config(port: int, **more: Any) -> dict[str, Any]:
    return {"host": "localhost", "port": port, "username": "reader", **more}


# A server that is what it says ----------------------------------------------------------------------------------------


@pytest.mark.services
@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
async def test_every_tls_mode_passes_and_reads(
    mode: str, mariadb: MariadbServer, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    own_ca = {"ca_certificate": authority.pem.decode()} if mode.startswith("verify") else {}
    values = config(mariadb.port, tls_mode=mode, **own_ca)
    result = await sandbox.check("mysql", values, SECRETS, loopback)
    assert result.status == "passed", result
    assert result.server["encryption"] == ("none" if mode == "disable" else "TLSv1.3")
    shown = await sandbox.preview("mysql", values, SECRETS, loopback, PreviewRequest(path=("shop", "recent"), limit=1))
    assert shown.truncated


@pytest.mark.services
async def test_verify_ca_takes_a_certificate_made_for_another_name(
    mariadb: MariadbServer, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(mariadb.port, host="127.0.0.1", tls_mode="verify-ca", ca_certificate=authority.pem.decode())
    assert (await sandbox.check("mysql", values, SECRETS, loopback)).status == "passed"


@pytest.mark.services
async def test_a_user_who_needs_a_certificate_signs_in_with_it_alone(
    mariadb: MariadbServer, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    mariadb.run("CREATE OR REPLACE USER certified REQUIRE SUBJECT '/CN=certified'")
    certificate, key = (text.decode() for text in authority.certificate_for("certified"))
    values = config(mariadb.port, username="certified", tls_mode="require")
    without = await sandbox.check("mysql", values, {}, loopback)
    assert without.steps[3].code == "authentication_failed"
    values["client_certificate"] = certificate
    assert (await sandbox.check("mysql", values, {"client_key": key}, loopback)).status == "passed"


@pytest.mark.services
async def test_ed25519_works_where_the_package_for_it_is_installed(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await sandbox.check("mysql", config(mariadb.port, username="signer"), SECRETS, loopback)
    assert result.status == ("passed" if find_spec("nacl") else "unsupported")


@pytest.mark.services
async def test_everything_is_one_connection_that_ends_in_good_order(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Servers shut out a host that breaks off too many connections (`max_connect_errors`)."""

    def counted() -> list[int]:
        names = "'Connections', 'Aborted_clients', 'Aborted_connects'"
        rows = mariadb.run(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})").splitlines()[1:]
        return [int(row.split("\t")[1]) for row in sorted(rows)]

    before = counted()
    await sandbox.check("mysql", config(mariadb.port), SECRETS, loopback)
    _ = [batch async for batch in sandbox.discover("mysql", config(mariadb.port), SECRETS, loopback)]
    await sandbox.preview("mysql", config(mariadb.port), SECRETS, loopback, PreviewRequest(path=("shop", "orders")))
    after = counted()
    assert [late - early for late, early in zip(after, before, strict=True)] == [0, 0, 3 + 1]


@pytest.mark.services
async def test_databases_can_be_included_and_excluded(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    for scope, expected in (
        ({"database": "shop"}, {"shop"}),
        ({"include_databases": ["sh*"]}, {"shop"}),
        ({"include_databases": ["sho_"]}, set()),
        ({"exclude_databases": ["s*p"]}, {"odd.base"}),
        ({"include_databases": ["*"], "exclude_databases": ["odd.*"]}, {"shop"}),
        ({"include_databases": ["' OR 1=1 -- ", "\\' OR 1=1 #", "|"]}, set()),
    ):
        batches = [batch async for batch in sandbox.discover("mysql", config(mariadb.port, **scope), SECRETS, loopback)]
        assert {item.path[0] for batch in batches for item in batch} == expected


@pytest.mark.services
async def test_system_databases_are_never_shown(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(mariadb.port, username="auditor")
    found = [item async for batch in sandbox.discover("mysql", values, SECRETS, loopback) for item in batch]
    assert {item.path[0] for item in found} == {"shop", "odd.base", "closed"}
    for path in (("mysql", "global_priv"), ("information_schema", "TABLES"), ("shop", "numbers"), ("shop", "ORDERS")):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("mysql", values, SECRETS, loopback, PreviewRequest(path=path))
        assert caught.value.code == "not_found"


@pytest.mark.services
async def test_a_view_that_writes_is_stopped(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    mariadb.run(
        "CREATE DATABASE traps; CREATE TABLE traps.log (id int);"
        "CREATE FUNCTION traps.f() RETURNS int BEGIN INSERT INTO traps.log VALUES (1); RETURN 1; END;".replace(
            ";CREATE FUNCTION", ";\nDELIMITER //\nCREATE FUNCTION"
        ).replace("END;", "END//\nDELIMITER ;\n")
        + "CREATE VIEW traps.v AS SELECT traps.f() AS x; GRANT SELECT, INSERT, EXECUTE ON traps.* TO auditor"
    )
    try:
        values = config(mariadb.port, username="auditor")
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("mysql", values, SECRETS, loopback, PreviewRequest(path=("traps", "v")))
        assert caught.value.code == "unsupported"
        assert mariadb.run("SELECT COUNT(*) FROM traps.log").split() == ["COUNT(*)", "0"]
    finally:
        mariadb.run("DROP DATABASE traps")


@pytest.mark.services
async def test_a_view_whose_owner_is_gone_is_no_failed_sign_in(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    mariadb.run(
        "CREATE DATABASE left_behind; CREATE USER leaver; GRANT ALL ON left_behind.* TO leaver;"
        "CREATE DEFINER=leaver VIEW left_behind.v AS SELECT 1 AS x; DROP USER leaver;"
    )
    try:
        values = config(mariadb.port, username="auditor")
        with pytest.raises(ConnectorError, match="its owner is gone") as caught:
            await sandbox.preview("mysql", values, SECRETS, loopback, PreviewRequest(path=("left_behind", "v")))
        assert caught.value.code == "permission_denied"
    finally:
        mariadb.run("DROP DATABASE left_behind")


@pytest.mark.services
async def test_a_slow_view_is_stopped_by_the_server(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    mariadb.run("CREATE DATABASE slow; CREATE VIEW slow.v AS SELECT SLEEP(8) AS x; GRANT SELECT ON slow.* TO auditor")
    try:
        values = config(mariadb.port, username="auditor", statement_timeout_s=0.3)
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("mysql", values, SECRETS, loopback, PreviewRequest(path=("slow", "v")))
        assert caught.value.code == "timeout"
    finally:
        mariadb.run("DROP DATABASE slow")


@pytest.mark.services
async def test_long_values_are_cut_and_said_to_be(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    mariadb.run(
        "CREATE DATABASE deep; CREATE TABLE deep.t (t longtext, b longblob, j json);"
        "INSERT INTO deep.t VALUES (REPEAT('ü', 5000000), REPEAT(x'00', 5000000), "
        """CONCAT('["', REPEAT('x', 5000000), '"]')); GRANT SELECT ON deep.* TO auditor"""
    )
    try:
        request = PreviewRequest(path=("deep", "t"), max_value_bytes=64)
        values = config(mariadb.port, username="auditor")
        shown = await sandbox.preview("mysql", values, SECRETS, loopback, request)
    finally:
        mariadb.run("DROP DATABASE deep")
    assert shown.rows == [["ü" * 32, "A" * 64, '["' + "x" * 62]]
    assert shown.truncated


@pytest.mark.services
async def test_the_server_is_the_version_that_is_claimed(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    told = (await sandbox.check("mysql", config(mariadb.port), SECRETS, loopback)).server
    assert f"{told['product']} {'.'.join(told['version'].split('.')[:2])}" in Mysql.verified_with


# An independent server ------------------------------------------------------------------------------------------------


class Shop(Session):  # type: ignore[misc]
    async def schema(self) -> dict[str, Any]:
        return {"shop": {"orders": {"id": "BIGINT", "name": "VARCHAR(40)", "at": "TIMESTAMP"}, "Orders": {"a": "INT"}}}

    async def query(self, expression: Any, sql: str, attrs: dict[str, str]) -> Any:
        assert sql.startswith("SELECT `id`, LEFT(`name`, 65537), `at` FROM `shop`.`orders` LIMIT")
        return [(1, "Zoë 李雷", "2024-01-02 03:04:05"), (2**60, None, None)], ["id", "name", "at"]


@asynccontextmanager
async def mimic() -> AsyncIterator[int]:
    """mysql-mimic in this process; yields the port."""
    server = MysqlServer(session_factory=Shop)
    await server.start_server(host="127.0.0.1", port=0)
    try:
        yield server._server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_mysql_mimic_is_read(sandbox: ConnectorSandbox, loopback: EgressPolicy) -> None:
    async with mimic() as port:
        values = config(port, database="shop")
        result = await sandbox.check("mysql", values, {}, loopback)
        assert result.status == "passed", result
        assert result.server == {"encryption": "none", "product": "mysql-mimic", "version": "8.0.29"}
        found = [item async for batch in sandbox.discover("mysql", values, {}, loopback) for item in batch]
        assert {item.path: [field.type for field in item.fields] for item in found} == {
            ("shop", "orders"): ["integer", "string", "timestamp_tz"],
            ("shop", "Orders"): ["integer"],
        }
        shown = await sandbox.preview("mysql", values, {}, loopback, PreviewRequest(path=("shop", "orders")))
        assert shown.rows == [[1, "Zoë 李雷", "2024-01-02T03:04:05Z"], [str(2**60), None, None]]


# Servers that mean harm -----------------------------------------------------------------------------------------------

Answers = Callable[[int, bytes], bytes]
"""From how many packets came before, and the one that came, to the payload that is answered."""


@contextmanager
def rogue(answers: Answers, greeting: bytes = GREETING) -> Iterator[tuple[int, bytearray]]:
    """Greets, and answers each packet; yields its port and all that it is sent, until the client hangs up."""
    heard = bytearray()
    has_ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        try:
            connection.sendall(packet(0, greeting))
            count = 0
            while head := connection.recv(4, socket.MSG_WAITALL):
                body = connection.recv(int.from_bytes(head[:3], "little"), socket.MSG_WAITALL)
                heard.extend(head + body)
                connection.sendall(packet((head[3] + 1) & 255, answers(count, body)))
                count += 1
        finally:
            has_ended.set()

    with scripted_server(talk) as port:
        yield port, heard
        assert has_ended.wait(10)


async def attempt(port: int, **more: Any) -> str:
    """The code with which a check ends in this process, where nothing hides what is sent."""
    from app.connectors.contract.steps import Steps

    values = msgspec.convert(config(port, connect_timeout_s=1.0, statement_timeout_s=0.1, **more), MysqlConfig)
    connector = Mysql(values, MysqlSecrets(password=PASSWORD), EgressPolicy(loopback_allowed=True))
    with contextlib.suppress(ConnectorError):
        steps = Steps()
        await connector.check(steps)
    return next((step.code for step in steps.done if step.status == "failed"), "ok")


WANTED_FILES = [b"/etc/passwd", b"/proc/self/environ", b"C:\\boot.ini"]


@pytest.mark.parametrize("path", WANTED_FILES)
@pytest.mark.parametrize("query", [1, 2, 4, 5])
async def test_a_server_that_asks_for_a_file_gets_none(path: bytes, query: int) -> None:
    """`LOAD DATA LOCAL` lets any server ask for any file in answer to any query."""
    with rogue(lambda count, _: b"\xfb" + path if count == query else OK) as (port, heard):
        assert await attempt(port) == "response_invalid"
    assert heard.count(b"root:") == 0
    *_, query_sent, goodbye = _packets(bytes(heard))
    assert (query_sent[:1], goodbye) == (b"\x03", b"\x01"), "after the query, nothing was sent but the farewell"


@pytest.mark.parametrize("path", WANTED_FILES)
async def test_a_server_that_asks_for_a_file_while_signing_in_gets_none(path: bytes) -> None:
    with rogue(lambda *_: b"\xfb" + path) as (port, heard):
        assert await attempt(port) == "protocol_mismatch"
    assert len(_packets(bytes(heard))) == 1
    assert b"root:" not in heard


@pytest.mark.parametrize(
    ("plugin", "code"),
    [
        (b"mysql_clear_password", "tls_required"),
        (b"dialog", "tls_required"),
        (b"sha256_password", "tls_required"),
        (b"mysql_old_password", "unsupported"),
        (b"authentication_kerberos_client", "unsupported"),
        (b"parsec", "unsupported"),
        (b"\xff\xfe", "unsupported"),
    ],
)
async def test_without_tls_a_server_cannot_ask_for_the_password(plugin: bytes, code: str) -> None:
    with rogue(lambda *_: b"\xfe" + plugin + b"\0Password: ") as (port, heard):
        assert await attempt(port) == code
    assert PASSWORD.encode() not in heard
    assert len(_packets(bytes(heard))) == 1


async def test_the_old_handshake_without_plugins_is_refused() -> None:
    with rogue(lambda *_: b"\xfe") as (port, heard):
        assert await attempt(port) == "unsupported"
    assert len(_packets(bytes(heard))) == 1


def rsa_key() -> tuple[Any, bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key, key.public_key().public_bytes(serialization.Encoding.PEM, spki)


SALT = b"B" * 20 + b"\0"


@pytest.mark.parametrize("plugin", [b"caching_sha2_password", b"sha256_password"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_public_key_that_a_server_offers_is_not_used(plugin: bytes, at_once: bool) -> None:
    """Whoever sits in between offers a key of his own."""
    _, public = rsa_key()

    def answers(count: int, _: bytes) -> bytes:
        steps = [b"\x01\x04", b"\x01" + public, b"\x01" + public, OK]
        return (steps if at_once else [b"\xfe" + plugin + b"\0" + SALT, *steps])[count]

    greeting = GREETING.replace(b"mysql_native_password", plugin) if at_once else GREETING
    with rogue(answers, greeting) as (port, heard):
        assert await attempt(port) in {"tls_required", "protocol_mismatch"}
    assert all(len(body) < 256 for body in _packets(bytes(heard))), "nothing encrypted was sent"


async def test_a_public_key_that_is_configured_encrypts_the_password() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    key, public = rsa_key()
    script = [b"\xfe" + b"caching_sha2_password\0" + SALT, b"\x01\x04", OK]
    with rogue(lambda count, _: script[count] if count < 3 else b"\xff\x15\x04#28000no") as (port, heard):
        await attempt(port, server_public_key=public.decode())
    sent = _packets(bytes(heard))[2]
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
    plain = bytes(a ^ SALT[i % 20] for i, a in enumerate(key.decrypt(sent, oaep)))
    assert plain == PASSWORD.encode() + b"\0"


async def test_something_else_in_place_of_a_public_key_is_said_to_be_wrong() -> None:
    script = [b"\xfe" + b"caching_sha2_password\0" + SALT, b"\x01\x04"]
    with rogue(lambda count, _: script[count]) as (port, _):
        assert await attempt(port, server_public_key="-----BEGIN X") == "invalid_configuration"


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"\x09old",
        b"\x0a",
        b"\x0aMySQL\0" + GREETING[8:],
        b"\x0a\xff\xff\0",
        GREETING[:30],
        b"\x0a" + b"8" * 5000 + b"\0",
    ],
)
async def test_a_greeting_that_is_none_is_a_mismatch(greeting: bytes) -> None:
    with rogue(lambda *_: OK, greeting) as (port, _):
        assert await attempt(port) in {"protocol_mismatch", "connection_lost"}


@pytest.mark.parametrize(
    ("number", "code"),
    [(1040, "rate_limited"), (1129, "permission_denied"), (1130, "permission_denied"), (9999, "server_error")],
)
async def test_a_server_that_greets_with_an_error_is_understood(number: int, code: str) -> None:
    error = b"\xff" + number.to_bytes(2, "little") + b"#HY000" + PASSWORD.encode()
    with rogue(lambda *_: OK, error) as (port, _):
        assert await attempt(port) == code


@pytest.mark.parametrize("garbage", [b"", b"\xfe", b"\x01", b"\xfc\xff", b"\xff", b"\x02\x00", b"\x03" * 300])
async def test_garbage_in_place_of_answers_ends_the_check(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "_GRACE_S", 0.1)
    for first in (0, 1, 3, 5):

        def answers(count: int, _: bytes, first: int = first) -> bytes:
            return garbage if count >= first else OK

        with rogue(answers) as (port, _):
            assert await attempt(port) not in {"ok", "crashed"}


def _packets(heard: bytes) -> list[bytes]:
    found = []
    while heard:
        length = int.from_bytes(heard[:3], "little")
        found.append(heard[4 : 4 + length])
        heard = heard[4 + length :]
    return found


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"host": "/run/mysqld/mysqld.sock"}, "host"),
        ({"ca_certificate": "-----BEGIN X"}, "ca_certificate"),
        ({"allow_cleartext_password": True}, "allow_cleartext_password"),
        ({"client_certificate": "-----BEGIN X"}, "client_certificate"),
        ({"database": "a", "exclude_databases": ["b"]}, "exclude_databases"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({**config(3306), **values}, MysqlConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path == (field,)


@pytest.mark.parametrize("name", ["read_default_file", "unix_socket", "init_command", "local_infile", "ssl"])
def test_options_of_the_driver_are_no_fields(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**config(3306), name: "x"}, MysqlConfig)


def test_texts_mean_the_same_under_every_sql_mode() -> None:
    assert _literal("shop_1") == "'shop_1'"
    for text in ("'", "\\", '"', "ü", "a\n"):
        assert _literal(text) == f"_utf8mb4 X'{text.encode().hex()}'"


@pytest.mark.parametrize(
    ("version", "comment", "product", "number"),
    [
        ("10.11.19-MariaDB-0+deb12u1", "Debian 12", "MariaDB", "10.11.19"),
        ("8.0.36-28", "Percona Server (GPL), Release 28", "Percona", "8.0.36"),
        ("8.0.11-TiDB-v7.5.0", "TiDB Server", "TiDB", "8.0.11"),
        ("8.4.3", "MySQL Community Server - GPL", "MySQL", "8.4.3"),
    ],
)
def test_flavours_are_told_apart(version: str, comment: str, product: str, number: str) -> None:
    assert _introduction(version, comment) == {"product": product, "version": number}


def test_tables_whose_names_the_server_takes_for_one_stay_two() -> None:
    rows: list[tuple[str | None, ...]] = [
        ("s", "A", "0", "0", None, "BASE TABLE", None, None, None),
        ("s", "a", "0", "0", None, "VIEW", None, None, None),
        ("s", "a", "1", "0", "x", None, None, None, None),
        ("s", "A", "2", "1", "x", None, "longtext", "longtext", "YES"),
        ("s", "a", "2", "1", "x", None, "longtext", "longtext", "NO"),
        ("s", "b", "0", "0", None, "SEQUENCE", None, None, None),
        ("s", "b", "2", "1", "x", None, "int", "int(11)", "NO"),
    ]
    catalog = Catalog()
    found = [item for row in rows for item in catalog.add(row)] + list(catalog.rest())
    assert [(item.path, item.kind, item.fields[0].type) for item in found] == [
        (("s", "A"), "table", "string"),
        (("s", "a"), "view", "json"),
    ]


# What the server sets -------------------------------------------------------------------------------------------------

HOSTILE = (
    "SET GLOBAL sql_select_limit = 2",
    "SET GLOBAL sql_mode = 'ANSI_QUOTES,PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES'",
    "SET GLOBAL time_zone = '+09:00'",
    "SET GLOBAL sql_auto_is_null = 1",
    "SET GLOBAL max_join_size = 1",
    "SET GLOBAL group_concat_max_len = 4",
    "SET GLOBAL lc_time_names = 'de_DE'",
    "SET GLOBAL sql_quote_show_create = 0",
    "SET GLOBAL character_set_results = latin1",
    "SET GLOBAL init_connect = 'SET sql_select_limit = 1, autocommit = 0, sql_big_selects = 0, sql_safe_updates = 1'",
)


@pytest.mark.found("D8")
async def test_what_the_server_sets_for_its_sessions_changes_nothing(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values, secrets = config(mariadb.port), {"password": PASSWORD}

    async def all_there_is() -> tuple[list[Any], list[Any]]:
        found = [item async for page in sandbox.discover("mysql", values, secrets, loopback) for item in page]
        tables = [item for item in found if item.kind == "table"]
        requests = [PreviewRequest(path=item.path) for item in tables]
        return found, [(await sandbox.preview("mysql", values, secrets, loopback, one)).rows for one in requests]

    before = await all_there_is()
    names = [statement.split()[2] for statement in HOSTILE]
    kept = dict(
        zip(
            names,
            mariadb.run(f"SELECT {', '.join(f'@@GLOBAL.{name}' for name in names)}").splitlines()[1].split("\t"),
            strict=True,
        )
    )
    mariadb.run("; ".join(HOSTILE))
    try:
        after = await all_there_is()
    finally:
        mariadb.run("; ".join(f"SET GLOBAL {name} = {_as_value(value)}" for name, value in kept.items()))
    assert len(before[0]) > 2
    assert after == before


def _as_value(text: str) -> str:
    return text if text.isdigit() else "'" + text.replace("'", "''") + "'"


@pytest.mark.found("D17")
async def test_an_init_connect_that_fails_is_named(
    mariadb: MariadbServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    mariadb.run("SET GLOBAL init_connect = 'this is no SQL'")
    try:
        result = await sandbox.check("mysql", config(mariadb.port), {"password": PASSWORD}, loopback)
    finally:
        mariadb.run("SET GLOBAL init_connect = ''")
    (failed,) = [step for step in result.steps if step.status == "failed"]
    assert failed.code == "server_error"
    assert "init_connect" in failed.message
