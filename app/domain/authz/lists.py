"""The rights of one person, and all who have rights in one place, page by page: now or at a moment of the past."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import Meta

from app.core.errors import NotFound
from app.core.lists.keyed import KeyedQuery, parse_keyed
from app.core.lists.listing import Page
from app.core.lists.parameters import COMMON_PARAMETERS, parse_time
from app.core.reads import Reads
from app.core.security import Principal, unseen
from app.domain.authz.grounds import via_of
from app.domain.authz.moments import is_to_come
from app.domain.authz.repositories import ACCESS, ACCESS_COUNT, EFFECTIVE, EFFECTIVE_COUNT, HOLDER_AT, PLACE
from app.domain.authz.schemas import AccessOut, AccessVia, EffectivePermission, RightScope, RightVia
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.roles.schemas import PERMISSIONS

ABOUT_PLACES: Final = sorted(name for name in PERMISSIONS if name.startswith(("data-sources:", "data-domains:")))
"""What a role that is held for the whole tenant may bring of rights in a place."""
PARAMETERS: Mapping[str, Mapping[str, object]] = COMMON_PARAMETERS | {
    "at": {"type": "string", "format": "date-time", "description": "A moment of the past, in the place of now."}
}
NOTHING: Final = UUID(int=0)
EVERYTHING: Final = UUID(int=2**128 - 1)
DOMAIN, SOURCE = 1, 2
"""Ranks of scopes, behind the tenant."""
LineKey = tuple[
    Annotated[int, Meta(ge=0, le=SOURCE)], UUID, Annotated[str, Meta(max_length=100, pattern=r"^[^\x00]*\Z")]
]
"""Rank of the scope, its id, the permission."""


def _past(text: str) -> datetime:
    moment = parse_time(text)
    if is_to_come(moment):
        raise ValueError("must not lie in the future")
    return moment


def _at(query: KeyedQuery) -> str | None:
    moment: datetime | None = query.given.get("at")
    return None if moment is None else moment.isoformat()


async def effective_permissions(
    reads: Reads, principal: Principal, user_id: UUID, query_string: bytes
) -> Page[EffectivePermission]:
    """Raises Hidden where another's are none of the caller's business, and NotFound for nobody."""
    if user_id != principal.id and not principal.may("users:read"):
        raise unseen(principal, "users:read")
    query = parse_keyed(query_string, name="effective permissions", key=LineKey, own={"at": _past})
    about = {"tenant_id": principal.tenant_id, "user_id": user_id, "at": _at(query)}
    if not await reads.rows(HOLDER_AT, about):
        raise NotFound
    values = about | {"owner_brings": sorted(OWNER_BRINGS), "nothing": NOTHING}
    rows = await reads.rows(EFFECTIVE, values | _after(query.after) | {"page_limit": query.limit + 1})
    shown = rows[: query.limit]
    last = shown[-1][:3] if len(rows) > query.limit else None
    return Page(
        items=[_effective(principal.tenant_id, *row[2:]) for row in shown],
        next_cursor=None if last is None else query.cursor_after(tuple(last)),
        total=await _count(reads, EFFECTIVE_COUNT, values) if query.count else None,
    )


def _after(key: LineKey | None) -> dict[str, object]:
    """Where the page begins: as a whole, and among the domains and sources that roles own."""
    rank, scope, permission = key or (0, NOTHING, "")
    return {
        "after_rank": rank,
        "after_scope": scope,
        "after_permission": permission,
        "first_domain": {DOMAIN: scope, SOURCE: EVERYTHING}.get(rank, NOTHING),
        "first_source": scope if rank == SOURCE else NOTHING,
    }


def _effective(
    tenant_id: UUID, permission: str, scope_type: Any, scope_id: UUID | None, grounds: list[Any]
) -> EffectivePermission:
    via = [via_of(tenant_id, *ground) for ground in grounds]
    return EffectivePermission(permission, RightScope(scope_type, scope_id), via)


async def access_to(
    reads: Reads, principal: Principal, kind: Literal["data_source", "data_domain"], thing: UUID, query_string: bytes
) -> Page[AccessOut]:
    """Raises NotFound for what was not there."""
    query = parse_keyed(query_string, name=f"access to {thing}", key=UUID, own={"at": _past})
    about = {"tenant_id": principal.tenant_id, "at": _at(query)}
    places = await reads.rows(PLACE, about | {"kind": kind, "id": thing})
    if not places:
        raise NotFound
    reach, owner_role_ids = places[0]
    values = about | {"reach": reach, "owner_role_ids": owner_role_ids, "about_places": ABOUT_PLACES}
    page = {"owner_brings": sorted(OWNER_BRINGS), "after": query.after or NOTHING, "page_limit": query.limit + 1}
    rows = await reads.rows(ACCESS, values | page)
    shown = rows[: query.limit]
    return Page(
        items=[_access(principal.tenant_id, *row) for row in shown],
        next_cursor=query.cursor_after(shown[-1][0]) if len(rows) > query.limit else None,
        total=await _count(reads, ACCESS_COUNT, values) if query.count else None,
    )


def _access(tenant_id: UUID, holder: UUID, kind: Any, email: str | None, grounds: list[Any] | None) -> AccessOut:
    via = [_access_via(via_of(tenant_id, *ground[:-1]), ground[-1]) for ground in grounds or ()]
    permissions = sorted({name for each in via for name in each.permissions})
    return AccessOut(kind, holder, email, permissions, via)


def _access_via(via: RightVia, permissions: list[str]) -> AccessVia:
    there = permissions if via.scope.id is not None else [name for name in permissions if name in _ABOUT_PLACES]
    return AccessVia(via.type, via.role_id, via.assignment_id, via.group_id, via.scope, via.request_id, there)


_ABOUT_PLACES = frozenset(ABOUT_PLACES)


async def _count(reads: Reads, statement: Any, values: Mapping[str, object]) -> int:
    ((count,),) = await reads.rows(statement, values)
    return int(count)
