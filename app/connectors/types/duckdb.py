"""DuckDB files below the hub's folder, through the duckdb package.

The file is attached read-only to a database in memory, which is shut before anything of the file runs: no access to
other files or the network, no extension fetched or loaded, no spilling to disk, no setting that can be changed back.
What a view of the file asks for beyond that is refused by DuckDB itself.

DuckDB's own conversion to Python drops parts of intervals, nanoseconds and infinite dates, and asks for further
packages: such values come as DuckDB's text for them, also from inside nested ones, and are read here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Capabilities, Connector
from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets, SecretText, TimeoutS
from app.connectors.contract.failures import ConnectorError, reading
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PortableType,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.files.kinds import kind_of_file
from app.connectors.files.local import FilePath, LocalFile, local_file
from app.connectors.values.batches import slices
from app.connectors.values.describing import described_row
from app.connectors.values.json_text import read_json
from app.connectors.values.preview import Preview
from app.connectors.values.values import Row, json_safe, single_precision
from app.connectors.values.wildcards import like_pattern

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SchemaPattern = Annotated[str, Meta(min_length=1, max_length=255)]
Answer = TypeVar("Answer")

_CHUNK_BYTES: Final = 32 * 1024 * 1024
_BETWEEN_TRIES_S: Final = 0.05


class DuckdbConfig(ConnectorConfig, frozen=True, kw_only=True):
    path: Annotated[FilePath, Meta(examples=["shop/orders.duckdb"])]
    include_schemas: Annotated[
        tuple[SchemaPattern, ...],
        Meta(max_length=200, description="Schemas to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_schemas: Annotated[
        tuple[SchemaPattern, ...], Meta(max_length=200, description="Schemas to leave out; wins over the included.")
    ] = ()
    lock_timeout_s: Annotated[
        TimeoutS, Meta(description="Seconds to wait while another program keeps the file to itself.")
    ] = 3.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds after which a statement is stopped.")] = 30.0


class DuckdbSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    encryption_key: Annotated[SecretText | None, Meta(description="Key of an encrypted file.")] = None


class Duckdb(Connector[DuckdbConfig, DuckdbSecrets]):
    type = "duckdb"
    label = "DuckDB"
    category = "file"
    description = "Tables and views of one DuckDB file in the hub's folder for files."
    config_type = DuckdbConfig
    secrets_type = DuckdbSecrets
    driver = "duckdb"
    opens_files = True
    extra = "duckdb"
    capabilities = Capabilities()
    verified_with = ("DuckDB 2.0",)
    destination_fields = frozenset({"path"})

    async def check(self, steps: Steps) -> None:
        import duckdb

        async with AsyncExitStack() as held:
            with steps.step("resolve", f"{self.config.path} is in the hub's folder for files."):
                file = held.enter_context(local_file(self.network.policy, self.config.path))
            with steps.step("connect", "The file is a DuckDB database."):
                header = _header(file)
                database = None if header.is_encrypted else await held.enter_async_context(self._opened(file))
            encryption = "AES" if header.is_encrypted else "none"
            steps.server.update(product="DuckDB", version=duckdb.__version__, encryption=encryption)
            steps.server.update({"written_by": header.written_by} if header.written_by else {})
            steps.skip("tls", "A file of this machine is read without a network.")
            if database is None:
                with steps.step("authenticate", "The key fits the file."):
                    database = await held.enter_async_context(self._opened(file))
            else:
                self._sign_in_without_key(steps)
            with steps.step("list", "Tables and views can be listed."):
                await self._do(database, lambda: database.execute(_ANY_TABLE, self._scope(file)).fetchone())

    def _sign_in_without_key(self, steps: Steps) -> None:
        if self.secrets.encryption_key is None:
            steps.skip("authenticate", "The file is not encrypted.")
            return
        with steps.step("authenticate", ""):
            raise ConnectorError("invalid_configuration", "encryption_key is given, but the file is not encrypted.")

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._reading() as (file, database):
            cursor = await self._do(database, lambda: database.execute(_COLUMNS, [*self._scope(file), None, None]))
            rest: list[Row] = []
            while rows := await self._do(database, lambda: cursor.fetchmany(2000)):
                *objects, rest = _by_object(rest + rows)
                for some in slices(objects):
                    yield [_object(columns) for columns in some]
            if rest:
                yield [_object(rest)]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._reading() as (file, database):
            found = await self._find(file, database, request.path)
            columns = preview.choose(found.fields)
            source = ".".join(_quoted(name) for name in (_catalog(file), *request.path))
            with reading(found.kind):
                types = await self._do(database, lambda: _types(database, source, columns))
                query = _select(source, columns, types, request)
                chunk = max(1, min(250, _CHUNK_BYTES // (request.max_value_bytes * max(1, len(columns)))))
                cursor = await self._do(database, lambda: database.execute(query))
                has_room = True
                while has_room and (rows := await self._do(database, lambda: cursor.fetchmany(chunk))):
                    for row in rows:
                        if not (has_room := preview.add(_values(types, row))):
                            break
        return preview.result()

    # Opening ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[tuple[LocalFile, DuckDBPyConnection]]:
        with local_file(self.network.policy, self.config.path) as file:
            header = _header(file)
            if self.secrets.encryption_key is not None and not header.is_encrypted:
                raise ConnectorError("invalid_configuration", "encryption_key is given, but the file is not encrypted.")
            async with self._opened(file) as database:
                yield file, database

    @asynccontextmanager
    async def _opened(self, file: LocalFile) -> AsyncIterator[DuckDBPyConnection]:
        import duckdb

        if _header(file).is_encrypted and self.secrets.encryption_key is None:
            raise ConnectorError("authentication_failed", f"{file.typed} is encrypted; encryption_key is needed.")
        for suffix in _COMPANIONS:
            file.companion(suffix)
        database = duckdb.connect(":memory:", config=dict(_SETTINGS))
        try:
            with file.watched():
                await self._attach(file, database)
            for statement in _SHUT:
                database.execute(statement)
            yield database
        finally:
            database.close()

    async def _attach(self, file: LocalFile, database: DuckDBPyConnection) -> None:
        """DuckDB does not wait for a lock; it is asked again until `lock_timeout_s` is over."""
        ends = time.monotonic() + self.config.lock_timeout_s
        key = self.secrets.encryption_key
        option = f", ENCRYPTION_KEY {_literal(key)}" if key and _header(file).is_encrypted else ""
        attach = f"ATTACH {_literal(file.path)} AS {_quoted(_catalog(file))} (TYPE duckdb, READ_ONLY{option})"
        while True:
            try:
                await self._do(database, lambda: database.execute(attach))
                return
            except _Locked:
                if time.monotonic() > ends:
                    raise
            await asyncio.sleep(_BETWEEN_TRIES_S)

    async def _do(self, database: DuckDBPyConnection, work: Callable[[], Answer]) -> Answer:
        """Runs a piece of DuckDB's work on a thread and stops it when its time is over."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            async with asyncio.timeout(self.config.read_timeout_s):
                return await asyncio.shield(running)
        except TimeoutError:
            database.interrupt()
            await asyncio.gather(running, return_exceptions=True)
            raise ConnectorError("timeout", f"Reading {self.config.path} took longer than read_timeout_s.") from None
        except (ConnectorError, MemoryError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> Exception:
        """DuckDB's errors in our words. Its texts tell cases apart and are never shown."""
        import duckdb

        if not isinstance(error, duckdb.Error):
            return error
        if isinstance(error, duckdb.OutOfMemoryException):
            return ConnectorError("out_of_memory", "The statement needed more memory than it is allowed.")
        text = str(error)
        if "Conflicting lock" in text:
            return _Locked(self.config.path)
        for part, code, message in _TEXTS:
            if part in text:
                return ConnectorError(code, message.format(path=self.config.path))  # type: ignore[arg-type]
        if isinstance(error, _unsupported()):
            return ConnectorError("unsupported", "The view asks for something that the hub does not do for a file.")
        if isinstance(error, duckdb.IOException):
            return ConnectorError("response_invalid", f"{self.config.path} is damaged or cut off.")
        return ConnectorError("server_error", f"{self.config.path} could not be read ({type(error).__name__}).")

    # Reading ----------------------------------------------------------------------------------------------------------

    def _scope(self, file: LocalFile) -> list[object]:
        included = [like_pattern(pattern) for pattern in self.config.include_schemas] or ["%"]
        return [_catalog(file), included, [like_pattern(pattern) for pattern in self.config.exclude_schemas]]

    async def _find(self, file: LocalFile, database: DuckDBPyConnection, path: Sequence[str]) -> DiscoveredObject:
        """By the query of the discovery, so that a preview shows nothing that a discovery would not."""
        rows: list[Row] = []
        if len(path) == 2:
            values = [*self._scope(file), *path]
            rows = await self._do(database, lambda: database.execute(_COLUMNS, values).fetchall())
        if not rows:
            raise ConnectorError("not_found", f"There is no such table or view in {self.config.path}.")
        return _object(rows)


class _Locked(ConnectorError):
    def __init__(self, path: str) -> None:
        super().__init__("timeout", f"Another program kept {path} to itself for longer than lock_timeout_s.")


# The file -------------------------------------------------------------------------------------------------------------

_COMPANIONS: Final = (".wal", ".wal.checkpoint", ".wal.recovery")
"""What DuckDB may open beside the file."""
_MAGIC: Final = slice(8, 12)
_FLAGS: Final = 20
_WRITTEN_BY: Final = slice(52, 84)


class _Header(msgspec.Struct, frozen=True):
    """https://duckdb.org/docs/stable/internals/storage: checksum, magic bytes, version, flags, then the writer's own
    version in text since 1.0."""

    is_encrypted: bool
    written_by: str


def _header(file: LocalFile) -> _Header:
    start = file.read_start(4096)
    if start[_MAGIC] != b"DUCK":
        kind = kind_of_file(start) if start else "empty"
        raise ConnectorError(
            "protocol_mismatch", f"{file.typed} is no DuckDB database{f'; it is {kind}' if kind else ''}."
        )
    if len(start) < 4096:
        raise ConnectorError("response_invalid", f"{file.typed} is cut off.")
    writer = re.match(rb"v\d{1,3}\.\d{1,3}\.\d{1,3}", start[_WRITTEN_BY])
    return _Header(bool(start[_FLAGS] & 1), writer.group().decode("ascii") if writer else "")


def _catalog(file: LocalFile) -> str:
    """The name that DuckDB gives a file, because views may have been written with it."""
    stem = PurePosixPath(file.real_path).name.partition(".")[0] or "db"
    return f"{stem}_db" if stem.lower() in {"memory", "system", "temp"} else stem


_SETTINGS: Final = {
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
    "memory_limit": "384MB",
    "temp_directory": "",
    "threads": "2",
}
_SHUT: Final = (
    "SET TimeZone = 'UTC'",
    "SET enable_external_access = false",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET lock_configuration = true",
)
_TEXTS: Final = (
    ("does not exist", "not_found", "The object is not there any more."),
    ("encryption key", "authentication_failed", "encryption_key does not fit {path}."),
    ("storage version", "protocol_mismatch", "{path} was written by a version of DuckDB that the hub's cannot read."),
    ("version number", "protocol_mismatch", "{path} was written by a version of DuckDB that the hub's cannot read."),
    ("not a valid DuckDB", "protocol_mismatch", "{path} is no DuckDB database."),
    ("Corrupt", "response_invalid", "{path} is damaged."),
    ("Permission denied", "permission_denied", "The hub's user may not read {path}."),
)


def _unsupported() -> tuple[type[Exception], ...]:
    """What a view raises that needs more than a file may ask for, or something that is not there."""
    import duckdb

    return (
        duckdb.PermissionException,
        duckdb.CatalogException,
        duckdb.BinderException,
        duckdb.InvalidInputException,
        duckdb.NotImplementedException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
    )


# The catalog ----------------------------------------------------------------------------------------------------------

_TABLES: Final = """
    SELECT schema_name, table_name, 'table' AS kind FROM duckdb_tables() WHERE database_name = $1 AND NOT internal
    UNION ALL
    SELECT schema_name, view_name, 'view' FROM duckdb_views() WHERE database_name = $1 AND NOT internal
"""
_IN_SCOPE: Final = """
    len(list_filter($2::VARCHAR[], lambda p: t.schema_name LIKE p ESCAPE '\\')) > 0
    AND len(list_filter($3::VARCHAR[], lambda p: t.schema_name LIKE p ESCAPE '\\')) = 0
"""
_ANY_TABLE: Final = f"SELECT 1 FROM ({_TABLES}) t WHERE {_IN_SCOPE} LIMIT 1"  # noqa: S608 - no value of anybody is in it

# A view whose columns DuckDB cannot tell is listed without them.
_COLUMNS: Final = f"""
SELECT t.schema_name, t.table_name, t.kind, c.column_name, c.data_type, c.is_nullable
FROM ({_TABLES}) t LEFT JOIN duckdb_columns() c
    ON c.database_name = $1 AND c.schema_name = t.schema_name AND c.table_name = t.table_name
WHERE {_IN_SCOPE} AND ($4::VARCHAR IS NULL OR t.schema_name = $4) AND ($5::VARCHAR IS NULL OR t.table_name = $5)
ORDER BY t.schema_name, t.table_name, t.kind, c.column_index
"""  # noqa: S608 - no value of anybody is in it


def _by_object(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(columns) for _, columns in groupby(rows, key=lambda row: row[:3])]


def _object(rows: Sequence[Row]) -> DiscoveredObject:
    schema, name, kind = rows[0][:3]
    return described_row((schema, name), kind, lambda: _fields([row[3:] for row in rows if row[3] is not None]))


def _fields(columns: Sequence[Row]) -> list[DiscoveredField]:
    return [
        DiscoveredField(column, _portable(native), native, bool(is_nullable), position)
        for position, (column, native, is_nullable) in enumerate(columns, 1)
    ]


_PORTABLE: Final[dict[str, PortableType]] = {
    "BOOLEAN": "boolean",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "BIGNUM"), "integer"),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"), "integer"),
    "FLOAT": "number",
    "DOUBLE": "number",
    "VARCHAR": "string",
    "BIT": "string",
    "BLOB": "binary",
    "DATE": "date",
    "TIME": "time",
    "TIME_NS": "time",
    "TIME WITH TIME ZONE": "time",
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "timestamp"),
    **dict.fromkeys(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"), "timestamp_tz"),
    "INTERVAL": "interval",
    "UUID": "uuid",
    "JSON": "json",
    "VARIANT": "json",
}
_BY_START: Final[tuple[tuple[str, PortableType], ...]] = (
    ("DECIMAL(", "decimal"),
    ("ENUM(", "string"),
    ("STRUCT(", "object"),
    ("MAP(", "object"),
    ("TUPLE(", "array"),
    ("GEOMETRY", "geometry"),
)


