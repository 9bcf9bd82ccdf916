"""ClickHouse, over its HTTP interface.

Addresses are pinned and redirects refused by `http.py`. Every query is one of ours, with names in it as quoted
identifiers, so that no table function (`url`, `file`, `remote`) is within reach of them; it is sent read only, and on
accounts that are read only already, which may set nothing, without a setting. Nothing here relies on the settings of
the server: it is asked for texts, and what they are is known from the columns' types.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from math import ceil
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Connector
from app.connectors.contract.config import InvalidField, SecretText, SilenceS
from app.connectors.contract.failures import NOTHING_GIVEN, Code, ConnectorError, reading
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PortableType,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.http import (
    HttpClient,
    HttpUrl,
    MutualTlsConfig,
    Stream,
    check_url,
    origin_of,
    retry_after_s,
)
from app.connectors.network.oauth import basic
from app.connectors.network.tls_fields import ClientKeySecrets, refuse_half_an_identity
from app.connectors.values.bad_bytes import NOT_UTF8, ByteTexts, as_bad_bytes
from app.connectors.values.batches import batches
from app.connectors.values.describing import described_row
from app.connectors.values.json_text import decode_decimals, exact_number
from app.connectors.values.preview import Preview
from app.connectors.values.values import json_safe
from app.connectors.values.wildcards import like_pattern

Named = Mapping[str, Any]
"""A row of an answer, by the names of its columns."""
DatabaseName = Annotated[str, Meta(min_length=1, max_length=255)]

_MAX_LINE_BYTES: Final = 32 * 1024 * 1024
_MAX_NESTING: Final = 200
_MAX_ERROR_BYTES: Final = 64 * 1024
_SYSTEM_DATABASES: Final = ("system", "information_schema", "INFORMATION_SCHEMA", "_temporary_and_external_tables")
_KINDS: Final = {
    "View": "view",
    "LiveView": "view",
    "WindowView": "view",
    "MaterializedView": "materialized_view",
    "Dictionary": "dictionary",
}
_CONSUMED_BY_READING: Final = frozenset({"Kafka", "RabbitMQ", "NATS", "FileLog", "S3Queue", "AzureQueue"})


class ClickhouseConfig(MutualTlsConfig, frozen=True, kw_only=True):
    url: Annotated[
        HttpUrl,
        Meta(
            description="The HTTP interface: usually port 8123, or 8443 over TLS.",
            examples=["https://clickhouse.example.com:8443"],
        ),
    ]
    database: Annotated[
        DatabaseName | None,
        Meta(description="The one database to show. Unset: all that the user may see.", examples=["shop"]),
    ] = None
    username: Annotated[str, Meta(min_length=1, max_length=255, description="User to sign in as.")] = "default"
    include_databases: Annotated[
        tuple[DatabaseName, ...],
        Meta(max_length=200, description="Databases to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_databases: Annotated[
        tuple[DatabaseName, ...], Meta(max_length=200, description="Databases to leave out; wins over the included.")
    ] = ()
    read_timeout_s: SilenceS = 30.0
    statement_timeout_s: Annotated[
        float, Meta(ge=1, le=600, description="Seconds after which the server stops a preview or a listing.")
    ] = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_url("url", self.url)
        if "?" in self.url or "#" in self.url:
            raise InvalidField(("url",), "url has no query and no fragment.")
        if ":" in self.username:
            raise InvalidField(("username",), "username holds a colon, which HTTP cannot carry.")
        for name in ("include_databases", "exclude_databases"):
            if getattr(self, name) and self.database is not None:
                raise InvalidField((name,), f"{name} has no meaning beside database.")


class ClickhouseSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the user.")] = None


class Clickhouse(Connector[ClickhouseConfig, ClickhouseSecrets]):
    type = "clickhouse"
    label = "ClickHouse"
    category = "warehouse"
    description = "Tables, views and dictionaries of a ClickHouse server, 18.16 or newer."
    config_type = ClickhouseConfig
    secrets_type = ClickhouseSecrets
    driver = "httpx"
    warm_modules = ("httpcore", "anyio._backends._asyncio", "app.connectors.network.http")
    verified_with = ("ClickHouse 18.16",)
    destination_fields = frozenset(
        {"url", "database", "username", "verify_tls", "ca_certificate", "client_certificate"}
    )

    @classmethod
    def validate(cls, config: ClickhouseConfig, secrets: ClickhouseSecrets) -> None:
        refuse_half_an_identity(config.client_certificate, secrets)

    async def check(self, steps: Steps) -> None:
        async with self._session() as session:
            await session.client.reach(steps, self.config.url)
            with steps.step("authenticate", f"Signed in as {self.config.username}."):
                (answer,) = [row async for row in session.rows("SELECT version() AS version")] or ({},)
                steps.server.update(product="ClickHouse", version=str(answer.get("version"))[:100])
            with steps.step("list", "Tables and views can be listed."):
                if self.config.database is not None:
                    await session.enter(self.config.database)
                async for _ in session.rows(f"{_TABLES} WHERE {self._scope()} LIMIT 1"):
                    pass

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._session() as session:
            async for batch in batches(self._objects(session)):
                yield batch
            if kept := [name for name in await session.cutting_settings() if name not in _CUTTING_ENDS]:
                self.stopped_because = (
                    f"What is set for {self.config.username} may leave objects out: {', '.join(kept)}."
                )

    async def _objects(self, session: Session) -> AsyncGenerator[DiscoveredObject, None]:
        """Where the ends of answers are cut off and nothing can be done about it, as many answers as it takes: each
        begins behind the last object of the one before, until one is empty."""
        seen: dict[tuple[str, ...], None] = {}
        while True:
            behind = _behind(map(session.own_name, next(reversed(seen)))) if seen else "1"
            before = len(seen)
            async with aclosing(session.rows(_catalog_query(self._scope(), behind=behind))) as rows:
                async for row in rows:
                    found = _understood(_object, row)
                    if found.path not in seen:
                        seen[found.path] = None
                        yield found
            if len(seen) == before or not (await session.cutting_settings()).keys() & _CUTTING_ENDS:
                return

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._session() as session:
            found = await self._find(session, request.path)
            columns = preview.choose(found.fields)
            query = _select(found, columns, request, session.own_name)
            limits = {"max_result_rows": str(request.limit + 1), "result_overflow_mode": "break"}
            types = [parse(column.native_type) for column in columns]
            with reading(found.kind):
                async with aclosing(session.rows(query, limits)) as rows:
                    async for row in rows:
                        if not preview.add(_understood(_values, types, row)):
                            break
                        if session.texts.notes and _holds_bad_bytes(preview.rows[-1]):
                            preview.note(NOT_UTF8)
            kept = await session.cutting_settings() if len(preview.rows) < request.limit else {}
        if kept:
            what = ", ".join(f"{name} = {value}" for name, value in kept.items())
            preview.note(f"What is set for {self.config.username} may leave rows out: {what}.")
            preview.truncated = True
        return preview.result()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        async with HttpClient.of(self.network, self.config, self.secrets) as client:
            yield Session(client, self.config, self.secrets.password or "")

    async def _find(self, session: Session, path: Sequence[str]) -> DiscoveredObject:
        """By the query of the discovery, so that a preview shows nothing that a discovery would not."""
        forms = [path, tuple(map(as_bad_bytes, path))] if len(path) == 2 and "\x00" not in "".join(path) else []
        for database, name in (map(_literal, form) for form in dict.fromkeys(map(tuple, forms))):
            async for row in session.rows(_catalog_query(f"{self._scope()} AND database = {database}", f"= {name}")):
                if row.get("engine") in _CONSUMED_BY_READING:
                    raise ConnectorError("unsupported", "Reading this table would take messages out of its queue.")
                return _understood(_object, row)
        raise ConnectorError("not_found", "There is no such table or view.")

    def _scope(self) -> str:
        """The condition on `database`, the name under which the system's tables have databases."""
        config = self.config
        if config.database is not None:
            return f"database = {_literal(config.database)}"
        included = " OR ".join(f"database LIKE {_like(pattern)}" for pattern in config.include_databases) or "1"
        excluded = "".join(f" AND database NOT LIKE {_like(pattern)}" for pattern in config.exclude_databases)
        system = ", ".join(_literal(name) for name in _SYSTEM_DATABASES)
        return f"database NOT IN ({system}) AND ({included}){excluded}"


