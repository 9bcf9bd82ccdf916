"""PostgreSQL, and what speaks its protocol, through asyncpg.

The address is pinned by giving asyncpg the resolved one; certificates are checked against the configured name by
`NamedContext`. asyncpg reads no password file, service file, environment or unix socket here: every parameter is given,
and the connector process has no such variables.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct

from app.connectors.contract.base import Capabilities, Connector
from app.connectors.contract.config import ConnectTimeoutS, Host, InvalidField, Port, SecretText, StatementTimeoutS
from app.connectors.contract.failures import NOTHING_GIVEN, Code, ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PortableType,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import ask, dialled, hung_up, silent
from app.connectors.network.recognising import Protocol, met, mismatch
from app.connectors.network.tls import handshake, tls_failure
from app.connectors.network.tls_fields import ClientKeySecrets, TlsMode, TlsModeConfig, refuse_half_an_identity
from app.connectors.types.postgresql.texts import ServerTexts
from app.connectors.types.postgresql.values import shapes_of, value_of
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.describing import described_row
from app.connectors.values.names import told_apart
from app.connectors.values.preview import Preview
from app.connectors.values.values import Row
from app.connectors.values.wildcards import like_pattern

if TYPE_CHECKING:
    import socket

    import asyncpg

    from app.core.egress import Pinned

SchemaPattern = Annotated[str, Meta(min_length=1, max_length=63)]

_SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")  # PostgreSQL documentation, "SSLRequest"
_IDENTITIES: Final = (
    """
