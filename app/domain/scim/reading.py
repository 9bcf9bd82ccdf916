"""Users and groups of a directory as it reads them: one by its id, or a page of those that a filter finds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

from app.core.errors import NotFound
from app.core.faults import FORBIDDEN
from app.core.reads import Reads, written
from app.domain.scim.conditions import Conditions
from app.domain.scim.definitions import GROUP, MAX_RESULTS, USER, Kind
from app.domain.scim.documents import Document, Selection
from app.domain.scim.errors import ScimFault
from app.domain.scim.paths import MAX_LENGTH, read_filter, target_at
from app.domain.scim.resources import GroupRef, group_resource, user_resource

LIST_RESPONSE: Final = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
SEARCH_REQUEST: Final = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
FARTHEST: Final = 1_000_000_000
MAX_QUERY: Final = 16_384
MAX_FIELDS: Final = 50
MOST_MEMBERS_OF_PAGE: Final = 50_000
"""Members that the groups of one page have together; with more than that the page is shorter."""
R = TypeVar("R")


class UserRow(NamedTuple):
    id: UUID
    created_at: datetime
    updated_at: datetime
    version: int
    is_active: bool
    directory: Any


class GroupRow(NamedTuple):
    id: UUID
    created_at: datetime
    updated_at: datetime
    version: int
    name: str
    external_id: str | None


class Table(NamedTuple):
    name: str
    columns: str
    is_kept: str


_TABLES: Final[Mapping[str, Table]] = {
    USER.name: Table(
        "users",
        "users.id, users.created_at, users.updated_at, users.version, users.is_active, users.directory",
        "users.tenant_id = $1::uuid AND users.managed_by = 'scim'",
    ),
    GROUP.name: Table(
        "groups",
        "groups.id, groups.created_at, groups.updated_at, groups.version, groups.name, groups.external_id",
        "groups.tenant_id = $1::uuid AND groups.managed_by = 'scim'",
    ),
}
GROUPS_OF_USERS = written(
    """SELECT item.user_id, held.id, held.name FROM group_members AS item
       JOIN groups AS held ON held.id = item.group_id AND held.tenant_id = item.tenant_id
       WHERE item.user_id = ANY ($2::uuid[]) AND item.tenant_id = $1 AND item.ended_at IS NULL
         AND held.managed_by = 'scim' ORDER BY held.id""",
    "tenant_id",
    "ids",
    table="group_members",
)
MEMBERS_OF_GROUPS = written(
    """SELECT item.group_id, item.user_id FROM group_members AS item
       JOIN users ON users.id = item.user_id AND users.tenant_id = item.tenant_id
       WHERE item.group_id = ANY ($2::uuid[]) AND item.tenant_id = $1 AND item.ended_at IS NULL
         AND users.managed_by = 'scim' ORDER BY item.user_id""",
    "tenant_id",
    "ids",
    table="group_members",
)
SIZES_OF_GROUPS = written(
    """SELECT item.group_id, count(*) FROM group_members AS item
       WHERE item.group_id = ANY ($2::uuid[]) AND item.tenant_id = $1 AND item.ended_at IS NULL
       GROUP BY item.group_id""",
    "tenant_id",
    "ids",
    table="group_members",
)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is asked for (RFC 7644 section 3.4.2), by GET or by `.search`. Anything else is ignored."""

    filter: str | None = None
    sort_by: str | None = None
    is_descending: bool = False
    start: int = 1
    count: int = MAX_RESULTS
    attributes: str | list[str] | None = None
    excluded: str | list[str] | None = None

    def selection(self, kind: Kind) -> Selection:
        return Selection(kind, self.attributes, self.excluded)


def query_of(query_string: bytes) -> Query:
    """Raises ScimFault."""
    if len(query_string) > MAX_QUERY:
        raise ScimFault("invalidFilter", "The query is too long.")
    try:
        pairs = parse_qsl(query_string.decode("latin-1"), max_num_fields=MAX_FIELDS, encoding="utf-8")
    except ValueError:
        raise ScimFault("invalidValue", f"The query has more than {MAX_FIELDS} parameters.") from None
    return _query(dict(reversed(pairs)), _number)


