"""Principals in memory: loaded once per session, API key or token of a program, dropped within a second of anything
that makes them untrue.

Every change of a session, a key, its owner, a role or a tenant notifies all workers as it commits. A worker whose
listener is not proven alive trusts nothing in memory and asks the database each time; what was loaded while its own
notification came in is not kept. A refresh changes nothing of a principal and tells nobody.

What a principal rests on (its session or key, owner and tenant, and each of its groups, its roles and the domains on
which its rights hang) has a mark that all principals resting on it share. A notification changes one mark, so that it
costs the same for a role of one member and of a million, however many sessions are in memory. What begins or expires by
itself needs no notice: a principal is held until the next such moment.
"""

import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import ColumnElement, Float, Select, and_, bindparam, case, func, or_, select

from app.core.answers import Answer, answer
from app.core.errors import Unauthenticated
from app.core.exchange import JSON, MSGPACK, Exchange
from app.core.notifications import Listener
from app.core.reads import Reads
from app.core.security import Claims, KeyLimits, Principal, PrincipalType
from app.domain.api_keys.keys import PresentedKey
from app.domain.api_keys.models import ApiKey
from app.domain.auth.models import ServiceToken, Session
from app.domain.auth.rights import DOMAINS, Domain, Held, Rights, domains_wanted, held_by, read_held, rights_of
from app.domain.auth.schemas import Me, TenantRef
from app.domain.service_accounts.jwks import id_of_key, keys_of
from app.domain.service_accounts.models import ServiceAccount
from app.domain.service_accounts.repositories import ServiceAccountRepository, roles_of_account
from app.domain.service_accounts.schemas import ServiceAccountOut
from app.domain.tenants.models import Tenant, TenantSettings
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import RoleRef, UserOut

CHANNEL = "hub_principals"
MAX_PRINCIPALS = 50_000
"""At 3 to 6 kB each; with more live sessions than that the oldest entry makes room."""
MAX_CHANGES = 2_000
"""Remembered for the loads that are under way: a few milliseconds' worth, however busy the hub."""
MAX_ENCODED = 4
"""Answers kept for each session: who it is, and what each of its latest access tokens is worth."""

KNOWN_BEFORE_LOADING = ("session", "user", "tenant")
"""What an access token names; which roles, groups and domains a principal rests on only the loaded rows say. An API key
names itself alone."""

Credential = Claims | PresentedKey

T = TypeVar("T")


class Mark:
    """Whether a session, user, role or tenant is still what it was when principals that rest on it were loaded."""

    __slots__ = ("__weakref__", "has_changed")

    def __init__(self) -> None:
        self.has_changed = False


class _Changes:
    """The latest ones, so that a load of which nobody knew whose it is can be told afterwards what has overtaken it."""

    def __init__(self) -> None:
        self.count = 0
        self._last: OrderedDict[UUID, int] = OrderedDict()

    def note(self, row_id: UUID) -> None:
        self.count += 1
        self._last[row_id] = self.count
        self._last.move_to_end(row_id)
        if len(self._last) > MAX_CHANGES:
            self._last.popitem(last=False)

    def note_gap(self) -> None:
        """Anything may have changed."""
        self.count += MAX_CHANGES + 1

    def have_touched(self, ids: Iterable[UUID], *, since: int) -> bool:
        """Whether one of them may have changed. After too many changes nobody knows."""
        return self.count - since > MAX_CHANGES or any(self._last.get(row_id, 0) > since for row_id in ids)


class Signed(msgspec.Struct):
    """The principal of a live session or API key, with what is said of it again and again."""

    principal: Principal
    me: Me
    expires_at: float
    """Unix time at which the session or key ends by itself."""
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


def _asks_all_for_factor() -> ColumnElement[bool]:
    """Whether the tenant wants a second factor of whoever signs in."""
    wanted = select(TenantSettings.requires_mfa).where(TenantSettings.tenant_id == Tenant.id)
    return func.coalesce(wanted.correlate(Tenant).scalar_subquery(), False)


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
        Session.amr,
        _asks_all_for_factor(),
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


