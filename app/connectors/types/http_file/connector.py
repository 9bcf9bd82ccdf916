"""Files over HTTP and WebDAV, read in ranges through `HttpClient`, which pins addresses and follows judged redirects.

A source is one file, some files below a URL, or a WebDAV folder; the links of a page are not followed. Of a file the
beginning is asked for, of a Parquet file the ranges that are needed. A server that ignores `Range` sends everything:
the connection is then hung up once there is enough, and Parquet files are read whole as far as that is bearable.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.files import text_rows
from app.connectors.files.csv_settings import (
    Comment,
    CsvSettings,
    Delimiter,
    Header,
    Quote,
    SkipLines,
    csv_settings,
    refuse_bad_csv_settings,
)
from app.connectors.files.datasets import (
    TOO_MANY_DATASETS,
    Dataset,
    Datasets,
    SampleSearch,
    Scope,
    is_pattern,
)
from app.connectors.files.object_store import FoundKey
from app.connectors.files.sample import SAMPLE_BYTES
from app.connectors.files.table import NO_ROWS, Format, Table, format_of
from app.connectors.files.tables import preview_of, read_table
from app.connectors.files.text import GZIP
from app.connectors.network.http import HttpClient, HttpUrl, Response, check_url, origin_of
from app.connectors.network.http_auth import (
    HTTP_DESTINATION_FIELDS,
    HttpSourceConfig,
    HttpSourceSecrets,
    SignedIn,
    check_secrets,
    refuse_unless_ok,
    refuse_unless_signed_in,
)
from app.connectors.types.http_file.webdav import MAX_FOLDERS, entries_of, url_below, url_of_found, walk
from app.connectors.values.batches import slices
from app.connectors.values.describing import Describer, Description, together
from app.connectors.values.preview import Preview
from app.connectors.values.wildcards import matches

RelativePath = Annotated[str, Meta(min_length=1, max_length=1024)]

MAX_WHOLE_BYTES: Final = 32 * 1024 * 1024
"""Of a Parquet file whose server sends no ranges."""
_UNKNOWN_SIZE: Final = 2**62
_SAMPLERS: Final = 8
_BATCH: Final = 100
_MAX_FILES_OF_A_CHECK: Final = 20
_ABOUT_THE_FILE: Final = frozenset(
    {
        *("response_invalid", "response_too_large", "permission_denied", "not_found", "unsupported"),
        *("driver_missing", "protocol_mismatch"),
    }
)
"""Who is told this was recognised: the step of signing in has passed."""


class HttpFileConfig(HttpSourceConfig, frozen=True):
    """Not `kw_only`, which puts these fields before those that all HTTP sources have."""

    url: Annotated[
        HttpUrl,
        Meta(
            description="A file, or the folder that paths and listings are below. Not for secrets.",
            examples=["https://data.example.com/orders.parquet", "https://files.example.com/dav/sales"],
        ),
    ]
    paths: Annotated[
        tuple[RelativePath, ...],
        Meta(max_length=500, description="Files below url, written plainly: `2024/a b.csv`. Empty: url is the file."),
    ] = ()
    listing: Annotated[
        Literal["none", "webdav"], Meta(description="Whether url is a folder that the server can list, and how.")
    ] = "none"
    format: Annotated[
        Format | None,
        Meta(description="Of files whose name does not say it. Unset: by the name, then by the server's content type."),
    ] = None
    include_paths: Annotated[
        tuple[RelativePath, ...],
        Meta(max_length=200, description="For listings: files to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_paths: Annotated[
        tuple[RelativePath, ...],
        Meta(max_length=200, description="For listings: files to leave out; wins over the included."),
    ] = ()
    max_depth: Annotated[int, Meta(ge=0, le=32, description="For listings: levels of folders below url.")] = 8
    max_files: Annotated[
        int, Meta(ge=1, le=1_000_000, description="For listings: files after which a discovery stops looking.")
    ] = 50_000

    skip_lines: SkipLines = None
    comment: Comment = None
    delimiter: Delimiter = None
    quote: Quote = None
    header: Header = True

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_bad_csv_settings(self)
        check_url("url", self.url)
        parts = urlsplit(self.url)
        if parts.fragment:
            raise InvalidField(("url",), "url has no fragment.")
        if parts.query and (self.paths or self.listing != "none"):
            raise InvalidField(("url",), "The url of a folder has no query.")
        if self.paths and self.listing != "none":
            raise InvalidField(("paths",), "Either paths are given, or the server lists them.")
        if any(name in {"", ".", ".."} for path in self.paths for name in path.split("/")):
            raise InvalidField(("paths",), "A path leads from url downwards, without empty parts and dots.")
        if len(set(self.paths)) < len(self.paths):
            raise InvalidField(("paths",), "A path is named twice.")

    @property
    def files(self) -> list[RemoteFile]:
        """Those that the configuration names."""
        if self.paths:
            return [RemoteFile(path, url_below(self.url, path), self.format) for path in self.paths]
        name = unquote(urlsplit(self.url).path.rstrip("/").rpartition("/")[2])
        return [RemoteFile(name or origin_of(self.url).host, self.url, self.format)]


class HttpFileSecrets(HttpSourceSecrets, frozen=True, kw_only=True):
    """Those of every HTTP source."""


class HttpFile(Connector[HttpFileConfig, HttpFileSecrets]):
    type = "http_file"
    label = "Files over HTTP and WebDAV"
    category = "file"
    description = "CSV, TSV, JSON, NDJSON and Parquet files of a web server, or of a WebDAV folder."
    config_type = HttpFileConfig
    secrets_type = HttpFileSecrets
    driver = "httpx"
    warm_modules = ("httpcore", "anyio._backends._asyncio", "arro3.io", "app.connectors.network.http")
    extra = "http_file"
    verified_with = ("WsgiDAV 4.4", "Starlette on uvicorn", "http.server of Python 3.11")
    destination_fields = HTTP_DESTINATION_FIELDS | {"url"}

    @classmethod
    def validate(cls, config: HttpFileConfig, secrets: HttpFileSecrets) -> None:
        check_secrets(config, secrets)

    async def check(self, steps: Steps) -> None:
        refused: ConnectorError | None = None
        async with self._client() as client:
            await client.reach(steps, self.config.url)
            with steps.step("authenticate", self._signed_in()):
                signed = await self._sign_in(client)
                try:
                    await self._look(signed, steps)
                except ConnectorError as error:
                    if error.code not in _ABOUT_THE_FILE:
                        raise
                    refused = error
            with steps.step("list", "The folder can be listed." if self._is_listed else "The files can be read."):
                if refused is not None:
                    raise refused
                for file in [] if self._is_listed else self.config.files[1:_MAX_FILES_OF_A_CHECK]:
                    with self._said_of(file):
                        await table_of(signed, file, csv_settings(self.config))

    async def _look(self, signed: SignedIn, steps: Steps) -> None:
        """The least that tells whether the credentials are good."""
        if self._is_listed:
            await entries_of(signed, self.config.url)
            steps.server["product"] = "WebDAV"
        else:
            steps.server["product"] = "HTTP"
            with self._said_of(self.config.files[0]):
                await table_of(signed, self.config.files[0], csv_settings(self.config))

    @contextmanager
    def _said_of(self, file: RemoteFile) -> Iterator[None]:
        """What goes wrong with one of several files says with which."""
        try:
            yield
        except ConnectorError as error:
            if len(self.config.files) == 1:
                raise
            raise ConnectorError(
                error.code, f"{file.key}: {error.message}", retry_after_s=error.retry_after_s
            ) from error

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._session() as signed:
            if not self._is_listed:
                datasets = [Dataset(tuple(file.key.split("/")), file.key, 0) for file in self.config.files]
            else:
                grouped = Datasets()
                async for page in self._pages(signed):
                    for found in page:
                        grouped.add(found.key, found.size)
                    yield []  # A sign of life: a large tree is listed for minutes before its first dataset is known.
                if grouped.is_full:
                    self.stopped_because = TOO_MANY_DATASETS
                datasets = list(grouped)
            describer = Describer(_SAMPLERS)
            for some in slices(datasets, _BATCH):
                yield await together(
                    describer.describe(one.path, one.kind, partial(self._look_into, signed, self._file(one.sample)))
                    for one in some
                )

    async def _look_into(self, signed: SignedIn, file: RemoteFile) -> Description:
        if file.format is None and "." in file.key.rpartition("/")[2] and format_of(file.key)[0] is None:
            return Description((), [NO_ROWS])
        table = await table_of(signed, file, csv_settings(self.config))
        return Description(table.fields, table.notes)

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._session() as signed:
            file = await self._find(signed, request.path)
            opened = await open_file(signed, file)
            return await preview_of(opened, opened.key, opened.size, preview, csv_settings(self.config))

    async def _find(self, signed: SignedIn, path: tuple[str, ...]) -> RemoteFile:
        key = "/".join(path)
        if not self._is_listed:
            for file in self.config.files:
                if file.key == key:
                    return file
        elif not is_pattern(path):
            if self._shows(key) and not any("/" in name or name in {"", ".", ".."} for name in path):
                return self._file(key)
        elif found := await self._sample(signed, path):
            return self._file(found)
        raise ConnectorError("not_found", "There is no such file.")

    async def _sample(self, signed: SignedIn, pattern: tuple[str, ...]) -> str | None:
        """The file that stands for it; an empty one, or one of an unknown size, only where no other does."""
        search = SampleSearch(pattern)
        async for page in self._pages(signed, pattern):
            for found in page:
                if not search.is_over:
                    search.look_at(found.key, found.size)
            if search.is_over:
                break
        return search.found.sample if search.found else None

    # Listings ---------------------------------------------------------------------------------------------------------

    @property
    def _is_listed(self) -> bool:
        return self.config.listing == "webdav"

    async def _pages(self, signed: SignedIn, pattern: tuple[str, ...] = ()) -> AsyncIterator[list[FoundKey]]:
        """What the source shows of the first `max_files` files, in at most `MAX_FOLDERS` folders. With a pattern, of
        folders that it may be about."""

        def is_wanted(folder: tuple[str, ...]) -> bool:
            return not pattern or (len(folder) < len(pattern) and all(map(matches, folder, pattern)))

        left, folders = self.config.max_files, 0
        async for page in walk(signed, self.config.url, self.config.max_depth, is_wanted):
            folders += 1
            if folders > MAX_FOLDERS:
                self.stopped_because = f"There are more than {MAX_FOLDERS:,} folders."
                return
            yield [found for found in page[:left] if self._shows(found.key)]
            if len(page) > left:
                self.stopped_because = f"There are more files than max_files ({self.config.max_files:,})."
                return
            left -= len(page)

    def _shows(self, key: str) -> bool:
        return Scope("", self.config.include_paths, self.config.exclude_paths).shows(key)

    def _file(self, key: str) -> RemoteFile:
        for file in () if self._is_listed else self.config.files:
            if file.key == key:
                return file
        return RemoteFile(key, url_of_found(self.config.url, key), self.config.format)

    # The way out ------------------------------------------------------------------------------------------------------

    def _signed_in(self) -> str:
        return "The server answers without credentials." if self.config.auth == "none" else "The credentials are good."

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[SignedIn]:
        async with self._client() as client:
            yield await self._sign_in(client)

    def _client(self) -> HttpClient:
        return HttpClient.of(self.network, self.config, self.secrets)

    async def _sign_in(self, client: HttpClient) -> SignedIn:
        return await SignedIn(client, self.config, self.secrets, origin_of(self.config.url)).sign_in()


# Files ----------------------------------------------------------------------------------------------------------------


class RemoteFile(msgspec.Struct, frozen=True):
    key: str
    """Below the source's URL; the file's name if that is the URL."""
    url: str
    format: Format | None
    """If it is configured."""


class Opened(msgspec.Struct):
    """A file of which the first bytes are known."""

    key: str
    """The file's, its end such that it says the format."""
    size: int
    """Where the server does not tell: more than any file has."""
    url: str
    signed: SignedIn
    beginning: bytes
    etag: str | None

    async def read(self, key: str, start: int, end: int) -> bytes:
        if end <= len(self.beginning):
            return self.beginning[start:end]
        response = await self.signed.request(
            "GET", self.url, accept="*/*", byte_range=(start, end), max_bytes=end, may_cut=True
        )
        if response.status == 416:
            return b""
        refuse_unless_file(response)
        is_part = response.status == 206
        if (is_part and _range_of(response)[0] != start) or response.headers.get("etag") != self.etag:
            raise ConnectorError("response_invalid", "The file has changed while it was read.")
        return response.body[: end - start] if is_part else response.body[start:end]

    async def all_of_it(self) -> bytes:
        response = await self.signed.request("GET", self.url, accept="*/*", max_bytes=MAX_WHOLE_BYTES + 1, may_cut=True)
        refuse_unless_file(response)
        if len(response.body) > MAX_WHOLE_BYTES:
            raise ConnectorError(
                "response_too_large",
                "The server sends files only whole, and Parquet files of more than 32 MiB are read in parts.",
            )
        return response.body


