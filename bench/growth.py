"""How the time of a page grows with the table: every list, filter, sort and search, and the page at nine tenths."""

import asyncio
import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import asyncpg

from app.core import embedded
from app.core.database import server_settings
from app.core.lists.listing import Listing, ListQuery
from app.core.lists.parameters import MAX_LIMIT
from app.core.reads import PLANNING, compiled
from app.core.tenancy import TENANT_SETTING
from app.domain.audit.repositories import AUDIT_EVENTS
from app.domain.auth.repositories import SESSIONS
from app.domain.jobs.repositories import JOBS
from app.domain.roles.repositories import ROLES
from app.domain.source_work.repositories import OBJECTS, TESTS
from app.domain.sources.repositories import DATA_SOURCES
from app.domain.users.repositories import MEMBERS, ROLES_OF_USER, USERS
from bench import contestants, crowd, questions
from bench.contestants import Server
from bench.footprint import data_folder
from bench.page import Findings
from bench.plans import plan_of_page
from bench.report import Bound, table
from bench.rounds import Bench
from bench.seeding import HubClient, sign_in

FILE = "GROWTH.md"
SIZES = (1_000, 100_000, 1_000_000)
GOAL = 4.0
TIMES = 10
"""A page is asked for until so many answers in a row were no quicker than the quickest, which counts: neighbours on the
machine only ever add."""
LEAST_TIMES, LONG_ENOUGH_MS = 3, 2_000.0
"""A page that is slow beyond doubt is asked for less often: it would be most of the bench."""
DEPTH = 0.9
SHOWN = 30
"""Pages on the page of results."""


@dataclass
class Question:
    """One page of one list."""

    listing: Listing
    path: str
    parameters: Mapping[str, str]
    is_deep: bool = False
    milliseconds: list[float] = field(default_factory=list)
    """By the sizes of the tables, in their order."""
    index: str = ""
    """What finds it in the largest."""

    @property
    def name(self) -> str:
        asked = " ".join(f"{key}={value}" for key, value in self.parameters.items() if key != "cursor")
        return f"{self.path} {asked}{f', at {DEPTH:.0%}' if self.is_deep else ''}".strip()

    @property
    def ratio(self) -> float:
        return self.milliseconds[-1] / self.milliseconds[0]


def measure(bench: Bench, sizes: Sequence[int]) -> Findings:
    with (
        data_folder() as data_dir,
        Server(
            contestants.hub(data_dir, {"HUB_HISTORY_DAYS": "3650"}, "--no-worker"), data_dir.parent / "hub.log"
        ) as hub,
        embedded.running(data_dir) as database,
    ):
        asked = asyncio.run(_measure(bench, hub.url, database.superuser_url, database.app_url, sizes))
    return _findings(asked, sizes)


async def _measure(bench: Bench, url: str, superuser_url: str, app_url: str, sizes: Sequence[int]) -> list[Question]:
    user_id = UUID(sign_in(url).get("/auth/me")["user"]["id"])
    owner = await asyncpg.connect(superuser_url)
    await owner.execute("SET session_replication_role = replica")  # what references and triggers would say is known
    settings = server_settings("bench", 600.0, lock_timeout_s=600.0) | PLANNING | {TENANT_SETTING: str(crowd.TENANT)}
    reader = await asyncpg.connect(app_url, server_settings=settings)
    await crowd.make_places(owner)
    asked, done = list(_questions(user_id)), 0
    for size in sizes:
        bench.tell(f"growth: filling up to {size:,} rows")
        async with crowd.without_indexes(owner):
            await crowd.grow(owner, done + 1, size, user_id=user_id)
        await owner.execute("VACUUM ANALYZE")
        done = size
        client = sign_in(url)
        for number, question in enumerate(asked):
            if number % 100 == 0:
                bench.tell(f"growth: {size:,} rows, page {number} of {len(asked)}")
            await _ask(client, reader, question, size, user_id)
    for question in asked:
        question.index = await _index_of(reader, question, user_id)
    await owner.close()
    await reader.close()
    return [question for question in asked if len(question.milliseconds) == len(sizes)]


def _questions(user_id: UUID) -> Iterator[Question]:
    values, together = questions.values(user_id), questions.together(user_id)
    for listing, path in _paths(user_id):
        asked: list[dict[str, str]] = [{}]
        asked += [{name: value} for name in listing.filters for value in values[f"{listing.name}.{name}"]]
        asked += together.get(listing.name, [])
        for filters in asked:
            for sort in (*listing.sorts, *(f"-{name}" for name in listing.sorts)):
                yield Question(listing, path, {**filters, "sort": sort})
        for sort in (*listing.sorts, *(f"-{name}" for name in listing.sorts)):
            yield Question(listing, path, {"sort": sort}, is_deep=True)


def _paths(user_id: UUID) -> Iterator[tuple[Listing, str]]:
    yield USERS, "/users"
    yield ROLES, "/roles"
    yield DATA_SOURCES, "/data-sources"
    yield JOBS, "/jobs"
    yield AUDIT_EVENTS, "/audit-events"
    yield SESSIONS, "/auth/sessions"
    yield TESTS, f"/data-sources/{crowd.CROWDED_SOURCE}/tests"
    yield OBJECTS, f"/data-sources/{crowd.CROWDED_SOURCE}/objects"
    yield ROLES_OF_USER, f"/users/{user_id}/roles"
    for role_id in (crowd.CROWDED_ROLE, crowd.SMALL_ROLE):
        yield MEMBERS, f"/roles/{role_id}/members"