def _live_key() -> Select[Any]:
    """The key with its tenant and its owner's assignments, then the columns of the user or of the service account that
    owns it; no row once any of them ended."""
    is_of_user = ApiKey.owner_type == "user"
    users, accounts = UserRepository.selection(UserOut), ServiceAccountRepository.selection(ServiceAccountOut)
    own = select(
        ApiKey.id,
        ApiKey.expires_at,
        Tenant.id,
        Tenant.slug,
        Tenant.name,
        case((is_of_user, held_by("users")), else_=held_by("service_accounts")).label("held"),
        ApiKey.digest,
        ApiKey.permissions,
        ApiKey.owner_type,
        roles_of_account().label("roles_of_account"),
    )
    return (
        own.add_columns(*(column.label(f"user_{column.key}") for column in users.selected_columns))
        .add_columns(*(column.label(f"account_{column.key}") for column in accounts.selected_columns))
        .select_from(ApiKey)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .outerjoin(User, and_(User.id == ApiKey.user_id, User.tenant_id == ApiKey.tenant_id))
        .outerjoin(
            ServiceAccount,
            and_(ServiceAccount.id == ApiKey.service_account_id, ServiceAccount.tenant_id == ApiKey.tenant_id),
        )
        .where(
            ApiKey.id == bindparam("key_id", type_=ApiKey.id.type),
            ApiKey.tenant_id == bindparam("tenant_id", type_=ApiKey.tenant_id.type),
            ApiKey.expires_at > func.now(),
            case((is_of_user, User.is_active), else_=ServiceAccount.is_active),
            Tenant.is_active,
        )
    )


def _live_program() -> Select[Any]:
    """The token of a service account with its tenant, the API key that it rests on if it does, and the account's
    assignments, then the columns of the account; no row once any of them ended. Whether a public key that it rests on
    is still the account's is for who has read them to say."""
    accounts = ServiceAccountRepository.selection(ServiceAccountOut)
    own = select(
        ServiceToken.id,
        ServiceToken.expires_at,
        Tenant.id,
        Tenant.slug,
        Tenant.name,
        held_by("service_accounts").label("held"),
        ServiceToken.jwk_id,
        ApiKey.id,
        ApiKey.permissions,
        roles_of_account().label("roles_of_account"),
    )
    return (
        own.add_columns(*(column.label(f"account_{column.key}") for column in accounts.selected_columns))
        .select_from(ServiceToken)
        .join(Tenant, Tenant.id == ServiceToken.tenant_id)
        .join(
            ServiceAccount,
            and_(
                ServiceAccount.id == ServiceToken.service_account_id, ServiceAccount.tenant_id == ServiceToken.tenant_id
            ),
        )
        .outerjoin(ApiKey, and_(ApiKey.id == ServiceToken.api_key_id, ApiKey.tenant_id == ServiceToken.tenant_id))
        .where(
            ServiceToken.id == bindparam("token_id", type_=ServiceToken.id.type),
            ServiceToken.tenant_id == bindparam("tenant_id", type_=ServiceToken.tenant_id.type),
            ServiceToken.revoked_at.is_(None),
            ServiceToken.expires_at > func.now(),
            or_(ServiceToken.jwk_id.is_not(None), ApiKey.expires_at > func.now()),
            ServiceAccount.is_active,
            Tenant.is_active,
        )
    )


LIVE_SESSION = _live_session()
LIVE_KEY = _live_key()
LIVE_PROGRAM = _live_program()
HELD = 5
"""The column of each of what the owner's assignments say."""
DIGEST = 6


