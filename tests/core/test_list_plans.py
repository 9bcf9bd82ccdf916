"""Every list finds every page by an index: looked for in PostgreSQL's own plans, over tables that are filled (MA3).

Lists are found, not named: one that is new, or has a new sort or filter, is held to this from its first commit, and
whoever forgets its index reads here which one.
"""

import operator
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from sqlalchemy import BinaryExpression, Text, bindparam, literal_column, select

from app.core.database import server_settings
from app.core.embedded import EmbeddedPostgres
from app.core.lists.filters import Filter, search_filter, text_filter
from app.core.lists.listing import LEAST_VALUES, Listing, ListQuery, Sort
from app.core.reads import GATHERED_IN_ITS_PLACE, PLANNING, UNEVENLY, Reads, compiled, walk_rows, way_of
from app.core.tenancy import TENANT_SETTING
from app.domain.roles.models import Role
from app.domain.roles.repositories import ROLES
from app.domain.sources.models import DataSource
from app.domain.sources.repositories import DATA_SOURCES
from app.domain.users.models import User
from app.domain.users.repositories import USERS
from bench import crowd, questions
from bench.plans import Plan, plan_of, plan_of_page
from bench.questions import OTHER_PLACES, SHOWN
from tests.core.test_reads import LISTINGS
from tests.declared import application
from tests.postgres import create_database, drop_database
from tests.sampling import sampled

pytestmark = [pytest.mark.anyio, pytest.mark.found("L9", "L5")]

ROWS = 3_000
BUSY_USER = UUID("00000000-0000-7000-8000-0000000000aa")

PLACES = questions.places(BUSY_USER)
VALUES = questions.values(BUSY_USER)
TOGETHER = questions.together(BUSY_USER)


class Filled:
    """A database with `ROWS` rows for each list, asked as the fast read path asks."""

    def __init__(self, connection: "asyncpg.Connection[Any]", owner_url: str, app_url: str) -> None:
        self.connection = connection
        self._owner_url = owner_url
        self.app_url = app_url

    async def as_owner(self, *statements: str) -> list[Any]:
        """The rows of the last one."""
        owner = await asyncpg.connect(self._owner_url)
        try:
            found = [await owner.fetch(statement) for statement in statements]
        finally:
            await owner.close()
        return list(found[-1])

    async def plan(self, listing: Listing, query: ListQuery, values: Mapping[str, Any]) -> Plan:
        return await plan_of_page(self.connection, listing, query, values)

    async def rows(self, statement: Any, values: Mapping[str, Any]) -> list[Any]:
        sql, names, own, _ = compiled(statement)
        found: list[Any] = await self.connection.fetch(
            sql, *[values[name] if name in values else own[name] for name in names]
        )
        return found


@pytest.fixture(scope="module")
async def filled(cluster: EmbeddedPostgres, migrated: str) -> AsyncIterator[Filled]:
    name = await create_database(cluster, migrated)
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    await owner.execute(
        """INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
           VALUES ($1, $2, 'busy@example.org', 'busy@example.org', '', '', true, now(), now())""",
        BUSY_USER,
        crowd.TENANT,
    )
    await crowd.make_places(owner)
    async with crowd.without_indexes(owner):
        await crowd.grow(owner, 1, ROWS, user_id=BUSY_USER)
    await owner.execute("VACUUM ANALYZE")
    await owner.close()
    connection = await asyncpg.connect(
        cluster.url("hub_app", name),
        server_settings=server_settings("hub reads", 30.0, lock_timeout_s=30.0)
        | PLANNING
        | {TENANT_SETTING: str(crowd.TENANT)},
    )
    yield Filled(connection, cluster.url("hub_owner", name), cluster.url("hub_app", name))
    await connection.close()
    await drop_database(cluster, name)


def sorts_of(listing: Listing) -> list[str]:
    return [*listing.sorts, *(f"-{name}" for name in listing.sorts)]