async def open_file(signed: SignedIn, file: RemoteFile) -> Opened:
    """Asks for as much of the file as its format needs first.

    Raises `authentication_failed`, `permission_denied`, `not_found`, `unsupported` for other formats, and
    `response_invalid` for a web page in place of the file, which is how many servers ask to sign in.
    """
    form = file.format or format_of(file.key)[0]
    response = await _first_bytes(signed, file.url, _bytes_to_ask_for(form))
    form = form or _FORMAT_BY_CONTENT_TYPE.get(_content_type(response))
    if form is None and (_is_page(response) or response.url.endswith("/")):
        raise ConnectorError(
            "invalid_configuration",
            "The URL leads to a folder or a page, and to no file: name its files in paths, or let listing be webdav "
            "where the server speaks that.",
        )
    if form is None:
        raise ConnectorError("unsupported", NO_ROWS)
    if form == "json" and not response.is_whole and len(response.body) < _bytes_to_ask_for(form):
        response = await _first_bytes(signed, file.url, _bytes_to_ask_for(form))
    _refuse_page(response)
    opened = _opened(signed, file, form, response)
    if form == "parquet" and not response.is_whole and not _size_of_parts(response):
        opened.beginning = await opened.all_of_it()
        opened.size = len(opened.beginning)
    return opened


