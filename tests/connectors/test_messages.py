"""Messages that lead to what is wrong: what answers, which file, what to do, and whether anything was given at all."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.connectors import registry
from app.connectors.contract.config import config_schema
from app.connectors.contract.failures import ConnectorError, reading
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import Step
from app.connectors.files.kinds import kind_of_file
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.clickhouse import Clickhouse, ClickhouseConfig, ClickhouseSecrets, Session
from app.connectors.types.mysql.connector import Mysql, MysqlConfig, MysqlSecrets
from app.connectors.types.postgresql.connector import Postgresql, PostgresqlConfig, PostgresqlSecrets
from app.core.egress import EgressPolicy
from app.core.faults import schema_faults
from tests.connectors.servers.plain_answers import Answer, plain_answers
from tests.connectors.types import postgresql
from tests.sampling import sampled

pytestmark = [pytest.mark.anyio, pytest.mark.found("D17")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files of several kinds, and a view that has lost its table."""
    with sqlite3.connect(tmp_path / "shop.sqlite") as lite:
        lite.executescript("create table t(x); create view v as select * from t; drop table t;")
    duck = duckdb.connect(str(tmp_path / "shop.duckdb"))
    for statement in ("create table t(x int)", "create view v as select * from t", "drop table t"):
        duck.execute(statement)
    duck.close()
    (tmp_path / "shop.parquet").write_bytes(b"PAR1" + bytes(200))
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "good.csv").write_text("a,b\n1,2\n")
    (site / "bad.parquet").write_bytes(b"nonsense" * 10)
    return tmp_path