# Asking ---------------------------------------------------------------------------------------------------------------


class Session:
    """A client of one server, with its credentials and what it lets them set."""

    def __init__(self, client: HttpClient, config: ClickhouseConfig, password: str) -> None:
        self.client = client
        self.texts = ByteTexts()
        self._config = config
        self._has_password = bool(password)
        self._cutting: dict[str, str] | None = None
        self._headers = _credentials(config.username, password)
        limits = {"max_execution_time": str(ceil(config.statement_timeout_s))}
        reading = {"readonly": "1", **limits}
        self._settings: list[dict[str, str]] = [
            {**reading, **_AS_THE_HUB_READS, **_SINCE_LATER},
            {**reading, **_AS_THE_HUB_READS},
            {**limits, **_AS_THE_HUB_READS, **_SINCE_LATER},
            {**limits, **_AS_THE_HUB_READS},
            limits,
            {},
        ]
        """From all that is wanted to none: older servers do not know some, and accounts that are read only refuse to
        have any changed."""

    async def rows(self, query: str, limits: Mapping[str, str] | None = None) -> AsyncGenerator[Named, None]:
        """Rows by the names of their columns, as they come."""
        async with (
            self._asked(f"{query} FORMAT JSONEachRow", limits or {}) as answer,
            aclosing(_lines(answer)) as lines,
        ):
            async for line in lines:
                row = _row(line, self.texts)
                if row is None:  # An error in the middle of an answer stands where a row should be.
                    raise self._explain(_number_in(line + await _rest(lines)), 200)
                yield row

    def own_name(self, shown: str) -> str:
        """What the server calls it, where an answer held bytes that are no UTF-8."""
        return as_bad_bytes(shown) if self.texts.notes else shown

    async def cutting_settings(self) -> dict[str, str]:
        """What is set for an account that lets nothing be changed, and may leave rows out without a word. The names
        come in one row, because the rows of this answer may be limited, too."""
        if self._settings[0]:
            return {}
        if self._cutting is None:
            names = ", ".join(map(_literal, _CUTTING))
            where = f"changed AND name IN ({names}) AND value NOT IN ('throw', '0', '', '{{}}')"
            asked = f"SELECT groupArray(name) AS names, groupArray(value) AS values FROM system.settings WHERE {where}"  # noqa: S608
            try:
                rows = [row async for row in self.rows(asked)]
                self._cutting = _understood(_named_values, rows)
            except ConnectorError as error:
                if error.code not in {"permission_denied", "not_found"}:
                    raise
                self._cutting = {"system.settings": "not to be read"}
        return self._cutting

    async def enter(self, database: str) -> None:
        """Raises `not_found` or `permission_denied` if the server does not let the user do that."""
        async with self._asked("SELECT 1", {}, database):
            pass

    @asynccontextmanager
    async def _asked(self, query: str, limits: Mapping[str, str], database: str | None = None) -> AsyncIterator[Stream]:
        while True:
            settings = self._settings[0]
            parameters = {**settings, **(limits if settings else {}), **({"database": database} if database else {})}
            async with self.client.stream(
                "POST", _with_parameters(self._config.url, parameters), headers=self._headers, content=_encoded(query)
            ) as answer:
                if answer.status == 200 and _EXCEPTION_HEADER not in answer.headers:
                    yield answer
                    return
                number = await _error_number(answer)
            if number not in _NOT_TO_BE_SET or len(self._settings) == 1:
                raise self._explain(number, answer.status, database, retry_after_s(answer.headers))
            self._settings.pop(0)

    def _explain(
        self, number: int, status: int, database: str | None = None, wait_s: int | None = None
    ) -> ConnectorError:
        """Numbers from ClickHouse's ErrorCodes.cpp; 0 where there is none."""
        config = self._config
        host = origin_of(config.url).host
        code, sentence = _ERRORS.get(number, ("server_error", "{host} answered with error {number}."))
        if not number:
            code, sentence = _WITHOUT_NUMBER.get(
                status, ("protocol_mismatch", "What answers on {host} is not ClickHouse.")
            )
        if number and code == "authentication_failed" and not self._has_password:
            sentence = NOTHING_GIVEN
        where = database or config.database or "the database"
        message = sentence.format(host=host, user=config.username, where=where, number=number)
        return ConnectorError(code, message, retry_after_s=wait_s)