async def _first_bytes(signed: SignedIn, url: str, length: int) -> Response:
    """`is_whole` says whether that is the file."""
    response = await signed.request("GET", url, accept="*/*", byte_range=(0, length), max_bytes=length, may_cut=True)
    if response.status == 416:  # There is no byte in it (RFC 9110, section 15.5.17).
        return Response(200, response.headers, b"", response.url)
    refuse_unless_file(response)
    if response.status != 206:
        return response
    start, end, total = _range_of(response)
    if start != 0:
        raise ConnectorError("response_invalid", "The server sends another part of the file than was asked for.")
    return msgspec.structs.replace(response, is_whole=response.is_whole and end == total)


def _opened(signed: SignedIn, file: RemoteFile, form: Format, response: Response) -> Opened:
    beginning = response.body
    size = len(beginning) if response.is_whole else (_size_of_parts(response) or _UNKNOWN_SIZE)
    return Opened(
        _named(
            file.key, form, is_compressed=format_of(file.key)[1] and beginning.startswith(GZIP) and form != "parquet"
        ),
        size,
        file.url,
        signed,
        beginning,
        response.headers.get("etag"),
    )


async def table_of(signed: SignedIn, file: RemoteFile, settings: CsvSettings) -> Table:
    """Its columns, and rows that are read on the way. Raises as `open_file` does, and `response_invalid` for a damaged
    file."""
    opened = await open_file(signed, file)
    return await read_table(opened, opened.key, opened.size, 0, settings=settings)


