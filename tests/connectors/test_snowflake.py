"""What Snowflake asks for beyond the contract: its ways to sign in, and results that lie elsewhere."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.snowflake import Snowflake, SnowflakeConfig, SnowflakeSecrets
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import scripted_server, tls_front
from tests.connectors.types.snowflake import (
    ACCESS_TOKEN,
    OAUTH_TOKEN,
    PASSPHRASE,
    PASSWORD,
    emulator,
    good_config,
    pem,
    private_key,
    sign_in,
)

pytestmark = [pytest.mark.anyio, pytest.mark.services]

POLICY = EgressPolicy(loopback_allowed=True)
SECRETS = {"password": PASSWORD}
EVERYTHING = ("PUBLIC", "EVERYTHING")


@pytest.fixture
def port(start: Start) -> int:
    return start(sign_in, start(emulator))


async def outcome(
    sandbox: ConnectorSandbox, config: dict[str, Any], secrets: dict[str, Any] | None = None
) -> tuple[str, str]:
    """The step that failed and its code; empty and `passed` if none did."""
    result = await sandbox.check("snowflake", config, secrets or SECRETS, POLICY)
    assert CANARY not in msgspec.json.encode(result).decode()
    failed = [(step.name, step.code) for step in result.steps if step.status == "failed"]
    return failed[0] if failed else ("", result.status)


# Ways to sign in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ("key_pair", {"private_key": pem(private_key())}),
        ("key_pair", {"private_key": pem(private_key(), PASSPHRASE), "private_key_passphrase": PASSPHRASE}),
        ("oauth", {"token": OAUTH_TOKEN}),
        ("programmatic_access_token", {"token": ACCESS_TOKEN}),
    ],
    ids=["key", "key_with_passphrase", "oauth", "programmatic_access_token"],
)
async def test_each_way_to_sign_in_works(
    sandbox: ConnectorSandbox, port: int, auth: str, secrets: dict[str, str]
) -> None:
    assert await outcome(sandbox, {**good_config(port), "auth": auth}, secrets) == ("", "passed")


@pytest.mark.parametrize(
    ("auth", "missing"),
    [
        ("password", "password"),
        ("key_pair", "private_key"),
        ("oauth", "token"),
        ("programmatic_access_token", "token"),
    ],
)
def test_each_way_to_sign_in_asks_for_its_secret(auth: str, missing: str) -> None:
    config = msgspec.convert({**good_config(1), "auth": auth}, SnowflakeConfig)
    with pytest.raises(InvalidField) as caught:
        Snowflake.validate(config, SnowflakeSecrets())
    assert caught.value.path == ("secrets", missing)


async def test_a_ca_of_ones_own_is_trusted_by_every_part(sandbox: ConnectorSandbox, start: Start, port: int) -> None:
    """By the check's own handshake, and by the connector that follows."""
    tls_port = start(tls_front, port)
    ca = {"ca_certificate": authority().pem.decode()}
    config = {**good_config(port), "endpoint_url": f"https://localhost:{tls_port}", **ca}
    result = await sandbox.check("snowflake", config, SECRETS, POLICY)
    assert result.status == "passed", result
    assert result.server["encryption"].startswith("TLS")
    shown = await sandbox.preview("snowflake", config, SECRETS, POLICY, PreviewRequest(path=EVERYTHING, limit=1))
    assert len(shown.rows) == 1
    by_address = {**config, "endpoint_url": f"https://127.0.0.1:{tls_port}"}
    assert await outcome(sandbox, by_address) == ("tls", "tls_certificate_invalid")


@pytest.mark.parametrize(
    ("status", "code"), [("403 Forbidden", "not_found"), ("503 Service Unavailable", "server_error")]
)
async def test_a_server_that_refuses_every_request_ends_the_check_in_time(
    sandbox: ConnectorSandbox, status: str, code: str
) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

    def refuse(connection: Any) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with scripted_server(refuse) as port:
        started = time.monotonic()
        assert await outcome(sandbox, {**good_config(port), "read_timeout_s": 3}) == ("authenticate", code)
        assert time.monotonic() - started < 8


