"""SQLite files below the hub's folder, through aiosqlite.

Nothing is ever written, neither into the file nor beside it. SQLite's `mode=ro` alone does not promise that: for a
database in WAL mode it makes `-wal` and `-shm` files where they are missing. `_Opening` says how each state is read.

The schema of a file is not trusted: it may hold views and virtual tables made to harm whoever opens it. The authorizer
lets statements read and nothing else, `trusted_schema` is off, no extension is ever loaded, and a statement that takes
too long is interrupted from the inside.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Capabilities, Connector
from app.connectors.contract.config import ConnectorConfig, NoSecrets, TimeoutS
from app.connectors.contract.failures import ConnectorError
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
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.batches import batches
from app.connectors.values.json_text import read_json
from app.connectors.values.preview import Preview
from app.connectors.values.values import Row, json_safe
from app.connectors.values.wildcards import is_shown
from app.core.egress import EgressPolicy

if TYPE_CHECKING:
    import aiosqlite

NamePattern = Annotated[str, Meta(min_length=1, max_length=255)]

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_CHUNK_BYTES: Final = 32 * 1024 * 1024
_MAX_VALUE_BYTES: Final = 256 * 1024 * 1024
"""SQLite loads a value whole, even to cut it."""
_HEAP_BYTES: Final = 512 * 1024 * 1024
_STEPS_BETWEEN_LOOKS: Final = 20_000
"""Instructions of SQLite's machine between two looks at the clock: well below a millisecond."""


class SqliteConfig(ConnectorConfig, frozen=True, kw_only=True):
    path: Annotated[FilePath, Meta(examples=["shop/orders.db"])]
    include_tables: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=200, description="Tables and views to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_tables: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=200, description="Tables and views to leave out; wins over the included."),
    ] = ()
    lock_timeout_s: Annotated[
        TimeoutS, Meta(description="Seconds to wait while another program keeps the file to itself.")
    ] = 3.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds after which a statement is stopped.")] = 30.0


