"""Principals in memory: loaded once per session, dropped within a second of anything that makes them untrue.

Every change of a session, a user, a role or a tenant notifies all workers as it commits. A worker whose listener is not
proven alive trusts nothing in memory and asks the database each time; what was loaded while its own notification came
in is not kept. A refresh changes nothing of a principal and tells nobody.

What a principal rests on (its session, user, tenant, and each of its groups, its roles and the domains on which its
rights hang) has a mark that all principals resting on it share. A notification changes one mark, so that it costs the
same for a role of one member and of a million, however many sessions are in memory. What begins or expires by itself
needs no notice: a principal is held until the next such moment.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Float, Select, bindparam, func, select

from app.core.answers import Answer, answer
from app.core.errors import Unauthenticated
from app.core.exchange import JSON, MSGPACK, Exchange
from app.core.notifications import Listener
from app.core.reads import Reads
from app.core.security import Claims, Principal
from app.domain.auth.models import Session
from app.domain.auth.rights import DOMAINS, Domain, Held, domains_wanted, held_by, read_held, rights_of
from app.domain.auth.schemas import Me, TenantRef
from app.domain.tenants.models import Tenant
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import RoleRef, UserOut

CHANNEL = "hub_principals"
MAX_PRINCIPALS = 50_000
"""At 3 to 6 kB each; with more live sessions than that the oldest entry makes room."""
MAX_ENCODED = 4
"""Answers kept for each session: who it is, and what each of its latest access tokens is worth."""

KNOWN_BEFORE_LOADING = ("session", "user", "tenant")
"""What the token names; which roles, groups and domains a principal rests on only the loaded rows say."""

T = TypeVar("T")


class Mark:
    """Whether a session, user, role or tenant is still what it was when principals that rest on it were loaded."""

    __slots__ = ("__weakref__", "has_changed")

    def __init__(self) -> None:
        self.has_changed = False


class Signed(msgspec.Struct):
    """A live session's principal, with what is said of it again and again."""

    principal: Principal
    me: Me
    expires_at: float
    """Unix time at which the session ends by itself."""
    changes_at: float
    """By the clock that only counts: when the next of its assignments begins or expires."""
    rests_on: tuple[UUID, ...]
    encoded: dict[tuple[str, str], bytes]
    grounds: Any = None
    """Why it may do what it may (app.domain.authz.grounds.Grounds), once somebody has asked."""

    def answer(self, exchange: Exchange, name: str, content: Callable[[], T]) -> Answer[T]:
        """What stays the same for as long as this is held, encoded when it is first asked for."""
        media_type = MSGPACK if exchange.wants_msgpack else JSON
        body = self.encoded.get((name, media_type))
        if body is None:
            if len(self.encoded) >= MAX_ENCODED:
                self.encoded.clear()
            body = self.encoded[name, media_type] = answer(exchange, content()).body
        return Answer(200, [(b"content-type", media_type.encode())], body)


def _live_session() -> Select[Any]:
    """The session with its tenant and its user's assignments, then the columns of the user; no row once any of them
    ended.
    """
    ends_at = func.least(Session.expires_at, Session.idle_expires_at)
    own = select(
        Session.id,
        func.extract("epoch", ends_at).cast(Float),
        Tenant.id,
        Tenant.slug,
        Tenant.name,
        held_by("users").label("held"),
    )
    users = UserRepository.selection(UserOut)
    return (
        own.add_columns(*users.selected_columns)
        .select_from(Session)
        .join(User, User.id == Session.user_id)
        .join(Tenant, Tenant.id == Session.tenant_id)
        .where(
            User.tenant_id == Session.tenant_id,
            Session.id == bindparam("session_id", type_=Session.id.type),
            Session.tenant_id == bindparam("tenant_id", type_=Session.id.type),
            Session.revoked_at.is_(None),
            ends_at > func.now(),
            User.is_active,
            Tenant.is_active,
        )
    )


LIVE_SESSION = _live_session()
HELD = 5
"""Its column of what the user's assignments say."""


