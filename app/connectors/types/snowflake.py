"""Snowflake, through its own connector for Python.

That library resolves names, follows the server to stage URLs for large results, reads settings from the home folder
and the environment, and asks the clouds' metadata services where it runs. Here it runs on a thread of the connector
process, which has no home folder and no such variables; its probes are turned off, and everything it sends goes through
`PinnedProxy`, which is opened for the account's host, and then for each stage that an answer names, once judged.

Values come as text wherever Python or the connector's own conversion would lose something: nanoseconds, offsets of
zones, large numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from app.connectors.contract import pem
from app.connectors.contract.base import Capabilities, Connector
from app.connectors.contract.config import (
    ConnectorConfig,
    ConnectorSecrets,
    ConnectTimeoutS,
    InvalidField,
    Pem,
    SecretText,
    TimeoutS,
)
from app.connectors.contract.failures import Code, ConnectorError, reading
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PortableType,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.http import HttpClient, Origin, check_url, origin_of
from app.connectors.network.pinned_proxy import PinnedProxy
from app.connectors.network.tls import in_memory
from app.connectors.values.batches import slices
from app.connectors.values.describing import described_row
from app.connectors.values.json_text import read_json
from app.connectors.values.preview import Preview
from app.connectors.values.values import Row, json_safe
from app.connectors.values.wildcards import like_pattern

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection
    from snowflake.connector.cursor import SnowflakeCursor
    from snowflake.connector.result_batch import ResultBatch

Auth = Literal["password", "key_pair", "oauth", "programmatic_access_token"]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Url = Annotated[str, Meta(min_length=1, max_length=500)]
Answer = TypeVar("Answer")
Options = dict[str, Any]
"""Of a sign-in, by the connector's own names."""

_CHUNK_BYTES: Final = 32 * 1024 * 1024