class Sqlite(Connector[SqliteConfig, NoSecrets]):
    type = "sqlite"
    label = "SQLite"
    category = "file"
    description = "Tables and views of one SQLite file in the hub's folder for files."
    config_type = SqliteConfig
    driver = "aiosqlite"
    opens_files = True
    extra = "sqlite"
    capabilities = Capabilities()
    verified_with = ("SQLite 3.40",)
    destination_fields = frozenset({"path"})

    _ends = math.inf
    """When the statement that runs has to end, on `time.monotonic`."""

    def __init__(self, config: SqliteConfig, secrets: NoSecrets, policy: EgressPolicy) -> None:
        super().__init__(config, secrets, policy)
        self._texts = ByteTexts()

    async def check(self, steps: Steps) -> None:
        async with AsyncExitStack() as until_checked:
            with steps.step("resolve", f"{self.config.path} is in the hub's folder for files."):
                file = until_checked.enter_context(local_file(self.network.policy, self.config.path))
            with steps.step("connect", "The file is a SQLite database."):
                database = await until_checked.enter_async_context(self._opened(file))
            steps.server.update(product="SQLite", version=sqlite3.sqlite_version, encryption="none")
            steps.skip("tls", "A file of this machine is read without a network.")
            steps.skip("authenticate", "SQLite asks for no sign-in.")
            with steps.step("list", "Tables and views can be listed."), self._explained():
                await self._names(database)

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._reading() as database:
            names = await self._names(database)
            async for batch in batches(await self._object(database, *one) for one in names):
                yield batch

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._reading() as database:
            columns = preview.choose((await self._find(database, request.path)).fields)
            chunk = max(1, min(250, _CHUNK_BYTES // (request.max_value_bytes * max(1, len(columns)))))
            self._texts.notes = ()
            self._start_clock()
            async with database.execute(_select(request, columns)) as cursor:
                has_room = True
                while has_room and (rows := await cursor.fetchmany(chunk)):
                    for row in rows:
                        if not (has_room := preview.add([_value(*cell) for cell in zip(columns, row, strict=False)])):
                            break
        return preview.result(notes=self._texts.notes)

    # Opening ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[aiosqlite.Connection]:
        with local_file(self.network.policy, self.config.path) as file:
            async with self._opened(file) as database:
                with self._explained():
                    yield database

    @asynccontextmanager
    async def _opened(self, file: LocalFile) -> AsyncIterator[aiosqlite.Connection]:
        """A connection that has read the schema once. Raises `protocol_mismatch` for files of another kind."""
        import aiosqlite

        opening = _opening(file)

        def guarded(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = sqlite3.Connection(*args, **options)
            connection.set_progress_handler(self._is_overdue, _STEPS_BETWEEN_LOOKS)
            return _guarded(connection, opening, self._texts)

        uri = f"file:{quote(file.path)}?{opening.parameters}"
        async with AsyncExitStack() as until_done:
            with self._explained(), file.watched():
                database = await until_done.enter_async_context(
                    aiosqlite.connect(
                        uri, uri=True, timeout=self.config.lock_timeout_s, isolation_level=None, factory=guarded
                    )
                )
                await self._rows(database, "SELECT count(*) FROM main.sqlite_schema")
            yield database

    async def _rows(self, database: aiosqlite.Connection, statement: str, *values: str) -> list[Any]:
        self._start_clock()
        return list(await database.execute_fetchall(statement, values))

    def _start_clock(self) -> None:
        self._ends = time.monotonic() + self.config.read_timeout_s

    def _is_overdue(self) -> int:
        """Asked by SQLite while a statement runs; anything but 0 ends it."""
        return int(time.monotonic() > self._ends)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:  # The latter where a message repeats a name that is no UTF-8.
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ConnectorError:
        """SQLite's result codes (https://www.sqlite.org/rescode.html) in our words."""
        path = self.config.path
        name = str(getattr(error, "sqlite_errorname", ""))
        for start, code, message in _RESULT_CODES:
            if name.startswith(start):
                return ConnectorError(code, message.format(path=path))
        return ConnectorError("server_error", f"{path} could not be read ({name or type(error).__name__}).")

    # Reading ----------------------------------------------------------------------------------------------------------

    async def _names(self, database: aiosqlite.Connection) -> list[tuple[str, str, bool]]:
        """Name, kind and whether there is a rowid, of everything that is shown."""
        rows = await self._rows(database, _TABLES)
        return [
            (name, _KINDS[kind], not without_rowid)
            for name, kind, without_rowid in rows
            if is_shown(name, self.config.include_tables, self.config.exclude_tables)
        ]

    async def _find(self, database: aiosqlite.Connection, path: Sequence[str]) -> DiscoveredObject:
        """By the listing of the discovery, so that a preview shows nothing that a discovery would not."""
        for name, kind, has_rowid in await self._names(database):
            if (name,) == tuple(path):
                return await self._object(database, name, kind, has_rowid)
        raise ConnectorError("not_found", f"There is no such table or view in {self.config.path}.")

    async def _object(self, database: aiosqlite.Connection, name: str, kind: str, has_rowid: bool) -> DiscoveredObject:
        """A view onto something that is gone, or a virtual table of an unknown module, has no fields that can be known;
        it is in the file all the same."""
        notes: list[str] = []
        try:
            rows = await self._rows(database, _COLUMNS, name)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") not in {"SQLITE_ERROR", "SQLITE_AUTH"}:
                raise
            rows = []
            notes.append(self._explain(error).message)
        is_alias = has_rowid and sum(1 for *_, key in rows if key) == 1
        fields = [
            DiscoveredField(column, _portable(declared), declared, _is_nullable(row, is_alias), position)
            for position, row in enumerate(rows, 1)
            for column, declared, *_ in (row,)
        ]
        return DiscoveredObject.at((name,), kind, fields, notes)


# The catalog ----------------------------------------------------------------------------------------------------------

_KINDS: Final = {"table": "table", "view": "view", "virtual": "virtual_table"}

# Shadow tables belong to a virtual one, and names that begin with sqlite_ to SQLite.
_TABLES: Final = r"""
SELECT name, type, wr FROM pragma_table_list
WHERE schema = 'main' AND type IN ('table', 'view', 'virtual') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY name
"""

# Hidden columns (1) are arguments of virtual tables; 2 and 3 are generated ones.
_COLUMNS: Final = "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?, 'main') WHERE hidden <> 1 ORDER BY cid"


def _is_nullable(column: Row, is_alias: bool) -> bool:
    """The only key of exactly this type is another name of the rowid. SQLite lets other keys be null."""
    _, declared, is_not_null, key = column
    return not is_not_null and not (key and is_alias and declared.upper() == "INTEGER")


_BY_NAME: Final[dict[str, PortableType]] = {
    "": "unknown",
    "ANY": "unknown",
    "BOOL": "boolean",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "DATETIME": "timestamp",
    "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamp_tz",
    "TIMESTAMP WITH TIME ZONE": "timestamp_tz",
    "TIME": "time",
    "UUID": "uuid",
    "GUID": "uuid",
    "STRING": "string",
    "JSON": "json",
    "JSONB": "json",
    "DECIMAL": "decimal",
    "NUMERIC": "decimal",
    "NUMBER": "decimal",
    "MONEY": "decimal",
    "POINT": "geometry",
    "GEOMETRY": "geometry",
}
# https://www.sqlite.org/datatype3.html, section 3.1, in its order
_BY_PART: Final[tuple[tuple[str, PortableType], ...]] = (
    ("INT", "integer"),
    ("CHAR", "string"),
    ("CLOB", "string"),
    ("TEXT", "string"),
    ("BLOB", "binary"),
    ("REAL", "number"),
    ("FLOA", "number"),
    ("DOUB", "number"),
)


def _portable(declared: str) -> PortableType:
    """By what the well-known names promise, then by SQLite's own rules; any text may stand for a type there."""
    name = re.sub(r"\s*\(.*?\)", "", declared).strip().upper()
    if name in _BY_NAME:
        return _BY_NAME[name]
    return next((portable for part, portable in _BY_PART if part in name), "unknown")


# Opening --------------------------------------------------------------------------------------------------------------


class _Opening(msgspec.Struct, frozen=True):
    """
    | state of the file                          | how it is read                                               |
    |--------------------------------------------|--------------------------------------------------------------|
    | rollback journal                           | `mode=ro`: with SQLite's locks                               |
    | WAL, with a `-shm` file                    | the same, and the `-shm` file as it is                       |
    | WAL, nothing beside it                     | `immutable`: no program has it open, and nothing is made     |
    | WAL, changes in `-wal`, no `-shm` (a copy) | without locks, its index in memory: no program has it open   |
    """

    parameters: str
    is_exclusive: bool = False


def _opening(file: LocalFile) -> _Opening:
    header = file.read_start(_HEADER_BYTES)
    if header and not header.startswith(_MAGIC):
        kind = kind_of_file(header)
        why = f"; it is {kind}" if kind else ", or it is encrypted"
        raise ConnectorError("protocol_mismatch", f"{file.typed} is no SQLite database{why}.")
    wal, shm, _ = (file.companion(suffix) for suffix in ("-wal", "-shm", "-journal"))
    if header[18:20] != b"\x02\x02":
        return _Opening("mode=ro")
    if shm is not None:
        return _Opening("mode=ro&readonly_shm=1")
    if wal is None or not wal.size:
        return _Opening("mode=ro&immutable=1")
    return _Opening("mode=ro&vfs=unix-none", is_exclusive=True)


def _guarded(connection: sqlite3.Connection, opening: _Opening, texts: ByteTexts) -> sqlite3.Connection:
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    for pragma in (*_PRAGMAS, *(("locking_mode = EXCLUSIVE",) if opening.is_exclusive else ())):
        connection.execute(f"PRAGMA {pragma}")
    connection.set_authorizer(_authorize)
    connection.text_factory = texts.shown
    return connection


_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LENGTH: _MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 500,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 10,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_PRAGMAS: Final = (
    "trusted_schema = OFF",
    "query_only = ON",
    "cell_size_check = ON",
    "mmap_size = 0",  # A mapped file that somebody cuts off ends the process.
    "temp_store = MEMORY",
    f"hard_heap_limit = {_HEAP_BYTES}",
)
_READING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_OF_VIRTUAL_TABLES: Final = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
"""R*Trees prepare their writing when they are opened. Nobody runs it: the file is read-only, `query_only` is on."""
_DANGEROUS_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "eval"})
_PRAGMAS_READ: Final = frozenset({"table_list", "table_xinfo", "data_version", "page_size", "encoding"})


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        is_allowed = (second or "").lower() not in _DANGEROUS_FUNCTIONS
    elif action == sqlite3.SQLITE_PRAGMA:
        is_allowed = (first or "").lower() in _PRAGMAS_READ
    else:
        is_allowed = action in _READING or action in _OF_VIRTUAL_TABLES
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


_ResultCode = Literal[
    "protocol_mismatch",
    "response_invalid",
    "response_too_large",
    "timeout",
    "permission_denied",
    "not_found",
    "unsupported",
]
_RESULT_CODES: Final[tuple[tuple[str, _ResultCode, str], ...]] = (
    ("SQLITE_NOTADB", "protocol_mismatch", "{path} is no SQLite database, or it is encrypted."),
    ("SQLITE_CORRUPT", "response_invalid", "{path} is damaged or cut off."),
    ("SQLITE_BUSY", "timeout", "Another program kept {path} to itself for longer than lock_timeout_s."),
    ("SQLITE_LOCKED", "timeout", "Another program kept {path} to itself for longer than lock_timeout_s."),
    ("SQLITE_INTERRUPT", "timeout", "Reading {path} took longer than read_timeout_s."),
    (
        "SQLITE_READONLY",
        "response_invalid",
        "{path} was left in the middle of a change, which only a program that may write to it can finish.",
    ),
    ("SQLITE_CANTOPEN", "permission_denied", "{path} or a file beside it cannot be opened by the hub's user."),
    ("SQLITE_PERM", "permission_denied", "The hub's user may not read {path}."),
    ("SQLITE_TOOBIG", "response_too_large", "{path} holds a value that is too large to be read."),
    ("SQLITE_AUTH", "unsupported", "The view asks for something that the hub does not do for a file."),
    (
        "SQLITE_ERROR",
        "unsupported",
        "{path} asks for something that is not there: a table, a function or a module, or for one that is not safe.",
    ),
)


# Rows -----------------------------------------------------------------------------------------------------------------


def _select(request: PreviewRequest, columns: Sequence[DiscoveredField]) -> str:
    """Texts and binary values are cut off by SQLite, one character or byte after what will be shown. The columns get
    names of ours, because theirs need not be UTF-8."""
    length = request.max_value_bytes + 1
    expressions = [f"{_cut_off(_quoted(column.name), length)} AS c{column.position}" for column in columns]
    source = f"main.{_quoted(request.path[0])}"
    return f"SELECT {', '.join(expressions) or 'NULL'} FROM {source} LIMIT {request.limit + 1}"  # noqa: S608


def _cut_off(name: str, length: int) -> str:
    """Only where it is too long: `substr` makes null of an empty binary value."""
    is_long = f"typeof({name}) IN ('text', 'blob') AND length(CAST({name} AS BLOB)) > {length}"
    return f"CASE WHEN {is_long} THEN substr({name}, 1, {length}) ELSE {name} END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _value(column: DiscoveredField, value: object) -> object:
    """By its storage class, which need not be that of its column, and dressed as its column says where it fits."""
    dress = _DRESSES.get(column.type)
    return json_safe(dress(value) if dress and value is not None else value)


def _as_boolean(value: object) -> object:
    return bool(value) if isinstance(value, int) and value in {0, 1} else value


def _as_binary(value: object) -> object:
    """SQLite keeps a text in a column of BLOBs as a text. All values of the column are base64, or nobody could tell."""
    return value.encode() if isinstance(value, str) else value


def _as_decimal(value: object) -> object:
    return Decimal(repr(value)) if isinstance(value, int | float) else value


def _as_json(value: object) -> object:
    try:
        return read_json(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, RecursionError):
        return value


_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d(?::\d\d)?.*)", re.ASCII | re.DOTALL)


def _as_timestamp(value: object) -> object:
    return _TIMESTAMP.sub(r"\1T\2", value, count=1) if isinstance(value, str) else value


_DRESSES: Final[dict[PortableType, Callable[[object], object]]] = {
    "binary": _as_binary,
    "boolean": _as_boolean,
    "decimal": _as_decimal,
    "json": _as_json,
    "timestamp": _as_timestamp,
    "timestamp_tz": _as_timestamp,
}