def refuse_unless_file(response: Response) -> None:
    refuse_unless_signed_in(response)
    refuse_unless_ok(response)


def _refuse_page(response: Response) -> None:
    if _is_page(response):
        raise ConnectorError("response_invalid", "The server sends a web page in place of the file.")


def _is_page(response: Response) -> bool:
    start = response.body[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_said = _content_type(response) in {"text/html", "application/xhtml+xml"}
    return is_said or start.startswith((b"<!doctype", b"<html"))


# Formats --------------------------------------------------------------------------------------------------------------

_PARQUET_START_BYTES: Final = 4096
_FORMAT_BY_CONTENT_TYPE: Final[dict[str, Format]] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/json": "json",
    "text/json": "json",
    "application/geo+json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}


def _bytes_to_ask_for(form: Format | None) -> int:
    if form == "parquet":
        return _PARQUET_START_BYTES
    return text_rows.MAX_DOCUMENT_BYTES + 1 if form == "json" else SAMPLE_BYTES


def _named(key: str, form: Format, *, is_compressed: bool) -> str:
    """The key with an end that says what the file is. Some servers decompress what they send, and names of their own
    making say nothing."""
    if format_of(key) == (form, is_compressed):
        return key
    return f"{key}.{form}{'.gz' if is_compressed else ''}"


def _content_type(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


def _range_of(response: Response) -> tuple[int, int, int | None]:
    """From, to before, and of how many; RFC 9110, section 14.4."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if found is None:
        raise ConnectorError("response_invalid", "The server does not say which part of the file it sends.")
    return int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])


def _size_of_parts(response: Response) -> int:
    """Of a file that is sent in parts; 0 for others, and where the server does not tell."""
    return (_range_of(response)[2] or 0) if response.status == 206 else 0
