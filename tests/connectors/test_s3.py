"""What an S3 source does beyond the contract."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import Steps
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.s3.access import S3Secrets
from app.connectors.types.s3.connector import S3, S3Config
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.shop_bucket import BUCKET
from tests.connectors.servers.starting import scripted_server, tls_front
from tests.connectors.types.s3 import ObjectStore
from tests.connectors.types.s3__s3rver import KEYS, s3rver

pytestmark = pytest.mark.anyio

CUSTOMERS = PreviewRequest(path=("customers.csv",))


def config_of(store: ObjectStore, **more: Any) -> dict[str, Any]:
    endpoint = {"bucket": BUCKET, "endpoint_url": f"http://localhost:{store.port}"}
    return {**endpoint, "access_key_id": store.access_key_id, **more}


def secrets_of(store: ObjectStore) -> dict[str, str]:
    return {"secret_access_key": store.secret_access_key}


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"bucket": "sales"}, "https://sales.s3.us-east-1.amazonaws.com"),
        ({"bucket": "sales", "region": "cn-north-1"}, "https://sales.s3.cn-north-1.amazonaws.com.cn"),
        ({"bucket": "my.sales", "region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com"),
        ({"bucket": "sales", "path_style": True}, "https://s3.us-east-1.amazonaws.com"),
        ({"bucket": "sales", "endpoint_url": "http://minio:9000/"}, "http://minio:9000"),
        ({"bucket": "sales", "endpoint_url": "https://r2.example", "path_style": False}, "https://sales.r2.example"),
    ],
)
def test_the_bucket_stands_where_its_store_looks_for_it(given: dict[str, Any], url: str) -> None:
    assert S3(msgspec.convert(given, S3Config), S3Secrets(), EgressPolicy()).url == url


def test_keys_come_in_pairs() -> None:
    for config, secrets, path in (
        (S3Config(bucket="abc", access_key_id="x"), S3Secrets(), ("secrets", "secret_access_key")),
        (S3Config(bucket="abc"), S3Secrets(secret_access_key="x"), ("config", "access_key_id")),
        (S3Config(bucket="abc", requester_pays=True), S3Secrets(), ("config", "access_key_id")),
    ):
        with pytest.raises(InvalidField) as caught:
            S3.validate(config, secrets)
        assert caught.value.path == path


def test_a_token_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"session_token": "a\r\nb"}, S3Secrets)


async def test_temporary_credentials_of_a_role_are_taken(
    object_store: ObjectStore, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    temporary = object_store.temporary
    config = config_of(object_store, access_key_id=temporary["AccessKeyId"])
    secrets = {"secret_access_key": temporary["SecretAccessKey"], "session_token": temporary["SessionToken"]}
    assert (await sandbox.check("s3", config, secrets, loopback)).status == "passed"
    assert len((await sandbox.preview("s3", config, secrets, loopback, CUSTOMERS)).rows) == 2


@pytest.mark.parametrize("trust", ["own_authority", "anybody"])
async def test_it_works_over_tls(
    trust: str, object_store: ObjectStore, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "own_authority": {"ca_certificate": authority().pem.decode()},
        "anybody": {"verify_tls": False},
    }
    endpoint = f"https://localhost:{start(tls_front, object_store.port)}"
    config, secrets = config_of(object_store, endpoint_url=endpoint, **ways[trust]), secrets_of(object_store)
    result = await sandbox.check("s3", config, secrets, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5, result
    assert result.server["encryption"] == "TLSv1.3"
    assert len((await sandbox.preview("s3", config, secrets, loopback, CUSTOMERS)).rows) == 2


@pytest.mark.services
async def test_the_bucket_may_stand_in_the_host_name(
    start: Start, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes the bucket from nowhere else, and the name exists for our look-up only."""
    port = start(s3rver, "shop.example")
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == f"{BUCKET}.s3.shop.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    endpoint = f"http://s3.shop.example:{port}"
    config = S3Config(bucket=BUCKET, endpoint_url=endpoint, path_style=False, access_key_id=KEYS)
    connector = S3(config, S3Secrets(secret_access_key=KEYS), loopback)
    steps = Steps()
    await connector.check(steps)
    assert [step.status for step in steps.done] == ["passed", "passed", "skipped", "passed", "passed"]
    assert len((await connector.preview(CUSTOMERS)).rows) == 2


# Keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"prefix": "sales"}, {("sales", "year=*", "part-*.csv")}),
        ({"prefix": "/sales/year=2024/"}, {("sales", "year=2024", "part-1.csv")}),
        ({"include_keys": ["*.ndjson", "photo.*"]}, {("events", "*", "*", "part-*.ndjson"), ("photo.jpg",)}),
        ({"include_keys": ["*.csv"], "exclude_keys": ["sales/*", "odd*"]}, {("customers.csv",), ("empty.csv",)}),
        ({"prefix": "sal"}, set()),
    ],
)
async def test_keys_can_be_included_and_excluded(
    scope: dict[str, Any],
    expected: set[tuple[str, ...]],
    object_store: ObjectStore,
    sandbox: ConnectorSandbox,
    loopback: EgressPolicy,
) -> None:
    config, secrets = config_of(object_store, **scope), secrets_of(object_store)
    found = [item.path async for batch in sandbox.discover("s3", config, secrets, loopback) for item in batch]
    assert set(found) == expected
    assert len(found) == len(expected)