class Principals:
    """The cache, its listener, and the one place that turns what somebody comes with into a principal."""

    def __init__(self, reads: Reads, database_url: str) -> None:
        self._reads = reads
        self._kept: OrderedDict[UUID | bytes, tuple[Signed, tuple[Mark, ...]]] = OrderedDict()
        """By the id of the session, or by the digest of the key."""
        self._marks: WeakValueDictionary[UUID, Mark] = WeakValueDictionary()
        """By id, as long as a principal or a load rests on them."""
        self._epoch = 0
        """Counts changes of what a load cannot know yet that it rests on: roles, and gaps."""
        self._changes = _Changes()
        """For who comes with a key: it does not say whose it is."""
        self._listener = Listener(database_url, CHANNEL, on_message=self._drop_notified, on_gap=self._drop_all)

    @property
    def count(self) -> int:
        """Of those in memory."""
        return len(self._kept)

    def start(self) -> None:
        self._listener.start()

    async def stop(self) -> None:
        await self._listener.stop()

    async def of(self, credential: Credential) -> Signed:
        """The principal of the session or key as it is now.

        Raises Unauthenticated where it, its owner or its tenant has ended.
        """
        known = self.in_memory(credential)
        if known is not None:
            return known
        if isinstance(credential, PresentedKey):
            begun_at = self._changes.count
            loaded = await self._load_key(credential)
            is_true = not self._changes.have_touched(loaded.rests_on, since=begun_at)
        else:
            epoch = self._epoch
            marks = [self._mark(row_id) for row_id in (credential.sid, credential.sub, credential.tid)]
            loaded = await (self._load_program if credential.is_of_program else self._load)(credential)
            is_true = epoch == self._epoch and not any(mark.has_changed for mark in marks)
        if is_true and self._listener.is_proven_alive:
            self._keep(credential, loaded)
        return loaded

    def in_memory(self, credential: Credential) -> Signed | None:
        """The principal, where it is known without asking the database."""
        return self._find(credential) if self._listener.is_proven_alive else None

    def _find(self, credential: Credential) -> Signed | None:
        signed, marks = self._kept.get(_kept_as(credential), (None, ()))
        if signed is None or signed.expires_at <= time.time():
            return None
        if isinstance(credential, Claims) and signed.principal.id != credential.sub:
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
        signed = _signed(_Rested(asked_at, held, await self._domains(held, claims.tid)), *rows[0])
        if signed.principal.id != claims.sub:
            raise Unauthenticated(code="invalid_token")
        return signed

    async def _load_program(self, claims: Claims) -> Signed:
        asked_at = time.monotonic()
        rows = await self._reads.rows(LIVE_PROGRAM, {"token_id": claims.sid, "tenant_id": claims.tid})
        if not rows:
            raise Unauthenticated(code="session_ended")
        held = read_held(rows[0][HELD])
        signed = _signed_program(_Rested(asked_at, held, await self._domains(held, claims.tid)), *rows[0])
        if signed is None:
            raise Unauthenticated(code="session_ended")
        if signed.principal.id != claims.sub:
            raise Unauthenticated(code="invalid_token")
        return signed

    async def _load_key(self, presented: PresentedKey) -> Signed:
        """Whatever is wrong with a key is answered alike."""
        key_id, asked_at = presented.checked_id, time.monotonic()
        async with self._reads.connection(ApiKey.__tablename__, None) as connection:
            tenant_id = await connection.fetchval("SELECT tenant_of_api_key($1)", key_id)
        rows = await self._reads.rows(LIVE_KEY, {"key_id": key_id, "tenant_id": tenant_id})
        if not rows or not hmac.compare_digest(rows[0][DIGEST], presented.digest):
            raise Unauthenticated(code="invalid_token")
        held = read_held(rows[0][HELD])
        return _signed_by_key(_Rested(asked_at, held, await self._domains(held, tenant_id)), *rows[0])

    async def _domains(self, held: Held, tenant_id: UUID) -> list[Domain]:
        """Those on which rights of these assignments hang."""
        wanted = domains_wanted(held)
        if wanted is None:
            return []
        return [Domain(*row) for row in await self._reads.rows(DOMAINS, wanted | {"tenant_id": tenant_id})]

    def _keep(self, credential: Credential, signed: Signed) -> None:
        self._kept[_kept_as(credential)] = signed, tuple(map(self._mark, signed.rests_on))
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
        self._changes.note_gap()
        self._kept.clear()
        for mark in list(self._marks.values()):
            mark.has_changed = True
        self._marks.clear()

    def drop(self, kind: str, row_id: UUID) -> None:
        """Whatever rests on this session, key, owner, role or tenant is loaded anew when it is next asked for."""
        self._changes.note(row_id)
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


def _kept_as(credential: Credential) -> UUID | bytes:
    return credential.digest if isinstance(credential, PresentedKey) else credential.sid


class _Rested(NamedTuple):
    """What the rights of a session's or key's owner rest on."""

    asked_at: float
    held: Held
    domains: list[Domain]


def _signed(
    on: _Rested,
    session_id: UUID,
    expires_at: float,
    tenant_id: UUID,
    slug: str,
    tenant_name: str,
    _held: object,
    amr: list[str],
    asks_all: bool,
    *user: Any,
) -> Signed:
    shown = _shown_user(user)
    tenant, has_factor = _tenant(tenant_id, slug, tenant_name), "mfa" in amr
    return _signed_as(on, shown, shown.roles, tenant, session_id, expires_at, has_factor=has_factor, asks_all=asks_all)


