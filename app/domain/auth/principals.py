"""Principals in memory: loaded once per session, dropped within a second of anything that makes them untrue.

Every change of a session, a user, a role or a tenant notifies all workers as it commits. A worker whose listener is not
proven alive trusts nothing in memory and asks the database each time; what was loaded while a notification came in is
not kept.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

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
MAX_ENCODED = 16
"""Answers kept for each session: who it is, and what each of its latest access tokens is worth."""

T = TypeVar("T")


class Signed(msgspec.Struct, frozen=True):
    """A live session's principal, with what is said of it again and again."""

    principal: Principal
    me: Me
    expires_at: float
    """Unix time at which the session ends by itself."""
    encoded: dict[tuple[str, str], bytes]

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
        self._signed: OrderedDict[UUID, Signed] = OrderedDict()
        self._epoch = 0
        self._listener = Listener(database_url, CHANNEL, on_message=self._drop_notified, on_gap=self._drop_all)

    def start(self) -> None:
        self._listener.start()

    async def stop(self) -> None:
        await self._listener.stop()

    async def of(self, claims: Claims) -> Signed:
        """The session's principal as it is now.

        Raises Unauthenticated where the session, its user or its tenant has ended.
        """
        if self._listener.is_proven_alive:
            known = self._signed.get(claims.sid)
            if known is not None and known.expires_at > time.time() and known.principal.id == claims.sub:
                return known
        epoch = self._epoch
        loaded = await self._load(claims)
        if epoch == self._epoch and self._listener.is_proven_alive:
            self._keep(loaded)
        return loaded

    async def _load(self, claims: Claims) -> Signed:
        rows = await self._reads.rows(LIVE_SESSION, {"session_id": claims.sid, "tenant_id": claims.tid})
        if not rows:
            raise Unauthenticated("The session has ended. Sign in again.", code="session_ended")
        signed = _signed(*rows[0])
        if signed.principal.id != claims.sub:
            raise Unauthenticated("The access token is not valid.", code="invalid_token")
        return signed

    def _keep(self, signed: Signed) -> None:
        self._signed[signed.principal.session_id] = signed
        if len(self._signed) > MAX_PRINCIPALS:
            self._signed.popitem(last=False)

    def _drop_all(self) -> None:
        self._epoch += 1
        self._signed.clear()

    def drop(self, kind: str, row_id: UUID) -> None:
        self._epoch += 1
        for session_id in [key for key, signed in self._signed.items() if _hangs_on(signed.principal, kind, row_id)]:
            del self._signed[session_id]

    def _drop_notified(self, payload: str) -> None:
        """What cannot be read may have been about anybody."""
        kind, _, row_id = payload.partition(":")
        try:
            self.drop(kind, UUID(row_id))
        except ValueError:
            self._drop_all()


def _hangs_on(principal: Principal, kind: str, row_id: UUID) -> bool:
    match kind:
        case "session":
            return principal.session_id == row_id
        case "user":
            return principal.id == row_id
        case "role":
            return row_id in principal.role_ids
    return principal.tenant_id == row_id


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
    principal = Principal(
        id=shown.id,
        tenant_id=tenant_id,
        session_id=session_id,
        email=shown.email,
        role_ids=frozenset(role.id for role in shown.roles),
        permissions=frozenset(permissions),
    )
    tenant = TenantRef(tenant_id, slug, tenant_name)
    me = Me(user=shown, roles=shown.roles, permissions=sorted(permissions), tenant=tenant)
    return Signed(principal, me, expires_at, {})