_OVERFLOWS: Final = (*("distinct", "group_by", "join", "read", "result", "set", "sort", "timeout", "transfer"),)
_AS_THE_HUB_READS: Final[dict[str, str]] = {
    **{f"{what}_overflow_mode": "throw" for what in _OVERFLOWS},
    **dict.fromkeys(("extremes", "join_use_nulls", "max_result_bytes", "max_result_rows"), "0"),
    **dict.fromkeys(("output_format_json_quote_64bit_integers", "output_format_json_quote_denormals"), "1"),
}
"""Whatever a profile, a user or the server sets that would leave rows out without a word, or write them otherwise."""
_SINCE_LATER: Final[dict[str, str]] = {
    **dict.fromkeys(("final", "limit", "offset", "use_query_cache"), "0"),
    **dict.fromkeys(("output_format_json_named_tuples_as_objects", "output_format_json_quote_decimals"), "0"),
    "additional_table_filters": "{}",
    "date_time_output_format": "simple",
    "read_overflow_mode_leaf": "throw",
    "session_timezone": "",
}
"""The same, for servers that have learnt them since 18.16 (all of them: 23.6)."""
_CUTTING: Final = (
    *(f"{what}_overflow_mode" for what in _OVERFLOWS),
    *("read_overflow_mode_leaf", "limit", "offset", "additional_table_filters"),
)
_CUTTING_ENDS: Final = frozenset({"result_overflow_mode", "limit"})
"""What leaves out no rows but the last ones of an answer."""


