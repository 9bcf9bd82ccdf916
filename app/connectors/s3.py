"""Amazon S3 and compatible object stores, through obstore.

obstore resolves names in native code and cannot be given an address, so it is told to go through a `PinnedProxy`, which
connects to the pinned address of the endpoint and of nothing else: not to instance metadata, not to where a redirect
leads. Credentials are always given or switched off, and the connector process has no AWS variables or profile files.

Keys are grouped into datasets: numbers, dates, hashes and values of `name=value` folders become `*`, so that
`sales/year=2024/part-0001.csv` and its 10,000 siblings are the one object `sales / year=* / part-*.csv`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from app.connectors import file_rows
from app.connectors.base import (
    Connector,
    ConnectorConfig,
    ConnectorSecrets,
    DiscoveredField,
    DiscoveredObject,
    InvalidField,
    Pem,
    PreviewColumn,
    PreviewRequest,
    PreviewResult,
    SecretText,
    Steps,
    TimeoutS,
    elapsed_ms,
)
from app.connectors.failures import Code, ConnectorError
from app.connectors.http import HttpClient, origin_of
from app.connectors.pinned_proxy import PinnedProxy
from app.connectors.values import RowBudget

if TYPE_CHECKING:
    from obstore.store import S3Store

MAX_DATASETS: Final = 5_000
MAX_NAMES_IN_A_FOLDER: Final = 20
"""More differently named files of one format in a folder are taken for parts of one dataset."""
_PAGE: Final = 1000
_MAX_KEYS_FOR_A_PREVIEW: Final = 20_000
_SAMPLERS: Final = 8
_BATCH: Final = 100


class S3Config(ConnectorConfig, frozen=True, kw_only=True):
    bucket: Annotated[
        str,
        Meta(min_length=3, max_length=63, pattern="^[A-Za-z0-9][A-Za-z0-9._-]+$", description="Name of the bucket."),
    ]
    region: Annotated[
        str,
        # A label of the endpoint's host name (RFC 1035 section 2.3.1).
        Meta(
            min_length=1, max_length=63, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", description="Region of the bucket."
        ),
    ] = "us-east-1"
    endpoint_url: Annotated[
        Annotated[str, Meta(min_length=8, max_length=2048, pattern="^https?://")] | None,
        Meta(description="For compatible stores. Unset: Amazon's endpoint of the region."),
    ] = None
    path_style: Annotated[
        bool | None,
        Meta(description="Whether the bucket stands in the path. Unset: where an endpoint_url is given, it does."),
    ] = None
    prefix: Annotated[str, Meta(max_length=1024, description="Only keys below this folder are shown.")] = ""
    access_key_id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128, pattern="^[!-~]+$")] | None,
        Meta(description="Unset: the bucket is read without signing in."),
    ] = None
    max_keys: Annotated[int, Meta(ge=1, le=5_000_000, description="Keys after which a discovery stops looking.")] = (
        200_000
    )
    verify_tls: Annotated[bool, Meta(description="Whether the server's certificate is checked.")] = True
    ca_certificate: Annotated[Pem | None, Meta(description="CA to trust beside the system's.")] = None
    connect_timeout_s: Annotated[TimeoutS, Meta(description="Seconds for each step of connecting.")] = 5.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds for each answer of the server.")] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoint_url is None:
            return
        try:
            origin_of(self.endpoint_url)
        except ValueError as error:
            raise InvalidField(("endpoint_url",), f"endpoint_url: {error}.") from None
        parts = urlsplit(self.endpoint_url)
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise InvalidField(("endpoint_url",), "endpoint_url has no path and no query.")


class S3Secrets(ConnectorSecrets, frozen=True, kw_only=True):
    secret_access_key: Annotated[SecretText | None, Meta(description="Belongs to the access_key_id.")] = None
    session_token: Annotated[SecretText | None, Meta(description="For temporary credentials.")] = None


class S3(Connector[S3Config, S3Secrets]):
    type = "s3"
    label = "Amazon S3 and compatible"
    category = "object_store"
    description = "Files in one bucket, grouped into datasets."
    config_type = S3Config
    secrets_type = S3Secrets
    driver = "obstore"
    warm_modules = ("obstore.store", "app.connectors.http")
    extra = "s3"
    verified_with = ("moto",)
    destination_fields = frozenset(
        {"endpoint_url", "region", "bucket", "path_style", "access_key_id", "verify_tls", "ca_certificate"}
    )

    @classmethod
    def validate(cls, config: S3Config, secrets: S3Secrets) -> None:
        if config.access_key_id is not None and secrets.secret_access_key is None:
            raise InvalidField(("secrets", "secret_access_key"), "secret_access_key is needed for the access_key_id.")
        if config.access_key_id is None and (secrets.secret_access_key or secrets.session_token):
            raise InvalidField(("config", "access_key_id"), "access_key_id is needed for the secret_access_key.")

    async def check(self, steps: Steps) -> None:
        config = self.config
        client = HttpClient(
            self.network,
            verify_tls=config.verify_tls,
            ca_certificate=config.ca_certificate,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )
        await client.reach(steps, self._url)
        steps.server["product"] = "Amazon S3" if config.endpoint_url is None else "S3 compatible"
        refused: ConnectorError | None = None
        async with self._store() as store:
            with steps.step(
                "authenticate", "The credentials are good." if config.access_key_id else "No sign-in needed."
            ):
                try:
                    await anext(self._pages(store, config.prefix), None)
                except ConnectorError as error:
                    if error.code not in {"not_found", "permission_denied"}:
                        raise
                    refused = error  # Whoever is told this was recognised.
        with steps.step("list", f"The bucket {config.bucket} can be listed."):
            if refused:
                raise refused

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        datasets = Datasets()
        async with self._store() as store:
            seen = 0
            async for page in self._pages(store, self.config.prefix):
                for key, size in page:
                    datasets.add(key, size)
                seen += len(page)
                if seen >= self.config.max_keys:
                    break
            found = list(datasets)
            for start in range(0, len(found), _BATCH):
                yield await self._described(store, found[start : start + _BATCH])

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        started = time.perf_counter()
        async with self._store() as store:
            sample = await self._first_match(store, request.path)
            table = await self._read(store, sample)
        columns, places = _columns(table, request.columns)
        budget = RowBudget(request.limit, request.max_bytes, request.max_value_bytes)
        for row in table.rows:
            if not budget.add([row[place] for place in places]):
                break
        is_all = table.is_whole and not budget.truncated and "*" not in "".join(request.path)
        return PreviewResult(columns, budget.rows, not is_all, elapsed_ms(started))

    # The store --------------------------------------------------------------------------------------------------------

    @property
    def _is_path_style(self) -> bool:
        if self.config.path_style is not None:
            return self.config.path_style
        return self.config.endpoint_url is not None or "." in self.config.bucket

    @property
    def _url(self) -> str:
        """The endpoint as it is dialled, with the bucket in its name where it belongs there."""
        config = self.config
        domain = "amazonaws.com.cn" if config.region.startswith("cn-") else "amazonaws.com"
        url = (config.endpoint_url or f"https://s3.{config.region}.{domain}").rstrip("/")
        if self._is_path_style:
            return url
        parts = urlsplit(url)
        return parts._replace(netloc=f"{config.bucket}.{parts.netloc}").geturl()

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[S3Store]:
        from obstore.store import S3Store

        config, secrets = self.config, self.secrets
        origin = origin_of(self._url)
        await self.network.resolve(origin.host, origin.port, config.connect_timeout_s)
        async with PinnedProxy.opened(self.network, config.connect_timeout_s) as proxy:
            proxy.allow(origin.host, origin.port)
            self._proxy = proxy
            options: dict[str, Any] = {
                "proxy_url": proxy.url,
                "allow_http": not origin.is_encrypted,
                "allow_invalid_certificates": not config.verify_tls,
                "connect_timeout": f"{round(config.connect_timeout_s * 1000)}ms",
                "timeout": f"{round(config.read_timeout_s * 1000)}ms",
            }
            if config.ca_certificate:
                options["root_certificate"] = config.ca_certificate
            credentials: dict[str, Any] = {"skip_signature": True}
            if config.access_key_id:
                credentials = {"access_key_id": config.access_key_id, "secret_access_key": secrets.secret_access_key}
                if secrets.session_token:
                    credentials["session_token"] = secrets.session_token
            try:
                store = S3Store(
                    config.bucket,
                    endpoint=self._url,
                    region=config.region,
                    virtual_hosted_style_request=not self._is_path_style,
                    client_options=options,  # type: ignore[arg-type]
                    retry_config={"max_retries": 0},
                    **credentials,
                )
            except Exception as error:
                raise ConnectorError("invalid_configuration", "These settings do not make an S3 client.") from error
            yield store

    async def _pages(self, store: S3Store, prefix: str) -> AsyncIterator[list[tuple[str, int]]]:
        """Keys and sizes, a thousand at a time."""
        import obstore

        try:
            async for page in obstore.list(store, prefix=prefix.strip("/") or None, chunk_size=_PAGE):
                yield [(item["path"], item["size"]) for item in page]
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ConnectorError:
        """obstore's errors in our words; their texts are searched and never shown. Error codes from the Amazon S3 API
        Reference, "Error responses"."""
        config, text = self.config, str(error)
        if isinstance(error, ConnectorError):
            return error
        if self._proxy.refused:
            return ConnectorError("egress_refused", "The server led to another address, which is not followed.")
        if found := re.search(r"<Code>([A-Za-z]{1,64})</Code>", text):
            code, message = _BY_S3_CODE.get(found[1], ("server_error", f"The server answered with {found[1]}."))
            return ConnectorError(code, message.format(bucket=config.bucket, region=config.region))
        if "timed out" in text or "operation timed out" in text.lower():
            return ConnectorError("timeout", f"There was no answer within {config.read_timeout_s:g} s.")
        return self._explain_status(re.search(r"status code: ([0-9]{3})", text))

    def _explain_status(self, status: re.Match[str] | None) -> ConnectorError:
        host = origin_of(self._url).host
        if status is None:
            return ConnectorError("response_invalid", f"{host} does not answer as an object store does.")
        by_status: dict[str, tuple[Code, str]] = {
            "401": ("authentication_failed", f"{host} did not accept the credentials."),
            "403": (
                "permission_denied",
                f"{host} does not let these credentials read the bucket {self.config.bucket}.",
            ),
            "404": ("not_found", f"{host} does not have the bucket {self.config.bucket}."),
            "502": ("connection_lost", f"{host} could not be reached."),
            "503": ("rate_limited", f"{host} takes no more requests for now."),
        }
        return ConnectorError(*by_status.get(status[1], ("server_error", f"{host} answered with status {status[1]}.")))

    # Files ------------------------------------------------------------------------------------------------------------

    async def _described(self, store: S3Store, datasets: Sequence[Dataset]) -> list[DiscoveredObject]:
        turns = asyncio.Semaphore(_SAMPLERS)

        async def describe(dataset: Dataset) -> DiscoveredObject:
            async with turns:
                return DiscoveredObject.at(dataset.path, dataset.kind, await self._fields(store, dataset))

        return list(await asyncio.gather(*(describe(dataset) for dataset in datasets)))

    async def _fields(self, store: S3Store, dataset: Dataset) -> tuple[DiscoveredField, ...]:
        """None for a file that cannot be read: the dataset is there nevertheless."""
        if file_rows.format_of(dataset.sample)[0] is None:
            return ()
        try:
            return (await self._read(store, (dataset.sample, dataset.sample_size))).fields
        except ConnectorError as error:
            if error.code in {"response_invalid", "response_too_large", "permission_denied", "not_found"}:
                return ()
            raise

    async def _read(self, store: S3Store, file: tuple[str, int]) -> file_rows.Table:
        """The beginning of a file, and behind its own columns the `name=value` folders above it."""
        import obstore

        key, size = file
        needed = file_rows.bytes_needed(key, size)
        try:
            content = b"" if not size else bytes(await obstore.get_range_async(store, key, start=0, end=needed))
        except Exception as error:
            raise self._explain(error) from error
        table = file_rows.read(key, content, is_whole=needed >= size)
        return _with_partitions(table, key)

    async def _first_match(self, store: S3Store, path: Sequence[str]) -> tuple[str, int]:
        fixed = [*_before_star(path[:-1])]
        looked_at = 0
        async for page in self._pages(store, "/".join(fixed) or self.config.prefix):
            for key, size in page:
                if _is_below(key, self.config.prefix) and _matches_all(key.split("/"), path):
                    return key, size
            looked_at += len(page)
            if looked_at >= _MAX_KEYS_FOR_A_PREVIEW:
                break
        raise ConnectorError("not_found", f"There is no such file in the bucket {self.config.bucket}.")


_BY_S3_CODE: Final[dict[str, tuple[Code, str]]] = {
    "InvalidAccessKeyId": ("authentication_failed", "The server does not know the access key."),
    "SignatureDoesNotMatch": ("authentication_failed", "The secret access key does not belong to the access key."),
    "InvalidToken": ("authentication_failed", "The session token is not valid."),
    "ExpiredToken": ("authentication_failed", "The session token has expired."),
    "RequestTimeTooSkewed": ("authentication_failed", "The clocks of hub and server differ too much."),
    "AuthorizationHeaderMalformed": ("invalid_configuration", "The bucket {bucket} is not in the region {region}."),
    "PermanentRedirect": ("invalid_configuration", "The bucket {bucket} is not in the region {region}."),
    "AccessDenied": ("permission_denied", "These credentials may not read the bucket {bucket}."),
    "AllAccessDisabled": ("permission_denied", "Access to the bucket {bucket} is turned off."),
    "NoSuchBucket": ("not_found", "The server does not have the bucket {bucket}."),
    "NoSuchKey": ("not_found", "The file is not in the bucket {bucket} any more."),
    "SlowDown": ("rate_limited", "The server takes no more requests for now."),
    "ServiceUnavailable": ("rate_limited", "The server takes no more requests for now."),
}


# Datasets -------------------------------------------------------------------------------------------------------------

_VARYING: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[0-9]+(?:[-_.:T][0-9]+)*", re.I
)
_PARTITION: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.*)")


class Dataset(msgspec.Struct):
    path: tuple[str, ...]
    sample: str
    sample_size: int
    files: int = 1

    @property
    def kind(self) -> str:
        return "dataset" if any("*" in name for name in self.path) else "file"


class Datasets:
    """Groups keys as they come, in memory that the number of keys does not move."""

    def __init__(self) -> None:
        self._folders: dict[tuple[tuple[str, ...], str], dict[str, Dataset]] = {}
        self._count = 0

    def add(self, key: str, size: int) -> None:
        """Folder markers and files for the tools' own use (`_SUCCESS`, `.crc`) are nobody's data."""
        *folders, name = key.split("/")
        if not name or name.startswith(("_", ".")):
            return
        folder = tuple(_generalised_folder(part) for part in folders)
        extension = _extension(name)
        group = self._folders.get((folder, extension))
        if group is None:
            if self._count >= MAX_DATASETS:
                return
            group = self._folders.setdefault((folder, extension), {})
        pattern = "*" + extension if "*" + extension in group else _generalised(name, extension)
        if pattern in group:
            group[pattern].files += 1
        elif self._count < MAX_DATASETS:
            group[pattern] = Dataset((*folder, pattern), key, size)
            self._count += 1
            if len(group) > MAX_NAMES_IN_A_FOLDER:
                self._collapse(group, folder, extension)

    def _collapse(self, group: dict[str, Dataset], folder: tuple[str, ...], extension: str) -> None:
        first = next(iter(group.values()))
        whole = Dataset(
            (*folder, "*" + extension), first.sample, first.sample_size, sum(d.files for d in group.values())
        )
        self._count -= len(group) - 1
        group.clear()
        group["*" + extension] = whole

    def __iter__(self) -> Iterator[Dataset]:
        """Sorted by path. A pattern that stands for one file only is that file."""
        found = [dataset for group in self._folders.values() for dataset in group.values()]
        for dataset in found:
            if dataset.files == 1:
                dataset.path = tuple(dataset.sample.split("/"))
        return iter(sorted(found, key=lambda dataset: dataset.path))


def _generalised_folder(name: str) -> str:
    if found := _PARTITION.fullmatch(name):
        return f"{found[1]}=*"
    return "*" if _VARYING.fullmatch(name) else name


def _generalised(name: str, extension: str) -> str:
    stem = name[: len(name) - len(extension)]
    return _VARYING.sub("*", stem) + extension


def _extension(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    if not dot or not stem:
        return ""
    if last.lower() in {"gz", "zst", "bz2", "snappy"} and "." in stem:
        return "." + stem.rpartition(".")[2] + "." + last
    return "." + last


def _before_star(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if "*" in name:
            return
        yield name


def _matches_all(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(names) == len(patterns) and all(map(_matches, names, patterns))


def _matches(name: str, pattern: str) -> bool:
    """A star stands for any characters. Linear in the name, however many stars there are."""
    head, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middles, tail = rest
    if not name.startswith(head) or not name.endswith(tail) or len(name) < len(head) + len(tail):
        return False
    place, end = len(head), len(name) - len(tail)
    for middle in middles:
        place = name.find(middle, place, end)
        if place < 0:
            return False
        place += len(middle)
    return True


def _is_below(key: str, prefix: str) -> bool:
    folder = prefix.strip("/")
    return not folder or key.startswith(folder + "/")


def _with_partitions(table: file_rows.Table, key: str) -> file_rows.Table:
    parts = [found for name in key.split("/")[:-1] if (found := _PARTITION.fullmatch(name))]
    own = {field.name for field in table.fields}
    extra = [(found[1], found[2]) for found in parts if found[1] not in own]
    if not extra:
        return table
    start = len(table.fields) + 1
    fields = [DiscoveredField(name, "string", "partition", False, start + i) for i, (name, _) in enumerate(extra)]
    values = [value for _, value in extra]
    return file_rows.Table((*table.fields, *fields), [[*row, *values] for row in table.rows], table.is_whole)


def _columns(table: file_rows.Table, names: Sequence[str] | None) -> tuple[tuple[PreviewColumn, ...], list[int]]:
    places = {field.name: place for place, field in enumerate(table.fields)}
    chosen = list(places) if names is None else list(names)
    if unknown := [name for name in chosen if name not in places]:
        raise ConnectorError("not_found", f"The file has no column {', '.join(unknown)[:200]}.")
    columns = tuple(PreviewColumn(name, table.fields[places[name]].type) for name in chosen)
    return columns, [places[name] for name in chosen]