@pytest.fixture
def site(root: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def policy(root: Path) -> EgressPolicy:
    return EgressPolicy(loopback_allowed=True, files_root=str(root))


async def failed(sandbox: ConnectorSandbox, name: str, config: dict[str, Any], policy: EgressPolicy) -> Step:
    result = await sandbox.check(name, config, {}, policy)
    (step,) = [step for step in result.steps if step.status == "failed"]
    return step


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("sqlite", "shop.duckdb", "it is a DuckDB database: that is a source of the type duckdb"),
        ("duckdb", "shop.sqlite", "it is a SQLite database: that is a source of the type sqlite"),
        ("sqlite", "shop.parquet", "it is a Parquet file"),
        ("duckdb", "shop.parquet", "it is a Parquet file"),
    ],
)
async def test_a_file_of_another_kind_is_named(
    name: str, path: str, words: str, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    step = await failed(sandbox, name, {"path": path}, policy)
    assert step.code == "protocol_mismatch"
    assert words in step.message


def test_what_is_unknown_is_not_guessed() -> None:
    unknown = (b"", b"a,b", bytes(64), b"\xff\xfe" * 20, b"abcdefgh\x00", bytes(range(128, 228)))
    assert [kind_of_file(start) for start in unknown] == [None] * len(unknown)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"id,name\n1,x\n", "a text"),
        ('{"größe": 1}'.encode()[:7], "a text"),
        (b"\xef\xbb\xbfid;name\r\n", "a text"),
        (b"-- PostgreSQL database dump\n", "psql"),
        (b"PGDMP\x01\x0e\x00", "pg_restore"),
        (b"ARROW1\x00\x00\xff", "Arrow"),
        (b"Obj\x01\x04", "Avro"),
        (b"ORC\x08\x03", "ORC"),
    ],
)
@pytest.mark.parametrize("name", sampled(["sqlite", "duckdb"], every=2))
async def test_what_is_no_database_at_all_is_named(
    name: str, start: bytes, words: str, root: Path, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    (root / "x.db").write_bytes(start)
    step = await failed(sandbox, name, {"path": "x.db"}, policy)
    assert step.code == "protocol_mismatch"
    assert words in step.message
    assert "encrypted" not in step.message


@pytest.mark.parametrize(("name", "file", "path"), [("duckdb", "shop.duckdb", ("main", "v"))])
async def test_a_view_that_has_lost_its_table_is_said_to(
    name: str, file: str, path: tuple[str, ...], sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    with pytest.raises(ConnectorError, match="view cannot be read: what it is made of") as caught:
        await sandbox.preview(name, {"path": file}, {}, policy, PreviewRequest(path=path))
    assert caught.value.code == "not_found"


def test_only_of_a_view_what_is_gone_lies_behind_it() -> None:
    gone = ConnectorError("not_found", "gone")
    for kind, is_view in (("view", True), ("materialized_view", True), ("table", False)):
        with pytest.raises(ConnectorError) as caught, reading(kind):
            raise gone
        assert (caught.value is not gone) is is_view


async def test_the_bad_one_of_several_files_is_named(
    site: str, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    for bad, code in (("bad.parquet", "response_invalid"), ("nowhere.csv", "not_found")):
        for paths in (["good.csv", bad], [bad, "good.csv"]):
            step = await failed(sandbox, "http_file", {"url": site, "paths": paths}, policy)
            assert (step.name, step.code) == ("list", code)
            assert step.message.startswith(f"{bad}: ")


@pytest.mark.parametrize("path", ["/", "/sub", "/sub/"])
async def test_a_folder_is_told_from_a_file(
    path: str, site: str, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    step = await failed(sandbox, "http_file", {"url": site + path}, policy)
    assert step.code == "invalid_configuration"
    assert "a folder or a page" in step.message


# Servers -------------------------------------------------------------------------------------------------------------

STORES: dict[str, dict[str, Any]] = {
    "s3": {"bucket": "sales"},
    "gcs": {"bucket": "sales", "auth": "none"},
    "azure_blob": {"account_name": "acct", "container": "sales", "auth": "none"},
    "delta_lake": {"location": "s3://sales/orders"},
}


@pytest.mark.parametrize("name", STORES)
async def test_a_web_server_is_no_store(name: str, site: str, sandbox: ConnectorSandbox, policy: EgressPolicy) -> None:
    step = await failed(sandbox, name, {**STORES[name], "endpoint_url": site}, policy)
    assert step.code == "protocol_mismatch"
    assert "is a web server and not" in step.message


@pytest.mark.parametrize("name", ["clickhouse", "graphql"])
async def test_a_web_server_is_none_of_these_either(
    name: str, site: str, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    assert (await failed(sandbox, name, {"url": site}, policy)).code == "protocol_mismatch"


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize(
    ("status", "headers"),
    # A store that says 500 is asked again, which takes three seconds.
    [
        pytest.param(500, {}, marks=pytest.mark.slow),
        (401, {"www-authenticate": 'Basic realm="x"'}),
        pytest.param(405, {}, marks=pytest.mark.slow),
        pytest.param(400, {}, marks=pytest.mark.slow),
    ],
)
async def test_what_no_store_says_is_said_by_none(
    name: str, status: int, headers: dict[str, str], sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    with plain_answers(lambda *_: Answer(b"no", status, headers)) as port:
        step = await failed(sandbox, name, {**STORES[name], "endpoint_url": f"http://localhost:{port}"}, policy)
    assert step.code == "protocol_mismatch"
    assert "is a web server and not" in step.message


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_another_web_server_is_not_taken_for_snowflake_or_clickhouse(
    status: int, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    with plain_answers(lambda *_: Answer(b"no", status, {})) as port:
        url = f"http://localhost:{port}"
        house = await sandbox.check("clickhouse", {"url": url}, {"password": "pw"}, policy)
        flake = await sandbox.check(
            "snowflake",
            {"account": "a-b", "username": "u", "database": "d", "endpoint_url": url},
            {"password": "pw"},
            policy,
        )
    for result, word in ((house, "ClickHouse"), (flake, "Snowflake")):
        (step,) = [step for step in result.steps if step.status == "failed"]
        assert f"not {word}" in step.message


# Nothing given -------------------------------------------------------------------------------------------------------


def explained_by_postgresql(password: str | None) -> ConnectorError:
    config = PostgresqlConfig(host="db", database="shop", username="reader")
    made = Postgresql(config, PostgresqlSecrets(password=password), EgressPolicy())
    return made._explain_sqlstate("28P01", "")


def explained_by_mysql(password: str | None) -> ConnectorError:
    made = Mysql(MysqlConfig(host="db", username="reader"), MysqlSecrets(password=password), EgressPolicy())
    return made._explain_number(1045)


def explained_by_clickhouse(password: str | None) -> ConnectorError:
    config = ClickhouseConfig(url="http://db:8123", username="reader")
    made = Clickhouse(config, ClickhouseSecrets(password=password), EgressPolicy())
    session = Session(None, made.config, password or "")  # type: ignore[arg-type]  # nothing is asked
    return session._explain(516, 403)


@pytest.mark.parametrize("explained", [explained_by_postgresql, explained_by_mysql, explained_by_clickhouse])
def test_nothing_given_is_not_wrong(explained: Any) -> None:
    assert "no password is given" in explained(None).message
    assert "no password is given" not in explained("wrong").message
    assert explained(None).code == explained("wrong").code == "authentication_failed"


OPEN: dict[str, dict[str, Any]] = {
    "rest": {"base_url": "URL", "resources": [{"name": "x", "path": "x"}]},
    "graphql": {"url": "URL"},
    "http_file": {"url": "URL/a.csv"},
    "s3": {"bucket": "sales", "endpoint_url": "URL"},
    "gcs": {"bucket": "sales", "auth": "none", "endpoint_url": "URL"},
    "azure_blob": {"account_name": "acct", "container": "sales", "auth": "none", "endpoint_url": "URL"},
}


@pytest.mark.parametrize("status", sampled([401, 403], every=2))
@pytest.mark.parametrize("name", sampled(OPEN, every=2))
async def test_who_gives_no_credentials_is_not_told_that_they_are_wrong(
    name: str, status: int, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    refusal = Answer(b"<Error><Code>AccessDenied</Code></Error>", status, {"content-type": "application/xml"})
    with plain_answers(lambda *_: refusal) as port:
        url = f"http://localhost:{port}"
        config = {key: value.replace("URL", url) if type(value) is str else value for key, value in OPEN[name].items()}
        step = await failed(sandbox, name, config, policy)
    assert step.code == ("authentication_failed" if status == 401 and name != "s3" else "permission_denied")
    assert "the source has no credentials" in step.message
    assert "accept" not in step.message


@pytest.fixture
def postgres_port(start: Any) -> int:
    return int(start(postgresql.filled_postgres).port)


async def test_a_real_server_that_asks_for_a_password(
    postgres_port: int, sandbox: ConnectorSandbox, policy: EgressPolicy
) -> None:
    config = {"host": "localhost", "port": postgres_port, "database": "shop", "username": "reader"}
    assert "no password is given" in (await failed(sandbox, "postgresql", config, policy)).message


# URLs ----------------------------------------------------------------------------------------------------------------


def test_a_url_without_a_scheme_is_told_what_it_lacks() -> None:
    """Of every field that is a URL; what the form of others is, their descriptions say."""
    seen = 0
    for connector in registry.all():
        for name, schema in config_schema(connector.config_type)["properties"].items():
            if "patternErrorMessage" in str(schema):
                faults = schema_faults({name: "db.example.com/x"}, connector.config_type, 10)
                assert "must start with http:// or https://" in [
                    fault.message for fault in faults if fault.path == name
                ]
                seen += 1
    assert seen >= 10