_Meaning = TypeVar("_Meaning")
_EXCEPTION_HEADER: Final = "x-clickhouse-exception-code"
_NOT_TO_BE_SET: Final = frozenset({115, 164, 452})
_NUMBER: Final = re.compile(rb"Code: (\d{1,6})[.,]")

_ERRORS: Final[dict[int, tuple[Code, str]]] = {
    16: ("not_found", "The object does not have this column any more."),
    47: ("not_found", "The object does not have this column any more."),
    60: ("not_found", "The object is not there any more."),
    81: ("not_found", "{host} has no database {where}."),
    158: ("response_too_large", "The server stopped the query: it read more rows than the user may."),
    159: ("timeout", "The server stopped the query: it took longer than statement_timeout_s."),
    160: ("timeout", "The server stopped the query: it would take too long."),
    164: ("permission_denied", "{user} may not do this on a read-only account."),
    192: ("authentication_failed", "{host} did not let {user} sign in."),
    193: ("authentication_failed", "{host} did not let {user} sign in."),
    194: ("authentication_failed", "{host} asks for the password of {user}."),
    195: ("permission_denied", "{host} takes no connections of {user} from this hub's address."),
    201: ("rate_limited", "{user} has used up the quota."),
    202: ("rate_limited", "{host} answers too many queries at once."),
    291: ("permission_denied", "{user} may not use {where}, or there is no such database."),
    307: ("response_too_large", "The server stopped the query: it read more bytes than the user may."),
    396: ("response_too_large", "The server stopped the query: its result is larger than the user may have."),
    497: ("permission_denied", "{user} may not read this."),
    516: ("authentication_failed", "{host} did not let {user} sign in."),
    620: ("unsupported", "Reading this table would take messages out of its queue."),
}
_WITHOUT_NUMBER: Final[dict[int, tuple[Code, str]]] = {
    200: ("response_invalid", "{host} answered with something that cannot be read as rows."),
    401: (
        "authentication_failed",
        "{host} did not let {user} sign in, and not in the way of ClickHouse: it is a proxy, or not ClickHouse at all.",
    ),
    403: ("permission_denied", "{host} does not let {user} in."),
    429: ("rate_limited", "{host} takes no more requests for now."),
    502: ("server_error", "The proxy in front of {host} did not reach it."),
    503: ("server_error", "{host} is not available for now."),
    504: ("timeout", "The proxy in front of {host} did not get an answer in time."),
}


def _credentials(username: str, password: str) -> dict[str, str]:
    """ClickHouse's own headers, which proxies leave alone; they carry ASCII only."""
    if (username + password).isascii() and (username + password).isprintable() and password == password.strip():
        return {"x-clickhouse-user": username, "x-clickhouse-key": password}
    return {"authorization": basic(f"{username}:{password}")}


