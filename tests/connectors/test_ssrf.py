"""A source never makes the hub reach what the policy closes, nor send a secret where it was not given for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.connectors.network.pinned_proxy import PinnedProxy
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.postgresql.connector import Postgresql, PostgresqlConfig, PostgresqlSecrets
from app.connectors.types.rest.connector import Rest, RestConfig, RestSecrets
from app.connectors.types.s3.access import S3Secrets
from app.connectors.types.s3.connector import S3, S3Config
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.shop_bucket import BUCKET
from tests.connectors.servers.starting import scripted_server
from tests.connectors.types.postgresql import PostgresServer
from tests.connectors.types.s3 import ObjectStore

pytestmark = pytest.mark.anyio

TOKEN = f"{CANARY}-rest"


def rest(url: str, path: str, policy: EgressPolicy, **more: Any) -> Rest:
    values = {"base_url": url, "auth": "bearer", "resources": [{"name": "x", "path": path}], **more}
    return Rest(msgspec.convert(values, RestConfig), RestSecrets(token=TOKEN), policy)


async def preview(connector: Any, *path: str) -> Any:
    return (await connector.preview(PreviewRequest(path=path or ("x",)))).rows


@contextmanager
def recording_server(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Yields its port and what it was sent."""
    heard: list[bytes] = []

    def script(connection: socket.socket) -> None:
        heard.append(connection.recv(65_536))
        connection.sendall(answer)

    with scripted_server(script) as port:
        yield port, heard


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n".encode() + body


# Redirects ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://127.0.0.1/",
        "http://user:pw@127.0.0.1/",
        "//169.254.169.254/x",
    ],
)
async def test_a_redirect_to_a_closed_place_is_refused(shop_api: int, loopback: EgressPolicy, target: str) -> None:
    connector = rest(f"http://127.0.0.1:{shop_api}", f"redirect?to={target}", loopback)
    with pytest.raises(ConnectorError) as caught:
        await preview(connector)
    assert caught.value.code == "egress_refused"


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ({"auth": "bearer"}, {"token": TOKEN}),
        ({"auth": "basic", "username": "reader"}, {"password": TOKEN}),
        ({"auth": "api_key_header", "api_key_name": "X-Shop-Key"}, {"api_key": TOKEN}),
        ({"auth": "api_key_query", "api_key_name": "key"}, {"api_key": TOKEN}),
    ],
)
async def test_a_redirect_to_another_origin_carries_no_credentials(
    shop_api: int, loopback: EgressPolicy, auth: dict[str, Any], secrets: dict[str, Any]
) -> None:
    """Another port is another origin. Every way of signing in, and headers of the configuration, stay behind."""
    with recording_server(http(b"[]")) as (port, heard):
        values = {
            "base_url": f"http://127.0.0.1:{shop_api}",
            "resources": [{"name": "x", "path": f"redirect?to=http://127.0.0.1:{port}/orders"}],
            "headers": {"X-Tenant": CANARY},
            **auth,
        }
        connector = Rest(msgspec.convert(values, RestConfig), msgspec.convert(secrets, RestSecrets), loopback)
        assert await preview(connector) == []
    (request,) = heard
    assert CANARY.encode() not in request
    assert b"authorization" not in request.lower()


async def test_a_redirect_within_the_origin_keeps_the_credentials(shop_api: int, loopback: EgressPolicy) -> None:
    connector = rest(f"http://127.0.0.1:{shop_api}", "redirect?to=/unsigned", loopback)
    assert await preview(connector) == [[True]]


async def test_redirects_in_a_circle_end(loopback: EgressPolicy) -> None:
    with recording_server(http(b"", "302 Found", "Location: /again\r\n")) as (port, heard):
        with pytest.raises(ConnectorError) as caught:
            await preview(rest(f"http://127.0.0.1:{port}", "x", loopback))
        assert caught.value.code == "response_invalid"
        assert len(heard) == 6


async def test_an_encrypted_source_is_not_led_to_an_unencrypted_one(
    tls_shop_api: int, shop_api: int, authority: Any, loopback: EgressPolicy
) -> None:
    path = f"redirect?to=http://localhost:{shop_api}/unsigned"
    connector = rest(f"https://localhost:{tls_shop_api}", path, loopback, ca_certificate=authority.pem.decode())
    with pytest.raises(ConnectorError) as caught:
        await preview(connector)
    assert caught.value.code == "egress_refused"


async def test_the_openapi_document_of_another_origin_is_read_without_credentials(
    shop_api: int, loopback: EgressPolicy
) -> None:
    with recording_server(http(b'{"openapi": "3.1.0", "paths": {}}')) as (port, heard):
        url = f"http://127.0.0.1:{port}/openapi.json"
        connector = rest(f"http://127.0.0.1:{shop_api}", "unsigned", loopback, openapi_url=url)
        assert await preview(connector) == [[True]]
    assert heard
    assert CANARY.encode() not in b"".join(heard)