def query_of_search(body: Mapping[str, Any]) -> Query:
    """Raises ScimFault."""
    schemas = body.get("schemas")
    if not isinstance(schemas, list) or SEARCH_REQUEST not in schemas:
        raise ScimFault("invalidSyntax", f"`schemas` has to name {SEARCH_REQUEST}.")
    for name in ("attributes", "excludedAttributes"):
        if not isinstance(body.get(name), str | list | None):
            raise ScimFault("invalidValue", f"`{name}` is a list of names.")
    return _query(body, _plain_number)


def _query(given: Mapping[str, Any], number: Callable[[str, Any], int]) -> Query:
    for name in ("filter", "sortBy", "sortOrder"):
        if not isinstance(given.get(name, ""), str | None):
            raise ScimFault("invalidValue", f"`{name}` is a text.")
    return Query(
        filter=given.get("filter"),
        sort_by=given.get("sortBy"),
        is_descending=str(given.get("sortOrder")).lower() == "descending",
        start=max(number("startIndex", given.get("startIndex", 1)), 1),
        count=min(max(number("count", given.get("count", MAX_RESULTS)), 0), MAX_RESULTS),
        attributes=given.get("attributes"),
        excluded=given.get("excludedAttributes"),
    )


def _number(name: str, value: Any) -> int:
    """What is too large to be meant is as good as the largest."""
    text = str(value).strip()
    digits = text.removeprefix("-").removeprefix("+")
    if not digits.isascii() or not digits.isdigit():
        raise ScimFault("invalidValue", f"`{name}` is a whole number.")
    size = FARTHEST if len(digits) > 9 else int(digits)
    return -size if text.startswith("-") else size


def _plain_number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScimFault("invalidValue", f"`{name}` is a whole number.")
    return max(min(value, FARTHEST), -FARTHEST)


