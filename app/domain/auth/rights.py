"""What somebody may do, and where: from the assignments in force, their own and their groups', and from what their
roles own.

What is in force is judged by the database's clock alone. It also says in how many seconds the next assignment begins or
expires, so that what is held in memory ends at its moment, whatever a worker's own clock shows.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import ARRAY, ColumnElement, Select, Uuid, any_, bindparam, func, literal_column, or_, select, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.extent import NOWHERE, Extent, Place
from app.core.security import Principal
from app.domain.domains.models import DataDomain
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.service_accounts.models import ServiceAccount
from app.domain.users.models import User


class HeldRole(Struct, frozen=True):
    """A role, and where it is held."""

    id: UUID
    permissions: list[str]
    is_owner: bool
    everywhere: bool
    domains: list[UUID]
    """To which it is given; it holds in those below them too."""
    sources: list[UUID]
    requires_mfa: bool = False
    """Whether it brings anything only to who has shown a second factor."""


class Held(Struct, frozen=True):
    """What the database says of one subject's assignments."""

    roles: list[HeldRole]
    groups: list[UUID]
    changes_in_s: float | None
    """Until the next one begins or expires by itself."""

    def without_factor(self, *, of_all: bool = False) -> "Held":
        """What is left of it to who has shown no second factor: nothing `of_all`, where the tenant asks everybody."""
        if of_all:
            return Held([], self.groups, self.changes_in_s)
        if not any(role.requires_mfa for role in self.roles):
            return self
        return Held([role for role in self.roles if not role.requires_mfa], self.groups, self.changes_in_s)


class Domain(Struct, frozen=True):
    """Of the tree: as much as rights hang on."""

    id: UUID
    lineage: list[UUID]
    owner_role_id: UUID | None


class Rights(Struct, frozen=True):
    permissions: frozenset[str]
    """For the whole tenant."""
    extents: Mapping[str, Extent]
    """By permission, for those that are held for a part of it only."""

    def includes(self, other: "Rights") -> bool:
        """Whether whoever has these may do all that the other may."""
        return self.permissions >= other.permissions and all(
            name in self.permissions or self.extents.get(name, NOWHERE).includes(extent)
            for name, extent in other.extents.items()
        )

    def holds_all(self, permissions: Iterable[str], place: Place | None = None) -> bool:
        """As `Principal.holds_all`."""
        return all(
            name in self.permissions or (place is not None and self.extents.get(name, NOWHERE).covers(place))
            for name in permissions
        )


def held_by(subject: str, *, is_to_come: bool = False) -> ColumnElement[Any]:
    """`Held` as JSON, of the row of the statement's table of that name (`users`, say), in one column; with what was
    given from a later moment on, where that is to count."""
    begun = "" if is_to_come else "WHERE starts_at <= statement_timestamp()"
    return literal_column(_held(subject, begun), JSON)


def _held(subject: str, counted: str) -> str:
    return f"""(WITH subject AS (
               SELECT {subject}.id AS id
               UNION ALL SELECT group_id FROM group_members WHERE user_id = {subject}.id AND ended_at IS NULL),
             held AS (
               SELECT given.* FROM role_assignments AS given JOIN subject ON given.subject_id = subject.id
               WHERE given.tenant_id = {subject}.tenant_id AND given.ended_at IS NULL
                 AND (given.expires_at IS NULL OR given.expires_at > statement_timestamp())),
             by_role AS (
               SELECT role_id, bool_or(scope_type = 'tenant') AS everywhere,
                 coalesce(array_agg(scope_id) FILTER (WHERE scope_type = 'data_domain'), '{{}}') AS domains,
                 coalesce(array_agg(scope_id) FILTER (WHERE scope_type = 'data_source'), '{{}}') AS sources
               FROM held {counted} GROUP BY role_id)
             SELECT json_build_object(
               'roles', (SELECT coalesce(json_agg(json_build_object('id', role.id, 'permissions', role.permissions,
                   'is_owner', role.is_owner, 'everywhere', everywhere, 'domains', domains, 'sources', sources,
                   'requires_mfa', role.requires_mfa)
                   ORDER BY role.id), '[]')
                 FROM by_role JOIN roles AS role ON role.id = role_id AND role.tenant_id = {subject}.tenant_id),
               'groups', (SELECT coalesce(json_agg(id ORDER BY id), '[]') FROM subject WHERE id <> {subject}.id),
               'changes_in_s', (SELECT extract(epoch FROM min(moment) - statement_timestamp())
                 FROM held, LATERAL (VALUES (starts_at), (expires_at)) AS change (moment)
                 WHERE moment > statement_timestamp())))"""  # noqa: S608 - names of ours


def read_held(found: Any) -> Held:
    return msgspec.convert(found, Held)


_MODELS: Mapping[str, Any] = {"user": User, "service_account": ServiceAccount}
_HELD = {model: held_by(model.__tablename__, is_to_come=True) for model in _MODELS.values()}
_LASTS = """WHERE starts_at <= statement_timestamp()
  AND (expires_at IS NULL OR expires_at >= coalesce(CAST(:until AS timestamptz), 'infinity'))"""