# Names that change ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rebinding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`*.rebind.example` is 127.0.0.1 at the first look-up and the metadata service ever after."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith("rebind.example"):
            return real(host, port, *rest, **more)
        asked.append(host)
        address = "127.0.0.1" if asked.count(host) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_rebinding_name_stays_what_it_was_for_postgresql(
    filled_postgres: PostgresServer, rebinding: list[str], loopback: EgressPolicy
) -> None:
    values = {"host": "pg.rebind.example", "port": filled_postgres.port, "database": "shop", "username": "reader"}
    secrets = PostgresqlSecrets(password=f"pw-{CANARY}")
    connector = Postgresql(msgspec.convert(values, PostgresqlConfig), secrets, loopback)
    await connector.check(Steps())
    assert await preview(connector, "odd.schema", 'a "b".c') == [[7]]
    assert rebinding == ["pg.rebind.example"]


async def test_a_rebinding_name_stays_what_it_was_for_rest(
    shop_api: int, rebinding: list[str], loopback: EgressPolicy
) -> None:
    connector = rest(f"http://api.rebind.example:{shop_api}", "unsigned", loopback)
    await connector.check(Steps())
    assert await preview(connector) == [[True]]
    assert rebinding == ["api.rebind.example"]


async def test_a_rebinding_name_stays_what_it_was_for_s3(
    object_store: ObjectStore, rebinding: list[str], loopback: EgressPolicy
) -> None:
    connector = S3(
        S3Config(
            bucket=BUCKET,
            endpoint_url=f"http://s3.rebind.example:{object_store.port}",
            access_key_id=object_store.access_key_id,
        ),
        S3Secrets(secret_access_key=object_store.secret_access_key),
        loopback,
    )
    await connector.check(Steps())
    assert len(await preview(connector, "customers.csv")) == 2
    assert rebinding == ["s3.rebind.example"]


# This machine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["/tmp", "/var/run/postgresql", "/tmp/.s.PGSQL.5432", "@abstract", "a,b", "localhost "]
)
async def test_a_postgresql_host_is_no_socket_and_no_list(host: str, loopback: EgressPolicy) -> None:
    values = {"host": host, "database": "shop", "username": "reader"}
    if "/" in host:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(values, PostgresqlConfig)
        return
    connector = Postgresql(msgspec.convert(values, PostgresqlConfig), PostgresqlSecrets(), loopback)
    with pytest.raises(ConnectorError) as caught:
        await connector.check(Steps())
    assert caught.value.code == "invalid_configuration"


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("localhost:5432", "localhost:5432 is no host: the port goes into a field of its own, `port`."),
        ("127.0.0.1:5432", "127.0.0.1:5432 is no host: the port goes into a field of its own, `port`."),
        ("two words", "'two words' is neither a host name nor an address; it has no blanks, scheme or path."),
        (" localhost", "' localhost' is neither a host name nor an address; it has no blanks, scheme or path."),
    ],
)
async def test_what_is_no_host_is_a_fault_of_the_configuration(
    host: str, sentence: str, loopback: EgressPolicy
) -> None:
    """Not the policy's: no operator could allow it."""
    with pytest.raises(ConnectorError) as caught:
        await Network(loopback).resolve(host, 5432, 1)
    assert (caught.value.code, caught.value.message) == ("invalid_configuration", sentence)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "10.0.0.1", "169.254.169.254"])
async def test_an_address_that_is_closed_stays_the_policys_refusal(host: str, loopback: EgressPolicy) -> None:
    with pytest.raises(ConnectorError) as caught:
        await Network(loopback).resolve(host, 5432, 1)
    assert caught.value.code == "egress_refused"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "unix:///tmp/s", "http:///x", "http://a@b/", "http://a\\@b/"])
def test_only_http_urls_make_a_source(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"base_url": url}, RestConfig)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"bucket": BUCKET, "endpoint_url": url}, S3Config)