async def test_what_is_not_shown_has_no_preview(
    object_store: ObjectStore, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = config_of(object_store, exclude_keys=["customers*", "sales/year=2023/*"])
    secrets = secrets_of(object_store)
    for path in (("customers.csv",), ("customers*",), ("sales/year=2024/part-1.csv",), ("..", "x"), ("",), ("a", "")):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview("s3", config, secrets, loopback, PreviewRequest(path=path))
        assert caught.value.code == "not_found", path
    request = PreviewRequest(path=("sales", "year=*", "part-*.csv"))
    assert (await sandbox.preview("s3", config, secrets, loopback, request)).rows == [[2, "2024"]]


async def test_an_empty_folder_is_said_to_be_empty(
    object_store: ObjectStore, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await sandbox.check("s3", config_of(object_store, prefix="later"), secrets_of(object_store), loopback)
    assert result.steps[4].message == f"The bucket {BUCKET} can be listed; there is nothing below later/ yet."


async def test_a_file_without_rows_to_read_has_no_preview(
    object_store: ObjectStore, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    request = PreviewRequest(path=("photo.jpg",))
    with pytest.raises(ConnectorError) as caught:
        await sandbox.preview("s3", config_of(object_store), secrets_of(object_store), loopback, request)
    assert caught.value.code == "unsupported"


async def test_columns_of_a_parquet_file_and_its_folders_can_be_chosen(
    object_store: ObjectStore, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config, secrets = config_of(object_store), secrets_of(object_store)
    request = PreviewRequest(path=("orders", "day=*", "*.parquet"), columns=("total", "id"), limit=1)
    shown = await sandbox.preview("s3", config, secrets, loopback, request)
    assert (shown.rows, shown.truncated) == ([["10.50", "9007199254740993"]], True)


# Answers that are none ------------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: bytes, heard: list[bytes] | None = None) -> Iterator[int]:
    """Greets, and gives this answer to any GET."""

    def script(connection: socket.socket) -> None:
        request = connection.recv(65_536)
        if request.startswith(b"HEAD"):
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        elif heard is not None:
            heard.append(request)
        if request.startswith(b"GET"):
            connection.sendall(answer)

    with scripted_server(script) as port:
        yield port


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def listed(key: str) -> bytes:
    return (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><LastModified>2024-01-01T00:00:00Z</LastModified>"
        f"<Key>{key}</Key><Size>1</Size></Contents></ListBucketResult>"
    ).encode()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http(b"<html>"), "protocol_mismatch"),
        (http(b"<Error><Code>SlowDown</Code></Error>", "503 Slow Down"), "rate_limited"),
        (http(b"<Error><Code>PermanentRedirect</Code></Error>", "301 Moved"), "invalid_configuration"),
        (http(b"<Error><Code>RequestTimeTooSkewed</Code></Error>", "403 Forbidden"), "authentication_failed"),
        (http(b"<Error><Code>canary-7f3a9c</Code></Error>", "400 Bad Request"), "server_error"),
        (http(b"", "307 Temporary Redirect", "Location: http://169.254.169.254/\r\n"), "egress_refused"),
        (http(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:9/\r\n"), "egress_refused"),
        (http(b"x")[:-1], "connection_lost"),
        (b"", "connection_lost"),
    ],
)
async def test_an_answer_that_is_no_list_of_keys_is_explained(answer: bytes, code: str, loopback: EgressPolicy) -> None:
    with answering(answer) as port:
        config = S3Config(bucket=BUCKET, endpoint_url=f"http://localhost:{port}")
        with pytest.raises(ConnectorError) as caught:
            await S3(config, S3Secrets(), loopback).check(Steps())
    assert caught.value.code == code
    assert CANARY not in caught.value.message


async def test_the_reader_pays_where_asked_to(loopback: EgressPolicy) -> None:
    heard: list[bytes] = []
    with answering(http(listed("a.csv")), heard) as port:
        for pays in (True, False):
            endpoint = f"http://localhost:{port}"
            config = S3Config(bucket=BUCKET, endpoint_url=endpoint, access_key_id="x", requester_pays=pays)
            await S3(config, S3Secrets(secret_access_key="x"), loopback).check(Steps())
    assert [b"x-amz-request-payer: requester" in request.lower() for request in heard] == [True, False]


# Size -----------------------------------------------------------------------------------------------------------------


@contextmanager
def large_bucket(keys: int) -> Iterator[int]:
    """moto in this process, where its objects can be made without a request for each. Yields the port."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import FakeKey, s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        backend.create_bucket("large", "us-east-1")
        objects = backend.buckets["large"].keys
        for number in range(keys):
            key = f"sales/year={2000 + number % 20}/day={number % 365}/part-{number:06d}.csv"
            objects[key] = FakeKey(key, b"amount\n1\n", account_id=DEFAULT_ACCOUNT_ID, region_name="us-east-1")
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@pytest.mark.slow
async def test_a_bucket_of_a_hundred_thousand_keys_is_one_dataset_in_little_memory(loopback: EgressPolicy) -> None:
    sandbox = ConnectorSandbox(memory_bytes=192 * 1024 * 1024)
    path = ("sales", "year=*", "day=*", "part-*.csv")
    with large_bucket(100_000) as port:
        config = {"bucket": "large", "endpoint_url": f"http://127.0.0.1:{port}", "access_key_id": "x"}
        secrets = {"secret_access_key": CANARY}
        batches = [batch async for batch in sandbox.discover("s3", config, secrets, loopback, deadline_s=300)]
        (found,) = [item for batch in batches for item in batch]
        assert (found.path, found.kind) == (path, "dataset")
        assert [field.name for field in found.fields] == ["amount", "year", "day"]
        shown = await sandbox.preview("s3", config, secrets, loopback, PreviewRequest(path=path))
        assert shown.rows == [[1, "2000", "0"]]
    await sandbox.close()