def cases() -> Iterator[Any]:
    """Every sort in both directions, alone, with every value of every filter, and with the filters that go together."""
    for name, listing in LISTINGS.items():
        asked: list[dict[str, str]] = [{}]
        asked += [{key: value} for key in listing.filters for value in VALUES.get(f"{listing.name}.{key}", ())]
        asked += TOGETHER.get(listing.name, [])
        for filters in asked:
            shown = " ".join(f"{key}={value}" for key, value in filters.items())
            yield pytest.param(name, filters, id=f"{name} {shown}".strip())


def parsed(listing: Listing, sort: str, filters: Mapping[str, str], after: Any = None) -> ListQuery:
    values = {name: listing.filters[name].parse(value) for name, value in filters.items()}
    return ListQuery(extent=None, sort=sort, filters=values, after=after)


async def fault_of(filled: Filled, listing: Listing, query: ListQuery, bound: Mapping[str, Any]) -> str:
    """What is wrong with how the page is found; empty where nothing is."""
    values = {**bound, **listing.parameters(query)}
    try:
        plan = await filled.plan(listing, query, values)
    except asyncpg.UndefinedFunctionError as error:
        return f"{listing.name}, sort {query.sort}, filters {dict(query.filters)}: {error}"
    fault = _fault_of_plan(listing, query, plan)
    return fault and f"{listing.name}, sort {query.sort}, filters {dict(query.filters)}: {fault}"


def _fault_of_plan(listing: Listing, query: ListQuery, plan: Plan) -> str:
    """A page that is planned by value may be found by the sort's index instead: where many rows match, or where there
    are few at all. What is searched for may be gathered by any index that finds few to look at."""
    wanted = listing.indexes(query)
    is_common = listing.is_planned_by_value(query) and plan.root["Actual Rows"] == SHOWN
    if listing.is_planned_by_value(query):
        wanted |= {listing.sorts[query.sort.removeprefix("-")].index}
    if plan.walks:
        return f"walks through the whole of {plan.walks}"
    any_will_do = len(query.filters) > 1 or listing.may_be_walked(query)
    if not wanted & plan.indexes and not (any_will_do and plan.rows_in_vain <= IN_VAIN):
        return f"none of {sorted(wanted)} finds it, but {sorted(plan.indexes)}"
    if plan.rows_in_vain > IN_VAIN and not is_common:
        return f"{plan.rows_in_vain:.0f} rows are fetched in vain by {sorted(plan.indexes)}"
    if plan.rows_sorted > SORTED and not is_common:
        return f"{plan.rows_sorted:.0f} rows are sorted, found by {sorted(plan.indexes)}"
    return ""


IN_VAIN = 4 * SHOWN
"""Trigrams and pairs of filters find some rows too many; what has an order of its own finds none."""
SORTED = 4 * SHOWN


@pytest.mark.parametrize(("name", "filters"), sampled(cases(), every=6))
async def test_a_page_is_found_by_the_index_that_its_list_declares(
    filled: Filled, name: str, filters: dict[str, str]
) -> None:
    listing = LISTINGS[name]
    for places in [{}, *OTHER_PLACES.get(name, [])]:
        bound = PLACES | places
        for sort in sorts_of(listing):
            query = parsed(listing, sort, filters)
            assert await fault_of(filled, listing, query, bound) == ""
            deep = await at_depth(filled, listing, query, bound)
            if deep is not None:
                assert await fault_of(filled, listing, deep, bound) == ""


