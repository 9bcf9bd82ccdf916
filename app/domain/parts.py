"""What a running hub is made of: built once by each process from the settings, opened with it, closed with it."""

import asyncio
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from app.connectors.processes.sandbox import ConnectorSandbox
from app.core import tracing
from app.core.change_pool import ChangePool
from app.core.connector_runs import watched_run
from app.core.database import Sessions, create_engine
from app.core.egress import EgressPolicy
from app.core.limits.leases import Leases
from app.core.limits.limiter import Limits
from app.core.limits.rates import Rate
from app.core.limits.shared_windows import SharedWindows
from app.core.look_ups import LookUps
from app.core.passwords import PasswordHasher
from app.core.places import Places
from app.core.probe import DatabaseProbe
from app.core.reads import Reads
from app.core.redis_link import RedisLink
from app.core.saml.memory import SamlMemory
from app.core.schema_state import SchemaWatch
from app.core.sealing import KeyRing
from app.core.security import Tokens
from app.core.signing_keys import SigningKey, SigningKeyFile
from app.core.streams import OpenStreams
from app.core.tunnels import EgressProxy
from app.core.watching import WatchedRows
from app.domain.api_keys.uses import KeyUses
from app.domain.auth.principals import Principals
from app.domain.authz.known import KnownPermissions
from app.domain.events.feed import EventFeed
from app.domain.scim.admission import DirectoryKeys
from app.settings import Settings

LAST_WRITE_S = 1.0
"""For what is written as the process ends, and would be missed by nobody but who looks for the last use of a key."""


def egress_policy(settings: Settings) -> EgressPolicy:
    return EgressPolicy(
        allow=settings.egress_allow,
        deny=settings.egress_deny,
        loopback_allowed=settings.egress_loopback,
        proxy=EgressProxy.parse(settings.egress_proxy) if settings.egress_proxy else None,
        direct=settings.egress_direct,
        files_root=str(settings.files_root.absolute()),
    )


class Parts:
    def __init__(
        self,
        settings: Settings,
        *,
        database_url: str,
        key_ring: KeyRing,
        signing_keys: list[SigningKey],
        signing_keys_file: Path | None = None,
    ) -> None:
        """The file of the signing keys is watched: keys are taken in and out of it while the hub runs."""
        timeout_s = settings.request_timeout_s
        self.settings = settings
        self.database_url = database_url
        self.trusted_proxies = tuple(ip_network(proxy) for proxy in settings.trusted_proxies)
        self.key_ring = key_ring
        self.sealing_keys: list[SigningKey] = []
        """Of a worker alone, which is the only one that seals the audit log; the first one seals."""
        self.engine = create_engine(database_url, pool_size=settings.pool_size, timeout_s=timeout_s)
        tracing.tracer().watch_engine(self.engine)
        self.sessions = Sessions(self.engine)
        self.reads = Reads(database_url, pool_size=settings.pool_size, timeout_s=timeout_s)
        self.probe = DatabaseProbe(database_url)
        self.schema = SchemaWatch(self.probe)
        self.passwords = PasswordHasher()
        self.streams = OpenStreams()
        self.watched = WatchedRows(self.reads)
        self.events = EventFeed(self.reads, database_url)
        self.tokens = Tokens(signing_keys, issuer=settings.url)
        self.signing_keys_file = SigningKeyFile(signing_keys_file, self.tokens.take) if signing_keys_file else None
        self.principals = Principals(self.reads, database_url)
        self.known_permissions = KnownPermissions(self.reads, self.principals)
        self.key_uses = KeyUses(self.sessions)
        self.saml = SamlMemory()
        self.scim_key_uses = KeyUses(self.sessions, "scim_keys")
        self.directories = DirectoryKeys(self.reads, self.principals, self.scim_key_uses)
        self.redis = RedisLink(settings.redis_url) if settings.redis_url else None
        self.limits = Limits(
            Rate.parse(settings.rate_limit),
            Rate.parse(settings.login_rate_limit),
            key=key_ring.derive("limits"),
            shared=SharedWindows(self.redis) if self.redis else None,
        )
        self._runs = Leases(self.redis, "connector-runs") if self.redis else None
        self.sandbox = ConnectorSandbox(shared=self._runs.place if self._runs else None, watch=watched_run)
        self.egress = egress_policy(settings)
        self.look_ups = LookUps()

    @property
    def change_places(self) -> Places:
        pool = self.engine.pool
        assert isinstance(pool, ChangePool)
        return pool.places

    async def open(self) -> None:
        """Connect. A database that is away does not stop the start: readiness says so, and requests answer 503."""
        self.principals.start()
        if self.redis is not None:
            await self.redis.start()
        if self.signing_keys_file is not None:
            self.signing_keys_file.start()
        await self.schema.start()

    async def close(self) -> None:
        await self.schema.stop()
        await self.principals.stop()
        if self.signing_keys_file is not None:
            await self.signing_keys_file.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await self.key_uses.write()
                await self.scim_key_uses.write()
        await self.sandbox.close()
        if self._runs is not None:
            await self._runs.stop()
        if self.redis is not None:
            await self.redis.stop()
        await self.probe.close()
        self.reads.close()
        self.look_ups.close()
        await self.engine.dispose()
        self.passwords.close()
