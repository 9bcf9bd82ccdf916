"""MongoDB, and what speaks its protocol, through pymongo.

pymongo looks names up by itself and follows a replica set to wherever its members say that it is. Here it does neither:
members are met first (`mongodb_members`), each at an address that the policy judged, and pymongo is given the address
of the one to read from, with `directConnection`. Its TLS context is ours, which checks certificates against the
configured name. `mongodb+srv` names are not looked up; ways to sign in that read files, the environment or a metadata
service (AWS, OIDC, Kerberos) and encryption on the client's side are not offered.

Documents have no schema: fields are those of the oldest and the newest documents, of which the server sends names and
types only.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, cast

from msgspec import Meta, Struct

from app.connectors.contract.base import Connector
from app.connectors.contract.config import ConnectTimeoutS, Host, InvalidField, Port, SecretText, TimeoutS
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import (
    DiscoveredObject,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import hung_up, silent
from app.connectors.network.tls_fields import ClientKeySecrets, TlsMode, TlsModeConfig, refuse_half_an_identity
from app.connectors.types.mongodb.bson_values import Document, FieldTypes, plain, types_stage
from app.connectors.types.mongodb.members import Member, Members, without_tls
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.batches import batches
from app.connectors.values.describing import Describer, Description, together
from app.connectors.values.preview import Preview
from app.connectors.values.wildcards import is_shown

T = TypeVar("T")
Info = dict[str, Any]
"""A document: its values are of whatever types BSON has."""

if TYPE_CHECKING:
    import ssl

    from bson.codec_options import CodecOptions
    from pymongo import AsyncMongoClient
    from pymongo.errors import OperationFailure

    Client = AsyncMongoClient[Info]

Mechanism = Literal["default", "SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509", "PLAIN"]
Pattern = Annotated[str, Meta(min_length=1, max_length=255)]
# What a database may be called: MongoDB manual, "Naming Restrictions".
Database = Annotated[str, Meta(min_length=1, max_length=63, pattern=r'^[^/\\. "$*<>:|?]+$')]

_BATCH: Final = 100
_AT_ONCE: Final = 8
_OWN_DATABASES: Final = frozenset({"admin", "config", "local"})

# Error codes of the server: src/mongo/base/error_codes.yml in its source.
_UNAUTHORIZED: Final = 13
_NOT_SIGNED_IN: Final = frozenset({11, 18, 334, 8000})  # The last one is Atlas'.
_NOT_FOUND: Final = frozenset({26, 73})
_TOO_SLOW: Final = frozenset({50, 262})


class MongodbMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: Host
    port: Annotated[Port, Meta(description="TCP port of the member.")] = 27017


class MongodbConfig(TlsModeConfig, frozen=True, kw_only=True):
    host: Annotated[
        Host | None, Meta(description="Host name or address of the server, without scheme or port. Or give `hosts`.")
    ] = None
    port: Annotated[Port, Meta(description="TCP port of the host.")] = 27017
    hosts: Annotated[
        tuple[MongodbMember, ...],
        Meta(max_length=50, description="Members of a replica set or routers of a cluster, instead of `host`."),
    ] = ()
    database: Annotated[
        Database | None, Meta(description="The one to show. Unset: all that the user may see.", examples=["shop"])
    ] = None
    username: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1024)] | None,
        Meta(
            description="User to sign in as. Unset: nobody signs in, or the one that the client certificate names.",
            examples=["reader"],
        ),
    ] = None
    auth_source: Annotated[
        Annotated[str, Meta(min_length=1, max_length=63)] | None,
        Meta(
            description="Database that knows the user. Unset: `admin`, or `$external` where the mechanism asks for it."
        ),
    ] = None
    auth_mechanism: Annotated[
        Mechanism,
        Meta(description="How to sign in; `default` is the stronger SCRAM that the server knows for the user."),
    ] = "default"
    replica_set: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255)] | None,
        Meta(description="Name of the replica set that the members have to be of. Unset: any or none."),
    ] = None
    direct_connection: Annotated[
        bool, Meta(description="Read from the host alone, and ask no other member of its replica set.")
    ] = False
    tls_mode: Annotated[
        TlsMode,
        Meta(
            description="`prefer` uses TLS where the server speaks it and checks no certificate, `require` insists on "
            "TLS, `verify-ca` checks the certificate, `verify-full` the host name as well."
        ),
    ] = "prefer"
    include_databases: Annotated[
        tuple[Pattern, ...], Meta(max_length=200, description="Databases to show; `*` stands for any characters.")
    ] = ()
    exclude_databases: Annotated[
        tuple[Pattern, ...], Meta(max_length=200, description="Databases to leave out; wins over the included.")
    ] = ()
    include_collections: Annotated[
        tuple[Pattern, ...], Meta(max_length=200, description="Collections to show; `*` stands for any characters.")
    ] = ()
    exclude_collections: Annotated[
        tuple[Pattern, ...], Meta(max_length=200, description="Collections to leave out; wins over the included.")
    ] = ()
    sample_documents: Annotated[
        int, Meta(ge=2, le=1000, description="Documents of a collection that are looked at for its fields.")
    ] = 100
    connect_timeout_s: ConnectTimeoutS = 5.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds after which the server stops a query.")] = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.host is None) == (not self.hosts):
            raise InvalidField(("host",), "Either host or hosts is needed, and not both.")
        for place, host in [("host", self.host or ""), *(("hosts", member.host) for member in self.hosts)]:
            if "://" in host:
                raise InvalidField(
                    (place,), "A host is a name or an address; mongodb+srv names are not looked up: list their members."
                )
            if "/" in host or host.endswith(".sock"):
                raise InvalidField((place,), "A host is a name or an address; unix sockets are not used.")
        self._judge_sign_in()
        if self.direct_connection and len(self.hosts) > 1:
            raise InvalidField(("direct_connection",), "direct_connection reads from one host, not from several.")

    def _judge_sign_in(self) -> None:
        if self.auth_mechanism == "MONGODB-X509":
            if self.client_certificate is None:
                raise InvalidField(("client_certificate",), "MONGODB-X509 signs in with a client_certificate.")
        elif self.username is None and (self.auth_mechanism != "default" or self.auth_source is not None):
            raise InvalidField(("username",), "username is needed to sign in.")
        if self.auth_mechanism == "PLAIN" and not self.requires_tls:
            raise InvalidField(("tls_mode",), "PLAIN shows the password to the server: it needs TLS.")

    @property
    def members(self) -> tuple[MongodbMember, ...]:
        return self.hosts or (MongodbMember(host=self.host or "", port=self.port),)


class MongodbSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the user.")] = None


class Mongodb(Connector[MongodbConfig, MongodbSecrets]):
    type = "mongodb"
    label = "MongoDB"
    category = "database"
    description = "Collections and views of a MongoDB server, replica set or cluster, 4.4 or newer."
    config_type = MongodbConfig
    secrets_type = MongodbSecrets
    driver = "pymongo"
    warm_modules = ("pymongo.asynchronous.mongo_client", "bson")
    extra = "mongodb"
    verified_with = ("SecantusDB 0.7",)
    destination_fields = frozenset(
        {"host", "port", "hosts", "database", "username", "auth_source", "auth_mechanism"}
        | {"tls_mode", "ca_certificate", "client_certificate"}
    )

    @classmethod
    def validate(cls, config: MongodbConfig, secrets: MongodbSecrets) -> None:
        refuse_half_an_identity(config.client_certificate, secrets)
        if secrets.password is not None and config.username is None:
            raise InvalidField(("config", "username"), "username is needed for the password.")

    async def check(self, steps: Steps) -> None:
        member = await self._reach(steps)
        signed_in = f"Signed in as {self.config.username}." if self.config.username else "No sign-in needed."
        refused: ConnectorError | None = None
        async with AsyncExitStack() as until_checked:
            with steps.step("authenticate", signed_in):
                client = await until_checked.enter_async_context(self._client(member))
                steps.server.update(_product(await self._asked(client.admin.command("buildInfo"))))
                try:
                    await self._asked(self._look(client))
                except ConnectorError as error:
                    if error.code not in {"permission_denied", "not_found"}:
                        raise
                    refused = error
                if refused and refused.code == "permission_denied" and self._is_anonymous:
                    raise ConnectorError("authentication_failed", f"{member.pinned.host} asks for a user.")
            with steps.step("list", "Collections can be listed."):
                if refused:
                    raise refused

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._reading() as client:
            describer = Describer(_AT_ONCE, most_borne=sys.maxsize)
            async for batch in batches(self._everything(client), _BATCH):
                yield await together(
                    describer.describe(one.path, one.kind, partial(self._look_into, client, one)) for one in batch
                )

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview, texts = Preview(request), ByteTexts()
        async with self._reading() as client:
            found = await self._find(client, request.path)
            types = await self._types(client, found)
            names = [column.name for column in preview.choose(types.fields())]
            projection = None if types.has_repeats else _projection(names)
            async for document in self._documents(client, found, projection, request.limit + 1, texts):
                if not preview.add([plain(document.get(name)) for name in names]):
                    break
        return preview.result(notes=texts.notes)

    # Members ----------------------------------------------------------------------------------------------------------

    async def _reach(self, steps: Steps) -> Member:
        """Steps resolve, connect and tls, up to the member to read from. Several members are met at once, and one that
        answers is enough."""
        config = self.config
        members = Members(
            self.network, config.tls_mode, config.connect_timeout_s, self._tls_context, config.replica_set
        )
        with steps.step("resolve", "Every name is known." if config.hosts else f"{config.host} is known."):
            known = await members.resolve([(member.host, member.port) for member in config.members])
        with steps.step("connect", "The server takes connections."):
            met = await members.knock(known)
            over_tls = [member for member in met if member.greeting is None]
            chosen = None
            if not over_tls and not members.must_encrypt:
                chosen = await members.choose(met, is_alone=config.direct_connection)
        if chosen is None:
            with steps.step("tls", "The connection is encrypted."):
                if not over_tls:
                    raise without_tls(met[0])
                chosen = await members.choose(await members.greet_over_tls(over_tls), is_alone=config.direct_connection)
        elif config.tls_mode == "disable":
            steps.skip("tls", "TLS is turned off in the configuration.")
        else:
            steps.skip("tls", "The server speaks no TLS; the connection is not encrypted.")
        assert chosen.greeting is not None
        steps.server.update(encryption=chosen.greeting.encryption, role=chosen.greeting.role)
        return chosen

    def _tls_context(self, host: str) -> ssl.SSLContext:
        return self.config.tls_context(host, self.secrets)

    # Signing in -------------------------------------------------------------------------------------------------------

    @property
    def _is_anonymous(self) -> bool:
        return self.config.username is None and self.config.auth_mechanism == "default"

    @asynccontextmanager
    async def _client(self, member: Member) -> AsyncIterator[Client]:
        """A client that knows this one address. It connects and signs in with its first command."""
        from pymongo import AsyncMongoClient
        from pymongo.errors import ConfigurationError

        config = self.config
        host = f"[{member.address}]" if ":" in member.address else member.address
        options: Info = {
            "directConnection": True,
            "readPreference": "secondaryPreferred",
            "appname": "data-fusion-hub",
            "retryReads": False,
            "maxPoolSize": _AT_ONCE,
            "serverMonitoringMode": "poll",
            "connectTimeoutMS": round(config.connect_timeout_s * 1000),
            "serverSelectionTimeoutMS": round(config.connect_timeout_s * 1000),
            "socketTimeoutMS": round((config.read_timeout_s + 1) * 1000),
            "tls": False,
            **self._credentials(),
        }
        context = None
        if member.greeting and member.greeting.encryption != "none":
            context = self._tls_context(member.pinned.host)
            options.update(tls=True, tlsAllowInvalidHostnames=True)  # Names are checked by our own context.
        try:
            client: Client = AsyncMongoClient(f"{host}:{member.port}", **options)
        except ConfigurationError as error:
            raise ConnectorError("invalid_configuration", "These settings do not make a MongoDB client.") from error
        if context is not None:
            # pymongo takes certificates from files only, and names from its addresses. The slot is a private one:
            # were it gone, this line would raise.
            client.options.pool_options._PoolOptions__ssl_context = context  # type: ignore[attr-defined]
        try:
            yield client
        finally:
            await client.close()

    def _credentials(self) -> Info:
        config, password = self.config, self.secrets.password
        if config.username is not None and password is None and config.auth_mechanism != "MONGODB-X509":
            raise ConnectorError("authentication_failed", f"There is no password for {config.username}.")
        given = {
            "username": config.username,
            "password": password,
            "authMechanism": None if config.auth_mechanism == "default" else config.auth_mechanism,
            "authSource": config.auth_source,
        }
        return {name: value for name, value in given.items() if value is not None}

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Client]:
        async with self._client(await self._reach(Steps())) as client:
            try:
                yield client
            except (ConnectorError, MemoryError, GeneratorExit):
                raise
            except Exception as error:
                raise self._explain(error) from error

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (ConnectorError, MemoryError):
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> ConnectorError:
        """pymongo's errors in our words."""
        from bson.errors import InvalidBSON
        from pymongo import errors

        first = self.config.members[0]
        if isinstance(error, errors.OperationFailure):
            return self._explain_code(error, first.host)
        if isinstance(error, errors.NetworkTimeout | errors.ServerSelectionTimeoutError | TimeoutError):
            return silent(first.host, first.port, self.config.read_timeout_s)
        if isinstance(error, errors.ConnectionFailure | OSError):
            return hung_up(first.host, first.port)
        if isinstance(error, InvalidBSON | errors.ProtocolError | KeyError | TypeError):
            return ConnectorError("response_invalid", f"{first.host} does not answer as MongoDB does.")
        if isinstance(error, errors.InvalidName):
            return ConnectorError("not_found", "No database or collection can be called so.")
        if isinstance(error, errors.ConfigurationError):
            return ConnectorError("unsupported", f"{first.host} asks for a way to sign in that is not supported.")
        if isinstance(error, ValueError) and "SASLprep" in str(error):  # RFC 4013
            return ConnectorError("invalid_configuration", "SCRAM does not allow a character of the password.")
        raise error

    def _explain_code(self, error: OperationFailure, host: str) -> ConnectorError:
        code, who = error.code, self.config.username or "Nobody in particular"
        if code is None:  # pymongo itself: the server does not know the password that it has to prove to know.
            return ConnectorError("authentication_failed", f"{host} could not prove that it knows the password.")
        if code in _NOT_SIGNED_IN:
            return ConnectorError("authentication_failed", f"{host} did not let {who} sign in.")
        if code == _UNAUTHORIZED:
            return ConnectorError("permission_denied", f"{who} may not read this at {host}.")
        if code in _NOT_FOUND:
            return ConnectorError("not_found", f"{host} does not have it any more.")
        if code in _TOO_SLOW:
            return ConnectorError("timeout", "The server stopped the query: it took longer than read_timeout_s.")
        return ConnectorError("server_error", f"{host} answered with error code {int(code)}.")

    # Reading ----------------------------------------------------------------------------------------------------------

    @property
    def _max_time_ms(self) -> int:
        return round(self.config.read_timeout_s * 1000)

    async def _look(self, client: Client) -> None:
        """Raises `not_found` for a database without anything in it: MongoDB makes one with its first collection."""
        async for _ in self._everything(client):
            return
        if self.config.database is not None:
            raise ConnectorError("not_found", f"There is nothing in a database {self.config.database}.")

    async def _databases(self, client: Client) -> list[str]:
        config = self.config
        if config.database is not None:
            return [config.database]
        listed = await client.admin.command(
            "listDatabases",
            nameOnly=True,
            authorizedDatabases=True,
            maxTimeMS=self._max_time_ms,
            codec_options=_any_names(),
        )
        names = [str(database["name"]) for database in listed["databases"]]
        return sorted(
            name
            for name in names
            if name not in _OWN_DATABASES and is_shown(name, config.include_databases, config.exclude_databases)
        )

    async def _everything(self, client: Client) -> AsyncIterator[Found]:
        for database in await self._databases(client):
            async for found in self._collections(client, database):
                yield found

    async def _collections(self, client: Client, database: str, name: str | None = None) -> AsyncIterator[Found]:
        """All that the configuration wants, or the one of that name. Who may not list them all is shown the ones that
        they may read."""
        from pymongo.errors import OperationFailure

        options: Info = {"maxTimeMS": self._max_time_ms}
        if name is not None:
            options["filter"] = {"name": name}
        listing = partial(client[database].cursor_command, "listCollections", codec_options=_any_names(), **options)
        try:
            cursor = await listing(cursor={})
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            cursor = await listing(cursor={}, nameOnly=True, authorizedCollections=True)
        config = self.config
        async for info in cursor:
            found = Found((database, str(info["name"])), _kind(info))
            if not found.path[1].startswith("system.") and is_shown(
                found.path[1], config.include_collections, config.exclude_collections
            ):
                yield found

    async def _find(self, client: Client, path: Sequence[str]) -> Found:
        if len(path) == 2 and path[0] in await self._databases(client):
            async for found in self._collections(client, *path):
                return found
        raise ConnectorError("not_found", "There is no such collection or view.")

    async def _look_into(self, client: Client, found: Found) -> Description:
        return Description((await self._asked(self._types(client, found))).fields())

    async def _types(self, client: Client, found: Found) -> FieldTypes:
        """The same ones each time, as long as the first and the last documents stay. Only a stored collection can be
        read from its end."""
        is_stored = found.kind in {"collection", "capped_collection"}
        wanted = self.config.sample_documents // 2 if is_stored else self.config.sample_documents
        types = FieldTypes()
        await self._sample(client, found, types, wanted, {})
        if is_stored and types.documents == wanted:
            await self._sample(client, found, types, wanted, {"hint": {"$natural": -1}})
        return types

    async def _sample(self, client: Client, found: Found, types: FieldTypes, documents: int, options: Info) -> None:
        pipeline = [{"$limit": documents}, types_stage()]
        collection = client[found.path[0]].get_collection(found.path[1], codec_options=_any_names())
        cursor = await collection.aggregate(pipeline, maxTimeMS=self._max_time_ms, **options)
        async for document in cursor:
            types.add((str(field["k"]), str(field["t"])) for field in document["f"])

    async def _documents(
        self, client: Client, found: Found, projection: dict[str, int] | None, limit: int, texts: ByteTexts
    ) -> AsyncIterator[Info]:
        """Decoded one by one out of the server's batches, which are of 16 MB at most."""
        import bson
        from bson.binary import UuidRepresentation
        from bson.codec_options import CodecOptions, DatetimeConversion

        options: CodecOptions[Info] = CodecOptions(
            document_class=Document,
            tz_aware=True,
            uuid_representation=UuidRepresentation.STANDARD,
            unicode_decode_error_handler=texts.error_handler(),
            datetime_conversion=DatetimeConversion.DATETIME_MS,
        )
        cursor = client[found.path[0]][found.path[1]].find_raw_batches(
            {}, projection, limit=limit, batch_size=min(limit, _BATCH), max_time_ms=self._max_time_ms
        )
        async for batch in cursor:
            for document in bson.decode_iter(cast(bytes, batch), options):
                yield document