def _with_parameters(url: str, parameters: Mapping[str, str]) -> str:
    return f"{url}?{urlencode(parameters)}"


def _encoded(query: str) -> bytes:
    """Names in it may be no UTF-8."""
    return query.encode("utf-8", "surrogateescape")


async def _error_number(answer: Stream) -> int:
    """Of what the server says went wrong; 0 if it is not ClickHouse that says it."""
    told = answer.headers.get(_EXCEPTION_HEADER, "")
    if told.isdecimal() and len(told) < 7:
        return int(told)
    text = b""
    async for piece in answer.pieces:
        text += piece
        if len(text) > _MAX_ERROR_BYTES:
            break
    return _number_in(text)


def _number_in(text: bytes) -> int:
    found = _NUMBER.search(text)
    return int(found[1]) if found else 0


def _row(line: bytes, texts: ByteTexts) -> Named | None:
    """None for what is no row: damaged, or an exception. Texts may hold any bytes, those that are no UTF-8 too."""
    try:
        row = decode_decimals(texts.shown(line, in_json=True))
    except (msgspec.DecodeError, RecursionError):
        return None
    return row if isinstance(row, dict) and row.keys() != {"exception"} else None


def _named_values(rows: Iterable[Named]) -> dict[str, str]:
    return dict(sorted(pair for row in rows for pair in zip(row["names"], row["values"], strict=True)))


async def _rest(lines: AsyncIterator[bytes]) -> bytes:
    text = b""
    async for line in lines:
        text += b"\n" + line
        if len(text) > _MAX_ERROR_BYTES:
            break
    return text


def _understood(read: Callable[..., _Meaning], *arguments: object) -> _Meaning:
    """What `read` makes of a row. Raises `response_invalid` for one that is not of the shape that was asked for."""
    try:
        return read(*arguments)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise ConnectorError(
            "response_invalid", "The server answered with something else than was asked for."
        ) from None


async def _lines(answer: Stream) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for piece in answer.pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in filter(None, lines):
            yield line
        if len(rest) > _MAX_LINE_BYTES:
            raise ConnectorError("response_too_large", f"A row is larger than {_MAX_LINE_BYTES // 1024**2} MiB.")
    if rest:
        yield rest


# Texts in queries -----------------------------------------------------------------------------------------------------


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _like(pattern: str) -> str:
    return _literal(like_pattern(pattern))


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


# The catalog ----------------------------------------------------------------------------------------------------------

# `system.columns` is read in one stream, table by table, so that the order of its rows is that of the columns. Old
# servers have no column that says so. Names made here begin with `hub_`: a name in a query hides a column of that name.
_TABLES: Final = "SELECT database, name, engine FROM system.tables"
_CATALOG: Final = """
SELECT database, name, engine, hub_names, hub_types
FROM (
    {tables} WHERE {scope} AND name {chosen} AND NOT is_temporary AND name NOT LIKE '.inner%'
)
ANY LEFT JOIN (
    SELECT database, hub_table AS name, groupArray(hub_column) AS hub_names, groupArray(type) AS hub_types
    FROM (
        SELECT database, table AS hub_table, name AS hub_column, type FROM system.columns
        WHERE {scope} AND table {chosen} AND default_kind != 'EPHEMERAL'
    )
    GROUP BY database, hub_table
) USING (database, name)
WHERE {behind}
ORDER BY database, name"""


def _behind(path: Iterable[str]) -> str:
    database, name = map(_literal, path)
    return f"database > {database} OR (database = {database} AND name > {name})"


def _catalog_query(scope: str, chosen: str = "!= ''", behind: str = "1") -> str:
    return _CATALOG.format(tables=_TABLES, scope=scope, chosen=chosen, behind=behind)


def _object(row: Named) -> DiscoveredObject:
    columns = list(zip(row["hub_names"], row["hub_types"], strict=True))
    kind = _KINDS.get(row["engine"], "table")
    return described_row((row["database"], row["name"]), kind, lambda: _fields(columns))


def _fields(columns: Sequence[tuple[str, str]]) -> list[DiscoveredField]:
    return [_field(name, native, position) for position, (name, native) in enumerate(columns, 1)]