def _portable(native: str) -> PortableType:
    """A UNION is one thing here and another there: `unknown`."""
    if native.endswith("]"):
        return "array"
    if known := _PORTABLE.get(native):
        return known
    return next((portable for start, portable in _BY_START if native.startswith(start)), "unknown")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# Rows -----------------------------------------------------------------------------------------------------------------


class _Type(msgspec.Struct, frozen=True):
    """A type and how its values travel: what Python would get wrong goes as text, on every level."""

    id: str
    portable: PortableType
    carrier: str
    """The type that values are cast to on their way."""
    children: tuple[tuple[str, _Type], ...] = ()
    """Names and types of the members that hold values."""

    @property
    def is_nested(self) -> bool:
        return bool(self.children)


_CARRIED_AS_THEY_ARE: Final = frozenset({"boolean", "float", "double", "blob"})
_WHOLE: Final = frozenset({"tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"})


def _type(given: Any) -> _Type:
    """From a `DuckDBPyType`."""
    id, text = str(given.id), str(given)
    if id in {"list", "array"}:
        child = _type(given.children[0][1])
        return _Type(id, "array", f"{child.carrier}[]", (("", child),))
    if id == "map":
        value = _type(given.children[1][1])
        return _Type(id, "object", f"MAP(VARCHAR, {value.carrier})", (("", value),))
    if id in {"struct", "tuple", "union"}:
        members = tuple((name, _type(child)) for name, child in given.children if name or id != "union")
        inside = ", ".join(f"{_quoted(name) + ' ' if name else ''}{child.carrier}" for name, child in members)
        return _Type(id, _portable(text), f"{id.upper()}({inside})", members)
    carrier = text if id in _CARRIED_AS_THEY_ARE or id in _WHOLE else "JSON" if id == "variant" else "VARCHAR"
    return _Type(id, _portable(text), carrier)