SELECT (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text, oid::bigint
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()""",
    """
SELECT system_identifier::text,
    (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
FROM pg_catalog.pg_control_system()""",
)
"""What a server calls itself, and the database: the moment of its start, and the identifier that replicas share."""
_BATCH: Final = 250
_CHUNK_BYTES: Final = 32 * 1024 * 1024
_NESTED: Final = frozenset({"array", "object"})
_KINDS: Final = {"r": "table", "p": "table", "v": "view", "m": "materialized_view", "f": "foreign_table"}


class PostgresqlConfig(TlsModeConfig, frozen=True, kw_only=True):
    host: Host
    port: Annotated[Port, Meta(description="TCP port of the server.")] = 5432
    database: Annotated[str, Meta(min_length=1, max_length=63, description="Name of the database.", examples=["shop"])]
    username: Annotated[str, Meta(min_length=1, max_length=63, description="Role to sign in as.", examples=["reader"])]
    tls_mode: Annotated[
        TlsMode,
        Meta(
            description="As libpq's sslmode: `prefer` uses TLS where the server offers it and checks no certificate, "
            "`verify-full` checks the certificate and the host name."
        ),
    ] = "prefer"
    include_schemas: Annotated[
        tuple[SchemaPattern, ...],
        Meta(max_length=200, description="Schemas to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_schemas: Annotated[
        tuple[SchemaPattern, ...], Meta(max_length=200, description="Schemas to leave out; wins over the included.")
    ] = ()
    connect_timeout_s: ConnectTimeoutS = 5.0
    statement_timeout_s: StatementTimeoutS = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if "/" in self.host:
            raise InvalidField(("host",), "host is a name or an address; URLs and unix sockets are not used.")


class PostgresqlSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the role.")] = None


class Postgresql(Connector[PostgresqlConfig, PostgresqlSecrets]):
    type = "postgresql"
    label = "PostgreSQL"
    category = "database"
    description = "Tables and views of one PostgreSQL database, 10 or newer."
    config_type = PostgresqlConfig
    secrets_type = PostgresqlSecrets
    driver = "asyncpg"
    capabilities = Capabilities()
    verified_with = ("PostgreSQL 18", "PostgreSQL 15")
    destination_fields = frozenset(
        {"host", "port", "database", "username", "tls_mode", "ca_certificate", "client_certificate"}
    )

    @classmethod
    def validate(cls, config: PostgresqlConfig, secrets: PostgresqlSecrets) -> None:
        refuse_half_an_identity(config.client_certificate, secrets)

    _is_tls_offered = False

    async def check(self, steps: Steps) -> None:
        dialled_at, tls = await self._reach(steps)
        refused: _DatabaseRefused | None = None
        connection: asyncpg.Connection | None = None
        with steps.step("authenticate", f"Signed in as {self.config.username}."):
            try:
                connection = await self._sign_in(dialled_at, tls)
            except _DatabaseRefused as error:
                refused = error
        with steps.step("list", "Tables and views can be listed."):
            if connection is None:
                raise refused or AssertionError
            try:
                version = connection.get_settings().server_version
                steps.server.update(product="PostgreSQL", version=str(version).partition(" ")[0])
                await self._look(connection)
            finally:
                connection.terminate()

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._reading(Steps()) as connection:
            texts = ServerTexts.of(connection)
            types = await _types(connection, texts)
            cursor = await connection.cursor(texts.asked(_RELATIONS), *self._scope(), None, None)
            async with aclosing(_read_ahead(cursor)) as batches:
                async for rows in batches:
                    yield [_relation(row, types, texts).shown for row in rows]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview, shown = Preview(request), ByteTexts()
        async with self._reading(Steps()) as connection:
            texts = ServerTexts.of(connection)
            found = await self._find(connection, request.path, texts)
            columns = preview.choose(found.shown.fields)
            query = texts.asked(_select(found, columns, request))
            longest = request.max_value_bytes
            room = longest * max(1, len(columns))
            shapes = await shapes_of(connection, found.oid, columns, texts)
            await connection.execute(_AS_THE_USER)
            async with aclosing(texts.rows(connection, query, max(1, min(_BATCH, _CHUNK_BYTES // room)))) as rows:
                async for row in rows:
                    cells = list(zip(columns, row, strict=False))
                    preview.truncated |= any(_is_cut(*cell, texts, longest) for cell in cells)
                    contents = [_content(*cell, texts, shown, longest) for cell in cells]
                    values = zip(columns, shapes, contents, strict=False)
                    if not preview.add([value_of(column, shape, text, longest) for column, shape, text in values]):
                        break
        return preview.result(notes=shown.notes)

    # Connecting -------------------------------------------------------------------------------------------------------

    async def _reach(self, steps: Steps) -> tuple[Pinned, ssl.SSLContext | None]:
        """Steps resolve, connect and tls. A server is asked for TLS in every mode, because its answer also shows
        whether it speaks the protocol, before a password is sent."""
        config = self.config
        with steps.step("resolve", f"{config.host} is known."):
            pinned = await self.network.resolve(config.host, config.port, config.connect_timeout_s)
        async with AsyncExitStack() as until_reached:
            with steps.step("connect", f"PostgreSQL answers on port {config.port}."):
                sock = await until_reached.enter_async_context(dialled(pinned, config.port, config.connect_timeout_s))
                asked = self._offers_tls(sock, pinned)
                self._is_tls_offered = await met(
                    asked, Protocol.POSTGRESQL, "PostgreSQL", pinned, config.port, "never", sock
                )
            if not self._is_tls_offered or config.tls_mode == "disable":
                self._without_tls(steps)
                return pinned, None
            with steps.step("tls", "The connection is encrypted."):
                context = config.tls_context(config.host, self.secrets)
                version = await handshake(sock, context, pinned, config.port, config.connect_timeout_s)
                steps.server["encryption"] = version
            return pinned, context

    def _without_tls(self, steps: Steps) -> None:
        steps.server["encryption"] = "none"
        if self.config.tls_mode == "disable":
            steps.skip("tls", "TLS is turned off in the configuration.")
        elif self.config.tls_mode == "prefer":
            steps.skip("tls", "The server offers no TLS; the connection is not encrypted.")
        else:
            with steps.step("tls", ""):
                raise ConnectorError("tls_unavailable", f"{self.config.host} offers no TLS on port {self.config.port}.")

    async def _offers_tls(self, sock: socket.socket, pinned: Pinned) -> bool:
        answer = await ask(sock, _SSL_REQUEST, pinned, self.config.port, self.config.connect_timeout_s)
        if answer not in {b"S", b"N"}:
            raise mismatch("PostgreSQL", self.config.host, self.config.port, answer)
        return answer == b"S"

    async def _sign_in(self, pinned: Pinned, tls: ssl.SSLContext | None) -> asyncpg.Connection:
        import asyncpg

        config = self.config
        try:
            connection: asyncpg.Connection = await asyncpg.connect(
                host=list(pinned.addresses),
                port=config.port,
                user=config.username,
                password=self.secrets.password or "",
                database=config.database,
                ssl=tls or False,
                timeout=config.connect_timeout_s,
                statement_cache_size=0,  # Poolers such as PgBouncer know no named statements.
                target_session_attrs="any",
                server_settings={"application_name": "data-fusion-hub"},
            )
        except Exception as error:
            explained = self._explain(error)
            if explained.code in {"not_found", "permission_denied"} and _RULES not in str(error):
                raise _DatabaseRefused(explained.code, explained.message) from error
            raise explained from error
        return connection

    async def _begin(self, connection: asyncpg.Connection) -> None:
        """One transaction for everything, because poolers may give the next one to another connection of theirs.
        Raises `own_database`."""
        begin = _BEGIN.format(statement_timeout_ms=round(self.config.statement_timeout_s * 1000))
        await connection.execute(begin)
        own = self.network.policy.own_database
        for question in _IDENTITIES if own else ():
            if await self._identity(connection, question, begin) in own:
                raise ConnectorError("own_database", "This is the hub's own database.")

    async def _identity(self, connection: asyncpg.Connection, question: str, begin: str) -> tuple[str, int] | None:
        """The same under whatever name or address the database is dialled. None where the server does not tell. Asked
        in a transaction of the hub's making, in which a role can have set nothing that makes it fail or say something
        else."""
        import asyncpg

        try:
            found = await connection.fetchrow(question)
        except asyncpg.QueryCanceledError:
            raise
        except asyncpg.PostgresError:
            await connection.execute(f"ROLLBACK; {begin}")
            return None
        return None if found is None else (found[0], found[1])

    @asynccontextmanager
    async def _reading(self, steps: Steps) -> AsyncIterator[asyncpg.Connection]:
        """A connection inside a read-only transaction whose statements the server itself cuts off."""
        connection = await self._sign_in(*await self._reach(steps))
        try:
            await self._begin(connection)
            yield connection
        except (ConnectorError, MemoryError, GeneratorExit):
            raise
        except Exception as error:
            raise self._explain(error) from error
        finally:
            connection.terminate()

    def _explain(self, error: Exception) -> ConnectorError:
        """asyncpg's errors in our words; SQLSTATEs from the PostgreSQL documentation, appendix A."""
        import asyncpg

        config = self.config
        if isinstance(error.__cause__ or error, ssl.SSLError):
            return tls_failure(error.__cause__ or error, config.host, config.port, config.connect_timeout_s)
        if isinstance(error, TimeoutError):
            return silent(config.host, config.port, config.connect_timeout_s)
        if isinstance(error, OSError | asyncpg.ConnectionDoesNotExistError | asyncpg.ConnectionFailureError):
            return hung_up(config.host, config.port)
        if isinstance(error, asyncpg.PostgresError):
            return self._explain_sqlstate(str(error.sqlstate), str(error))
        if isinstance(error, asyncpg.InternalClientError | asyncpg.ProtocolError):
            return ConnectorError("protocol_mismatch", f"{config.host} does not follow the PostgreSQL protocol.")
        if isinstance(error, asyncpg.InterfaceError):
            return ConnectorError("unsupported", f"{config.host} asks for a way to sign in that is not supported.")
        raise error

    def _explain_sqlstate(self, sqlstate: str, text: str) -> ConnectorError:
        """`text` helps to tell cases apart and is never shown."""
        config = self.config
        code, sentence = _SQLSTATES.get(sqlstate) or _CLASSES.get(sqlstate[:2], _OTHERWISE)
        if sqlstate == "28000" and self._is_tls_offered and ("no encryption" in text or "SSL off" in text):
            code, sentence = "tls_required", "{host} takes {user} only over TLS."
        elif sqlstate == "28000" and _RULES in text:
            code, sentence = "permission_denied", "No rule in pg_hba.conf lets {user} in from this hub's address."
        elif sqlstate == "08P01":
            code, sentence = next((known for part, known in _OF_POOLERS if part in text), (code, sentence))
        if (code, sentence) == _NOT_LET_IN and self.secrets.password is None and config.client_certificate is None:
            sentence = NOTHING_GIVEN
        where = {"host": config.host, "user": config.username, "database": config.database, "sqlstate": sqlstate}
        return ConnectorError(code, sentence.format(**where))

    # Reading ----------------------------------------------------------------------------------------------------------

    def _scope(self) -> tuple[list[str], list[str]]:
        included = [like_pattern(pattern) for pattern in self.config.include_schemas] or ["%"]
        return included, [like_pattern(pattern) for pattern in self.config.exclude_schemas]

    async def _look(self, connection: asyncpg.Connection) -> None:
        try:
            await self._begin(connection)
            texts = ServerTexts.of(connection)
            await connection.fetch(texts.asked(_ANY_RELATION), *self._scope(), None, None)
        except Exception as error:
            raise self._explain(error) from error

    async def _find(self, connection: asyncpg.Connection, path: Sequence[str], texts: ServerTexts) -> Relation:
        """By the query of the discovery, so that a preview shows nothing that a discovery would not."""
        row = None
        if len(path) == 2 and "\x00" not in "".join(path):
            row = await connection.fetchrow(texts.asked(_RELATIONS), *self._scope(), *map(texts.named, path))
        if row is None:
            raise ConnectorError("not_found", f"There is no such table or view in {self.config.database}.")
        return _relation(row, await _types(connection, texts), texts)


class _DatabaseRefused(ConnectorError):
    """The database is not there, or closed to the user: said only to who is signed in already."""


# Statements -----------------------------------------------------------------------------------------------------------

# Nothing depends on what is set for the role, the database or the server. Time limits come first, since a short one
# would end what follows; an isolation level of its own, because a replica has no serializable one, and a deferrable
# transaction waits for those of others. Before PostgreSQL 12, floating point numbers come with all of their digits only
# where more than the usual ones are asked for. The settings in the last statement are not known to every version.
_BEGIN: Final = """
BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY, NOT DEFERRABLE;
SET LOCAL statement_timeout = {statement_timeout_ms}; SET LOCAL search_path = '';
SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SELECT pg_catalog.set_config(name, value, true)
FROM (VALUES ('transaction_timeout', '0'), ('idle_session_timeout', '0'), ('restrict_nonsystem_relation_kind', ''))
    AS known (name, value)
WHERE pg_catalog.current_setting(name, true) IS NOT NULL;
SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 3; SET LOCAL quote_all_identifiers = off;
SET LOCAL standard_conforming_strings = on; SET LOCAL row_security = on; SET LOCAL transform_null_equals = off;
SET LOCAL xmlbinary = 'base64'"""

# Names of types are told whole while nothing is on the search path. The functions of a view want it as the user has it.
_AS_THE_USER: Final = "SET LOCAL search_path TO DEFAULT"

_RULES: Final = "pg_hba.conf"
_OTHERWISE: Final[tuple[Code, str]] = ("server_error", "{host} answered with SQLSTATE {sqlstate}.")
_NO_DATABASE: Final[tuple[Code, str]] = ("not_found", "{host} has no database {database}.")
_NOT_LET_IN: Final[tuple[Code, str]] = ("authentication_failed", "{host} did not let {user} sign in.")
_GONE: Final[tuple[Code, str]] = ("not_found", "The object, or what it is made of, is not in {database} any more.")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATES: Final[dict[str, tuple[Code, str]]] = {
    "22021": ("response_invalid", "{database} holds a text that is no UTF-8."),
    "25006": ("unsupported", "The view writes something, and the hub only reads."),
    "3D000": _NO_DATABASE,
    "3F000": _GONE,
    "42501": ("permission_denied", "{user} may not read this in {database}."),
    "42703": _GONE,
    "42883": _GONE,
    "42P01": _GONE,
    "53300": ("rate_limited", "{host} has no connection left for {user}."),
    "55000": ("server_error", "{database} or the object is not ready to be read: closed, or never filled."),
    "57014": ("timeout", "The server stopped the query: it took longer than statement_timeout_s."),
    "57P03": ("server_error", "{host} is starting, stopping or recovering."),
}
_CLASSES: Final[dict[str, tuple[Code, str]]] = {
    "22": ("server_error", "The view cannot be worked out: a value does not fit, SQLSTATE {sqlstate}."),
    "28": _NOT_LET_IN,
    "57": ("connection_lost", "{host} ended the connection."),
}
# What PgBouncer, before 1.21, says under one number for everything.
_OF_POOLERS: Final[tuple[tuple[str, tuple[Code, str]], ...]] = (
    ("authentication failed", _NOT_LET_IN),
    ("no such user", _NOT_LET_IN),
    ("no such database", _NO_DATABASE),
    ("does not exist", _NO_DATABASE),
)


# The catalog ----------------------------------------------------------------------------------------------------------

# Partitions are left out, their parent stands for them. The inner query is sorted before the columns are looked up,
# relation by relation over an index, so that nothing but the names is ever sorted. Arrays are of text alone: other ones
# make asyncpg ask the server first what they are, which takes longer than all the rest.
_RELATIONS: Final = """
SELECT r.oid::int8, «r.nspname», «r.relname», r.relkind, f.names, f.types, f.natives, f.required
FROM (
    SELECT c.oid, n.nspname, c.relname, c.relkind::text
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
        AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
        AND n.nspname LIKE ANY ($1::text[]) AND NOT n.nspname LIKE ANY ($2::text[])
        AND ($3::text[] IS NULL OR «n.nspname» = ANY ($3)) AND ($4::text[] IS NULL OR «c.relname» = ANY ($4))
    ORDER BY n.nspname, c.relname
    OFFSET 0
) r
LEFT JOIN LATERAL (
    SELECT array_agg(«a.attname») AS names, array_agg(a.atttypid::text) AS types,
        array_agg(«pg_catalog.format_type(a.atttypid, a.atttypmod)») AS natives,
        array_agg(a.attnotnull::text) AS required
    FROM (
        SELECT * FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    ) a
) f ON true
"""

_ANY_RELATION: Final = f"SELECT 1 FROM ({_RELATIONS}) r LIMIT 1"  # noqa: S608 - no value of anybody is in it

# Without the row types of tables and without arrays, which are told by their names, but for two that are not.
_TYPES: Final = """
SELECT oid::int8, «typname», typtype::text, typcategory::text, typbasetype::int8
FROM pg_catalog.pg_type
WHERE typtype <> 'c' AND (typcategory <> 'A' OR typtype = 'd' OR typname IN ('int2vector', 'oidvector'))
"""

_PORTABLE: Final[dict[str, PortableType]] = {
    "bool": "boolean",
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "oid": "integer",
    "float4": "number",
    "float8": "number",
    "numeric": "decimal",
    "money": "string",
    "bytea": "binary",
    "date": "date",
    "time": "time",
    "timetz": "time",
    "timestamp": "timestamp",
    "timestamptz": "timestamp_tz",
    "interval": "interval",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "json",
    "geometry": "geometry",
    "geography": "geometry",
    "hstore": "object",
    "citext": "string",
    "xml": "string",
    "pg_lsn": "string",
    "tsvector": "string",
    "tsquery": "string",
    "jsonpath": "string",
    "macaddr": "string",
    "macaddr8": "string",
    "char": "string",
    "ltree": "string",
    "vector": "array",
    "halfvec": "array",
}
_BY_KIND: Final[dict[str, PortableType]] = {"e": "string", "r": "string", "m": "string", "c": "object"}
_BY_CATEGORY: Final[dict[str, PortableType]] = {
    "S": "string",
    "B": "boolean",
    "G": "geometry",
    "I": "string",
    "V": "string",
    "A": "array",
}


async def _read_ahead(cursor: Any) -> AsyncGenerator[list[Row], None]:
    """Rows, a batch at a time; the server is at the next one while this one is worked on."""
    rows = await cursor.fetch(_BATCH)
    while rows:
        following = asyncio.create_task(cursor.fetch(_BATCH))
        try:
            await asyncio.sleep(0)  # the question is on its way before the rows are looked at
            yield rows
            rows = await following
        finally:
            following.cancel()


class _Types(dict[tuple[str, str], PortableType]):
    """Portable types by oid and native name, each worked out once: a catalogue says the same few again and again."""

    def __init__(self, rows: dict[int, Row]) -> None:
        self._rows = rows

    def __missing__(self, key: tuple[str, str]) -> PortableType:
        oid, native = key
        found: PortableType = "array" if native.endswith("[]") else _portable(int(oid), self._rows)
        return self.setdefault(key, found)


async def _types(connection: asyncpg.Connection, texts: ServerTexts) -> _Types:
    rows = await connection.fetch(texts.asked(_TYPES))
    return _Types({oid: (oid, texts.name(name), *rest) for oid, name, *rest in rows})


def _portable(oid: int, rows: dict[int, Row]) -> PortableType:
    """Domains are what they are based on, through any number of them. What is not there is the row type of a table."""
    if oid not in rows:
        return "object"
    _, name, kind, category, base = rows[oid]
    if kind == "d":
        return "array" if category == "A" else _portable(base, rows)
    return _PORTABLE.get(name) or _BY_KIND.get(kind) or _BY_CATEGORY.get(category, "unknown")


class Relation(Struct, frozen=True):
    """A table or view, and what the server calls it and its columns."""

    shown: DiscoveredObject
    oid: int
    path: tuple[str, str]
    columns: tuple[str, ...]
    """By position."""


def _relation(row: Row, types: _Types, texts: ServerTexts) -> Relation:
    oid, schema, name, kind, *described = row
    names, oids, natives, required = (values or () for values in described)

    def fields() -> list[DiscoveredField]:
        shown = told_apart([texts.name(column) for column in names])
        columns = zip(shown, oids, map(texts.name, natives), required, strict=True)
        return [
            DiscoveredField(column, types[oid, native], native, required == "false", position)
            for position, (column, oid, native, required) in enumerate(columns, 1)
        ]

    path = texts.name(schema), texts.name(name)
    return Relation(
        described_row(path, _KINDS[kind], fields, may_have_none=True),
        oid,
        (texts.content(schema), texts.content(name)),
        tuple(map(texts.content, names)),
    )


# Rows -----------------------------------------------------------------------------------------------------------------


def _select(found: Relation, columns: Sequence[DiscoveredField], request: PreviewRequest) -> str:
    """Every value comes as text, cut off by the server one character after what will be shown."""
    length = request.max_value_bytes + 1
    expressions = ", ".join(_expression(column, found.columns[column.position - 1], length) for column in columns)
    table = ".".join(_quoted(name) for name in found.path)
    return f"SELECT {expressions} FROM {table} LIMIT {request.limit + 1}"  # noqa: S608 - every name is quoted


def _expression(column: DiscoveredField, own_name: str, length: int) -> str:
    name = _quoted(own_name)
    if column.type == "binary":
        return f"pg_catalog.encode(pg_catalog.substring({name}::bytea, 1, {length}), 'hex')"
    if column.type in _NESTED:
        return f"«pg_catalog.left(pg_catalog.to_json({name})::text, {length})»"
    return f"«pg_catalog.left({name}::text, {length})»"


def _is_cut(column: DiscoveredField, answer: str | None, texts: ServerTexts, longest: int) -> bool:
    return column.type != "binary" and answer is not None and texts.is_cut(answer, longest)


def _content(
    column: DiscoveredField, answer: str | None, texts: ServerTexts, shown: ByteTexts, longest: int
) -> str | None:
    if answer is None or column.type == "binary":
        return answer
    return shown.shown_text(texts.content(answer, longest), in_json=column.type in {"json", *_NESTED})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
