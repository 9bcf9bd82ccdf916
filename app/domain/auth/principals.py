"""Principals in memory: loaded once per session, dropped within a second of anything that makes them untrue.

Every change of a session, a user, a role or a tenant notifies all workers as it commits. A worker whose listener is not
proven alive trusts nothing in memory and asks the database each time; what was loaded while its own notification came
in is not kept. A refresh changes nothing of a principal and tells nobody.

What a principal rests on (its session, user, tenant and each of its roles) has a mark that all principals resting on it
share. A notification changes one mark, so that it costs the same for a role of one member and of a million, however
many sessions are in memory.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import ColumnElement, Float, Select, Text, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from app.core.answers import Answer, answer
from app.core.errors import Unauthenticated
from app.core.exchange import JSON, MSGPACK, Exchange
from app.core.notifications import Listener
from app.core.reads import Reads
from app.core.security import Claims, Principal
from app.domain.auth.models import Session
from app.domain.auth.schemas import Me, TenantRef
from app.domain.roles.models import Role
from app.domain.tenants.models import Tenant
from app.domain.users.models import User, UserRole
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import RoleRef, UserOut

CHANNEL = "hub_principals"
MAX_PRINCIPALS = 50_000
"""At 3 to 6 kB each; with more live sessions than that the oldest entry makes room."""
MAX_ENCODED = 4
"""Answers kept for each session: who it is, and what each of its latest access tokens is worth."""

KNOWN_BEFORE_LOADING = ("session", "user", "tenant")
"""What the token names; which roles a principal rests on only the loaded rows say."""

T = TypeVar("T")


class Mark:
    """Whether a session, user, role or tenant is still what it was when principals that rest on it were loaded."""

    __slots__ = ("__weakref__", "has_changed")

    def __init__(self) -> None:
        self.has_changed = False


class Signed(msgspec.Struct, frozen=True):
    """A live session's principal, with what is said of it again and again."""

    principal: Principal
    me: Me
    expires_at: float
    """Unix time at which the session ends by itself."""
    encoded: dict[tuple[str, str], bytes]

    @property
    def rests_on(self) -> Iterable[UUID]:
        principal = self.principal
        return (principal.session_id, principal.id, principal.tenant_id, *principal.role_ids)

    def answer(self, exchange: Exchange, name: str, content: Callable[[], T]) -> Answer[T]:
        """What stays the same for as long as this is held, encoded when it is first asked for."""
        media_type = MSGPACK if exchange.wants_msgpack else JSON
        body = self.encoded.get((name, media_type))
        if body is None:
            if len(self.encoded) >= MAX_ENCODED:
                self.encoded.clear()
            body = self.encoded[name, media_type] = answer(exchange, content()).body
        return Answer(200, [(b"content-type", media_type.encode())], body)


def _permissions_of_user() -> ColumnElement[Any]:
    """Every permission that any of the user's roles brings, each once."""
    each = select(func.unnest(Role.permissions).label("name")).join(UserRole, UserRole.role_id == Role.id)
    names = each.where(UserRole.user_id == User.id).correlate(User).distinct().subquery()
    return select(func.coalesce(func.array_agg(names.c.name), cast([], ARRAY(Text)))).scalar_subquery()


def _live_session() -> Select[Any]:
    """The session with its tenant and its user's permissions, then the columns of the user; no row once any of them
    ended.
    """
    ends_at = func.least(Session.expires_at, Session.idle_expires_at)
    own = select(
        Session.id,
        func.extract("epoch", ends_at).cast(Float),
        Tenant.id,
        Tenant.slug,
        Tenant.name,
        _permissions_of_user(),
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
        for mark in marks:
            if mark.has_changed:
                return None
        return signed

    async def _load(self, claims: Claims) -> Signed:
        rows = await self._reads.rows(LIVE_SESSION, {"session_id": claims.sid, "tenant_id": claims.tid})
        if not rows:
            raise Unauthenticated(code="session_ended")
        signed = _signed(*rows[0])
        if signed.principal.id != claims.sub:
            raise Unauthenticated(code="invalid_token")
        return signed

    def _keep(self, signed: Signed) -> None:
        self._kept[signed.principal.session_id] = signed, tuple(map(self._mark, signed.rests_on))
        if len(self._kept) > MAX_PRINCIPALS:
            self._kept.popitem(last=False)

    def _mark(self, row_id: UUID) -> Mark:
        mark = self._marks.get(row_id)
        if mark is None:
            mark = self._marks[row_id] = Mark()
        return mark

    def _drop_all(self) -> None:
        self._epoch += 1
        self._kept.clear()

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
    session_id: UUID,
    expires_at: float,
    tenant_id: UUID,
    slug: str,
    tenant_name: str,
    permissions: list[str],
    *user: Any,
) -> Signed:
    shown = UserOut(*user)
    shown.roles = msgspec.convert(shown.roles, list[RoleRef])
    names, held = _rights(tuple(permissions))
    principal = Principal(
        id=shown.id,
        tenant_id=tenant_id,
        session_id=session_id,
        email=shown.email,
        role_ids=frozenset(role.id for role in shown.roles),
        permissions=held,
    )
    me = Me(user=shown, roles=shown.roles, permissions=names, tenant=_tenant(tenant_id, slug, tenant_name))
    return Signed(principal, me, expires_at, {})


@lru_cache(1000)
def _rights(permissions: tuple[str, ...]) -> tuple[list[str], frozenset[str]]:
    """In order, and as a set: held once for all who may do the same."""
    names = sorted(permissions)
    return names, frozenset(names)


_tenant = lru_cache(1000)(TenantRef)