_LASTING = {model: text(_held(model.__tablename__, _LASTS)) for model in _MODELS.values()}
_UUIDS = ARRAY(Uuid)
_OWNED = select(DataDomain.id).where(
    DataDomain.tenant_id == bindparam("tenant_id", type_=Uuid()),
    DataDomain.owner_role_id == any_(bindparam("owner_role_ids", type_=_UUIDS)),
)
DOMAINS: Select[Any] = select(DataDomain.id, DataDomain.lineage, DataDomain.owner_role_id).where(
    DataDomain.tenant_id == bindparam("tenant_id", type_=Uuid()),
    or_(
        DataDomain.lineage.overlap(bindparam("domain_ids", type_=_UUIDS)),
        DataDomain.lineage.overlap(func.array(_OWNED.correlate(None).scalar_subquery(), type_=_UUIDS)),
    ),
)
"""The domains to which roles were given or which they own, and all below them."""


def domains_wanted(held: Held) -> dict[str, list[UUID]] | None:
    """The parameters of `DOMAINS`, or None where no right hangs on domains."""
    given = {domain for role in held.roles for domain in role.domains}
    owners = [role.id for role in held.roles if role.is_owner and role.everywhere]
    return {"domain_ids": sorted(given), "owner_role_ids": sorted(owners)} if given or owners else None


def rights_of(held: Held, domains: Iterable[Domain]) -> Rights:
    tree = Tree(domains)
    everywhere = frozenset(name for role in held.roles if role.everywhere for name in role.permissions)
    extents: dict[str, Extent] = {}
    for role in held.roles:
        if role.domains or role.sources:
            extent = Extent(frozenset(role.sources), tree.below(role.domains))
            _widen(extents, (name for name in role.permissions if name not in everywhere), extent)
    owners = frozenset(role.id for role in held.roles if role.is_owner and role.everywhere)
    if owners:
        owned = Extent(domains=tree.below(tree.owned_by(owners)), owner_roles=owners)
        _widen(extents, (name for name in OWNER_BRINGS if name not in everywhere), owned)
    return Rights(everywhere, extents)


async def lasting_rights(session: AsyncSession, principal: Principal, until: datetime | None) -> Rights:
    """What somebody holds from now until then at least, or with None for good, whatever key they came with; of what
    asks for a second factor only if they have shown one."""
    model = _MODELS[principal.type]
    held_of: Select[Any] = select(_LASTING[model])
    whose = (model, principal.id, principal.tenant_id)
    return await _rights_from(session, held_of, *whose, has_factor=principal.has_factor, until=until)


async def rights_of_user(session: AsyncSession, user_id: UUID, tenant_id: UUID) -> Rights:
    """As they are in the session's transaction, or will be: what was given from a later moment on counts, and what asks
    for a second factor, too. None for somebody who is not there."""
    return await _rights_of(session, User, user_id, tenant_id)


async def rights_of_account(session: AsyncSession, account_id: UUID, tenant_id: UUID) -> Rights:
    """As `rights_of_user`, of a service account."""
    return await _rights_of(session, ServiceAccount, account_id, tenant_id)


async def _rights_of(session: AsyncSession, model: Any, subject_id: UUID, tenant_id: UUID) -> Rights:
    return await _rights_from(session, select(_HELD[model]), model, subject_id, tenant_id)


async def _rights_from(
    session: AsyncSession,
    held_of: Select[Any],
    model: Any,
    subject_id: UUID,
    tenant_id: UUID,
    *,
    has_factor: bool = True,
    **values: object,
) -> Rights:
    """`held_of` selects what is held by the row of the model that is its subject."""
    whose = held_of.select_from(model).where(model.id == subject_id, model.tenant_id == tenant_id)
    found = await session.scalar(whose, values)
    if found is None:
        return Rights(frozenset(), {})
    held = read_held(found) if has_factor else read_held(found).without_factor()
    if (wanted := domains_wanted(held)) is None:
        return rights_of(held, [])
    rows = await session.execute(DOMAINS, wanted | {"tenant_id": tenant_id})
    return rights_of(held, [Domain(*row) for row in rows])


def _widen(extents: dict[str, Extent], names: Iterable[str], by: Extent) -> None:
    for name in names:
        extents[name] = extents[name] | by if name in extents else by


class Tree:
    """Of domains, as far as somebody's rights reach."""

    def __init__(self, domains: Iterable[Domain]) -> None:
        self._domains = list(domains)
        self._below: dict[UUID, set[UUID]] = {}
        for domain in self._domains:
            for above in domain.lineage:
                self._below.setdefault(above, set()).add(domain.id)

    def below(self, roots: Iterable[UUID]) -> frozenset[UUID]:
        """Each of them that is there, and all below it."""
        return frozenset().union(*(self._below.get(root, ()) for root in roots))

    def owned_by(self, role_ids: frozenset[UUID]) -> list[UUID]:
        return [domain.id for domain in self._domains if domain.owner_role_id in role_ids]
