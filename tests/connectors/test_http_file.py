"""Files on servers that keep to the rules, on some that do not, and on some that mean harm."""

from __future__ import annotations

import asyncio
import gzip
import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from arro3.core import Array, DataType, Table
from arro3.io import write_parquet

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.http_file.connector import HttpFile, HttpFileConfig, HttpFileSecrets
from app.core.egress import EgressPolicy
from tests.connectors.contract import Start
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.file_site import BYTE_NAMES, ODD_NAMES, TOKEN
from tests.connectors.servers.shop_bucket import OBJECTS, PREVIEWS
from tests.connectors.servers.starting import private_folder, running, tls_front
from tests.connectors.types.http_file import place_files
from tests.connectors.types.http_file__ranges import file_site
from tests.ports import free_port

ROWS = [[1, "Zoë"], [2, None]]


def connector(config: dict[str, Any], **secrets: str) -> HttpFile:
    whole = msgspec.convert(config, HttpFileConfig)
    return HttpFile(whole, HttpFileSecrets(**secrets), EgressPolicy(loopback_allowed=True))


def preview(url: str, *path: str, secrets: dict[str, str] | None = None, **config: Any) -> PreviewResult:
    """Of the path, or of the only file."""
    source = connector({"url": url, **config}, **(secrets or {}))
    return asyncio.run(source.preview(PreviewRequest(path=path or tuple(source.config.files[0].key.split("/")))))


def discovered(url: str, **config: Any) -> list[DiscoveredObject]:
    async def discover() -> list[DiscoveredObject]:
        return [item async for batch in connector({"url": url, **config}).discover() for item in batch]

    return asyncio.run(discover())


def refusal(url: str, *path: str, **config: Any) -> str:
    with pytest.raises(ConnectorError) as caught:
        preview(url, *path, **config)
    return caught.value.code


@pytest.fixture
def site(start: Start) -> str:
    return f"http://localhost:{start(file_site)}"


@contextmanager
def plain_server() -> Iterator[int]:
    """Python's own, which ignores `Range`."""
    with private_folder() as folder:
        place_files(folder)
        port = free_port()
        command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
        with running(command, port):
            yield port


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("customers.csv", ("customers.csv",)),
        ("empty.csv", ("empty.csv",)),
        ("orders/day=2024-01-02/0.parquet", ("orders", "day=*", "*.parquet")),
        ("odd names/50% über #1?.csv", ("odd names", "50% über #1?.csv")),
    ],
)
def test_a_server_that_ignores_ranges_is_read_all_the_same(start: Start, path: str, known: tuple[str, ...]) -> None:
    shown = preview(f"http://localhost:{start(plain_server)}", *path.split("/"), paths=[path])
    assert shown.rows == PREVIEWS[known]
    assert [column.name for column in shown.columns] == [name for name, *_ in OBJECTS[known][1]]
    assert not shown.truncated


def test_a_large_parquet_file_without_ranges_is_too_large(site: str) -> None:
    assert refusal(f"{site}/large.parquet") == "response_too_large"


def test_an_endless_file_is_cut_off(site: str) -> None:
    shown = preview(f"{site}/endless.csv")
    assert shown.rows == [[1, "x"]] * 100
    assert shown.truncated


# Ranges ---------------------------------------------------------------------------------------------------------------


