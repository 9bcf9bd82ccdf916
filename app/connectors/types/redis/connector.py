"""Redis, and what speaks its protocol (Valkey, KeyDB, Dragonfly), through redis-py.

Every socket is dialled here to an address that the policy judged, and given to redis-py (`redis_session`). Redirects of
a cluster (`MOVED`, `ASK`) are not followed; its other nodes are asked only where the configuration says so, each judged
like a configured host. A Sentinel is told apart and never asked for an address.

Keys are grouped into patterns by their names and types (`key_patterns`). Nothing but commands that read is sent: keys
by SCAN, never KEYS; strings by GETRANGE, everything else piece by piece; no script, no CONFIG, no OBJECT. What is UTF-8
is text; a column in whose samples something is not is `binary`, and elsewhere such bytes are written `\\xNN`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct

from app.connectors.contract.base import Connector
from app.connectors.contract.config import AnswerTimeoutS, ConnectTimeoutS, Host, InvalidField, Port, SecretText
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import (
    DiscoveredObject,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import ask, dialled
from app.connectors.network.recognising import OverTls, Protocol, met
from app.connectors.network.tls import handshake, tls_context
from app.connectors.network.tls_fields import ClientKeySecrets, TlsMode, TlsModeConfig, refuse_half_an_identity
from app.connectors.types.redis.key_patterns import (
    MAX_PATTERNS,
    MAX_SAMPLE_BYTES,
    SAMPLES,
    KeyPatterns,
    Pattern,
    beginning,
    fits,
    masked,
)
from app.connectors.types.redis.session import (
    PING,
    Server,
    Session,
    greet,
    is_about_a_key,
    judge_greeting,
    refusal,
    understood,
)
from app.connectors.types.redis.values import KINDS, Row, Shape, kind_of, rows_of, shape_of, text
from app.connectors.values.bad_bytes import ByteTexts
from app.connectors.values.batches import slices
from app.connectors.values.describing import Describer, Description
from app.connectors.values.preview import Preview
from app.connectors.values.wildcards import is_shown

if TYPE_CHECKING:
    import ssl

    from app.core.egress import Pinned

KeyPattern = Annotated[str, Meta(min_length=1, max_length=512)]

_TLS_ALERT: Final = b"\x15\x03"  # RFC 8446, section 5.1
_PAGE: Final = 1_000
_BATCH: Final = 50


class RedisConfig(TlsModeConfig, frozen=True, kw_only=True):
    host: Host
    port: Annotated[Port, Meta(description="TCP port of the server.")] = 6379
    database: Annotated[int, Meta(ge=0, le=65_535, description="Number of the database.")] = 0
    username: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1024)] | None,
        Meta(description="User of the access control list (Redis 6 and newer). Unset: the default user."),
    ] = None
    cluster: Annotated[
        bool,
        Meta(
            description="Whether the keys of a cluster's other nodes are shown as well; they are reached where the "
            "host says that they are. Without it a node of a cluster shows the keys that it holds itself."
        ),
    ] = False
    tls_mode: Annotated[
        TlsMode,
        Meta(
            description="`prefer` uses TLS where the port speaks nothing else and checks no certificate, `require` "
            "insists on TLS, `verify-ca` checks the certificate, `verify-full` the host name as well."
        ),
    ] = "prefer"
    separator: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4,
            pattern=r"^[^*?\[\]^\\]+\Z",
            description="What parts of a key's name are joined by.",
        ),
    ] = ":"
    include_keys: Annotated[
        tuple[KeyPattern, ...], Meta(max_length=200, description="Keys to show, such as `user:*`. Empty: all.")
    ] = ()
    exclude_keys: Annotated[
        tuple[KeyPattern, ...], Meta(max_length=200, description="Keys to leave out; wins over the included.")
    ] = ()
    max_keys: Annotated[int, Meta(ge=1, le=5_000_000, description="Keys after which a discovery stops looking.")] = (
        100_000
    )
    connect_timeout_s: ConnectTimeoutS = 5.0
    read_timeout_s: AnswerTimeoutS = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if "/" in self.host:
            raise InvalidField(("host",), "host is a name or an address; URLs and unix sockets are not used.")
        if self.cluster and self.database:
            raise InvalidField(("database",), "A cluster has the database 0 only.")


class RedisSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the user, or of the server.")] = None


class Redis(Connector[RedisConfig, RedisSecrets]):
    type = "redis"
    label = "Redis"
    category = "cache"
    description = "Keys of one Redis database or cluster, grouped into patterns."
    config_type = RedisConfig
    secrets_type = RedisSecrets
    driver = "redis"
    warm_modules = ("redis.asyncio.connection",)
    extra = "redis"
    verified_with = ("Redis 7.0",)
    destination_fields = frozenset(
        {"host", "port", "database", "username", "cluster", "tls_mode", "ca_certificate", "client_certificate"}
    )

    @classmethod
    def validate(cls, config: RedisConfig, secrets: RedisSecrets) -> None:
        refuse_half_an_identity(config.client_certificate, secrets)
        if config.username is not None and secrets.password is None:
            raise InvalidField(("secrets", "password"), "password is needed for the username.")

    async def check(self, steps: Steps) -> None:
        config = self.config
        server = await self._reach(steps)
        signed_in = f"Signed in as {config.username}." if config.username else "The server lets us in."
        refused: ConnectorError | None = None
        async with AsyncExitStack() as until_checked:
            with steps.step("authenticate", signed_in):
                try:
                    session = await until_checked.enter_async_context(Session.opened(server))
                    steps.server.update(await _introduce(session))
                except ConnectorError as error:
                    if error.code not in {"not_found", "permission_denied"}:
                        raise
                    refused = error  # Whoever is told this was let in.
            with steps.step("list", "Keys can be listed."):
                if refused:
                    raise refused
                if steps.server.get("mode") == "sentinel":
                    raise ConnectorError(
                        "protocol_mismatch", f"{config.host} is a Sentinel, which has no data: give a server's address."
                    )
                with understood(server):
                    for each in await self._nodes(session, until_checked):
                        await _look(each)

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        patterns = KeyPatterns(self.config.separator)
        async with self._reading() as sessions:
            for number, session in enumerate(sessions):
                async for page in self._pages(session, "*"):
                    for key in page:
                        patterns.add(key.name, key.kind, number)
            if patterns.is_full:
                self.stopped_because = f"There are more than {MAX_PATTERNS:,} patterns; those beyond were left out."
            found, describer = list(patterns), Describer()
            for some in slices(found, _BATCH):
                yield [await self._described(describer, sessions, pattern) for pattern in some]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._reading() as sessions:
            pattern, keys = await self._find(sessions, request.path, request.limit + 1)
            shape = await self._shape(sessions, pattern)
            columns = preview.choose(shape.fields)
            names = [column.name for column in columns]
            texts = ByteTexts()
            async for row in self._rows(sessions, keys, shape, names, request.max_value_bytes, texts):
                if row is None:
                    preview.truncated = True
                elif not preview.add([row.get(name) for name in names]):
                    break
        return preview.result(notes=texts.notes)

    # Connecting -------------------------------------------------------------------------------------------------------

    async def _reach(self, steps: Steps) -> Server:
        """Steps resolve, connect and tls. A server is asked in plain words first, whatever the mode: Redis waits for
        the rest of what it takes for a command if it is greeted with TLS, and one that speaks TLS hangs up at once."""
        config = self.config
        with steps.step("resolve", f"{config.host} is known."):
            pinned = await self.network.resolve(config.host, config.port, config.connect_timeout_s)
        with steps.step("connect", f"Port {config.port} takes connections."):
            over_tls: OverTls = "not_set" if config.tls_mode == "disable" else "either"
            is_plain = await met(self._is_plain(pinned), Protocol.REDIS, "Redis", pinned, config.port, over_tls)
        if is_plain and config.tls_mode in {"disable", "prefer"}:
            steps.server["encryption"] = "none"
            off = config.tls_mode == "disable"
            steps.skip("tls", "TLS is turned off in the configuration." if off else "The server speaks no TLS here.")
            return self._server(pinned, config.port, None)
        with steps.step("tls", "The connection is encrypted."):
            if is_plain:
                raise ConnectorError("tls_unavailable", f"{config.host} speaks no TLS on port {config.port}.")
            server = self._server(pinned, config.port, config.tls_context(config.host, self.secrets))
            steps.server["encryption"] = await greet(server)
        return server

    async def _is_plain(self, pinned: Pinned) -> bool:
        """False for what may speak TLS. Raises `protocol_mismatch` for what speaks something else."""
        config = self.config
        try:
            async with dialled(pinned, config.port, config.connect_timeout_s) as sock:
                answer = await ask(sock, PING, pinned, config.port, config.connect_timeout_s)
        except ConnectorError as error:
            if error.code != "connection_lost":
                raise
            if config.tls_mode in {"disable", "prefer"} and not await self._speaks_tls(pinned):
                raise
            answer = _TLS_ALERT
        if not answer.startswith(_TLS_ALERT):
            judge_greeting(answer, config.host, config.port)
            return True
        if config.tls_mode == "disable":
            raise ConnectorError("tls_required", f"{config.host} speaks nothing but TLS on port {config.port}.")
        return False

    async def _speaks_tls(self, pinned: Pinned) -> bool:
        config = self.config
        context = tls_context(config.host, verify_certificate=False)
        async with dialled(pinned, config.port, config.connect_timeout_s) as sock:
            try:
                await handshake(sock, context, pinned, config.port, config.connect_timeout_s)
            except ConnectorError:
                return False
        return True

    def _server(self, pinned: Pinned, port: int, context: ssl.SSLContext | None) -> Server:
        config = self.config
        return Server(
            pinned,
            port,
            context,
            config.database,
            config.username,
            self.secrets.password,
            config.connect_timeout_s,
            config.read_timeout_s,
        )

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[list[Session]]:
        """A session with each server whose keys are shown."""
        server = await self._reach(Steps())
        async with AsyncExitStack() as until_read:
            session = await until_read.enter_async_context(Session.opened(server))
            with understood(server):
                yield await self._nodes(session, until_read)

    async def _nodes(self, session: Session, stack: AsyncExitStack) -> list[Session]:
        """Sessions with all primaries of the cluster, or this one alone."""
        if not self.config.cluster:
            return [session]
        server, sessions = session.server, list[Session]()
        for host, port in _primaries(await session.one("CLUSTER", "SLOTS"), server.pinned.host):
            pinned = await self.network.resolve(host, port, self.config.connect_timeout_s)
            context = self.config.tls_context(pinned.host, self.secrets) if server.context else None
            node = self._server(pinned, port, context)
            sessions.append(await stack.enter_async_context(Session.opened(node)))
        return sessions or [session]

    # Keys -------------------------------------------------------------------------------------------------------------

    async def _pages(self, session: Session, glob: str) -> AsyncIterator[list[Key]]:
        """Keys with their kinds, a few hundred at a time, until `max_keys` were looked at. A key may come twice."""
        cursor, looked_at = 0, 0
        while True:
            reply = await session.one("SCAN", cursor, "MATCH", glob, "COUNT", _PAGE)
            cursor, names = int(reply[0]), [name for name in reply[1] if self._is_wanted(name)]
            kinds = await session.ask(*(("TYPE", name) for name in names)) if names else []
            yield [Key(name, kind) for name, it in zip(names, kinds, strict=True) if (kind := kind_of(it))]
            looked_at += max(_PAGE, len(reply[1]))
            if cursor == 0:
                return
            if looked_at >= self.config.max_keys:
                self.stopped_because = f"There are more keys than max_keys ({self.config.max_keys:,})."
                return

    def _is_wanted(self, name: bytes) -> bool:
        return is_shown(text(name), self.config.include_keys, self.config.exclude_keys)

    async def _shape(self, sessions: Sequence[Session], pattern: Pattern) -> Shape:
        return await shape_of(pattern.kind, [(sessions[number], key) for number, key in pattern.samples])

    async def _described(self, describer: Describer, sessions: Sequence[Session], pattern: Pattern) -> DiscoveredObject:
        async def look() -> Description:
            with understood(sessions[pattern.samples[0][0]].server):
                return Description((await self._shape(sessions, pattern)).fields)

        return await describer.describe((pattern.kind, pattern.glob), pattern.kind, look)

    async def _rows(
        self,
        sessions: Sequence[Session],
        keys: Sequence[tuple[int, bytes]],
        shape: Shape,
        columns: Sequence[str],
        max_value_bytes: int,
        texts: ByteTexts,
    ) -> AsyncIterator[Row | None]:
        for number, session in enumerate(sessions):
            own = [key for server, key in keys if server == number]
            async for row in rows_of(session, own, shape, columns, max_value_bytes, texts):
                yield row

    async def _find(
        self, sessions: Sequence[Session], path: Sequence[str], limit: int
    ) -> tuple[Pattern, list[tuple[int, bytes]]]:
        """The pattern as a discovery would find it, and up to `limit` of its keys by their names. Of the keys that fit
        it, those come first whose own pattern it is."""
        separator = self.config.separator
        if len(path) != 2 or path[0] not in KINDS:
            raise ConnectorError("not_found", "There are no such keys.")
        kind, glob = path
        own, other = KeysFound(limit), KeysFound(limit)
        for number, session in enumerate(sessions):
            async for page in self._pages(session, beginning(glob)):
                for key in page:
                    if key.kind == kind and fits(key.name, glob, separator):
                        is_own = separator.join(masked(key.name, separator)) == glob
                        (own if is_own else other).add(number, key.name)
                if own.is_full:
                    break
        found = own if own.keys else other
        if not found.keys:
            raise ConnectorError("not_found", "There are no such keys.")
        pattern = Pattern(kind, found.samples)
        pattern.glob, pattern.keys = glob, len(found.keys)
        return pattern, sorted(found.keys)


class Key(Struct, frozen=True):
    name: bytes
    kind: str


class KeysFound:
    """The first few different keys, and the samples that a discovery takes of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.keys: dict[tuple[int, bytes], None] = {}
        self.samples: list[tuple[int, bytes]] = []

    @property
    def is_full(self) -> bool:
        return len(self.keys) >= max(self._limit, SAMPLES)

    def add(self, server: int, key: bytes) -> None:
        if len(self.samples) < SAMPLES and len(key) <= MAX_SAMPLE_BYTES:
            self.samples.append((server, key))
        if not self.is_full:
            self.keys[(server, key)] = None


