"""MySQL, MariaDB, and what speaks their protocol, through asyncmy.

The address is pinned by handing asyncmy a socket that is connected already. One connection does a whole check, because
a server shuts out hosts that often connect and leave before they have signed in (`max_connect_errors`). Files are never
sent (`LOAD DATA LOCAL`), no option file is read, no unix socket used, and no statement of anybody's choice is run.
"""

from __future__ import annotations

import asyncio
import base64
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from app.connectors.contract import pem
from app.connectors.contract.base import Connector
from app.connectors.contract.config import ConnectTimeoutS, Host, InvalidField, Pem, Port, SecretText, StatementTimeoutS
from app.connectors.contract.failures import NOTHING_GIVEN, Code, ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PortableType,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import dialled, hung_up, silent
from app.connectors.network.recognising import Protocol, met
from app.connectors.network.tls import tls_failure
from app.connectors.network.tls_fields import ClientKeySecrets, TlsModeConfig, refuse_half_an_identity
from app.connectors.types.mysql.catalog import (
    PATH_COLUMNS,
    TABLES,
    TELLS_TABLES_OF_CHECKS,
    Catalog,
    catalog_query,
    word,
)
from app.connectors.types.mysql.connection import NO_KEY, StagedConnection, connection_class, under_way
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.batches import batches
from app.connectors.values.json_text import read_json
from app.connectors.values.preview import Preview
from app.connectors.values.values import Row, json_safe, single_precision
from app.connectors.values.wildcards import like_pattern

if TYPE_CHECKING:
    import socket


DatabaseName = Annotated[str, Meta(min_length=1, max_length=64)]
_Answer = TypeVar("_Answer")

_ROWS_AT_ONCE: Final = 500
_GRACE_S: Final = 2.0  # The server gets this much longer than statement_timeout_s to say that it stopped.
_SYSTEM_DATABASES: Final = ("information_schema", "mysql", "performance_schema", "sys")