def _field(name: str, native: str, position: int) -> DiscoveredField:
    kind = parse(native)
    return DiscoveredField(name, _portable(kind), native, kind.is_nullable, position)


# Types ----------------------------------------------------------------------------------------------------------------


class Kind(msgspec.Struct, frozen=True):
    """A column's type without what is wrapped around it."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    """Name, empty where it has none, and text of each."""
    is_nullable: bool

    def inner(self, index: int = 0) -> Kind:
        return parse(self.arguments[index][1])

    @property
    def has_names(self) -> bool:
        return all(name for name, _ in self.arguments)


def parse(text: str, *, is_nullable: bool = False) -> Kind:
    """`Nullable(DateTime('UTC'))` is a nullable `DateTime` with an argument `'UTC'`."""
    if text.count("(") > _MAX_NESTING:
        return Kind("", (), is_nullable)
    name, _, rest = text.partition("(")
    arguments = _split(rest.removesuffix(")"))
    is_nullable = is_nullable or name in {"Nullable", "Variant", "Dynamic"}
    if name in {"Nullable", "LowCardinality", "SimpleAggregateFunction"} and arguments:
        return parse(arguments[-1][1], is_nullable=is_nullable)
    if name == "Nested":
        return Kind("Array", (("", f"Tuple({rest}"),), is_nullable)
    return Kind(name, tuple(arguments), is_nullable)


_PIECE: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]|[^'`(),]+|.""", re.DOTALL)
_NAMED: Final = re.compile(r"(`(?:[^`\\]|\\.)*`|[A-Za-z_]\w*) (.+)", re.DOTALL)


def _split(text: str) -> list[tuple[str, str]]:
    """The arguments of a type: divided by the commas outside of quotes and brackets."""
    found, depth = [""], 0
    for piece in _PIECE.findall(text):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece == "," and depth == 0:
            found.append("")
        else:
            found[-1] += piece
    return [_argument(item.strip()) for item in found if item.strip()]


def _argument(text: str) -> tuple[str, str]:
    named = _NAMED.fullmatch(text)
    if not named:
        return "", text
    name = named[1]
    if name.startswith("`"):
        name = re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL)
    return name, named[2]


_INTEGER: Final = re.compile(r"U?Int\d+")
_PORTABLE: Final[dict[str, PortableType]] = {
    **dict.fromkeys(("Float32", "Float64", "BFloat16"), "number"),
    **dict.fromkeys(("String", "FixedString", "Enum8", "Enum16", "IPv4", "IPv6"), "string"),
    **dict.fromkeys(("Date", "Date32"), "date"),
    **dict.fromkeys(("DateTime", "DateTime64"), "timestamp_tz"),
    **dict.fromkeys(("Time", "Time64"), "time"),
    **dict.fromkeys(("JSON", "Object", "Variant", "Dynamic"), "json"),
    **dict.fromkeys(("Point", "Ring", "LineString", "MultiLineString", "Polygon", "MultiPolygon"), "geometry"),
    "Decimal": "decimal",
    "Bool": "boolean",
    "UUID": "uuid",
    "Array": "array",
    "Map": "object",
}


def _portable(kind: Kind) -> PortableType:
    """A DateTime is a moment; its zone only says how it is shown. A FixedString is a text, its zero bytes with it. A
    Tuple is an object if its elements have names. The state of an aggregate function is of no type at all."""
    if _INTEGER.fullmatch(kind.name):
        return "integer"
    if kind.name == "Tuple":
        return "object" if kind.has_names else "array"
    return _PORTABLE.get(kind.name, "unknown")


# Rows -----------------------------------------------------------------------------------------------------------------


def _select(
    found: DiscoveredObject,
    columns: Sequence[DiscoveredField],
    request: PreviewRequest,
    own_name: Callable[[str], str],
) -> str:
    """Long values are cut off by the server a few bytes after what will be shown, so that none of a character is shown
    that is cut itself."""
    prefix = "hub_"
    while any(field.name.startswith(prefix) for field in found.fields):
        prefix += "_"
    expressions = ", ".join(
        f"{_expression(parse(column.native_type), _quoted(own_name(column.name)), request.max_value_bytes + 4, prefix)}"
        f" AS {prefix}{position}"
        for position, column in enumerate(columns)
    )
    table = ".".join(_quoted(own_name(name)) for name in found.path)
    return f"SELECT {expressions or 'NULL'} FROM {table} LIMIT {request.limit + 1}"  # noqa: S608 - names are quoted