async def _introduce(session: Session) -> dict[str, str]:
    """Of `INFO server`, which not everybody may ask for: servers that merely speak the protocol say so beside the
    version that they stand for."""
    (reply,) = await session.ask(("INFO", "server"))
    said = dict(line.partition(":")[::2] for line in text(reply).splitlines()) if isinstance(reply, bytes) else {}
    product, version = "Redis", said.get("redis_version")
    for key, other in (("valkey_version", "Valkey"), ("dragonfly_version", "Dragonfly")):
        if key in said:
            product, version = other, said[key]
    mode = said.get("redis_mode")
    shown = {"product": product, "version": version, "mode": mode}
    return {name: value[:64] for name, value in shown.items() if value}


async def _look(session: Session) -> None:
    """Raises what stands in the way of listing keys and their types. Rights on some of the keys are enough: those that
    may not be looked at are left out."""
    reply = await session.one("SCAN", 0, "COUNT", 10)
    kinds = await session.ask(*(("TYPE", name) for name in reply[1]))
    refusals = [kind for kind in kinds if isinstance(kind, Exception)]
    if refusals and len(refusals) == len(kinds) and not is_about_a_key(refusals[0]):
        raise refusal(refusals[0], session.server)


def _primaries(slots: Any, asked: str) -> Iterator[tuple[str, int]]:
    """Host and port of each primary of `CLUSTER SLOTS`, once; a node that does not know its name is the one asked."""
    places = {(text(entry[2][0] or b"") or asked, int(entry[2][1])) for entry in slots}
    yield from sorted((asked if host == "?" else host, port) for host, port in places)
