"""What a running hub is made of: built once by each process from the settings, opened with it, closed with it."""

import asyncio
from contextlib import suppress
from ipaddress import ip_network

from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.change_pool import ChangePool
from app.core.database import Sessions, create_engine
from app.core.egress import EgressPolicy
from app.core.passwords import PasswordHasher
from app.core.places import Places
from app.core.probe import DatabaseProbe
from app.core.reads import Reads
from app.core.schema_state import SchemaWatch
from app.core.sealing import KeyRing
from app.core.security import Tokens
from app.core.signing_keys import SigningKey
from app.core.streams import OpenStreams
from app.core.watching import WatchedRows
from app.domain.api_keys.uses import KeyUses
from app.domain.auth.principals import Principals
from app.domain.authz.known import KnownPermissions
from app.domain.events.feed import EventFeed
from app.settings import Settings

LAST_WRITE_S = 1.0
"""For what is written as the process ends, and would be missed by nobody but who looks for the last use of a key."""


class Parts:
    def __init__(
        self, settings: Settings, *, database_url: str, key_ring: KeyRing, signing_keys: list[SigningKey]
    ) -> None:
        timeout_s = settings.request_timeout_s
        self.settings = settings
        self.database_url = database_url
        self.trusted_proxies = tuple(ip_network(proxy) for proxy in settings.trusted_proxies)
        self.key_ring = key_ring
        self.engine = create_engine(database_url, pool_size=settings.pool_size, timeout_s=timeout_s)
        self.sessions = Sessions(self.engine)
        self.reads = Reads(database_url, pool_size=settings.pool_size, timeout_s=timeout_s)
        self.probe = DatabaseProbe(database_url)
        self.schema = SchemaWatch(self.probe)
        self.passwords = PasswordHasher()
        self.streams = OpenStreams()
        self.watched = WatchedRows(self.reads)
        self.events = EventFeed(self.reads, database_url)
        self.tokens = Tokens(signing_keys, issuer=settings.url)
        self.principals = Principals(self.reads, database_url)
        self.known_permissions = KnownPermissions(self.reads, self.principals)
        self.key_uses = KeyUses(self.sessions)
        self.sandbox = ConnectorSandbox()
        self.egress = EgressPolicy(
            allow=settings.egress_allow,
            deny=settings.egress_deny,
            loopback_allowed=settings.egress_loopback,
            files_root=str(settings.files_root.absolute()),
        )

    @property
    def change_places(self) -> Places:
        pool = self.engine.pool
        assert isinstance(pool, ChangePool)
        return pool.places

    async def open(self) -> None:
        """Connect. A database that is away does not stop the start: readiness says so, and requests answer 503."""
        self.principals.start()
        await self.schema.start()

    async def close(self) -> None:
        await self.schema.stop()
        await self.principals.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await self.key_uses.write()
        await self.sandbox.close()
        await self.probe.close()
        self.reads.close()
        await self.engine.dispose()
        self.passwords.close()