@contextmanager
def counting_server(content: bytes, etag: Callable[[int], str] = lambda _: "same") -> Iterator[tuple[str, list[int]]]:
    """One file, ranges honoured; yields its base URL and the sizes of the answers."""
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            start, end = map(int, self.headers["range"].removeprefix("bytes=").split("-"))
            part = content[start : end + 1]
            self.send_response(206)
            self.send_header("content-range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
            self.send_header("content-length", str(len(part)))
            self.send_header("etag", etag(len(sent)))
            self.end_headers()
            self.wfile.write(part)
            sent.append(len(part))

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def large_parquet() -> bytes:
    """Four columns of 200,000 numbers that do not compress."""
    numbers = [(place * 2_654_435_761) % 2**62 for place in range(200_000)]
    table = Table.from_arrays([Array(numbers, DataType.int64())] * 4, names=["a", "b", "c", "d"])
    file = io.BytesIO()
    write_parquet(table, file, dictionary_enabled=False)
    return file.getvalue()


def test_of_a_large_parquet_file_a_part_is_read(large_parquet: bytes) -> None:
    with counting_server(large_parquet) as (url, sent):
        source = connector({"url": f"{url}/x.parquet"})
        shown = asyncio.run(source.preview(PreviewRequest(path=("x.parquet",), columns=("c",), limit=2)))
        assert shown.rows == [[0], [2_654_435_761]]
        assert shown.truncated
        assert sum(sent) < len(large_parquet) / 8
        sent.clear()
        assert [field.name for field in discovered(f"{url}/x.parquet")[0].fields] == ["a", "b", "c", "d"]
        assert sum(sent) < 100_000


def test_of_a_large_text_file_the_beginning_is_read() -> None:
    content = b"id,name\n" + b"1,x\n" * 2_000_000
    with counting_server(content) as (url, sent):
        assert preview(f"{url}/x.csv").truncated
        assert sum(sent) == 256 * 1024


def test_a_file_that_changes_while_it_is_read_is_not_shown(large_parquet: bytes) -> None:
    with counting_server(large_parquet, etag=str) as (url, _):
        assert refusal(f"{url}/x.parquet") == "response_invalid"


def test_a_json_document_above_the_cap_is_too_large() -> None:
    with counting_server(b"[" + b'{"a": 1},' * 600_000 + b"{}]") as (url, sent):
        assert refusal(f"{url}/x.json") == "response_too_large"
        assert sum(sent) <= 4 * 1024 * 1024 + 1


# Formats --------------------------------------------------------------------------------------------------------------


def test_the_format_comes_from_the_name_the_content_type_or_the_configuration(site: str) -> None:
    assert preview(f"{site}/export").rows == ROWS
    assert preview(f"{site}/export?as=csv").rows == ROWS
    assert preview(f"{site}/open/customers.csv", format="tsv").columns[0].name == "id,name,joined,balance"
    assert refusal(f"{site}/open/photo.jpg") == "unsupported"


def test_compressed_files_are_read_whoever_decompresses_them(site: str) -> None:
    assert preview(f"{site}/encoded.csv.gz").rows == ROWS
    for name in ("x.csv.gz", "x.csv"):
        with counting_server(gzip.compress("id,name\n1,Zoë\n2,\n".encode())) as (url, _):
            assert preview(f"{url}/{name}").rows == ROWS
    with counting_server(gzip.compress(b'{"a": 1}\n{"a": 2}\n')) as (url, _):
        assert preview(f"{url}/x.ndjson.gz").rows == [[1], [2]]


# Redirects ------------------------------------------------------------------------------------------------------------


def test_redirects_are_followed(site: str) -> None:
    assert preview(f"{site}/moved/customers.csv").rows == PREVIEWS["customers.csv",]
    parquet = "orders/day=2024-01-02/0.parquet"
    assert (
        preview(f"{site}/moved", *parquet.split("/"), paths=[parquet]).rows == PREVIEWS["orders", "day=*", "*.parquet"]
    )


def test_redirects_to_where_nobody_may_go_are_refused(site: str) -> None:
    assert refusal(f"{site}/away.csv?to=http://169.254.169.254/latest") == "egress_refused"
    assert refusal(f"{site}/away.csv?to=file:///etc/passwd") == "egress_refused"


def test_credentials_stay_where_they_were_given_for(site: str, start: Start) -> None:
    """The other origin is the same server under another name, where the token would be accepted."""
    other = site.replace("localhost", "127.0.0.1")
    signed_in: dict[str, Any] = {"auth": "bearer", "secrets": {"token": TOKEN}}
    assert preview(f"{site}/files/customers.csv", **signed_in).rows == PREVIEWS["customers.csv",]
    assert refusal(f"{site}/away.csv?to={other}/files/customers.csv", **signed_in) == "authentication_failed"


# WebDAV ---------------------------------------------------------------------------------------------------------------


def test_a_folder_shows_only_what_lies_in_it(site: str) -> None:
    (found,) = discovered(f"{site}/dav/hostile", listing="webdav")
    assert found.path == ("good.csv",)
    assert [field.name for field in found.fields] == ["id", "name"]


def test_names_may_hold_spaces_of_any_kind(site: str) -> None:
    found = discovered(f"{site}/dav/odd", listing="webdav")
    assert {item.path for item in found} == {(name,) for name in ODD_NAMES}
    assert all(item.fields for item in found)


@pytest.mark.found("D2", "D12")
def test_names_of_any_bytes_are_shown_and_lead_to_their_files(site: str) -> None:
    found = {item.path: len(item.fields) for item in discovered(f"{site}/dav/bytes", listing="webdav", max_depth=2)}
    names: list[tuple[str, ...]] = [(shown,) for name, shown in BYTE_NAMES.items() if name.endswith(".csv")]
    assert found == dict.fromkeys([*names, ("in\\xff", "\\xfe.csv")], 2)


def test_a_folder_without_a_bottom_has_an_end(site: str) -> None:
    assert discovered(f"{site}/dav/endless", listing="webdav", max_depth=32) == []


@pytest.mark.parametrize("path", [("..", "open", "customers.csv"), ("", "customers.csv"), ("a/b.csv",), (".",)])
def test_a_path_does_not_lead_out_of_the_folder(site: str, path: tuple[str, ...]) -> None:
    assert refusal(f"{site}/dav/hostile", *path, listing="webdav") == "not_found"


def test_included_and_excluded_paths_choose_the_files(site: str, start: Start) -> None:
    from tests.connectors.types.http_file import PASSWORD, webdav

    config = {
        "url": f"http://localhost:{start(webdav)}/dav",
        "listing": "webdav",
        "auth": "basic",
        "username": "reader",
    }

    async def paths(**chosen: Any) -> list[tuple[str, ...]]:
        source = connector({**config, **chosen}, password=PASSWORD)
        return [item.path for batch in [batch async for batch in source.discover()] for item in batch]

    assert asyncio.run(paths(include_paths=["sales/*"], exclude_paths=["*2023*"])) == [
        ("sales", "year=2024", "part-1.csv")
    ]
    assert ("customers.csv",) in asyncio.run(paths(max_depth=0))
    assert all(len(path) == 1 for path in asyncio.run(paths(max_depth=0)))
    assert len(asyncio.run(paths(max_files=1))) <= 1


def test_a_discovery_says_whether_it_saw_every_file(site: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.connectors.types.http_file import PASSWORD, webdav

    config = {
        "url": f"http://localhost:{start(webdav)}/dav",
        "listing": "webdav",
        "auth": "basic",
        "username": "reader",
    }

    async def stop(**chosen: Any) -> str | None:
        source = connector({**config, **chosen}, password=PASSWORD)
        _ = [batch async for batch in source.discover()]
        return source.stopped_because

    assert asyncio.run(stop()) is None
    assert asyncio.run(stop(max_files=1)) == "There are more files than max_files (1)."
    monkeypatch.setattr("app.connectors.types.http_file.connector.MAX_FOLDERS", 1)
    assert asyncio.run(stop()) == "There are more than 1 folders."


# Configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"url": "file:///etc/passwd"},
        {"url": "http://user:pw@host/x.csv"},
        {"url": "http://host/x.csv#part"},
        {"url": "http://host/?a=b", "paths": ["x.csv"]},
        {"url": "http://host/?a=b", "listing": "webdav"},
        {"url": "http://host/", "listing": "webdav", "paths": ["x.csv"]},
        {"url": "http://host/", "paths": ["../x.csv"]},
        {"url": "http://host/", "paths": ["/x.csv"]},
        {"url": "http://host/", "paths": ["a//x.csv"]},
        {"url": "http://host/", "paths": ["x.csv", "x.csv"]},
        {"url": "http://host/", "auth": "basic"},
        {"url": "http://host/", "headers": {"Range": "bytes=0-1\r\nX: y"}},
    ],
)
def test_what_does_not_belong_together_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(config, HttpFileConfig)