async def at_depth(filled: Filled, listing: Listing, query: ListQuery, bound: Mapping[str, Any]) -> ListQuery | None:
    """The page nine tenths into the list; None where all of it is on the first."""
    values = {**bound, **listing.parameters(query), "page_limit": ROWS}
    rows = await filled.rows(listing.statement(query), values)
    if len(rows) <= SHOWN:
        return None
    row = rows[len(rows) * 9 // 10]
    after = (row[listing.sort_position(query.sort)], row[0])
    return ListQuery(extent=None, sort=query.sort, filters=query.filters, after=after)


# --- what the planner is told ---


UNIQUE = {
    "invitations.email_key",
    "users.email_key",
    "roles.name_key",
    "groups.name_key",
    "service_accounts.name_key",
    "oauth_clients.name_key",
    "api_keys.prefix",
    "data_sources.name_key",
}
"""Of these a tenant has one row for each value, and an index that says so."""


async def test_of_every_column_that_is_narrowed_by_the_planner_is_told_how_many_values_it_has(filled: Filled) -> None:
    """Where ANALYZE has seen one value alone, the plan for any value walks: 1.4 s for the events about a resource that
    there is nothing about."""
    told = await filled.as_owner(
        """SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE 'n_distinct=20' = ANY (attoptions)"""
    )
    asked = {
        str(condition.left.expression)
        for listing in LISTINGS.values()
        for filter_ in listing.filters.values()
        if isinstance(condition := filter_.where("value"), BinaryExpression)
        and condition.operator is operator.eq
        and not filter_.along
    }
    assert len(asked) >= 15
    assert asked - {row[0] for row in told} == UNIQUE & asked


# --- what is searched for: along the list, or gathered ---


SEARCHED = {"users.USERS": USERS, "roles.ROLES": ROLES, "sources.DATA_SOURCES": DATA_SOURCES}
FEW = 5
"""On a page: so that among `ROWS` some texts are frequent enough to be walked for."""


@pytest.fixture(scope="module")
async def reads(filled: Filled) -> AsyncIterator[Reads]:
    made = Reads(filled.app_url, pool_size=3, timeout_s=30)
    yield made
    made.close()


async def shown_of(filled: Filled, reads: Reads, listing: Listing, query: ListQuery) -> tuple[list[Any], list[Any]]:
    """The ids of the page, and those that a look at every row finds."""
    bound = PLACES | listing.parameters(query)
    shown = [row[0] for row in await reads.rows_of_page(listing, query, bound, await reads.way(listing, query, bound))]
    everything = listing.statement(msgspec.structs.replace(query, after=None))
    rows = await filled.rows(everything, bound | {"page_limit": ROWS})
    ids = [row[0] for row in rows]
    start = ids.index(query.after[1]) + 1 if query.after else 0
    return shown, ids[start : start + query.limit + 1]


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("text", sampled(["parcels", "of", "a", "e", "-", ".", "p", "9a", "no such text"], every=4))
async def test_a_search_shows_the_same_rows_whichever_way_it_goes(
    filled: Filled, reads: Reads, name: str, text: str
) -> None:
    """Walked for, walked for in vain and then gathered, and gathered at once; the second page as the first."""
    listing = SEARCHED[name]
    for sort in sorts_of(listing):
        query = ListQuery(extent=None, sort=sort, filters={"q": text}, limit=FEW)
        shown, wanted = await shown_of(filled, reads, listing, query)
        assert shown == wanted
        rows = await filled.rows(listing.statement(query), PLACES | listing.parameters(query))
        if len(rows) > FEW:
            last = (rows[FEW - 1][listing.sort_position(sort)], rows[FEW - 1][0])
            shown, wanted = await shown_of(filled, reads, listing, msgspec.structs.replace(query, after=last))
            assert shown == wanted


@pytest.mark.parametrize("name", [name for name, listing in LISTINGS.items() if "q" in listing.filters])
@pytest.mark.parametrize("form", ["inside", "at_the_beginning", "of_symbols"])
async def test_what_is_searched_for_is_found_by_the_index_of_its_list(filled: Filled, name: str, form: str) -> None:
    """By the function of the owner that looks in it: for the application row-level security comes first, and then no index
    is of use for what is like something."""
    index = LISTINGS[name].filters["q"].index
    (body,) = await filled.as_owner(f"SELECT prosrc FROM pg_proc WHERE proname = 'found_by_{index}'")
    statement = body["prosrc"].partition(f"WHEN '{form}' THEN RETURN QUERY")[2].partition(";")[0]
    asked = {"tenant_id = tenant": f"tenant_id = '{crowd.TENANT}'", "pattern": "'no such text'", "asked": "'~~~'"}
    for variable, value in asked.items():
        statement = re.sub(rf"\b{variable}\b", value, statement)
    explained = await filled.as_owner("SET enable_seqscan = off", f"EXPLAIN (FORMAT JSON) {statement}")
    assert f'"Index Name": "{index}"' in explained[0][0]


@pytest.mark.parametrize("name", [name for name, listing in LISTINGS.items() if "q" in listing.filters])
async def test_both_forms_of_a_search_mean_the_same_rows(filled: Filled, name: str) -> None:
    """That of the function, and that in which rows are looked at one by one."""
    listing = LISTINGS[name]
    for text in ("parcels", "of", "a", "-", ".", "p", "no such text"):
        query = ListQuery(sort=listing.default_sort, filters={"q": text}, limit=200, extent=None)
        bound = PLACES | listing.parameters(query)
        found = await filled.rows(listing.statement(query), bound)
        looked = await filled.rows(listing.look_statement(query), bound)
        assert [row[0] for row in found] == [row[0] for row in looked]


def test_a_search_that_finds_more_than_other_filters_leave_looks_at_those() -> None:
    assert way_of(51, 0.5, 1_000, 1_000_000).looks
    assert not way_of(51, 0.0005, 1_000, 1_000_000).looks
    assert not way_of(51, 0.5, 1_000_000, 1_000_000).looks
    assert way_of(51, 0.9, 1_000_000, 1_000_000).walk_rows


async def test_a_walk_looks_at_no_more_rows_than_it_was_given(filled: Filled) -> None:
    """`parcels` stand together in the order of names, behind two thirds of the others."""
    query = ListQuery(extent=None, sort="-name", filters={"q": "parcels"}, limit=FEW)
    for given in (20, 100, 500):
        values = PLACES | ROLES.parameters(query) | {"walk_rows": given}
        plan = await plan_of(filled.connection, ROLES.walk_statement(query), values, by_value=True)
        walked = [node for node in plan.nodes() if node.get("Index Name") == "roles_tenant_id_name_key_id_idx"]
        assert walked
        assert plan.rows_in_vain <= given + 1
        assert "roles_search_idx" not in plan.indexes


@pytest.mark.parametrize("rows", [1_000, 100_000, 1_000_000, 50_000_000])
def test_a_walk_in_vain_costs_no_more_than_what_comes_after_it(rows: int) -> None:
    """And one for what is scattered evenly gets to its end."""
    for matching in (0, 1, 100, rows // 1000, rows // 100, rows // 10, rows):
        walked = walk_rows(SHOWN, matching, rows)
        assert walked * GATHERED_IN_ITS_PLACE <= matching
        assert walked == 0 or walked >= SHOWN * rows / matching
        assert walked <= UNEVENLY * SHOWN * rows / max(matching, 1)


def test_what_is_rare_is_gathered_at_once_and_what_is_frequent_walked_for() -> None:
    assert [walk_rows(SHOWN, matching, 1_000_000) for matching in (0, 100, 5_000, 12_000)] == [0, 0, 0, 0]
    assert walk_rows(SHOWN, 100_000, 1_000_000) == 2_040
    assert walk_rows(SHOWN, 1_000_000, 1_000_000) == 204


# --- what forgets its index is named ---


def test_every_list_of_a_route_is_held_to_this() -> None:
    asked = {handler.opt["access"].listing for handler in handlers()} - {None}
    assert len(asked) >= 10
    assert {listing.name for listing in asked} <= {listing.name for listing in LISTINGS.values()}


UNLISTED = {
    "set_approvers": "answers what it was told",
    "list_permissions": "in memory",
    "list_types": "in memory",
    "get_approvers": "at most fifty ids, in one row each",
    "list_providers": "in memory, and a tenant's few",
    "list_identity_providers": "likewise",
    "list_identities": "a person's few",
    "list_effective_permissions": "of several tables, page by page by a statement of its own",
    "list_access_to_source": "as that",
    "list_access_to_domain": "as that",
}


def test_every_route_that_answers_a_page_has_a_list() -> None:
    """A select of one's own would have neither cursor nor index."""
    pages = {
        handler.handler_name: handler.opt["access"].listing
        for handler in handlers()
        if "Page[" in str(handler.parsed_fn_signature.return_type.raw)
    }
    assert len(pages) >= len(LISTINGS)
    assert {name for name, listing in pages.items() if listing is None} == set(UNLISTED)


def handlers() -> Iterator[Any]:
    for route in application().routes:
        yield from (handler for handler in getattr(route, "route_handlers", ()) if "access" in handler.opt)


def test_every_filter_is_asked_for_values_that_many_few_and_no_rows_have() -> None:
    declared = {f"{listing.name}.{name}" for listing in LISTINGS.values() for name in listing.filters}
    assert declared == set(VALUES)
    assert all(len(values) >= 2 for values in VALUES.values())


def roles_with(**filters: Filter) -> Listing:
    return Listing(
        ROLES.selection, name="roles", id_column=Role.id, sorts=ROLES.sorts, default_sort="name", filters=filters
    )


FORGOTTEN = {
    "an index that there is not": text_filter(Role.description, index="roles_description_{sort}_idx"),
    "the index of something else": text_filter(Role.description, index="roles_tenant_id_name_key_id_idx"),
    "no order behind the filter": text_filter(Role.description, index="roles_owner_role_id_idx"),
    "a search without trigrams": search_filter(Role.description, index="roles_name_key"),
    "a filter by hand": Filter(
        where=lambda name: Role.permissions.any(bindparam(name, type_=Text())),  # type: ignore[arg-type]
        parse=str,
        schema={"type": "string"},
        index="roles_pkey",
    ),
}


@pytest.mark.parametrize("given", FORGOTTEN)
async def test_a_filter_that_no_index_serves_is_named(filled: Filled, given: str) -> None:
    listing = roles_with(description=FORGOTTEN[given])
    faults = [
        await fault_of(filled, listing, parsed(listing, sort, {"description": "no such text"}), PLACES)
        for sort in sorts_of(listing)
    ]
    assert all(faults), faults
    assert all("roles, sort" in fault and "'description'" in fault for fault in faults)


@pytest.mark.parametrize("index", ["users_first_name_idx", "users_tenant_id_email_key_id_idx", "users_pkey"])
async def test_a_sort_that_no_index_serves_is_named(filled: Filled, index: str) -> None:
    listing = Listing(
        USERS.selection,
        name="users",
        id_column=User.id,
        sorts={"first_name": Sort(User.first_name, index)},
        default_sort="first_name",
    )
    for sort in sorts_of(listing):
        assert "users, sort" in await fault_of(filled, listing, ListQuery(extent=None, sort=sort), PLACES)


def test_a_filter_or_sort_without_an_index_is_no_definition() -> None:
    for forgetful in (
        lambda: text_filter(Role.description),  # type: ignore[call-arg]
        lambda: Filter(where=lambda name: Role.id == name, parse=str, schema={}),  # type: ignore[call-arg]
        lambda: Sort(Role.description),  # type: ignore[call-arg]
        lambda: roles_with(description=text_filter(Role.description, index="")),
        lambda: Listing(
            ROLES.selection,
            name="roles",
            id_column=Role.id,
            sorts={"name": Role.name_key},  # type: ignore[dict-item]
            default_sort="name",
        ),
    ):
        with pytest.raises((TypeError, AttributeError)):
            forgetful()


# --- rows without a value ---


TESTED = Listing(
    select(DataSource.id, DataSource.last_tested_at).where(DataSource.tenant_id == bindparam("tenant_id")),
    name="tested",
    id_column=DataSource.id,
    sorts={"last_tested_at": Sort(DataSource.last_tested_at, "data_sources_last_tested_idx")},
    default_sort="-last_tested_at",
    filters={"status": text_filter(DataSource.status, index="data_sources_status_{sort}_idx")},
)


@pytest.fixture(scope="module")
async def partly_tested(filled: Filled) -> None:
    """Two of three sources were never tested, and some of the others at one moment."""
    never = LEAST_VALUES[datetime]
    await filled.as_owner(
        "UPDATE data_sources SET last_tested_at = '2025-06-01Z'::timestamptz + get_byte(uuid_send(id), 15) / 4 * interval '1 day'"
        " WHERE get_byte(uuid_send(id), 15) % 3 = 0",
        f"CREATE INDEX data_sources_last_tested_idx ON data_sources (tenant_id, coalesce(last_tested_at, {never}), id)",
        "CREATE INDEX data_sources_status_last_tested_at_idx ON data_sources"
        f" (tenant_id, status, coalesce(last_tested_at, {never}), id)",
        "VACUUM ANALYZE data_sources",
    )


@pytest.mark.usefixtures("partly_tested")
@pytest.mark.parametrize("asked", [b"", b"sort=last_tested_at", b"status=passed", b"status=passed&sort=last_tested_at"])
async def test_a_list_sorted_by_what_may_be_null_shows_every_row_once(filled: Filled, asked: bytes) -> None:
    """From cursor to cursor, as a client does; what was never tested comes last where it is descending."""
    narrowed = " WHERE status = 'passed'" if b"status" in asked else ""
    wanted = await filled.as_owner(f"SELECT id, last_tested_at FROM data_sources{narrowed}")
    shown: list[Any] = []
    cursor = b""
    while True:
        query = TESTED.parse(b"&".join(filter(None, (asked, b"limit=200", cursor))))
        rows = await filled.rows(TESTED.statement(query), PLACES | TESTED.parameters(query))
        shown += rows[:200]
        if len(rows) <= 200:
            break
        cursor = b"cursor=" + TESTED.cursor_after(query, rows[199]).encode()
    assert len(shown) == len(wanted) > 500
    assert {row[0]: row[1] for row in shown} == {row["id"]: row["last_tested_at"] for row in wanted}
    moments = [row[1] for row in shown if row[1] is not None]
    nulls = [None] * (len(shown) - len(moments))
    is_descending = b"sort" not in asked
    assert min(len(moments), len(nulls)) > 200
    assert [row[1] for row in shown] == (moments + nulls if is_descending else nulls + moments)
    assert moments == sorted(moments, reverse=is_descending)


@pytest.mark.usefixtures("partly_tested")
@pytest.mark.parametrize("sort", ["last_tested_at", "-last_tested_at"])
@pytest.mark.parametrize("filters", [{}, {"status": "passed"}, {"status": "nothing"}])
async def test_a_list_sorted_by_what_may_be_null_is_found_by_its_index(
    filled: Filled, sort: str, filters: dict[str, str]
) -> None:
    query = parsed(TESTED, sort, filters)
    assert await fault_of(filled, TESTED, query, PLACES) == ""
    deep = await at_depth(filled, TESTED, query, PLACES)
    assert deep is None or await fault_of(filled, TESTED, deep, PLACES) == ""


def test_a_sort_whose_nulls_nothing_can_stand_for_is_no_definition() -> None:
    with pytest.raises(TypeError, match="nothing can stand for its nulls"):
        Listing(
            select(DataSource.id),
            name="sources",
            id_column=DataSource.id,
            sorts={"fingerprint": Sort(DataSource.fingerprint, "data_sources_fingerprint_idx")},
            default_sort="fingerprint",
        )


def test_a_sort_by_an_expression_is_no_definition() -> None:
    """Nobody could say whether it may be null."""
    with pytest.raises(TypeError, match="sorted by a column"):
        Listing(
            select(Role.id),
            name="roles",
            id_column=Role.id,
            sorts={"name": Sort(literal_column("1"), "roles_pkey")},
            default_sort="name",
        )