class Directory:
    """One tenant's, as `/scim/v2` shows it."""

    def __init__(self, reads: Reads, tenant_id: UUID, base: str) -> None:
        self._reads = reads
        self._tenant_id = tenant_id
        self._base = base

    async def user(self, user_id: UUID) -> tuple[UserRow, list[GroupRef]]:
        """Raises NotFound."""
        row = _user(await self._one(USER, user_id))
        return row, (await self._groups_of([user_id])).get(user_id, [])

    async def group(self, group_id: UUID) -> GroupRow:
        """Raises NotFound."""
        return GroupRow(*await self._one(GROUP, group_id))

    async def shown_group(self, row: GroupRow, selection: Selection) -> Document:
        members = (await self._members_of([row.id])).get(row.id) if selection.shows("members") else None
        return selection.of(group_resource(self._base, row, members))

    async def users(self, query: Query) -> Document:
        selection = query.selection(USER)
        total, rows = await self._page(USER, query)
        users = [_user(row) for row in rows]
        groups = await self._groups_of([user.id for user in users])  # the version of a user tells of them, too
        shown = [selection.of(user_resource(self._base, user, groups.get(user.id, []))) for user in users]
        return listed(query, total, shown)

    async def groups(self, query: Query) -> Document:
        """Of as many as have no more members together than one answer may have, but for the first."""
        selection = query.selection(GROUP)
        total, rows = await self._page(GROUP, query)
        groups = [GroupRow(*row) for row in rows]
        if not selection.shows("members"):
            return listed(query, total, [selection.of(group_resource(self._base, row, None)) for row in groups])
        groups = await self._first_of(groups)
        members = await self._members_of([group.id for group in groups])
        shown = [selection.of(group_resource(self._base, row, members.get(row.id))) for row in groups]
        return listed(query, total, shown)

    async def _first_of(self, groups: list[GroupRow]) -> list[GroupRow]:
        asked = {"tenant_id": self._tenant_id, "ids": [group.id for group in groups]}
        sizes: dict[UUID, int] = dict(await self._reads.rows(SIZES_OF_GROUPS, asked))
        left = MOST_MEMBERS_OF_PAGE
        found: list[GroupRow] = []
        for group in groups:
            left -= sizes.get(group.id, 0)
            if found and left < 0:
                break
            found.append(group)
        return found

    async def _one(self, kind: Kind, row_id: UUID) -> Sequence[Any]:
        table = _TABLES[kind.name]
        sql = f"SELECT {table.columns} FROM {table.name} WHERE {table.is_kept} AND {table.name}.id = $2::uuid"  # noqa: S608
        statement = written(sql, "tenant_id", "id", table=table.name)
        rows = await self._reads.rows(statement, {"tenant_id": self._tenant_id, "id": row_id})
        if not rows:
            raise NotFound
        return rows[0]

    async def _page(self, kind: Kind, query: Query) -> tuple[int, list[Any]]:
        """How many there are in all, and those of the page."""
        table, conditions = _TABLES[kind.name], Conditions(kind)
        where = table.is_kept
        if query.filter:
            if FORBIDDEN.search(query.filter) or len(query.filter) > MAX_LENGTH:
                raise ScimFault("invalidFilter", "The filter is too long, or holds a character that no text may hold.")
            where += f" AND {conditions.of(read_filter(kind, query.filter))}"
        order = self._order(kind, conditions, query, table)
        counted = f"SELECT count(*) FROM {table.name} WHERE {where}"  # noqa: S608 - names of ours, values are bound
        ((total,),) = await self._run(counted, conditions.values, table)
        if not query.count or query.start > total:
            return total, []
        paged = f"SELECT {table.columns} FROM {table.name} WHERE {where} ORDER BY {order}"  # noqa: S608
        paged += f" LIMIT {conditions.bind(query.count, 'bigint')} OFFSET {conditions.bind(query.start - 1, 'bigint')}"
        return total, await self._run(paged, conditions.values, table)

    def _order(self, kind: Kind, conditions: Conditions, query: Query, table: Table) -> str:
        by_age = f"{table.name}.created_at, {table.name}.id"
        if not query.sort_by:
            return by_age
        target = target_at(kind, query.sort_by)
        if target is None:
            raise ScimFault("invalidPath", "There is no attribute of that name to sort by.")
        direction = "DESC NULLS FIRST" if query.is_descending else "ASC NULLS LAST"
        return f"{conditions.order_of(target)} {direction}, {by_age}"

    async def _run(self, sql: str, values: list[Any], table: Table) -> list[Any]:
        names = [f"value_{number}" for number in range(len(values))]
        statement = written(sql, "tenant_id", *names, table=table.name)
        bound = {"tenant_id": self._tenant_id, **dict(zip(names, values, strict=True))}
        return await self._reads.rows(statement, bound, is_planned_by_value=True)

    async def _groups_of(self, ids: list[UUID]) -> dict[UUID, list[GroupRef]]:
        rows = await self._reads.rows(GROUPS_OF_USERS, {"tenant_id": self._tenant_id, "ids": ids}) if ids else []
        return _gathered((user_id, GroupRef(*rest)) for user_id, *rest in rows)

    async def _members_of(self, ids: list[UUID]) -> dict[UUID, list[UUID]]:
        rows = await self._reads.rows(MEMBERS_OF_GROUPS, {"tenant_id": self._tenant_id, "ids": ids}) if ids else []
        return _gathered((group_id, user_id) for group_id, user_id in rows)


def _gathered(pairs: Iterable[tuple[UUID, R]]) -> dict[UUID, list[R]]:
    found: dict[UUID, list[R]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _user(row: Sequence[Any]) -> UserRow:
    shown = UserRow(*row)
    return shown._replace(directory=msgspec.json.decode(shown.directory)) if shown.directory else shown


def listed(query: Query, total: int, resources: list[Document]) -> Document:
    found: Document = {"schemas": [LIST_RESPONSE], "totalResults": total, "startIndex": query.start}
    return found | {"itemsPerPage": len(resources), "Resources": resources}