async def test_no_password_or_service_of_this_machine_is_used(
    filled_postgres: PostgresServer, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The good password lies in every place where libpq looks. The source has none, so it does not get in."""
    password, port = f"pw-{CANARY}", filled_postgres.port
    passfile, service = tmp_path / ".pgpass", tmp_path / "service.conf"
    passfile.write_text(f"*:*:*:*:{password}\n")
    passfile.chmod(0o600)
    service.write_text(f"[shop]\nhost=localhost\nport={port}\nuser=reader\npassword={password}\n")
    given = {"PGPASSFILE": passfile, "PGSERVICEFILE": service, "PGSERVICE": "shop", "PGPASSWORD": password}
    for name, value in {**given, "HOME": tmp_path, "PGHOST": "localhost", "PGUSER": "reader"}.items():
        monkeypatch.setenv(name, str(value))
    sandbox = ConnectorSandbox()
    config = {"host": "localhost", "port": port, "database": "shop", "username": "reader"}
    result = await sandbox.check("postgresql", config, {}, loopback)
    await sandbox.close()
    assert result.steps[3].code == "authentication_failed"


async def test_no_aws_credentials_of_this_machine_are_used(
    loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys and another endpoint lie in the environment and in the profile; a source without keys stays a stranger."""
    (tmp_path / ".aws").mkdir()
    profile = f"[default]\naws_access_key_id=AKIA{CANARY}\naws_secret_access_key={CANARY}\n"
    (tmp_path / ".aws" / "credentials").write_text(profile)
    given = {"AWS_ACCESS_KEY_ID": f"AKIA{CANARY}", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY}
    for name, value in {**given, "HOME": str(tmp_path), "AWS_ENDPOINT_URL": "http://169.254.169.254"}.items():
        monkeypatch.setenv(name, value)
    refusal = http(b"<Error><Code>AccessDenied</Code></Error>", "403 Forbidden")
    sandbox = ConnectorSandbox()
    with recording_server(refusal) as (port, heard):
        config = {"bucket": BUCKET, "endpoint_url": f"http://localhost:{port}"}
        result = await sandbox.check("s3", config, {}, loopback)
    await sandbox.close()
    assert result.steps[4].code == "permission_denied"
    greeting, listing = heard
    assert listing.startswith(f"GET /{BUCKET}?list-type=2".encode())
    for request in (greeting, listing):
        assert b"authorization" not in request.lower()
        assert CANARY.encode() not in request


async def test_the_proxy_serves_its_driver_and_its_origin_only(shop_api: int, loopback: EgressPolicy) -> None:
    async with PinnedProxy.opened(Network(loopback), 2) as proxy:
        proxy.allow("localhost", shop_api)
        strangers = [
            f"GET http://localhost:{shop_api}/empty HTTP/1.1\r\nHost: x\r\n\r\n",
            f"CONNECT localhost:{shop_api} HTTP/1.1\r\nProxy-Authorization: Basic aHViOng=\r\n\r\n",
        ]
        for request in strangers:
            assert b" 407 " in await asked(proxy.port, request)
        authorised = f"Proxy-Authorization: {_basic(proxy.url)}\r\n\r\n"
        for target in ("169.254.169.254:80", f"127.0.0.1:{shop_api}", "localhost:1"):
            assert b" 403 " in await asked(proxy.port, f"CONNECT {target} HTTP/1.1\r\n{authorised}")
        good = f"GET http://localhost:{shop_api}/empty HTTP/1.1\r\nHost: localhost\r\n{authorised}"
        assert b" 200 " in await asked(proxy.port, good)


def _basic(url: str) -> str:
    import base64

    pair = url.removeprefix("http://").partition("@")[0]
    return "Basic " + base64.b64encode(pair.encode()).decode()


async def asked(port: int, request: str) -> bytes:
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = await reader.read(200)
    writer.close()
    return answer


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "code"), [("bomb", "response_too_large"), ("nested", "response_invalid")])
async def test_an_answer_cannot_fill_the_memory(shop_api: int, loopback: EgressPolicy, path: str, code: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        await preview(rest(f"http://127.0.0.1:{shop_api}", path, loopback))
    assert caught.value.code == code


async def test_compression_inside_compression_is_refused(loopback: EgressPolicy) -> None:
    with recording_server(http(b"x", headers="Content-Encoding: gzip, gzip\r\n")) as (port, _):
        with pytest.raises(ConnectorError) as caught:
            await preview(rest(f"http://127.0.0.1:{port}", "x", loopback))
        assert caught.value.code == "response_invalid"


async def test_a_preview_ends_at_its_bytes(shop_api: int, loopback: EgressPolicy) -> None:
    connector = rest(f"http://127.0.0.1:{shop_api}", "large", loopback)
    shown = await connector.preview(PreviewRequest(path=("x",), limit=1000, max_bytes=50_000))
    assert shown.truncated
    assert 40 < len(shown.rows) < 50


async def test_oauth2_sends_the_secret_to_the_token_server_only(shop_api: int, loopback: EgressPolicy) -> None:
    values = {"auth": "oauth2_client_credentials", "client_id": "client"}
    values |= {"token_url": f"http://localhost:{shop_api}/token", "base_url": f"http://localhost:{shop_api}"}
    values["resources"] = [{"name": "x", "path": "unsigned"}]  # type: ignore[assignment]
    config = msgspec.convert(values, RestConfig)
    assert await preview(Rest(config, RestSecrets(client_secret=TOKEN), loopback)) == [[True]]
    with pytest.raises(ConnectorError) as caught:
        await preview(Rest(config, RestSecrets(client_secret="wrong"), loopback))
    assert caught.value.code == "authentication_failed"