def _types(database: DuckDBPyConnection, source: str, columns: Sequence[DiscoveredField]) -> list[_Type]:
    if not columns:
        return []
    names = ", ".join(_quoted(column.name) for column in columns)
    description = database.execute(f"SELECT {names} FROM {source} LIMIT 0").description  # noqa: S608
    return [_type(given) for _, given, *_ in description or ()]


def _select(source: str, columns: Sequence[DiscoveredField], types: Sequence[_Type], request: PreviewRequest) -> str:
    """Two expressions for each column: its value, and its beginning as text where a nested value is too long."""
    expressions = [
        expression
        for column, type in zip(columns, types, strict=True)
        for expression in _expressions(_quoted(column.name), type, request.max_value_bytes + 1)
    ]
    return f"SELECT {', '.join(expressions) or 'NULL'} FROM {source} LIMIT {request.limit + 1}"  # noqa: S608


def _expressions(name: str, type: _Type, length: int) -> tuple[str, str]:
    text = f"CAST({name} AS VARCHAR)"
    if type.is_nested:
        is_short = f"strlen({text}) < {length}"
        value = f"CASE WHEN {is_short} THEN CAST({name} AS {type.carrier}) END"
        return value, f"CASE WHEN NOT {is_short} THEN left({text}, {length}) END"
    if type.id == "blob":
        return f"{name}[1:{length}]", "NULL"
    if type.carrier == "JSON":
        return f"left(CAST(CAST({name} AS JSON) AS VARCHAR), {length})", "NULL"
    return (f"left({text}, {length})" if type.carrier == "VARCHAR" else name), "NULL"


