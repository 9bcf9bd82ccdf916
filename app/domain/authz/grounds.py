"""Why somebody may do what they may, in memory beside their principal: checks for oneself and for now ask it first."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from app.core.reads import Reads
from app.core.security import Principal
from app.domain.auth.principals import Signed
from app.domain.authz.repositories import OWN
from app.domain.authz.schemas import CheckResult, RightScope, RightVia
from app.domain.roles.built_in import public_role_id
from app.domain.roles.ownership import OWNER_BRINGS

REFUSED = CheckResult(False, [])
_encode = msgspec.json.Encoder().encode
_REFUSED = Raw(_encode(REFUSED))
ScopeType = Literal["tenant", "data_domain", "data_source"]


class Ground(Struct, frozen=True):
    via: RightVia
    permissions: frozenset[str]


class Grounds:
    """Of one principal. Each answer about the whole tenant is worked out and written once."""

    def __init__(self, principal: Principal, grounds: Iterable[Ground], *, has_owner_roles: bool) -> None:
        self._principal = principal
        self._everywhere: list[Ground] = []
        self._sources: dict[UUID, list[Ground]] = {}
        self._by_place: set[str] = set(OWNER_BRINGS) if has_owner_roles else set()
        """Permissions of which only the place of a thing tells whether they reach it."""
        for ground in grounds:
            self._sort_in(ground)
        self._written: dict[str, Raw] = {}

    def _sort_in(self, ground: Ground) -> None:
        scope = ground.via.scope
        if scope.id is None:
            self._everywhere.append(ground)
        elif scope.type == "data_source":
            self._sources.setdefault(scope.id, []).append(ground)
        else:
            self._by_place |= ground.permissions

    def of_tenant(self, permission: str) -> Raw:
        """The answer as JSON."""
        known = self._written.get(permission)
        if known is None:
            known = self._written[permission] = self._of_tenant(permission)
        return known

    def _of_tenant(self, permission: str) -> Raw:
        return _written(self._everywhere, permission) if self._principal.may(permission) else _REFUSED

    def of_thing(self, permission: str, resource_id: UUID) -> Raw | None:
        """The answer as JSON; None where it hangs on what only the database knows: whether the thing is there, or in
        which domain it is."""
        if not self._principal.may_somewhere(permission):
            return _REFUSED
        if permission in self._by_place:
            return None
        own = self._sources.get(resource_id)
        if own is None:
            return None if self._principal.may(permission) else _REFUSED
        return _written([*self._everywhere, *own], permission)


def _written(grounds: Iterable[Ground], permission: str) -> Raw:
    via = [ground.via for ground in grounds if permission in ground.permissions]
    return Raw(_encode(CheckResult(bool(via), via)))


async def load_grounds(reads: Reads, signed: Signed) -> Grounds:
    """Kept with the principal, and dropped with it."""
    principal = signed.principal
    rows = await reads.rows(OWN, {"tenant_id": principal.tenant_id, "user_id": principal.id})
    grounds = [Ground(via_of(principal.tenant_id, *row[:-2]), _shared(tuple(row[-2]))) for row in rows]
    found = [ground for ground in grounds if ground.via.role_id not in principal.factor_role_ids]
    signed.grounds = Grounds(principal, found, has_owner_roles=any(row[-1] and row[5] is None for row in rows))
    kept: Grounds = signed.grounds
    return kept


@lru_cache(2000)
def _shared(permissions: tuple[str, ...]) -> frozenset[str]:
    """Held once for all who hold the same role."""
    return frozenset(permissions)


def via_of(
    tenant_id: UUID,
    is_owner: bool,
    role_id: UUID | str,
    assignment_id: Any,
    group_id: Any,
    scope_type: ScopeType,
    scope_id: Any,
    request_id: Any,
) -> RightVia:
    """Of a row, or of what stands for one in JSON."""
    role_id = UUID(str(role_id))
    is_public = role_id == public_role_id(tenant_id)
    return RightVia(
        "public" if is_public else "owner" if is_owner else "assignment",
        role_id,
        None if is_public else assignment_id,
        group_id,
        RightScope(scope_type, scope_id),
        request_id,
    )