class SnowflakeConfig(ConnectorConfig, frozen=True, kw_only=True):
    account: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z",
            max_length=200,
            description="Account identifier, such as `myorg-myaccount` or `xy12345.eu-central-1`.",
            examples=["myorg-myaccount"],
        ),
    ]
    username: Annotated[str, Meta(min_length=1, max_length=255, description="User to sign in as.", examples=["READER"])]
    auth: Annotated[
        Auth, Meta(description="Way to sign in; each has a secret: `password`, `private_key` or `token`.")
    ] = "password"
    database: Annotated[
        Name, Meta(description="Name of the database, in double quotes if it is case-sensitive.", examples=["SHOP"])
    ]
    warehouse: Annotated[
        Name | None, Meta(description="Warehouse that runs the queries. Unset: the user's default one.")
    ] = None
    role: Annotated[Name | None, Meta(description="Role to act as. Unset: the user's default one.")] = None
    endpoint_url: Annotated[
        Url | None,
        Meta(
            description="Where the account answers if not at `https://<account>.snowflakecomputing.com`: "
            "a private link, another domain.",
            examples=["https://myorg-myaccount.privatelink.snowflakecomputing.com"],
        ),
    ] = None
    ca_certificate: Annotated[Pem | None, Meta(description="CA to trust instead of the system's.")] = None
    include_schemas: Annotated[
        tuple[Name, ...],
        Meta(max_length=200, description="Schemas to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_schemas: Annotated[
        tuple[Name, ...], Meta(max_length=200, description="Schemas to leave out; wins over the included.")
    ] = ()
    connect_timeout_s: ConnectTimeoutS = 5.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds to wait for an answer, sign-in included.")] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoint_url is None:
            return
        check_url("endpoint_url", self.endpoint_url)
        if urlsplit(self.endpoint_url).path.strip("/") or urlsplit(self.endpoint_url).query:
            raise InvalidField(("endpoint_url",), "endpoint_url has no path and no query.")

    @property
    def url(self) -> str:
        """Host names have no underscores; accounts may, and answer to hyphens as well."""
        if self.endpoint_url is not None:
            return self.endpoint_url.rstrip("/")
        return f"https://{self.account.replace('_', '-').lower()}.snowflakecomputing.com"


class SnowflakeSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the user.")] = None
    private_key: Annotated[SecretText | None, Meta(description="Private RSA key in PEM form.")] = None
    private_key_passphrase: Annotated[SecretText | None, Meta(description="Passphrase of the private key.")] = None
    token: Annotated[SecretText | None, Meta(description="OAuth access token or programmatic access token.")] = None


_SECRET_OF: Final[dict[Auth, str]] = {
    "password": "password",
    "key_pair": "private_key",
    "oauth": "token",
    "programmatic_access_token": "token",
}


class Snowflake(Connector[SnowflakeConfig, SnowflakeSecrets]):
    type = "snowflake"
    label = "Snowflake"
    category = "warehouse"
    description = "Tables and views of one Snowflake database."
    config_type = SnowflakeConfig
    secrets_type = SnowflakeSecrets
    driver = "snowflake.connector"
    warm_modules = ("cryptography.hazmat.primitives.serialization", "httpx")
    extra = "snowflake"
    capabilities = Capabilities()
    verified_with = ("fakesnow 0.12",)
    destination_fields = frozenset(
        {"account", "endpoint_url", "username", "auth", "role", "database", "ca_certificate"}
    )

    @classmethod
    def validate(cls, config: SnowflakeConfig, secrets: SnowflakeSecrets) -> None:
        needed = _SECRET_OF[config.auth]
        if getattr(secrets, needed) is None:
            raise InvalidField(("secrets", needed), f"{needed} is needed to sign in by {config.auth}.")

    async def check(self, steps: Steps) -> None:
        config = self.config
        async with HttpClient(
            self.network,
            ca_certificate=config.ca_certificate,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        ) as http:
            await http.reach(steps, config.url)
        async with contextlib.AsyncExitStack() as until_checked:
            with steps.step("authenticate", f"Signed in as {config.username}."):
                session = await until_checked.enter_async_context(self._signed_in())
            with steps.step("list", "Tables and views can be listed."):
                version = await session.rows("SELECT CURRENT_VERSION()")
                steps.server.update(product="Snowflake", version=str(version[0][0]))
                await session.rows(f"{_COLUMNS.format(database=_name(config.database), scope=self._scope())} LIMIT 1")

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._signed_in() as session:
            rest: list[Row] = []
            query = _COLUMNS.format(database=_name(self.config.database), scope=self._scope())
            async for rows in session.chunks(f"{query} {_ORDER}", 2000):
                *objects, rest = _by_object(rest + rows)
                for some in slices(objects):
                    yield [_object(columns) for columns in some]
            if rest:
                yield [_object(rest)]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._signed_in() as session:
            found = await self._find(session, request.path)
            columns = preview.choose(found.fields)
            source = ".".join((_name(self.config.database), *(_quoted(name) for name in request.path)))
            chunk = max(1, min(250, _CHUNK_BYTES // (request.max_value_bytes * max(1, len(columns)))))
            with reading(found.kind):
                async for rows in session.chunks(_select(source, columns, request), chunk):
                    values = ([_value(*cell) for cell in zip(columns, row, strict=False)] for row in rows)
                    if not all(preview.add(row) for row in values):
                        break
        return preview.result()

    # Signing in -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _signed_in(self) -> AsyncIterator[_Session]:
        origin = origin_of(self.config.url)
        await self.network.resolve(origin.host, origin.port, self.config.connect_timeout_s)
        async with PinnedProxy.opened(self.network, self.config.connect_timeout_s) as proxy:
            proxy.allow(origin.host, origin.port)
            with _trusting(self.config.ca_certificate):
                connection = await self._connect({**self._options(origin, proxy), **self._credentials()})
                try:
                    yield _Session(self, connection, proxy)
                finally:
                    with contextlib.suppress(ConnectorError):
                        await self._do(lambda: connection.close(retry=False), timeout_s=1.0)

    async def _connect(self, options: Options) -> SnowflakeConnection:
        """The connector says alike of a server that is silent and of one that talks nonsense; only time tells."""
        from snowflake.connector import SnowflakeConnection

        started = time.monotonic()
        try:
            return await self._do(lambda: SnowflakeConnection(**options))
        except ConnectorError as error:
            if error.code == "protocol_mismatch" and time.monotonic() - started >= options["login_timeout"]:
                raise ConnectorError("timeout", f"{self.config.url} did not answer the sign-in in time.") from None
            raise

    def _options(self, origin: Origin, proxy: PinnedProxy) -> Options:
        config = self.config
        way = urlsplit(proxy.url)
        patience = max(1, int(config.read_timeout_s))
        return {
            "account": config.account,
            "host": origin.host,
            "port": origin.port,
            "protocol": origin.scheme,
            "user": config.username,
            "warehouse": config.warehouse and _name(config.warehouse),
            "role": config.role and _name(config.role),
            "proxy_host": way.hostname,
            "proxy_port": str(way.port),
            "proxy_user": way.username,
            "proxy_password": way.password,
            "login_timeout": patience,
            "network_timeout": patience,
            "socket_timeout": patience,
            **_QUIET,
        }

    def _credentials(self) -> Options:
        secrets = self.secrets
        if self.config.auth == "key_pair":
            return {"authenticator": "SNOWFLAKE_JWT", "private_key": self._private_key()}
        if self.config.auth == "password":
            return {"authenticator": "SNOWFLAKE", "password": secrets.password or ""}
        return {"authenticator": self.config.auth.upper(), "token": secrets.token or ""}

    def _private_key(self) -> bytes:
        """In DER form, without its passphrase."""
        from cryptography.hazmat.primitives import serialization

        passphrase = self.secrets.private_key_passphrase
        try:
            key = serialization.load_pem_private_key(
                pem.private_key(self.secrets.private_key or "").encode(), passphrase.encode() if passphrase else None
            )
        except (ValueError, TypeError):
            raise ConnectorError(
                "invalid_configuration", "private_key is no private key in PEM form, or its passphrase is another one."
            ) from None
        return key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    async def _do(self, work: Callable[[], Answer], timeout_s: float | None = None) -> Answer:
        """A piece of the connector's work, on a thread. A thread that is too slow is left behind with its process."""
        timeout_s = timeout_s or self.config.read_timeout_s + 1
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(work)))
        except TimeoutError:
            raise ConnectorError("timeout", f"Snowflake did not answer within {timeout_s:g} s.") from None
        except (ConnectorError, MemoryError):
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> Exception:
        """The connector's errors in our words. The numbers are Snowflake's; its texts are never shown."""
        from snowflake.connector import errors

        config = self.config
        number = _HTTP_FORBIDDEN if isinstance(error, errors.ForbiddenError) else _number(error)
        if number in _NUMBERS:
            code, message = _NUMBERS[number]
            return ConnectorError(code, message.format(**_named(config)))
        if number in _HTTP_STATUSES:
            status = number - _HTTP_STATUSES.start
            return ConnectorError(
                "server_error", f"{config.url} answered with status {status}: perhaps it is not Snowflake."
            )
        if number in range(390_000, 396_000):
            return ConnectorError("authentication_failed", f"Snowflake did not let {config.username} sign in.")
        if isinstance(error, errors.OperationalError) and _number(error.__cause__) == _NO_SENSE:
            return ConnectorError("protocol_mismatch", f"What answers at {config.url} is not Snowflake.")
        if number == _NO_SIGN_IN:
            message = f"What answers at {config.url} fails at each sign-in: it is out of order, or not Snowflake."
            return ConnectorError("server_error", message)
        if isinstance(error, errors.Error):
            return ConnectorError("server_error", f"{config.url} answered with error {number:06d}.")
        return error

    # Reading ----------------------------------------------------------------------------------------------------------

    def _scope(self) -> str:
        included = [_like(pattern) for pattern in self.config.include_schemas]
        excluded = [f"NOT {_like(pattern)}" for pattern in self.config.exclude_schemas]
        shown = [f"({' OR '.join(included)})"] if included else []
        return " AND ".join(["c.table_schema <> 'INFORMATION_SCHEMA'", *shown, *excluded])

    async def _find(self, session: _Session, path: Sequence[str]) -> DiscoveredObject:
        """By the query of the discovery, so that a preview shows nothing that a discovery would not."""
        rows: list[Row] = []
        if len(path) == 2 and "\x00" not in "".join(path):
            place = f"c.table_schema = {_literal(path[0])} AND c.table_name = {_literal(path[1])}"
            query = _COLUMNS.format(database=_name(self.config.database), scope=f"{self._scope()} AND {place}")
            rows = await session.rows(f"{query} {_ORDER}")
        if not rows:
            raise ConnectorError("not_found", f"There is no such table or view in {self.config.database}.")
        return _object(rows)


class _Session:
    """A connection, and the proxy that it goes through."""

    def __init__(self, connector: Snowflake, connection: SnowflakeConnection, proxy: PinnedProxy) -> None:
        self._connector = connector
        self._connection = connection
        self._proxy = proxy

    async def rows(self, query: str) -> list[Row]:
        return [row async for rows in self.chunks(query, 1000) for row in rows]

    async def chunks(self, query: str, size: int) -> AsyncIterator[list[Row]]:
        cursor: SnowflakeCursor = self._connection.cursor()
        patience = max(1, int(self._connector.config.read_timeout_s))
        await self._connector._do(lambda: cursor.execute(query, timeout=patience))
        await self._open_stages(cursor)
        while rows := await self._connector._do(lambda: cursor.fetchmany(size)):
            yield rows

    async def _open_stages(self, cursor: SnowflakeCursor) -> None:
        """Rows of a large result lie at a cloud's store, at URLs that the answer names. Each host is judged first."""
        origins = {_stage(batch) for batch in cursor.get_result_batches() or ()} - {None}
        for origin in origins:
            assert origin is not None
            await self._connector.network.resolve(origin.host, origin.port, self._connector.config.connect_timeout_s)
            self._proxy.allow(origin.host, origin.port)


def _stage(batch: ResultBatch) -> Origin | None:
    remote = batch._remote_chunk_info
    if remote is None:
        return None
    try:
        return origin_of(remote.url)
    except ValueError:
        raise ConnectorError("egress_refused", "Snowflake led to a URL that is not followed.") from None


@contextlib.contextmanager
def _trusting(ca_certificate: str | None) -> Iterator[None]:
    """The connector takes a CA by this variable only. The process works for one source and ends."""
    if ca_certificate is None:
        yield
        return
    try:
        certificates = pem.certificates(ca_certificate)
    except ValueError:
        raise ConnectorError("invalid_configuration", "ca_certificate is not a certificate in PEM form.") from None
    with in_memory(certificates) as path:
        os.environ["REQUESTS_CA_BUNDLE"] = path
        try:
            yield
        finally:
            os.environ.pop("REQUESTS_CA_BUNDLE", None)


_QUIET: Final[Mapping[str, object]] = {
    "application": "data_fusion_hub",
    "platform_detection_timeout_seconds": 0.0,
    "disable_ocsp_checks": True,  # It would ask further hosts over plain HTTP; most CAs answer no longer.
    "log_imported_packages_in_telemetry": False,
    "client_store_temporary_credential": False,
    "client_request_mfa_token": False,
    "client_session_keep_alive": False,
    "client_prefetch_threads": 1,
    "session_parameters": {
        "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "JSON",
        "CLIENT_TELEMETRY_ENABLED": False,
        "TIMEZONE": "UTC",
        # What an account or a user sets of these would leave rows out, or take names for others.
        "ROWS_PER_RESULTSET": 0,
        "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
        "BINARY_OUTPUT_FORMAT": "HEX",
        "QUERY_TAG": "data-fusion-hub",
    },
}


# Errors ---------------------------------------------------------------------------------------------------------------

_NO_OBJECT: Final[tuple[Code, str]] = ("not_found", "The role has no access to {database}, or there is no such thing.")
_NO_ACCOUNT: Final[tuple[Code, str]] = (
    "not_found",
    "There is no Snowflake account at {url}, or what answers there is not Snowflake.",
)
_TOO_SLOW: Final[tuple[Code, str]] = ("timeout", "Snowflake took too long.")
_HTTP_STATUSES: Final = range(290_000, 290_600)
_NO_SIGN_IN: Final = 250001
_HTTP_FORBIDDEN: Final = 290403
_NO_SENSE: Final = 251011
"""No answer to a login request, or one that is not JSON."""
_NUMBERS: Final[dict[int, tuple[Code, str]]] = {
    606: ("invalid_configuration", "No warehouse is active: set warehouse, or a default one for the user."),
    604: _TOO_SLOW,
    630: _TOO_SLOW,
    2003: _NO_OBJECT,
    2043: _NO_OBJECT,
    90105: _NO_OBJECT,
    3001: ("permission_denied", "The role may not read this in {database}."),
    3003: ("permission_denied", "The role may not read this in {database}."),
    390189: ("permission_denied", "The user may not act as the role, or there is no such role."),
    390201: ("not_found", "There is no such warehouse, or the role may not use it."),
    390422: ("permission_denied", "A network policy of the account refuses the hub's address."),
    _HTTP_FORBIDDEN: _NO_ACCOUNT,
    290404: _NO_ACCOUNT,
    290429: ("rate_limited", "Snowflake asks for patience."),
}


def _number(error: BaseException | None) -> int:
    """Of the error, or of what an error about signing in again was made from."""
    return int(getattr(getattr(error, "cause", error), "errno", None) or -1)


def _named(config: SnowflakeConfig) -> dict[str, str]:
    return {"database": config.database, "url": config.url}


# The catalog ----------------------------------------------------------------------------------------------------------

_COLUMNS: Final = """
SELECT c.table_schema, c.table_name, t.table_type, c.column_name, c.data_type, c.numeric_precision, c.numeric_scale,
    c.character_maximum_length, c.is_nullable
FROM {database}.INFORMATION_SCHEMA.COLUMNS c
LEFT JOIN {database}.INFORMATION_SCHEMA.TABLES t
    ON t.table_schema = c.table_schema AND t.table_name = c.table_name
WHERE {scope}
"""
_ORDER: Final = "ORDER BY c.table_schema, c.table_name, c.ordinal_position"


def _by_object(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(columns) for _, columns in groupby(rows, key=lambda row: tuple(row[:2]))]


def _object(rows: Sequence[Row]) -> DiscoveredObject:
    schema, name, kind = rows[0][:3]
    return described_row((schema, name), _KINDS.get(kind or "VIEW", "table"), lambda: _fields(rows))


def _fields(rows: Sequence[Any]) -> list[DiscoveredField]:
    fields = []
    for position, (column, data_type, precision, scale, length, is_nullable) in enumerate((r[3:] for r in rows), 1):
        native = _native(data_type, precision, scale, length)
        portable = _portable(data_type, scale)
        fields.append(DiscoveredField(column, portable, native, is_nullable == "YES", position))
    return fields


_KINDS: Final = {
    "VIEW": "view",
    "MATERIALIZED VIEW": "materialized_view",
    "EXTERNAL TABLE": "external_table",
}
_PORTABLE: Final[dict[str, PortableType]] = {
    "FLOAT": "number",
    "BOOLEAN": "boolean",
    "TEXT": "string",
    "BINARY": "binary",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP_NTZ": "timestamp",
    "TIMESTAMP_LTZ": "timestamp_tz",
    "TIMESTAMP_TZ": "timestamp_tz",
    "VARIANT": "json",
    "OBJECT": "object",
    "MAP": "object",
    "ARRAY": "array",
    "VECTOR": "array",
    "GEOGRAPHY": "geometry",
    "GEOMETRY": "geometry",
}


def _portable(data_type: str, scale: int | None) -> PortableType:
    if data_type in {"NUMBER", "DECFLOAT"}:
        return "integer" if scale == 0 else "decimal"
    return _PORTABLE.get(data_type, "unknown")


def _native(data_type: str, precision: int | None, scale: int | None, length: int | None) -> str:
    if data_type == "NUMBER" and precision is not None:
        return f"NUMBER({precision},{scale})"
    return f"{data_type}({length})" if length is not None and data_type == "TEXT" else data_type


def _name(text: str) -> str:
    """An identifier as the configuration has it: as in SQL, it is in capitals unless it is quoted."""
    if len(text) > 2 and text.startswith('"') and text.endswith('"'):
        return _quoted(text[1:-1].replace('""', '"'))
    return _quoted(text.upper() if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", text) else text)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _like(pattern: str) -> str:
    return f"c.table_schema ILIKE {_literal(like_pattern(pattern, '^'))} ESCAPE '^'"


# Rows -----------------------------------------------------------------------------------------------------------------


def _select(source: str, columns: Sequence[DiscoveredField], request: PreviewRequest) -> str:
    """Every value that can be long is cut off by the server, one character after what will be shown."""
    length = request.max_value_bytes + 1
    expressions = [f"{_expression(column, length)} AS C{column.position}" for column in columns]
    return f"SELECT {', '.join(expressions) or 'NULL'} FROM {source} LIMIT {request.limit + 1}"  # noqa: S608


_FORMATS: Final[dict[PortableType, str]] = {
    "date": "YYYY-MM-DD",
    "time": "HH24:MI:SS.FF9",
    "timestamp": 'YYYY-MM-DD"T"HH24:MI:SS.FF9',
    "timestamp_tz": 'YYYY-MM-DD"T"HH24:MI:SS.FF9TZH:TZM',
}


def _expression(column: DiscoveredField, length: int) -> str:
    name, kind = _quoted(column.name), column.native_type
    if column.type in {"boolean", "number"}:
        return name
    if form := _FORMATS.get(column.type):
        return f"TO_VARCHAR({name}, '{form}')"
    if column.type == "binary":
        return f"LEFT(HEX_ENCODE({name}), {2 * length})"
    if kind == "VECTOR":
        return f"LEFT(TO_JSON(TO_VARIANT({name}::ARRAY)), {length})"
    if column.type in {"json", "object", "array"}:
        return f"LEFT(TO_JSON(TO_VARIANT({name})), {length})"
    if column.type == "geometry":
        return f"LEFT(ST_ASWKT({name}), {length})"
    return f"LEFT({name}::VARCHAR, {length})"


def _value(column: DiscoveredField, value: object) -> object:
    reader = _READERS.get(column.type)
    return reader(value) if reader and isinstance(value, str) else json_safe(value)


def _binary(digits: str) -> object:
    return json_safe(bytes.fromhex(digits))


def _json(text: str) -> object:
    """What was cut off is no JSON any more and stays text."""
    try:
        return read_json(text)
    except (msgspec.DecodeError, RecursionError):
        return text


_MOMENT: Final = re.compile(r"(?:(\S+)[ T])?(\d\d:\d\d:\d\d)(\.\d+)?(?: ?([+-]\d\d)(?::?(\d\d))?)?", re.ASCII)


def _moment(text: str) -> str:
    """RFC 3339, with no more digits than say something."""
    if not (match := _MOMENT.fullmatch(text)):
        return text
    day, clock, fraction, hours, minutes = match.groups()
    zone = "" if hours is None else "Z" if (hours, minutes or "00") == ("+00", "00") else f"{hours}:{minutes or '00'}"
    return f"{day + 'T' if day else ''}{clock}{(fraction or '').rstrip('0').rstrip('.')}{zone}"


_READERS: Final[dict[PortableType, Callable[[str], object]]] = {
    "integer": lambda text: json_safe(int(text)),
    "binary": _binary,
    "json": _json,
    "object": _json,
    "array": _json,
    "time": _moment,
    "timestamp": _moment,
    "timestamp_tz": _moment,
}