async def _ask(client: HubClient, reader: Any, question: Question, size: int, user_id: UUID) -> None:
    parameters = dict(question.parameters)
    if question.is_deep:
        cursor = await _cursor_at_depth(reader, question, user_id)
        if cursor is None:
            return
        parameters["cursor"] = cursor
    request = client.request("GET", f"{question.path}?{urlencode(parameters)}")
    host = request.url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=60)
    taken: list[float] = []
    while _may_be_quicker(taken):
        began = time.perf_counter()
        connection.request("GET", request.url.partition(host)[2], headers=dict(request.headers))
        answer = connection.getresponse()
        body = answer.read()
        taken.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise ValueError(f"{question.name} among {size:,}: {answer.status} {json.loads(body)}")
    connection.close()
    question.milliseconds.append(min(taken))


def _may_be_quicker(taken: Sequence[float]) -> bool:
    if len(taken) >= LEAST_TIMES and sum(taken) >= LONG_ENOUGH_MS:
        return False
    return not taken or len(taken) - 1 - taken.index(min(taken)) < TIMES


async def _cursor_at_depth(reader: Any, question: Question, user_id: UUID) -> str | None:
    """As if a client had turned the pages up to there. None where the list is on one page."""
    listing, bound = question.listing, _bound(question, user_id)
    query = _query(question)
    sql, names, own, _ = compiled(listing.statement(query))
    given = {**own, **bound, **listing.parameters(query)}
    arguments = [given[name] for name in names]
    counted = compiled(listing.count_statement(query))
    total = await reader.fetchval(counted.sql, *[given[name] for name in counted.names])
    if total <= query.limit + 1:
        return None
    far = sql.replace(f"LIMIT {MAX_LIMIT + 1}", f"OFFSET {int(total * DEPTH)} LIMIT 1")
    row = await reader.fetchrow(far, *arguments)
    return listing.cursor_after(query, row)


async def _index_of(reader: Any, question: Question, user_id: UUID) -> str:
    query = _query(question)
    values = {**_bound(question, user_id), **question.listing.parameters(query)}
    plan = await plan_of_page(reader, question.listing, query, values)
    declared = question.listing.indexes(query) | {sort.index for sort in question.listing.sorts.values()}
    return ", ".join(sorted(plan.indexes & declared)) or "none that is declared"


def _query(question: Question) -> ListQuery:
    return question.listing.parse(urlencode(dict(question.parameters)).encode()).within(None)


def _bound(question: Question, user_id: UUID) -> dict[str, Any]:
    places = questions.places(user_id)
    if question.listing is MEMBERS:
        places["member_role_id"] = UUID(question.path.split("/")[2])
    return places


def _findings(asked: Sequence[Question], sizes: Sequence[int]) -> Findings:
    beyond = sum(question.ratio > GOAL for question in asked)
    worst = sorted(asked, key=lambda question: -question.ratio)
    said = (
        f"While the rows of every list grow from {sizes[0]:,} to {sizes[-1]:,}. Whole requests, one after the other, "
        f"until {TIMES} were no quicker than the quickest, which counts: neighbours on the machine only ever add. "
        f"`count=exact` is exempt: it counts."
    )
    pages = f"The {min(SHOWN, len(worst))} pages that grow most; all of them stand in {FILE}."
    return Findings(
        bounds=[Bound(f"pages that take more than {GOAL:g} x as long", beyond, 0, f"of {len(asked)}")],
        text="\n\n".join([said, _by_list(worst), pages, _pages(worst[:SHOWN], sizes)]),
        files={FILE: f"# Growth, page by page\n\n{said}\n\n{_pages(worst, sizes)}\n"},
    )


def _by_list(worst: Sequence[Question]) -> str:
    lists: dict[str, list[Question]] = {}
    for question in worst:
        lists.setdefault(question.listing.name, []).append(question)
    head = ["list", "pages", f"within {GOAL:g} x", "grows most", "median", "slowest of the largest, ms"]
    rows = [
        [
            name,
            str(len(pages)),
            str(sum(page.ratio <= GOAL for page in pages)),
            f"{pages[0].ratio:.1f} x",
            f"{median(page.ratio for page in pages):.1f} x",
            f"{max(page.milliseconds[-1] for page in pages):.1f}",
        ]
        for name, pages in lists.items()
    ]
    return table(head, rows)


def _pages(asked: Sequence[Question], sizes: Sequence[int]) -> str:
    head = ["page", *(f"ms among {size:,}" for size in sizes), "ratio", "found by"]
    rows = [
        [
            question.name.replace(str(crowd.CROWDED_SOURCE), "{id}").replace("|", "\\|"),
            *(f"{value:.1f}" for value in question.milliseconds),
            f"{question.ratio:.1f}",
            question.index,
        ]
        for question in asked
    ]
    return table(head, rows)
