"""Delta Lake tables, in the hub's folder for files or in S3 compatible stores.

The log is replayed by `delta_log`, data files are read in ranges by `parquet_rows`; both see a table through a `Store`
only. For S3 that is the one of the type `s3`, its address pinned as there; for a local table it is the table's folder,
where every path is judged before it is opened (see `files`).
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, Final

from msgspec import Meta

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.files.local import LocalFolder, local_file, local_folder
from app.connectors.files.object_store import PAGE, FoundKey, Store, refuse_a_bad_endpoint
from app.connectors.files.parquet_rows import read_parquet
from app.connectors.files.table import those_named
from app.connectors.network.http import HttpClient, HttpConfig, HttpUrl
from app.connectors.types.delta_lake.deletions import ROWS_KNOWN, deleted_rows
from app.connectors.types.delta_lake.log import Add, Snapshot, load, path_below
from app.connectors.types.delta_lake.schema import Column, columns_of
from app.connectors.types.s3.access import AccessKeyId, PathStyle, Region, S3Secrets, refuse_half_a_key
from app.connectors.types.s3.connector import S3, S3Config
from app.connectors.values.batches import slices
from app.connectors.values.describing import Describer, Description, together
from app.connectors.values.preview import Preview
from app.core.egress import EgressPolicy

TableName = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[^/\\]+(/[^/\\]+)*\Z")]

_MAX_TABLES_OF_A_CHECK: Final = 10
_MAX_FILES_OF_A_PREVIEW: Final = 200
_BATCH: Final = 20
_S3_LOCATION: Final = re.compile(r"s3a?://([A-Za-z0-9][A-Za-z0-9._-]{2,62})(?:/(.*))?")


class DeltaLakeConfig(HttpConfig, frozen=True, kw_only=True):
    location: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=1024,
            description="Folder of the table: `s3://bucket/folder`, or a path below the hub's folder for files "
            "(HUB_FILES_ROOT).",
            examples=["s3://lake/sales/orders", "lake/orders"],
        ),
    ]
    tables: Annotated[
        tuple[TableName, ...],
        Meta(max_length=200, description="Folders of tables below the location. Empty: the location is a table."),
    ] = ()
    region: Region = "us-east-1"
    endpoint_url: Annotated[
        HttpUrl | None, Meta(description="For compatible stores. Unset: Amazon's endpoint of the region.")
    ] = None
    path_style: PathStyle = None
    access_key_id: AccessKeyId = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_a_bad_endpoint("endpoint_url", self.endpoint_url)
        if "://" in self.location and not _S3_LOCATION.fullmatch(self.location):
            raise InvalidField(("location",), "location is s3://bucket/folder, or a path without a scheme.")
        if any(name in {".", ".."} for text in (self.folder, *self.tables) for name in text.split("/")):
            raise InvalidField(("location",), "location and tables name their folders directly, without dots.")
        if len(set(self.tables)) < len(self.tables):
            raise InvalidField(("tables",), "A table is named twice.")
        if self.bucket is None and (self.endpoint_url is not None or self.access_key_id is not None):
            raise InvalidField(
                ("location",), "endpoint_url and access_key_id belong to a location that starts with s3://."
            )

    @property
    def bucket(self) -> str | None:
        """None for a local table."""
        found = _S3_LOCATION.fullmatch(self.location)
        return found[1] if found else None

    @property
    def folder(self) -> str:
        """In the bucket, without slashes around it; for a local table as it is configured."""
        found = _S3_LOCATION.fullmatch(self.location)
        return (found[2] or "").strip("/") if found else self.location

    @property
    def name(self) -> str:
        """What the table is called if it is the only one."""
        return self.folder.rstrip("/").rpartition("/")[2] or self.bucket or self.location


class DeltaLakeSecrets(S3Secrets, frozen=True, kw_only=True):
    """Those of the bucket."""


class DeltaLake(Connector[DeltaLakeConfig, DeltaLakeSecrets]):
    type = "delta_lake"
    label = "Delta Lake"
    category = "file"
    description = "Delta tables in the hub's folder for files, or in S3 compatible stores."
    config_type = DeltaLakeConfig
    secrets_type = DeltaLakeSecrets
    driver = "arro3.io"
    warm_modules = ("arro3.core", "httpx", "app.connectors.network.http")
    opens_files = True
    extra = "delta_lake"
    verified_with = ("delta-rs 1.6", "moto 5")
    destination_fields = frozenset(
        {"location", "endpoint_url", "region", "path_style", "access_key_id", "verify_tls", "ca_certificate"}
    )

    @classmethod
    def validate(cls, config: DeltaLakeConfig, secrets: DeltaLakeSecrets) -> None:
        refuse_half_a_key(config.access_key_id, secrets)

    async def check(self, steps: Steps) -> None:
        steps.server["product"] = "Delta Lake"
        if self.config.bucket is None:
            await self._check_local(steps)
        else:
            await self._check_s3(steps, self._s3())

    async def _check_local(self, steps: Steps) -> None:
        location = self.config.location
        with ExitStack() as until_checked:
            with steps.step("resolve", f"{location} is in the hub's folder for files."):
                store = LocalStore(self.network.policy, until_checked.enter_context(self._local_folder()))
            steps.server["encryption"] = "none"
            with steps.step("connect", "The folder can be read."):
                store.names("")
            steps.skip("tls", "A folder of this machine is read without a network.")
            steps.skip("authenticate", "A folder of this machine asks for no sign-in.")
            await self._check_tables(steps, store)

    async def _check_s3(self, steps: Steps, s3: S3) -> None:
        refused: ConnectorError | None = None
        async with self._client() as client:
            await client.reach(steps, s3.url)
            async with s3.opened(client) as store:
                signed_in = "The credentials are good." if s3.has_credentials else "No sign-in needed."
                with steps.step("authenticate", signed_in):
                    try:
                        await anext(store.pages(self.config.folder), None)
                    except ConnectorError as error:
                        if error.code not in {"not_found", "permission_denied"}:
                            raise
                        refused = error  # Whoever is told this was recognised.
                if refused is None:
                    await self._check_tables(steps, store)
        if refused is not None:
            with steps.step("list", ""):
                raise refused

    async def _check_tables(self, steps: Steps, store: Store) -> None:
        tables = self._tables()[:_MAX_TABLES_OF_A_CHECK]
        with steps.step("list", f"{len(tables)} of {len(self._tables())} tables can be read."):
            for _, folder in tables:
                snapshot = await load(store, folder)
                columns_of(snapshot.metadata)
                steps.server["version"] = f"reader {snapshot.protocol.min_reader_version}"

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._store() as store:
            tables = self._tables()
            describer = Describer(is_only_one=not self.config.tables)
            for some in slices(tables, _BATCH):
                yield await together(
                    describer.describe(path, "table", partial(self._look_into, store, folder)) for path, folder in some
                )

    async def _look_into(self, store: Store, folder: str) -> Description:
        columns = columns_of((await load(store, folder)).metadata)
        return Description([column.field(place) for place, column in enumerate(columns, 1)])

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        folder = dict(self._tables()).get(request.path)
        if folder is None:
            raise ConnectorError("not_found", "There is no such table.")
        async with self._store() as store:
            snapshot = await load(store, folder)
            columns = columns_of(snapshot.metadata)
            chosen = preview.choose([column.field(place) for place, column in enumerate(columns, 1)], "table")
            rows = TableRows(store, folder, [columns[field.position - 1] for field in chosen])
            is_all = await _fill(preview, rows, snapshot)
        return preview.result(has_more=not is_all)

    # The store --------------------------------------------------------------------------------------------------------

    def _tables(self) -> list[tuple[tuple[str, ...], str]]:
        """Path of each object, and its folder in the store."""
        config = self.config
        root = config.folder if config.bucket is not None else ""
        if not config.tables:
            return [((config.name,), root)]
        return [(tuple(name.split("/")), f"{root}/{name}" if root else name) for name in config.tables]

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store]:
        if self.config.bucket is None:
            with self._local_folder() as folder:
                yield LocalStore(self.network.policy, folder)
        else:
            async with self._client() as client, self._s3().opened(client) as store:
                yield store

    def _local_folder(self) -> AbstractContextManager[LocalFolder]:
        return local_folder(self.network.policy, self.config.location)

    def _s3(self) -> S3:
        """The bucket as a source of its own, which dials as this one."""
        config, secrets = self.config, self.secrets
        s3 = S3(
            S3Config(
                bucket=str(config.bucket),
                region=config.region,
                endpoint_url=config.endpoint_url,
                path_style=config.path_style,
                access_key_id=config.access_key_id,
                verify_tls=config.verify_tls,
                ca_certificate=config.ca_certificate,
                connect_timeout_s=config.connect_timeout_s,
                read_timeout_s=config.read_timeout_s,
            ),
            secrets,
            self.network.policy,
        )
        s3.network = self.network
        return s3

    def _client(self) -> HttpClient:
        return HttpClient.of(self.network, self.config)


class LocalStore:
    """A folder below HUB_FILES_ROOT as a `Store`. No link leads out of the folder."""

    def __init__(self, policy: EgressPolicy, folder: LocalFolder) -> None:
        self._policy = policy
        self._folder = folder

    async def pages(self, folder: str, after: str = "") -> AsyncIterator[list[FoundKey]]:
        """Of the files that lie in the folder itself: those below others are never listed here."""
        prefix = f"{folder}/" if folder else ""
        names = sorted(name for name in self.names(folder) if f"{prefix}{name}" >= after)
        for start in range(0, len(names), PAGE):
            found = [FoundKey(f"{prefix}{name}", self._size(f"{prefix}{name}")) for name in names[start : start + PAGE]]
            yield found

    def names(self, folder: str) -> list[str]:
        """Of all that is in the folder. Raises `not_found` or `permission_denied`."""
        try:
            return os.listdir(self._folder.judge(folder)) if folder else self._folder.names()
        except NotADirectoryError:
            raise ConnectorError("not_found", f"{self._typed(folder)} is no folder.") from None
        except OSError:
            raise ConnectorError("permission_denied", f"The hub's user may not read {self._typed(folder)}.") from None

    async def size(self, key: str) -> int:
        return self._size(key)

    def _size(self, key: str) -> int:
        return os.path.getsize(self._folder.judge(key))

    async def read(self, key: str, start: int, end: int) -> bytes:
        return self._read(key, start, end)

    def _read(self, key: str, start: int, end: int) -> bytes:
        with local_file(self._policy, self._typed(key)) as file:
            if not file.real_path.startswith(f"{self._folder.real_path}/"):
                raise ConnectorError("egress_refused", f"{self._typed(key)} leads out of the table's folder.")
            try:
                descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                raise ConnectorError("permission_denied", f"The hub's user may not read {self._typed(key)}.") from None
        with open(descriptor, "rb", buffering=0) as opened:
            return os.pread(opened.fileno(), end - start, start)

    def _typed(self, key: str) -> str:
        return f"{self._folder.typed.rstrip('/')}/{key}".rstrip("/")


# Rows -----------------------------------------------------------------------------------------------------------------


async def _fill(preview: Preview, table: TableRows, snapshot: Snapshot) -> bool:
    """Adds rows, file by file. Whether these were all rows of the table."""
    is_all = True
    files = 0
    async for add in snapshot.files():
        rows, is_whole = await table.of_file(add, preview.request.limit + 1 - len(preview.rows))
        is_all = is_all and is_whole
        if not all(preview.add(row) for row in rows):
            return False
        files += 1
        if files == _MAX_FILES_OF_A_PREVIEW:
            return False
    return is_all and snapshot.were_all_files


class TableRows:
    """Rows of single files, in the table's columns."""

    def __init__(self, store: Store, folder: str, columns: Sequence[Column]) -> None:
        self._store = store
        self._folder = folder
        self._columns = columns
        self._physical_names = [column.physical_name for column in columns if not column.is_partition]

    async def of_file(self, add: Add, wanted: int) -> tuple[list[list[object]], bool]:
        """At most `wanted` rows that are not deleted, and whether the file has no others."""
        gone: frozenset[int] = frozenset()
        if add.deletion_vector is not None:
            gone = await deleted_rows(self._store, self._folder, add.deletion_vector)
        to_read = min(_rows_to_read(wanted, gone), ROWS_KNOWN)
        read = partial(self._store.read, path_below(self._folder, add.path))
        table = await read_parquet(add.size, read, those_named(self._physical_names), to_read)
        rows = [row for place, row in enumerate(table.rows) if place not in gone]
        names = [field.name for field in table.fields]
        return self._as_declared(rows, names, add), table.is_whole

    def _as_declared(self, rows: list[list[object]], names: list[str], add: Add) -> list[list[object]]:
        """A column that a file does not have was added later; it is null there."""
        cells = []
        for column in self._columns:
            if column.is_partition:
                cells.append([column.partition_value(add.partition_values)] * len(rows))
            elif column.physical_name in names:
                place, read = names.index(column.physical_name), column.reader()
                cells.append([None if row[place] is None else read(row[place]) for row in rows])
            else:
                cells.append([None] * len(rows))
        return [list(row) for row in zip(*cells, strict=True)] if cells else [[] for _ in rows]


def _rows_to_read(wanted: int, gone: frozenset[int]) -> int:
    """How many rows from the start of a file hold so many that are not deleted."""
    rows = wanted
    for place in sorted(gone):
        if place >= rows:
            break
        rows += 1
    return rows