class MysqlConfig(TlsModeConfig, frozen=True, kw_only=True):
    host: Host
    port: Annotated[Port, Meta(description="TCP port of the server.")] = 3306
    database: Annotated[
        DatabaseName | None,
        Meta(description="The one database to show. Unset: all that the user may see.", examples=["shop"]),
    ] = None
    username: Annotated[str, Meta(min_length=1, max_length=128, description="User to sign in as.", examples=["reader"])]
    server_public_key: Annotated[
        Pem | None,
        Meta(
            description="RSA key of the server, with which `caching_sha2_password` encrypts the password where there "
            "is no TLS. The key that a server offers by itself is never used."
        ),
    ] = None
    allow_cleartext_password: Annotated[
        bool,
        Meta(
            description="Whether a server may ask for the password itself, as PAM, LDAP and cloud tokens need it. "
            "Only over TLS."
        ),
    ] = False
    include_databases: Annotated[
        tuple[DatabaseName, ...],
        Meta(max_length=200, description="Databases to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_databases: Annotated[
        tuple[DatabaseName, ...], Meta(max_length=200, description="Databases to leave out; wins over the included.")
    ] = ()
    connect_timeout_s: ConnectTimeoutS = 5.0
    statement_timeout_s: StatementTimeoutS = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if "/" in self.host:
            raise InvalidField(("host",), "host is a name or an address; URLs and unix sockets are not used.")
        if self.allow_cleartext_password and not self.requires_tls:
            raise InvalidField(("allow_cleartext_password",), f"allow_cleartext_password needs {self.tls_needs}.")
        for name in ("include_databases", "exclude_databases"):
            if getattr(self, name) and self.database is not None:
                raise InvalidField((name,), f"{name} has no meaning beside database.")


class MysqlSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the user.")] = None


class Mysql(Connector[MysqlConfig, MysqlSecrets]):
    type = "mysql"
    label = "MySQL and MariaDB"
    category = "database"
    description = "Tables and views of a MySQL server, 5.7 or newer, or a MariaDB server, 10.2 or newer."
    config_type = MysqlConfig
    secrets_type = MysqlSecrets
    driver = "asyncmy"
    extra = "mysql"
    warm_modules = ("asyncmy.connection", "asyncmy.cursors")
    verified_with = ("MariaDB 10.11", "mysql-mimic 3")
    destination_fields = frozenset(
        {"host", "port", "database", "username", "tls_mode", "ca_certificate", "client_certificate"}
        | {"server_public_key", "allow_cleartext_password"}
    )

    @classmethod
    def validate(cls, config: MysqlConfig, secrets: MysqlSecrets) -> None:
        refuse_half_an_identity(config.client_certificate, secrets)

    _is_signed_in = False

    async def check(self, steps: Steps) -> None:
        async with self._signed_in(steps) as connection:
            with steps.step("list", "Tables and views can be listed."), self._explained():
                ((version, comment),) = await self._rows(connection, "SELECT VERSION(), @@version_comment")
                steps.server.update(_introduction(f"{version}", f"{comment}"))
                if self.config.database is not None:
                    await self._patiently(connection.select_db(self.config.database))
                await self._rows(connection, f"{TABLES} WHERE {self._scope()} LIMIT 1")

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._reading() as connection:
            async for batch in batches(self._objects(connection, ())):
                yield batch

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview, texts = Preview(request), ByteTexts()
        async with self._reading() as connection:
            found = await self._find(connection, request.path)
            columns = preview.choose(found.fields)
            async for row in self._streamed(connection, _select(found.path, columns, request), rows_at_once=1):
                cells = zip(columns, row, strict=True)
                if not preview.add([_value(column, cell, request, texts) for column, cell in cells]):
                    break
        return preview.result(notes=texts.notes)

    # Connecting -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _signed_in(self, steps: Steps) -> AsyncIterator[StagedConnection]:
        """Steps resolve to authenticate, all on the connection that is given."""
        config = self.config
        with steps.step("resolve", f"{config.host} is known."):
            pinned = await self.network.resolve(config.host, config.port, config.connect_timeout_s)
        async with AsyncExitStack() as stack:
            with steps.step("connect", f"MySQL's protocol is spoken on port {config.port}."), self._explained():
                sock = await stack.enter_async_context(dialled(pinned, config.port, config.connect_timeout_s))
                connection = self._connection(sock)
                signing_in = await stack.enter_async_context(under_way(connection))
                greeted = self._greeted(connection, signing_in)
                await met(greeted, Protocol.MYSQL, "MySQL", pinned, config.port, "never", sock)
            if connection.is_plain and config.tls_mode in {"disable", "prefer"}:
                self._without_tls(steps)
            else:
                with steps.step("tls", "The connection is encrypted."), self._explained():
                    await self._until(connection.encrypted, signing_in)
                    steps.server["encryption"] = connection.tls_version
            with steps.step("authenticate", f"Signed in as {config.username}."), self._explained():
                await self._until(None, signing_in)
                await self._prepare(connection)
                await self._rows(connection, "SELECT 1")  # Whose password has expired is let in, and told so only now.
            self._is_signed_in = True
            yield connection

    def _connection(self, sock: socket.socket) -> StagedConnection:
        config = self.config
        return connection_class()(
            make_tls=None if config.tls_mode == "disable" else lambda: config.tls_context(config.host, self.secrets),
            needs_tls=config.tls_mode not in {"disable", "prefer"},
            allow_cleartext_password=config.allow_cleartext_password,
            sock=sock,
            host=config.host,
            user=config.username,
            password=(self.secrets.password or "").encode(),  # The driver would make Latin-1 of a text.
            server_public_key=pem.or_as_it_is(pem.public_key, config.server_public_key or NO_KEY).encode(),
            conv={},  # Values stay as the server wrote them.
            charset="utf8mb4",
            autocommit=None,
            local_infile=False,
            program_name="data-fusion-hub",
        )

    def _without_tls(self, steps: Steps) -> None:
        steps.server["encryption"] = "none"
        if self.config.tls_mode == "disable":
            steps.skip("tls", "TLS is turned off in the configuration.")
        else:
            steps.skip("tls", "The server offers no TLS; the connection is not encrypted.")

    async def _greeted(self, connection: StagedConnection, signing_in: asyncio.Task[object]) -> None:
        with self._explained():
            await self._until(connection.greeted, signing_in)

    async def _until(self, stage: asyncio.Event | None, signing_in: asyncio.Task[object]) -> None:
        """Waits for a stage of signing in, or for its end. Raises what ended it before the stage was reached."""
        waiting = {asyncio.create_task(stage.wait())} if stage else set()
        try:
            done, _ = await asyncio.wait(
                {signing_in, *waiting}, timeout=self.config.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in waiting:
                task.cancel()
        if not done:
            raise silent(self.config.host, self.config.port, self.config.connect_timeout_s)
        if not (stage and stage.is_set()):
            signing_in.result()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[StagedConnection]:
        async with self._signed_in(Steps()) as connection:
            with self._explained():
                yield connection

    async def _prepare(self, connection: StagedConnection) -> None:
        """Makes the session read only, and alike on every server."""
        for statement in _SESSION:
            await self._patiently(connection.query(statement))
        for statement in (*_ALL_THAT_THERE_IS, *_time_limits(self.config.statement_timeout_s)):
            await self._try(connection, statement)

    async def _try(self, connection: StagedConnection, statement: str) -> None:
        """MySQL and MariaDB have variables of their own each, and do not know the other's."""
        from asyncmy.errors import Error

        try:
            await self._patiently(connection.query(statement))
        except Error as error:
            if error.args[0] != _UNKNOWN_VARIABLE:
                raise

    async def _patiently(self, work: Awaitable[_Answer]) -> _Answer:
        """The server stops a statement by itself; this ends one for which it does not."""
        try:
            async with asyncio.timeout(self.config.statement_timeout_s + _GRACE_S):
                return await work
        except TimeoutError:
            raise ConnectorError("timeout", f"{self.config.host} stopped answering in the middle of a query.") from None

    # Failing ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ConnectorError, MemoryError):
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ConnectorError:
        """asyncmy's errors in our words. Of the numbers it makes up itself, from 2000 on, some come in a text only."""
        from asyncmy.errors import MySQLError

        config = self.config
        if isinstance(error.__cause__, OSError):
            return tls_failure(error.__cause__, config.host, config.port, config.connect_timeout_s)
        if isinstance(error, MySQLError) and isinstance(error.args[0], int):
            return self._explain_number(error.args[0])
        if isinstance(error, RuntimeError) and "LOAD_LOCAL" in str(error):
            return ConnectorError("response_invalid", f"{config.host} asked for a file of the hub; nothing was sent.")
        if isinstance(error, OSError):
            return hung_up(config.host, config.port)
        if isinstance(error, MySQLError | ValueError | LookupError | AssertionError | struct.error):
            return ConnectorError("protocol_mismatch", f"{config.host} does not follow MySQL's protocol.")
        raise error

    def _explain_number(self, number: int) -> ConnectorError:
        """Numbers from the error references of MySQL and MariaDB."""
        config = self.config
        if number in {0, 2006, 2013}:
            return hung_up(config.host, config.port)
        if number == 2059:
            return ConnectorError("unsupported", f"{config.host} asks for a way to sign in that is not supported.")
        if number == 1045 and self._is_signed_in:
            number = 1449  # MariaDB has one number for a user who may not sign in and for a view whose owner is gone.
        code, sentence = _ERRORS.get(number, ("server_error", "{host} answered with error {number}."))
        if number == 1045 and self.secrets.password is None:
            sentence = NOTHING_GIVEN
        where = config.database or "this server"
        return ConnectorError(code, sentence.format(host=config.host, user=config.username, where=where, number=number))

    # Reading ----------------------------------------------------------------------------------------------------------

    async def _rows(self, connection: StagedConnection, query: str) -> Sequence[Row]:
        async with connection.cursor() as cursor:
            await self._patiently(cursor.execute(query))
            rows: Sequence[Row] = await cursor.fetchall()
            return rows

    async def _streamed(
        self, connection: StagedConnection, query: str, rows_at_once: int = _ROWS_AT_ONCE
    ) -> AsyncIterator[Row]:
        """Rows as they come. Who does not take all of them has to close the connection."""
        from asyncmy.cursors import SSCursor

        cursor = connection.cursor(SSCursor)
        await self._patiently(cursor.execute(query))
        while rows := await self._patiently(cursor.fetchmany(rows_at_once)):
            for row in rows:
                yield row

    async def _find(self, connection: StagedConnection, path: Sequence[str]) -> DiscoveredObject:
        """By the query of the discovery, so that a preview shows nothing that a discovery would not. The server may
        take `A` for `a`; the path decides."""
        found = None
        if len(path) == 2 and "\x00" not in "".join(path):
            async for candidate in self._objects(connection, path):
                found = candidate if candidate.path == tuple(path) else found
        if found is None:
            raise ConnectorError("not_found", "There is no such table or view.")
        return found

    async def _objects(self, connection: StagedConnection, path: Sequence[str]) -> AsyncIterator[DiscoveredObject]:
        """All tables and views, or those at the path."""
        (has_checks,) = await self._rows(connection, TELLS_TABLES_OF_CHECKS)
        scope = self._scope() + "".join(
            f" AND {column} = {_literal(name)}" for column, name in zip(PATH_COLUMNS, path, strict=False)
        )
        catalog = Catalog()
        async for row in self._streamed(connection, catalog_query(scope, with_checks=has_checks[0] != "0")):
            for found in catalog.add(row):
                yield found
        for found in catalog.rest():
            yield found

    def _scope(self) -> str:
        """The condition on TABLE_SCHEMA, the name under which the catalog has databases."""
        config = self.config
        if config.database is not None:
            return f"TABLE_SCHEMA = {_literal(config.database)}"
        included = " OR ".join(_like(pattern) for pattern in config.include_databases) or "1 = 1"
        excluded = "".join(f" AND NOT {_like(pattern)}" for pattern in config.exclude_databases)
        system = ", ".join(_literal(name) for name in _SYSTEM_DATABASES)
        return f"TABLE_SCHEMA NOT IN ({system}) AND ({included}){excluded}"


# Statements -----------------------------------------------------------------------------------------------------------

_SESSION: Final = (
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = '', time_zone = '+00:00'",
    "SET SESSION TRANSACTION READ ONLY",
)
# Whatever a server, a user or an `init_connect` sets that would leave rows out, cut them or show them otherwise.
_ALL_THAT_THERE_IS: Final = (
    "SET SESSION sql_select_limit = 18446744073709551615",
    "SET SESSION sql_big_selects = 1",
    "SET SESSION max_join_size = 18446744073709551615",
    "SET SESSION sql_safe_updates = 0",
    "SET SESSION sql_auto_is_null = 0",
    "SET SESSION autocommit = 1",
    "SET SESSION group_concat_max_len = 1048576",
    "SET SESSION lc_time_names = 'en_US'",
    "SET SESSION old_mode = ''",
    "SET SESSION sql_quote_show_create = 1",
)
_UNKNOWN_VARIABLE: Final = 1193

_ERRORS: Final[dict[int, tuple[Code, str]]] = {
    1040: ("rate_limited", "{host} has no connection left."),
    1044: ("permission_denied", "{user} may not use {where}, or there is no such database."),
    1045: ("authentication_failed", "{host} did not let {user} sign in."),
    1049: ("not_found", "{host} has no database {where}."),
    1053: ("connection_lost", "{host} is shutting down."),
    1054: ("not_found", "The object does not have this column any more."),
    1129: ("permission_denied", "{host} has shut this hub out after too many broken connections."),
    1130: ("permission_denied", "{host} takes no connections from this hub's address."),
    1142: ("permission_denied", "{user} may not read this."),
    1143: ("permission_denied", "{user} may not read all of these columns."),
    1146: ("not_found", "The object is not there any more."),
    1184: (
        "server_error",
        "{host} ends each connection of {user} at once: what its init_connect says fails for that user.",
    ),
    1203: ("rate_limited", "{user} has too many connections."),
    1226: ("rate_limited", "{user} has used up the connections or queries that the server grants."),
    1227: ("permission_denied", "{user} may not read this."),
    1251: ("unsupported", "{host} asks for a way to sign in that is not supported."),
    1317: ("timeout", "The server stopped the query."),
    1356: ("permission_denied", "The view cannot be read: its tables are gone, or its owner may not read them."),
    1449: ("permission_denied", "The view cannot be read: its owner is gone."),
    1698: ("authentication_failed", "{host} did not let {user} sign in."),
    1792: ("unsupported", "The view writes something, and the hub only reads."),
    1820: ("authentication_failed", "The password of {user} has expired."),
    1862: ("authentication_failed", "The password of {user} has expired."),
    1969: ("timeout", "The server stopped the query: it took longer than statement_timeout_s."),
    3024: ("timeout", "The server stopped the query: it took longer than statement_timeout_s."),
    3118: ("authentication_failed", "{user} is locked."),
    3159: ("tls_required", "{host} takes connections over TLS only."),
    4151: ("authentication_failed", "{user} is locked."),
}


def _time_limits(seconds: float) -> tuple[str, str]:
    return f"SET SESSION max_statement_time = {seconds:g}", f"SET SESSION max_execution_time = {round(seconds * 1000)}"


def _introduction(version: str, comment: str) -> dict[str, str]:
    """Product and version, from texts such as `10.11.19-MariaDB-0+deb12u1` and `8.0.11-TiDB-v7.5.0`."""
    told = f"{version} {comment}".lower()
    product = next((name for name in ("MariaDB", "TiDB", "Percona", "mysql-mimic") if name.lower() in told), "MySQL")
    return {"product": product, "version": re.split("[-+ ]", version)[0][:100]}


def _literal(text: str) -> str:
    """A text that means the same under every sql_mode: quoted where there is nothing to escape, else in hexadecimal."""
    return f"'{text}'" if _PLAIN.fullmatch(text) else f"_utf8mb4 X'{text.encode().hex()}'"


_PLAIN: Final = re.compile(r"[A-Za-z0-9_$ .|%-]*")


def _like(pattern: str) -> str:
    return f"TABLE_SCHEMA LIKE {_literal(like_pattern(pattern, '|'))} ESCAPE '|'"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


# Rows -----------------------------------------------------------------------------------------------------------------


def _select(path: Sequence[str], columns: Sequence[DiscoveredField], request: PreviewRequest) -> str:
    """Long values are cut off by the server one character after what will be shown."""
    expressions = ", ".join(_expression(column, request.max_value_bytes + 1) for column in columns) or "NULL"
    table = ".".join(_quoted(name) for name in path)
    return f"SELECT {expressions} FROM {table} LIMIT {request.limit + 1}"  # noqa: S608 - every name is quoted


def _expression(column: DiscoveredField, length: int) -> str:
    name = _quoted(column.name)
    if column.type == "geometry":
        return f"LEFT(ST_AsText({name}), {length})"
    if column.type in {"string", "json", "binary"} and word(column.native_type) != "vector":
        return f"LEFT({name}, {length})"
    if word(column.native_type) == "bit":
        return f"{name} + 0"
    if word(column.native_type) == "float":
        return f"{name} + 0e0"  # As it is, the server would write six digits of it.
    return name


def _value(column: DiscoveredField, cell: str | bytes | None, request: PreviewRequest, texts: ByteTexts) -> object:
    """A column's text as the JSON-safe value that it stands for."""
    if cell is None:
        return None
    if column.type == "binary":
        return base64.b64encode(cell if isinstance(cell, bytes) else cell.encode()).decode("ascii")
    text = texts.shown(cell) if isinstance(cell, bytes) else cell
    if column.type == "json":
        return _nested(text, request)
    if word(column.native_type) == "float":
        return single_precision(float(text))
    reader = _READERS.get(column.type)
    return reader(text) if reader else text


def _nested(text: str, request: PreviewRequest) -> object:
    """What was cut off is no JSON any more and stays text."""
    if len(text) > request.max_value_bytes:
        return text
    try:
        return read_json(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _boolean(text: str) -> object:
    return bool(int(text)) if text in {"0", "1"} else json_safe(int(text))


def _timestamp(text: str) -> str:
    """Dates with a zero in them, which MySQL has for unknown parts, have no form in RFC 3339 and stay as they are."""
    return text if "-00" in text[:10] else text.replace(" ", "T")


_READERS: Final[dict[PortableType, Callable[[str], object]]] = {
    "boolean": _boolean,
    "integer": lambda text: json_safe(int(text)),
    "number": lambda text: json_safe(float(text)),
    "decimal": lambda text: json_safe(Decimal(text)),
    "timestamp": _timestamp,
    "timestamp_tz": lambda text: text if "-00" in text[:10] else _timestamp(text) + "Z",
}