class Principals:
    """The cache, its listener, and the one place that turns claims into a principal."""

    def __init__(self, reads: Reads, database_url: str) -> None:
        self._reads = reads
        self._kept: OrderedDict[UUID, tuple[Signed, tuple[Mark, ...]]] = OrderedDict()
        self._marks: WeakValueDictionary[UUID, Mark] = WeakValueDictionary()
        """By id, as long as a principal or a load rests on them."""
        self._epoch = 0
        """Counts changes of what a load cannot know yet that it rests on: roles, and gaps."""
        self._listener = Listener(database_url, CHANNEL, on_message=self._drop_notified, on_gap=self._drop_all)

    @property
    def count(self) -> int:
        """Of those in memory."""
        return len(self._kept)

    def start(self) -> None:
        self._listener.start()

    async def stop(self) -> None:
        await self._listener.stop()

    async def of(self, claims: Claims) -> Signed:
        """The session's principal as it is now.

        Raises Unauthenticated where the session, its user or its tenant has ended.
        """
        known = self.in_memory(claims)
        if known is not None:
            return known
        epoch = self._epoch
        marks = [self._mark(row_id) for row_id in (claims.sid, claims.sub, claims.tid)]
        loaded = await self._load(claims)
        if epoch == self._epoch and not any(mark.has_changed for mark in marks) and self._listener.is_proven_alive:
            self._keep(loaded)
        return loaded

    def in_memory(self, claims: Claims) -> Signed | None:
        """The session's principal, where it is known without asking the database."""
        return self._find(claims) if self._listener.is_proven_alive else None

    def _find(self, claims: Claims) -> Signed | None:
        signed, marks = self._kept.get(claims.sid, (None, ()))
        if signed is None or signed.expires_at <= time.time() or signed.principal.id != claims.sub:
            return None
        if signed.changes_at <= time.monotonic():
            return None
        for mark in marks:
            if mark.has_changed:
                return None
        return signed

    async def _load(self, claims: Claims) -> Signed:
        asked_at = time.monotonic()
        rows = await self._reads.rows(LIVE_SESSION, {"session_id": claims.sid, "tenant_id": claims.tid})
        if not rows:
            raise Unauthenticated(code="session_ended")
        held = read_held(rows[0][HELD])
        signed = _signed(asked_at, held, await self._domains(held, claims.tid), *rows[0])
        if signed.principal.id != claims.sub:
            raise Unauthenticated(code="invalid_token")
        return signed

    async def _domains(self, held: Held, tenant_id: UUID) -> list[Domain]:
        """Those on which rights of these assignments hang."""
        wanted = domains_wanted(held)
        if wanted is None:
            return []
        return [Domain(*row) for row in await self._reads.rows(DOMAINS, wanted | {"tenant_id": tenant_id})]

    def _keep(self, signed: Signed) -> None:
        self._kept[signed.principal.session_id] = signed, tuple(map(self._mark, signed.rests_on))
        if len(self._kept) > MAX_PRINCIPALS:
            self._kept.popitem(last=False)

    def _mark(self, row_id: UUID) -> Mark:
        mark = self._marks.get(row_id)
        if mark is None:
            mark = self._marks[row_id] = Mark()
        return mark

    @property
    def is_trusted(self) -> bool:
        """Whether what is in memory may be believed: all that made it untrue was heard of."""
        return self._listener.is_proven_alive

    def mark_of(self, row_id: UUID) -> Mark:
        """For what others hold in memory: it is untrue once its mark has changed. Taken before it is loaded."""
        return self._mark(row_id)

    def _drop_all(self) -> None:
        self._epoch += 1
        self._kept.clear()
        for mark in list(self._marks.values()):
            mark.has_changed = True
        self._marks.clear()

    def drop(self, kind: str, row_id: UUID) -> None:
        """Whatever rests on this session, user, role or tenant is loaded anew when it is next asked for."""
        if kind not in KNOWN_BEFORE_LOADING:
            self._epoch += 1
        mark = self._marks.pop(row_id, None)
        if mark is not None:
            mark.has_changed = True
        self._kept.pop(row_id, None)  # a session that has ended need not wait until it makes room

    def _drop_notified(self, payload: str) -> None:
        """What cannot be read may have been about anybody."""
        kind, _, row_id = payload.partition(":")
        try:
            self.drop(kind, UUID(row_id))
        except ValueError:
            self._drop_all()


def _signed(
    asked_at: float,
    held: Held,
    domains: list[Domain],
    session_id: UUID,
    expires_at: float,
    tenant_id: UUID,
    slug: str,
    tenant_name: str,
    _held: object,
    *user: Any,
) -> Signed:
    shown = UserOut(*user)
    shown.roles = msgspec.convert(shown.roles, list[RoleRef])
    rights = rights_of(held, domains)
    names, permissions = _in_order(rights.permissions)
    principal = Principal(
        id=shown.id,
        tenant_id=tenant_id,
        session_id=session_id,
        email=shown.email,
        role_ids=frozenset(role.id for role in held.roles),
        permissions=permissions,
        extents=rights.extents,
    )
    me = Me(user=shown, roles=shown.roles, permissions=names, tenant=_tenant(tenant_id, slug, tenant_name))
    changes_at = math.inf if held.changes_in_s is None else asked_at + held.changes_in_s
    rests_on = (session_id, shown.id, tenant_id, *principal.role_ids, *held.groups, *_roots(held, domains))
    return Signed(principal, me, expires_at, changes_at, rests_on, {})


def _roots(held: Held, domains: list[Domain]) -> set[UUID]:
    """The domains to which roles were given or which they own: whatever changes below one of them is said of it too."""
    roles = {role.id for role in held.roles}
    owned = {domain.id for domain in domains if domain.owner_role_id in roles}
    return owned.union(*(role.domains for role in held.roles))


@lru_cache(1000)
def _in_order(permissions: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """In order, and the set itself: held once for all who may do the same."""
    return sorted(permissions), permissions


_tenant = lru_cache(1000)(TenantRef)