def _expression(kind: Kind, value: str, length: int, prefix: str) -> str:
    """Gives every plain value as a text, also inside of arrays and tuples, so that nothing depends on how the server is
    set to write numbers, times and the like."""
    if kind.name in {"String", "FixedString"}:
        return f"substring({value}, 1, {length})"
    if _portable(kind) == "timestamp_tz":
        return f"toString(toTimeZone({value}, 'UTC'))"
    if kind.name == "AggregateFunction":
        return f"substring(toString(finalizeAggregation({value})), 1, {length})"
    if kind.name == "Array":
        item = f"{prefix}item_"
        inner = _expression(kind.inner(), item, length, item)
        return f"arrayMap({item} -> {inner}, arraySlice({value}, 1, {length}))"
    if kind.name == "Tuple" and kind.arguments:
        inners = (
            _expression(kind.inner(index), f"tupleElement({value}, {index + 1})", length, prefix)
            for index in range(len(kind.arguments))
        )
        return _tuple_of(inners)
    if kind.name == "Map":
        parts = zip(("mapKeys", "mapValues"), kind.arguments, strict=True)
        return _tuple_of(
            _expression(parse(f"Array({text})"), f"{part}({value})", length, prefix) for part, (_, text) in parts
        )
    return value if _portable(kind) in _AS_JSON else f"toString({value})"


def _tuple_of(expressions: Iterable[str]) -> str:
    return f"tuple({', '.join(expressions)})"


# Decimals as well: ClickHouse 18 makes zero bytes of some digits of a large one when it is asked for a text.
_AS_JSON: Final = frozenset({"json", "geometry", "array", "object", "unknown", "decimal"})


def _holds_bad_bytes(values: object) -> bool:
    """Once one of a row that was read: it may have been cut off."""
    if isinstance(values, list | dict):
        return any(map(_holds_bad_bytes, values.values() if isinstance(values, dict) else values))
    return isinstance(values, str) and "\\x" in values


def _values(kinds: Sequence[Kind], row: Named) -> list[object]:
    return [_value(kind, cell) for kind, cell in zip(kinds, row.values(), strict=True)]


def _value(kind: Kind, cell: Any) -> object:
    """The answer to `_expression` as the JSON-safe value that it stands for."""
    if cell is None:
        return None
    if kind.name == "Array":
        item = kind.inner()
        return [_value(item, one) for one in cell]
    if kind.name == "Tuple" and kind.arguments:
        values = [_value(kind.inner(index), one) for index, one in enumerate(_listed(cell))]
        return dict(zip((name for name, _ in kind.arguments), values, strict=True)) if kind.has_names else values
    if kind.name == "Map":
        keys, values = _listed(cell)
        item = kind.inner(1)
        return {str(key): _value(item, one) for key, one in zip(keys, values, strict=True)}
    if kind.name == "Decimal":
        return _decimal(cell, int(kind.arguments[1][1]))
    reader = _READERS.get(_portable(kind))
    return reader(cell) if reader else json_safe(_as_json(cell))


def _listed(cell: Any) -> list[Any]:
    """Servers may give names to the elements of a tuple that was made without."""
    return list(cell.values()) if isinstance(cell, dict) else list(cell)


def _decimal(cell: Any, scale: int) -> str:
    """A number or its text, as the server is set. New servers leave the zeros at the end out, old ones do not."""
    whole, _, fraction = format(Decimal(cell), "f").partition(".")
    return f"{whole}.{fraction.ljust(scale, '0')}" if scale else whole


def _as_json(value: object) -> object:
    """With the floating point numbers that a JSON reader expects."""
    if isinstance(value, Decimal):
        return exact_number(str(value))
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list) else value


def _timestamp(text: str) -> str:
    """Old servers write zeros for a time that is not set."""
    return text if text.startswith("0000") else text.replace(" ", "T") + "Z"


_READERS: Final[dict[PortableType, Callable[[str], object]]] = {
    "integer": lambda text: json_safe(int(text)),
    "number": lambda text: json_safe(float(text)),
    "boolean": lambda text: text == "true",
    "timestamp_tz": _timestamp,
    "string": str,
}