def _values(types: Sequence[_Type], row: Row) -> list[object]:
    pairs = zip(types, row[::2], row[1::2], strict=False)
    return [_read(type, value) if start is None else start for type, value, start in pairs]


def _read(type: _Type, value: Any) -> object:
    """The JSON-safe value. A member of a union does not tell which of them it is, and stays as it came."""
    if value is None:
        return None
    if type.id in {"list", "array"}:
        return [_read(type.children[0][1], item) for item in value]
    if type.id == "map":
        return {str(key): _read(type.children[0][1], item) for key, item in value.items()}
    if type.id == "struct":
        return {name: _read(member, value[name]) for name, member in type.children}
    if type.id == "tuple":
        return [_read(member, item) for (_, member), item in zip(type.children, value, strict=True)]
    if type.id == "float":
        return json_safe(single_precision(value))
    reader = _READERS.get(type.portable)
    return reader(value) if reader and isinstance(value, str) else json_safe(value)


def _integer(text: str) -> object:
    return json_safe(int(text)) if len(text) < 20 else text


def _json(text: str) -> object:
    """What was cut off is no JSON any more and stays text."""
    try:
        return read_json(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _timestamp(text: str) -> str:
    """`infinity` and years before our era have no form in RFC 3339 and stay as they are."""
    if not text[:1].isdigit() or "(BC)" in text:
        return text
    return text.replace(" ", "T").removesuffix("+00") + ("Z" if text.endswith("+00") else "")


def _time(text: str) -> str:
    return text + ":00" if text[-3:-2] in {"+", "-"} else text


_INTERVAL: Final = re.compile(
    r"(?:(-?\d+) years?)? ?(?:(-?\d+) months?)? ?(?:(-?\d+) days?)? ?(?:(-?)(\d+):(\d\d):(\d\d(?:\.\d+)?))?", re.ASCII
)


def _interval(text: str) -> str:
    """ISO 8601, part by part: `P1Y2M3DT4H5M6.5S`, each with a sign of its own."""
    if not (match := _INTERVAL.fullmatch(text)):
        return text
    years, months, days, sign, hours, minutes, seconds = match.groups()
    date = [(years, "Y"), (months, "M"), (days, "D")]
    clock = [(hours, "H"), (minutes, "M"), (seconds, "S")]
    before = "".join(f"{number}{unit}" for number, unit in date if number)
    after = "".join(f"{sign}{_plain(number)}{unit}" for number, unit in clock if number and number.strip("0."))
    return f"P{before}T{after}" if after else f"P{before or 'T0S'}"


def _plain(number: str) -> str:
    number = number.lstrip("0")
    return f"0{number}" if number.startswith(".") else number


_READERS: Final[dict[PortableType, Callable[[str], object]]] = {
    "integer": _integer,
    "json": _json,
    "timestamp": _timestamp,
    "timestamp_tz": _timestamp,
    "time": _time,
    "interval": _interval,
}
