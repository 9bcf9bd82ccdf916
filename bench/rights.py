"""What rights cost: checks, lists for whoever holds roles in a part of the tenant, and the end of a role of many."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

import asyncpg

from app.core import embedded
from bench import contestants
from bench.contestants import Server
from bench.footprint import data_folder
from bench.load import Request
from bench.page import Findings
from bench.probe import expect, send
from bench.report import Bound, Goal, Work
from bench.rounds import Bench, Entry
from bench.seeding import HubClient, sign_in


class Crowd(NamedTuple):
    roles: int
    sources: int
    holders: int
    """Of one role."""


CROWD = Crowd(10_000, 100_000, 100_000)
SCOPED = 1_000
"""Assignments of one person, each on a source of its own."""
_TENANT = "00000000-0000-7000-8000-000000000001"
_PASSWORD = "a long sentence for somebody of the bench"
_FLAT = 1 / 1.2
_WITHIN_S = 1.0
_PATIENCE_S = 30.0
_POLL_S = 0.01

ACTIONS = (
    *("data-sources:read", "data-sources:write", "data-sources:test", "data-sources:preview", "roles:read"),
    *("roles:write", "users:read", "users:write", "jobs:read", "audit-events:read"),
)

_ROLES = """
    INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at)
    SELECT ('01930000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $1::uuid, 'crowd ' || i, 'crowd ' || i,
           '{data-sources:read,roles:read}', false, now(), now()
    FROM generate_series(1, $2::int) AS i"""
_SOURCES = """
    INSERT INTO data_sources (id, tenant_id, name, name_key, type, category, config, tags, status, is_paused,
                              created_at, updated_at)
    SELECT ('01940000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $1::uuid, 'shop ' || i, 'shop ' || i,
           'postgresql', 'database', '{"host": "db.example.com"}', '{shop}', 'untested', false,
           now() - i * interval '1 second', now() - i * interval '1 second'
    FROM generate_series(1, $2::int) AS i"""
_SPREAD = """
    INSERT INTO role_assignments (id, tenant_id, subject_type, subject_id, role_id, scope_type, scope_id, starts_at,
                                  created_at, updated_at)
    SELECT gen_random_uuid(), $1::uuid, 'user', $2::uuid, $3::uuid, 'data_source',
           ('01940000-0000-7000-8000-' || lpad(to_hex(i * $5::int), 12, '0'))::uuid, now(), now(), now()
    FROM generate_series(1, $4::int) AS i"""
_CROWD = """
    INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
    SELECT ('01950000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $1::uuid, i || '@crowd.example',
           i || '@crowd.example', 'Ada', 'Number ' || i, true, now(), now()
    FROM generate_series(1, $2::int) AS i"""
_HOLD = """
    INSERT INTO role_assignments (id, tenant_id, subject_type, subject_id, role_id, scope_type, starts_at, created_at,
                                  updated_at)
    SELECT gen_random_uuid(), tenant_id, 'user', id, $2::uuid, 'tenant', now(), now(), now()
    FROM users WHERE tenant_id = $1::uuid AND email LIKE '%@crowd.example'"""
_ANALYZE = "VACUUM ANALYZE roles, users, data_sources, role_assignments"


@dataclass(frozen=True)
class Scene:
    """A hub of its own, and its database from behind."""

    hub: Server
    f0: Server
    database_url: str

    @property
    def admin(self) -> HubClient:
        return sign_in(self.hub.url)

    def run(self, *statements: tuple[object, ...]) -> None:
        asyncio.run(self._run(statements))

    async def _run(self, statements: Sequence[tuple[object, ...]]) -> None:
        connection = await asyncpg.connect(self.database_url)
        for sql, *arguments in statements:
            await connection.execute(sql, *arguments, timeout=600)
        await connection.close()


@dataclass(frozen=True)
class Somebody:
    id: str
    client: HubClient


def measure(bench: Bench, crowd: Crowd) -> Findings:
    with _scene() as (scene, postgres_pid):
        compared = Bench(bench.pace, postgres_pid, bench.tell)
        works = [*_checks(compared, scene, crowd.roles), *_lists(compared, scene, crowd.sources)]
        bench.problems += compared.problems
        return Findings(works, list(_end_of_role(bench, scene, crowd.holders)))


@contextmanager
def _scene() -> Iterator[tuple[Scene, int]]:
    with (
        data_folder() as data_dir,
        Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log") as hub,
        Server(contestants.f0(), data_dir.parent / "f0.log") as f0,
        embedded.running(data_dir) as database,
    ):
        yield Scene(hub, f0, database.superuser_url), database.pid


def _checks(bench: Bench, scene: Scene, roles: int) -> Iterator[Work]:
    body = {"checks": [{"action": action} for action in ACTIONS]}
    work = Work(f"POST /authz/check of {len(ACTIONS)}", [Goal("hub", "F0", 0.35)])
    constant = Request(f"{scene.f0.url}/constant")
    bench.run(work, {"F0": Entry(scene.f0, constant), "hub": Entry(scene.hub, _check(scene.admin, body))})
    yield work
    few, many = "few roles", f"{roles:,} roles"
    flat = Work(f"POST /authz/check of {len(ACTIONS)} among roles", [Goal(many, few, _FLAT)])
    _add_rounds(bench, flat, few, Entry(scene.hub, _check(scene.admin, body)))
    scene.run((_ROLES, _TENANT, roles), (_ANALYZE,))
    _add_rounds(bench, flat, many, Entry(scene.hub, _check(scene.admin, body)))
    yield flat


def _check(client: HubClient, body: object) -> Request:
    return client.request("POST", "/authz/check", body)


def _add_rounds(bench: Bench, work: Work, name: str, entry: Entry) -> None:
    """Not in turn with others: what is compared cannot be there at the same time."""
    expect(entry.request, 200)
    for _ in range(bench.pace.rounds):
        _, sample = bench.measure(entry)
        bench.tell(f"{work.name}: {name}: {sample.per_second:,.0f}/s")
        work.add(name, sample)


def _lists(bench: Bench, scene: Scene, sources: int) -> Iterator[Work]:
    """A page for whoever holds a role on some sources, against one for whoever holds it for the tenant; and a single
    read for whoever holds nothing but that, and besides it a thousand assignments that have nothing to do with it."""
    reading, testing = (_role(scene, name) for name in ("data-sources:read", "data-sources:test"))
    everywhere, here_and_there, laden = (_somebody(scene) for _ in range(3))
    scoped = min(SCOPED, sources)
    step = sources // scoped
    scene.run(
        (_SOURCES, _TENANT, sources),
        (_SPREAD, _TENANT, here_and_there.id, reading, scoped, step),
        (_SPREAD, _TENANT, laden.id, testing, scoped, step),
        (_ANALYZE,),
    )
    for person in (everywhere, laden):
        expect(scene.admin.request("PUT", f"/users/{person.id}/roles/{reading}"), 200)
    page = "/data-sources?limit=50"
    work = Work(f"GET {page}, {scoped:,} scoped among {sources:,}", [Goal("scoped", "unscoped", 1 / 1.5)])
    persons = {"unscoped": everywhere, "scoped": here_and_there}
    bench.run(work, {name: _entry(scene, person, page) for name, person in persons.items()})
    yield work
    one = f"/data-sources/01940000-0000-7000-8000-{sources // 2:012x}"
    single = Work("GET /data-sources/{id}", [Goal(f"with {scoped:,} assignments", "with one", 0.95)])
    persons = {"with one": everywhere, f"with {scoped:,} assignments": laden}
    bench.run(single, {name: _entry(scene, person, one) for name, person in persons.items()})
    yield single


def _entry(scene: Scene, person: Somebody, path: str) -> Entry:
    return Entry(scene.hub, person.client.request("GET", path))


def _role(scene: Scene, *permissions: str) -> str:
    return str(scene.admin.create("/roles", {"name": f"bench {uuid4()}", "permissions": permissions})["id"])


def _somebody(scene: Scene) -> Somebody:
    email = f"{uuid4().hex}@bench.example"
    user = scene.admin.create("/users", {"email": email, "password": _PASSWORD})
    login = scene.admin.request("POST", "/auth/login", {"email": email, "password": _PASSWORD})
    return Somebody(user["id"], HubClient(scene.hub.url, expect(login, 200).json["access_token"]))


def _end_of_role(bench: Bench, scene: Scene, holders: int) -> Iterator[Bound]:
    """How long whoever deletes it waits, and for how long after that answer somebody may still do what it brought."""
    role, person = _role(scene, "jobs:read"), _somebody(scene)
    scene.run((_CROWD, _TENANT, holders), (_HOLD, _TENANT, role), (_ANALYZE,))
    expect(scene.admin.request("PUT", f"/users/{person.id}/roles/{role}"), 200)
    asked = person.client.request("GET", "/jobs")
    expect(asked, 200)
    deleting = scene.admin.request("DELETE", f"/roles/{role}")
    began = time.perf_counter()
    expect(deleting, 204)
    ended = time.perf_counter()
    yield Bound(f"DELETE of a role of {holders:,} holders", ended - began, _WITHIN_S, "s")
    while (status := send(asked).status) == 200 and time.perf_counter() < ended + _PATIENCE_S:
        time.sleep(_POLL_S)
    if status != 403:
        bench.problem(f"the right that ended is answered with {status}")
    yield Bound("until nobody may any more", time.perf_counter() - ended, _WITHIN_S, "s")