def _any_names() -> CodecOptions[Info]:
    """For answers that hold names of things: one that is no UTF-8 hides no others."""
    from bson.codec_options import CodecOptions

    return CodecOptions(document_class=dict, unicode_decode_error_handler="backslashreplace")


class Found(Struct, frozen=True):
    """A collection or view, before it was looked into."""

    path: tuple[str, str]
    kind: str


def _product(info: Info) -> dict[str, str]:
    """Of `buildInfo`: servers that merely speak the protocol say so beside the version that they stand for."""
    for key, product in (("secantusVersion", "SecantusDB"), ("ferretdb", "FerretDB")):
        if key in info:
            return {"product": product, "version": str(info[key] if isinstance(info[key], str) else info["version"])}
    return {"product": "MongoDB", "version": str(info.get("version", ""))}


def _kind(info: Info) -> str:
    if info.get("type") == "view":
        return "view"
    options = info.get("options") or {}
    if info.get("type") == "timeseries" or "timeseries" in options:
        return "time_series"
    return "capped_collection" if options.get("capped") is True else "collection"


def _projection(names: Sequence[str]) -> dict[str, int] | None:
    """None, for whole documents, where a name would mean something else in a projection, or was shown as it is not."""
    if not names or any(not name or "." in name or name.startswith("$") or "\\x" in name for name in names):
        return None
    return {"_id": 0, **dict.fromkeys(names, 1)}