def _signed_by_key(
    on: _Rested,
    key_id: UUID,
    expires_at: datetime,
    tenant_id: UUID,
    slug: str,
    tenant_name: str,
    _held: object,
    _digest: bytes,
    named: list[str] | None,
    owner_type: PrincipalType,
    roles: list[dict[str, Any]],
    *columns: Any,
) -> Signed:
    of_user = len(UserOut.__struct_fields__)
    shown = _shown_user(columns[:of_user]) if owner_type == "user" else ServiceAccountOut(*columns[of_user:])
    held = shown.roles if isinstance(shown, UserOut) else msgspec.convert(roles, list[RoleRef])
    key = KeyLimits(key_id, None if named is None else frozenset(named), expires_at)
    tenant = _tenant(tenant_id, slug, tenant_name)
    return _signed_as(on, shown, held, tenant, key, expires_at.timestamp())


def _signed_program(
    on: _Rested,
    token_id: UUID,
    expires_at: datetime,
    tenant_id: UUID,
    slug: str,
    tenant_name: str,
    _held: object,
    jwk_id: UUID | None,
    key_id: UUID | None,
    named: list[str] | None,
    roles: list[dict[str, Any]],
    *columns: Any,
) -> Signed | None:
    """As somebody who came with the API key; or with one that leaves all, where it was a public key, by whose id it is
    told in logs and on record. None where that public key is not the account's any more."""
    account = ServiceAccountOut(*columns)
    if jwk_id is not None and all(id_of_key(account.id, key) != jwk_id for key in keys_of(account.jwks)):
        return None
    credential_id = key_id or jwk_id
    assert credential_id is not None
    limits = KeyLimits(credential_id, None if named is None else frozenset(named), expires_at)
    held = msgspec.convert(roles, list[RoleRef])
    signed = _signed_as(on, account, held, _tenant(tenant_id, slug, tenant_name), limits, expires_at.timestamp())
    signed.rests_on = (*signed.rests_on, token_id)
    return signed


def _signed_as(
    on: _Rested,
    owner: UserOut | ServiceAccountOut,
    roles: list[RoleRef],
    tenant: TenantRef,
    came_with: UUID | KeyLimits,
    expires_at: float,
    *,
    has_factor: bool = False,
    asks_all: bool = False,
) -> Signed:
    """`came_with` is the id of the session, or the key. No key carries a second factor, whoever owns it; `asks_all` is
    about sessions alone, in which people sign in."""
    asked_at, held, domains = on
    session_id, key = (None, came_with) if isinstance(came_with, KeyLimits) else (came_with, None)
    shown = held if has_factor else held.without_factor(of_all=asks_all)
    rights = _left_by(key, rights_of(shown, domains))
    with_factor = NOTHING if shown is held else _left_by(key, rights_of(held, domains))
    names, permissions = _in_order(rights.permissions)
    user, account = (owner, None) if isinstance(owner, UserOut) else (None, owner)
    principal = Principal(
        id=owner.id,
        type="service_account" if user is None else "user",
        tenant_id=tenant.id,
        session_id=session_id,
        key=key,
        name=owner.email if isinstance(owner, UserOut) else owner.name,
        role_ids=frozenset(role.id for role in shown.roles),
        permissions=permissions,
        extents=rights.extents,
        has_factor=has_factor,
        factor_permissions=with_factor.permissions,
        factor_extents=with_factor.extents,
        factor_role_ids=frozenset(role.id for role in held.roles) - frozenset(role.id for role in shown.roles),
    )
    me = Me(user=user, service_account=account, roles=roles, permissions=names, tenant=tenant)
    changes_at = math.inf if held.changes_in_s is None else asked_at + held.changes_in_s
    credential_id = came_with.id if isinstance(came_with, KeyLimits) else came_with
    roles_held = (role.id for role in held.roles)
    rests_on = (credential_id, owner.id, tenant.id, *roles_held, *held.groups, *_roots(held, domains))
    return Signed(principal, me, expires_at, changes_at, rests_on, {})


NOTHING = Rights(frozenset(), {})


def _left_by(key: KeyLimits | None, rights: Rights) -> Rights:
    if key is None or key.named is None:
        return rights
    extents = {name: extent for name, extent in rights.extents.items() if name in key.named}
    return Rights(rights.permissions & key.named, extents)


def _shown_user(columns: Sequence[Any]) -> UserOut:
    shown = UserOut(*columns)
    shown.roles = msgspec.convert(shown.roles, list[RoleRef])
    return shown


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