def test_a_secret_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidField) as caught:
        HttpFile.validate(HttpFileConfig(url="http://host/x.csv", auth="bearer"), HttpFileSecrets())
    assert caught.value.path == ("secrets", "token")


# TLS ------------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_files_over_tls_pass_every_step(
    start: Start, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    url = f"https://localhost:{start(tls_front, start(file_site))}/open/customers.csv"
    config = {"url": url, "ca_certificate": authority.pem.decode()}
    result = await sandbox.check("http_file", config, {}, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"
    shown = await sandbox.preview("http_file", config, {}, loopback, PreviewRequest(path=("customers.csv",)))
    assert shown.rows == PREVIEWS["customers.csv",]


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_page_that_ends_the_decoder_ends_nothing_else(
    large_parquet: bytes, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """What the decoder's native code makes of damage between the pages is up to it."""
    for place in (5, 9, 13, 20, 31):
        broken = bytearray(large_parquet)
        broken[place] ^= 0xFF
        with counting_server(bytes(broken)) as (url, _):
            with pytest.raises(ConnectorError) as caught:
                await sandbox.preview(
                    "http_file", {"url": f"{url}/x.parquet"}, {}, loopback, PreviewRequest(path=("x.parquet",))
                )
            assert caught.value.code in {"response_invalid", "crashed", "out_of_memory"}