async def test_a_server_that_falls_silent_at_the_sign_in_ends_the_check_in_time(sandbox: ConnectorSandbox) -> None:
    def greet_only(connection: Any) -> None:
        if connection.recv(65_536).startswith(b"HEAD"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            while connection.recv(65_536):
                pass

    with scripted_server(greet_only) as port:
        assert await outcome(sandbox, {**good_config(port), "read_timeout_s": 1}) == ("authenticate", "timeout")


# Results that lie elsewhere -------------------------------------------------------------------------------------------


async def test_a_result_put_aside_is_fetched_from_where_it_lies(
    sandbox: ConnectorSandbox, start: Start, port: int
) -> None:
    """At another origin than the account's, which the proxy has to be opened for."""
    with sign_in(start(emulator), "http://127.0.0.1:{port}") as staging:
        config = good_config(staging)
        shown = await sandbox.preview("snowflake", config, SECRETS, POLICY, PreviewRequest(path=EVERYTHING))
        found = [item async for batch in sandbox.discover("snowflake", config, SECRETS, POLICY) for item in batch]
    assert [row[:2] for row in shown.rows] == [[1, "Zoë 李雷 🙂"], [2, ""]]
    assert len(found) == 4


@pytest.mark.parametrize(
    "stage_url",
    [
        "http://169.254.169.254",
        "https://[fe80::1]",
        "http://10.0.0.1",
        "file:///etc",
        "http://metadata.invalid",
        "http://user:pw@127.0.0.1:{port}",
    ],
)
async def test_a_stage_at_a_forbidden_place_is_not_visited(
    sandbox: ConnectorSandbox, start: Start, stage_url: str
) -> None:
    with sign_in(start(emulator), stage_url) as port:
        step, code = await outcome(sandbox, good_config(port))
    assert (step, code) == ("list", "name_not_resolved" if "invalid" in stage_url else "egress_refused")


# Previews and discovery -----------------------------------------------------------------------------------------------


async def test_names_are_never_read_as_sql(sandbox: ConnectorSandbox, port: int) -> None:
    for path in (
        ("PUBLIC", "EVERYTHING' OR '1' = '1"),
        ("PUBLIC", 'EVERYTHING"; DROP TABLE EMPTY; --'),
        ("PUBLIC\\", "\\' OR 1 = 1 --"),
        ("INFORMATION_SCHEMA", "TABLES"),
    ):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("snowflake", good_config(port), SECRETS, POLICY, PreviewRequest(path=path))
        assert caught.value.code == "not_found"
    hostile = {**good_config(port), "database": 'SHOP".PUBLIC.EMPTY; DROP TABLE SHOP.PUBLIC.EMPTY; --'}
    assert await outcome(sandbox, hostile) == ("list", "not_found")


async def test_included_and_excluded_schemas_hold_for_previews_too(sandbox: ConnectorSandbox, port: int) -> None:
    config = {**good_config(port), "include_schemas": ["odd*", "pub_ic"], "exclude_schemas": ["x*"]}
    found = [item async for batch in sandbox.discover("snowflake", config, SECRETS, POLICY) for item in batch]
    assert [item.path for item in found] == [("Odd Schema", 'a "b".c')]
    with pytest.raises(ConnectorError) as caught:
        await sandbox.preview("snowflake", config, SECRETS, POLICY, PreviewRequest(path=EVERYTHING))
    assert caught.value.code == "not_found"


async def test_long_values_are_cut_and_rows_end_at_the_limit(sandbox: ConnectorSandbox, port: int) -> None:
    request = PreviewRequest(path=EVERYTHING, columns=("ABOUT",), max_value_bytes=64, limit=1)
    shown = await sandbox.preview("snowflake", good_config(port), SECRETS, POLICY, request)
    assert shown.truncated
    request = PreviewRequest(path=EVERYTHING, limit=0)
    shown = await sandbox.preview("snowflake", good_config(port), SECRETS, POLICY, request)
    assert (shown.rows, shown.truncated) == ([], True)


@pytest.mark.parametrize(
    ("change", "url"),
    [
        ({}, "https://myorg-my-shop.snowflakecomputing.com"),
        ({"account": "xy12345.eu-central-1"}, "https://xy12345.eu-central-1.snowflakecomputing.com"),
        ({"endpoint_url": "https://a.privatelink.example/"}, "https://a.privatelink.example"),
    ],
)
def test_the_host_follows_from_the_account(change: dict[str, str], url: str) -> None:
    config = {"account": "MyOrg-my_shop", "username": "u", "database": "d", **change}
    assert msgspec.convert(config, SnowflakeConfig).url == url


@pytest.mark.parametrize(
    "change",
    [
        {"account": "a/b"},
        {"account": "a@b"},
        {"account": "evil.example#"},
        {"endpoint_url": "ftp://a.example"},
        {"endpoint_url": "https://a.example/path"},
        {"endpoint_url": "https://u:p@a.example"},
        {"endpoint_url": "https://a.example?x=1"},
    ],
)
def test_what_is_no_account_or_endpoint_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**good_config(1), **change}, SnowflakeConfig)
