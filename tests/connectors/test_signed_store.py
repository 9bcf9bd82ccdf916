"""What S3 and Azure Blob Storage make of the answers of their servers, page by page."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import Steps
from app.connectors.files.object_store import ObjectStore
from app.connectors.files.signed_store import Listing
from app.connectors.network.http import MAX_BODY_BYTES
from app.connectors.types.azure_blob import AzureBlob, AzureBlobConfig, AzureBlobSecrets, to_sign
from app.connectors.types.s3.access import S3Secrets
from app.connectors.types.s3.connector import S3, S3Config
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.starting import scripted_server

pytestmark = pytest.mark.anyio

Asked = tuple[str, dict[str, str], dict[str, str]]
"""Path, query and headers."""
ACCOUNT_KEY = base64.b64encode(b"a key of an account").decode()


@contextmanager
def server(answer: Callable[[Asked], bytes]) -> Iterator[tuple[str, list[Asked]]]:
    """Yields its URL and what it was asked, greetings left out."""
    heard: list[Asked] = []

    def script(connection: socket.socket) -> None:
        head = connection.recv(65_536).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        path, _, query = target.partition("?")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        if method == "GET":
            heard.append((path, dict(parse_qsl(query, keep_blank_values=True)), headers))
        connection.sendall(answer(heard[-1]) if method == "GET" else http(b""))

    with scripted_server(script) as port:
        yield f"http://localhost:{port}", heard


def http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n".encode() + body


def s3_keys(*keys: str, token: str = "", truncated: str = "", encoding: str = "") -> bytes:
    items = "".join(f"<Contents><Key>{key}</Key><Size>4</Size></Contents>" for key in keys)
    more = f"<IsTruncated>{truncated or str(bool(token)).lower()}</IsTruncated>"
    more += f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    more += f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    return http(f"<ListBucketResult xmlns='urn:x'>{more}{items}</ListBucketResult>".encode())


def azure_names(*items: str, marker: str = "") -> bytes:
    blobs = "".join(f"<Blob>{item}</Blob>" for item in items)
    text = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    return http(b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?>" + text.encode())


def azure_blob(name: str, size: int = 4, attributes: str = "", kind: str = "") -> str:
    return f"<Name{attributes}>{name}</Name><Properties><Content-Length>{size}</Content-Length>{kind}</Properties>"


def s3(url: str, **more: Any) -> S3:
    values = {"bucket": "sales", "endpoint_url": url, "access_key_id": "x", **more}
    return S3(msgspec.convert(values, S3Config), S3Secrets(secret_access_key="x"), EgressPolicy(loopback_allowed=True))


def azure(url: str, auth: str = "account_key", max_keys: int = 200_000, **secrets: str) -> AzureBlob:
    values = {
        "account_name": "shop", "container": "sales", "endpoint_url": url, "auth": auth, "max_keys": max_keys,
    }  # fmt: skip
    config = msgspec.convert(values, AzureBlobConfig)
    return AzureBlob(
        config,
        AzureBlobSecrets(**(secrets or {"account_key": ACCOUNT_KEY})),
        EgressPolicy(loopback_allowed=True),
    )


async def keys_of(connector: ObjectStore[Any, Any], folder: str = "", after: str = "") -> list[str]:
    async with connector._client() as client, connector.opened(client) as store:
        return [found.key async for page in store.pages(folder, after) for found in page]


# Pages ----------------------------------------------------------------------------------------------------------------


async def test_a_bucket_is_asked_for_page_by_page() -> None:
    def answer(asked: Asked) -> bytes:
        is_second = asked[1].get("continuation-token") == "1/second+page=="
        return s3_keys("a/2") if is_second else s3_keys("a/1", token="1/second+page==")

    with server(answer) as (url, heard):
        assert await keys_of(s3(url), "a", "a/0x") == ["a/1", "a/2"]
    assert [path for path, _, _ in heard] == ["/sales", "/sales"]
    assert heard[0][1]["start-after"] == "a/0"
    assert "start-after" not in heard[1][1]
    assert all(query["prefix"] == "a/" and query["encoding-type"] == "url" for _, query, _ in heard)


async def test_a_bucket_that_has_more_and_does_not_say_where_is_not_taken_for_whole() -> None:
    with server(lambda _: s3_keys("a", truncated="true")) as (url, _), pytest.raises(ConnectorError) as caught:
        await keys_of(s3(url))
    assert caught.value.code == "response_invalid"


async def test_a_container_is_asked_for_page_by_page_and_its_folders_are_no_files() -> None:
    folder = azure_blob("a/b.csv", 0, kind="<ResourceType>directory</ResourceType>")

    def answer(asked: Asked) -> bytes:
        if asked[1].get("marker") == "second+page":
            return azure_names(azure_blob("a/2"))
        return azure_names(azure_blob("a/1"), folder, marker="second+page")

    with server(answer) as (url, heard):
        assert await keys_of(azure(url), "a") == ["a/1", "a/2"]
    assert [path for path, _, _ in heard] == ["/shop/sales", "/shop/sales"]


@pytest.mark.parametrize(
    ("sent", "encoding", "key"),
    [
        ("a+b%2B%00%01%EF%BF%BF%252F", "url", "a b+\x00\x01\uffff%2F"),
        ("a+b%2B", "", "a+b%2B"),
        ("a\x01&#1;&#x0C;&#13;\uffff", "", "a\x01\x01\x0c\r\uffff"),
        ("<![CDATA[a & b]]>", "", "a & b"),
        ("a&lt;b&#xe9;", "", "a<bé"),
    ],
)
async def test_a_key_is_read_as_its_server_writes_it(sent: str, encoding: str, key: str) -> None:
    with server(lambda _: s3_keys(sent, encoding=encoding)) as (url, _):
        assert await keys_of(s3(url)) == [key]


async def test_a_name_that_azure_encodes_is_decoded_and_others_are_not() -> None:
    names = azure_names(azure_blob("a%EF%BF%BF%2Fb", attributes=' Encoded="true"'), azure_blob("c%2Fd"))
    with server(lambda _: names) as (url, _):
        assert await keys_of(azure(url)) == ["a\uffff/b", "c%2Fd"]


async def test_a_key_that_no_catalogue_can_hold_is_passed_on_for_the_catalogue_to_escape() -> None:
    with server(lambda _: s3_keys("a%00.bin", "b.bin", encoding="url")) as (url, _):
        found = [item.path async for batch in s3(url).discover() for item in batch]
    assert found == [("a\x00.bin",), ("b.bin",)]


@pytest.mark.parametrize(
    ("max_keys", "shown", "stopped_because"),
    [
        (1, 1, "There are more keys than max_keys (1)."),
        (2, 2, "There are more keys than max_keys (2)."),
        (3, 3, None),
        (4, 3, None),
    ],
)
async def test_a_discovery_says_whether_it_saw_every_key(
    max_keys: int, shown: int, stopped_because: str | None
) -> None:
    def answer(asked: Asked) -> bytes:
        if "marker" in asked[1]:
            return azure_names(azure_blob("c.bin"))
        return azure_names(azure_blob("a.bin"), azure_blob("b.bin"), marker="second")

    with server(answer) as (url, _):
        source = azure(url, max_keys=max_keys)
        found = [item.path async for batch in source.discover() for item in batch]
    assert len(found) == shown
    assert source.stopped_because == stopped_because


# XML of somebody else -------------------------------------------------------------------------------------------------

BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "body",
    [
        f"{BOMB}]><ListBucketResult><Contents><Key>&i;</Key><Size>1</Size></Contents></ListBucketResult>",
        "<!DOCTYPE ListBucketResult SYSTEM 'http://127.0.0.1:9/x.dtd'><ListBucketResult/>",
        "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/hostname'>]><ListBucketResult>&a;</ListBucketResult>",
        "<ListBucketResult><Contents><Key>&a;</Key><Size>1</Size></Contents></ListBucketResult>",
        "<html></html>",
        "<ListBucketResult>",
        "<ListBucketResult/><ListBucketResult/>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>" + "9" * 5000 + "</Size></Contents></ListBucketResult>",
        "<x>" * 500_000,
        "",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
async def test_what_is_no_list_of_keys_ends_at_once(body: str, encoding: str) -> None:
    """What names the root element of a list is a bad one; all else is said to be no store at all."""
    sent = body.encode(encoding)
    with server(lambda _: http(sent)) as (url, _), pytest.raises(ConnectorError) as caught:
        await s3(url).check(Steps())
    wanted = "response_invalid" if b"<ListBucketResult" in sent else "protocol_mismatch"
    assert caught.value.code == wanted


async def test_an_answer_without_end_is_cut_off() -> None:
    with server(lambda _: http(b" " * (8 * 1024 * 1024 + 1))) as (url, _), pytest.raises(ConnectorError) as caught:
        await s3(url).check(Steps())
    assert caught.value.code == "response_too_large"


def test_a_full_page_of_the_longest_keys_is_read() -> None:
    key = "%EF%BF%BD" * 341
    item = f"<Contents><Key>{key}</Key><Size>1</Size></Contents>"
    body = f"<ListBucketResult>{item * 1000}</ListBucketResult>".encode()
    assert len(body) < MAX_BODY_BYTES
    assert [item["Key"] for item in Listing(body, "ListBucketResult", "Contents").items] == [key] * 1000


# Busy servers ---------------------------------------------------------------------------------------------------------

SLOW_DOWN = http(b"<Error><Code>SlowDown</Code></Error>", "503 Slow Down")


@pytest.mark.parametrize("status", ["503 Slow Down", "500 Internal Server Error", "429 Too Many Requests"])
async def test_a_server_that_is_busy_for_a_moment_is_asked_again(status: str) -> None:
    answers = [s3_keys("a.bin", token="t"), http(b"", status), http(b"", status), s3_keys("b.bin")]
    with server(lambda _: answers.pop(0)) as (url, heard):
        found = [item.path async for batch in s3(url).discover() for item in batch]
    assert found == [("a.bin",), ("b.bin",)]
    assert len(heard) == 4


async def test_a_server_that_stays_busy_is_said_to_be_so() -> None:
    with server(lambda _: SLOW_DOWN) as (url, heard), pytest.raises(ConnectorError) as caught:
        await s3(url).check(Steps())
    assert (caught.value.code, len(heard)) == ("rate_limited", 4)


async def test_a_refusal_is_not_asked_for_twice() -> None:
    refusal = http(b"<Error><Code>AccessDenied</Code></Error>", "403 Forbidden")
    with server(lambda _: refusal) as (url, heard), pytest.raises(ConnectorError):
        await s3(url).check(Steps())
    assert len(heard) == 1


# Files ----------------------------------------------------------------------------------------------------------------

FILE = b"n\n1\n"


def s3_file(answer: Callable[[dict[str, str]], bytes]) -> Callable[[Asked], bytes]:
    def find(asked: Asked) -> bytes:
        return s3_keys("a.csv") if "list-type" in asked[1] else answer(asked[2])

    return find


async def rows(connector: ObjectStore[Any, Any]) -> list[list[Any]]:
    return (await connector.preview(PreviewRequest(path=("a.csv",)))).rows


@pytest.mark.parametrize("encoding", ["gzip", "br", "aws-chunked"])
async def test_a_part_is_taken_as_it_is_kept(encoding: str) -> None:
    """Stores repeat whatever encoding a file was put there with; its bytes are those of the range all the same."""
    part = http(FILE, "206 Partial Content", f"Content-Encoding: {encoding}\r\n")
    with server(s3_file(lambda _: part)) as (url, heard):
        assert await rows(s3(url)) == [[1]]
    assert heard[1][0] == "/sales/a.csv"
    assert heard[1][2]["range"] == "bytes=0-3"
    assert heard[1][2]["accept-encoding"] == "identity"


async def test_a_server_that_knows_no_ranges_is_read_from_the_start() -> None:
    with server(s3_file(lambda _: http(FILE + b"2\n"))) as (url, _):
        assert await rows(s3(url)) == [[1]]


async def test_a_file_that_may_not_be_read_says_so_however_short_the_range() -> None:
    refusal = http(b"<Error><Code>InvalidObjectState</Code></Error>", "403 Forbidden")
    with server(s3_file(lambda _: refusal)) as (url, _), pytest.raises(ConnectorError) as caught:
        await rows(s3(url))
    assert "archived" in caught.value.message


async def test_a_redirect_is_not_followed_even_to_an_open_place() -> None:
    with server(lambda _: s3_keys("a.csv")) as (elsewhere, reached):
        led = http(b"", "307 Temporary Redirect", f"Location: {elsewhere}/sales\r\n")
        with server(lambda _: led) as (url, _), pytest.raises(ConnectorError) as caught:
            await s3(url).check(Steps())
    assert caught.value.code == "egress_refused"
    assert reached == []


async def test_anybody_sends_nothing_that_identifies_the_hub() -> None:
    with server(lambda _: s3_keys("a.csv")) as (url, heard):
        await keys_of(s3(url, access_key_id=None))
    with server(lambda _: azure_names(azure_blob("a.csv"))) as (url, also_heard):
        await keys_of(azure(url, "none"))
    assert all("authorization" not in headers for _, _, headers in heard + also_heard)


@pytest.mark.parametrize(
    ("key", "s3_path", "azure_path"),
    [
        ("x/../y.csv", "/sales/x/../y.csv", "/shop/sales/x%2F..%2Fy.csv"),
        ("/a//b.csv", "/sales//a//b.csv", "/shop/sales/%2Fa%2F%2Fb.csv"),
        ("%2e%2F.csv", "/sales/%252e%252F.csv", "/shop/sales/%252e%252F.csv"),
        ("é ~#.csv", "/sales/%C3%A9%20~%23.csv", "/shop/sales/%C3%A9%20~%23.csv"),
    ],
)
async def test_a_key_goes_out_as_it_was_signed_and_nothing_tidies_it(key: str, s3_path: str, azure_path: str) -> None:
    with server(lambda _: http(b"x", "206 Partial Content")) as (url, heard):
        for connector in (s3(url), azure(url)):
            async with connector._client() as client, connector.opened(client) as store:
                assert await store.read(key, 0, 1) == b"x"
    assert [path for path, _, _ in heard] == [s3_path, azure_path]


# Azure's signatures ---------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation_is_put_together_alike() -> None:
    """The one of "Authorize with Shared Key", Blob Storage, versions since 2015-02-21."""
    headers = {"x-ms-version": "2015-02-21", "x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "host": "not signed"}
    query = {"restype": "container", "comp": "metadata", "timeout": "20"}
    assert to_sign("myaccount", "/mycontainer", query, headers) == (
        "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )


async def test_a_range_of_a_blob_is_signed_with_its_encoded_path() -> None:
    def answer(asked: Asked) -> bytes:
        return azure_names(azure_blob("a.csv")) if "comp" in asked[1] else http(FILE, "206 Partial Content")

    with server(answer) as (url, heard):
        assert await rows(azure(url)) == [[1]]
    path, query, headers = heard[1]
    text = to_sign("shop", path, query, headers)
    assert "\n\nbytes=0-3\nx-ms-date:" in text
    digest = hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256)
    assert headers["authorization"] == f"SharedKey shop:{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize("token", [f"sv=2021&sp=rl&sig={CANARY}%2B%2F%3D", f"?sp=rl&sv=2021&sig={CANARY}+/="])
async def test_a_shared_access_signature_arrives_however_it_was_copied(token: str) -> None:
    with server(lambda _: azure_names()) as (url, heard):
        await keys_of(azure(url, "sas_token", sas_token=token))
    assert heard[0][1].items() >= {"sv": "2021", "sp": "rl", "sig": f"{CANARY}+/=", "comp": "list"}.items()


async def test_a_shared_access_signature_changes_nothing_of_what_is_asked() -> None:
    token = f"sig={CANARY}&comp=acl&restype=service&prefix=secret"
    with server(lambda _: azure_names()) as (url, heard):
        await keys_of(azure(url, "sas_token", sas_token=token))
    assert {name: heard[0][1][name] for name in ("comp", "restype", "prefix")} == {
        "comp": "list",
        "restype": "container",
        "prefix": "",
    }
    assert urlsplit(heard[0][0]).path == "/shop/sales"
