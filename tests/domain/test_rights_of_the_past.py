"""Any moment: what was answered live is what is answered when that moment is asked about later
(openspec/specs/authorization/spec.md)."""

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.domain.tenants.models import DEFAULT_TENANT_ID
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.test_authz_check import asked, on_domain, on_source
from tests.domain.test_scoped_rights import READ, WRITE, Rights
from tests.domain.test_scoped_rights import rights as rights
from tests.sampling import sampled

pytestmark = pytest.mark.anyio

ACTIONS = (READ, WRITE)
STEPS = 40
BUNDLES: tuple[list[str], ...] = ([], [READ], ["roles:read"], [READ, WRITE], [READ, WRITE, "roles:read"])


class World:
    """Some people, groups, roles, domains and sources, and every kind of change of what rights hang on."""

    def __init__(self, hub: Hub, rights: Rights, records: Records, seed: int) -> None:
        self.hub, self.rights, self.records = hub, rights, records
        self.chance = random.Random(seed)
        self.people: dict[str, httpx.AsyncClient] = {}
        self.groups = [str(uuid4()) for _ in range(2)]
        self.roles: list[str] = []
        self.domains: list[UUID] = []
        self.sources: list[str] = []
        self.inactive: set[str] = set()

    async def prepare(self) -> None:
        for _ in range(2):
            user, client = await self.rights.person()
            self.people[user] = client
        for _ in range(3):
            self.roles.append(await self.rights.role(*self.chance.choice(BUNDLES)))
        for parent in (None, 0, None):
            self.domains.append(await self.rights.domain(None if parent is None else self.domains[parent]))
        for _ in range(3):
            self.sources.append(await self.rights.source(self.chance.choice(self.domains)))

    async def change(self) -> str:
        changes: list[Callable[[], Awaitable[None]]] = [
            *[self.give] * 5,
            *[self.join_or_leave] * 2,
            self.end,
            self.change_role,
            self.replace_role,
            self.move_source,
            self.own_source,
            self.own_domain,
            self.move_domain,
            self.delete_source,
            self.turn_off_or_on,
        ]
        change = self.chance.choice(changes)
        await change()
        self.hub.parts.principals._drop_all()
        return change.__name__

    async def give(self) -> None:
        subject_type, subject = self.chance.choice(
            [*(("user", user) for user in self.people), *(("group", group) for group in self.groups)]
        )
        kind, scope = self.chance.choice(
            [
                ("", None),
                *(("data_domain", each) for each in self.domains),
                *(("data_source", each) for each in self.sources),
            ]
        )
        await self.end_where(
            "subject_id = $2::uuid AND role_id = $3::uuid AND scope_id IS NOT DISTINCT FROM $4::uuid",
            subject,
            role := self.chance.choice(self.roles),
            None if scope is None else str(scope),
        )
        starts_at = {"starts_at": "statement_timestamp()"}
        await self.rights.give(subject, role, scope, kind, subject_type=subject_type, **starts_at)

    async def end_where(self, condition: str, *values: Any) -> None:
        await self.records.run(
            f"""UPDATE role_assignments SET ended_at = statement_timestamp()
                WHERE tenant_id = $1 AND ended_at IS NULL AND {condition}""",
            DEFAULT_TENANT_ID,
            *values,
        )

    async def end(self) -> None:
        await self.end_where(
            "subject_id = $2::uuid AND role_id = $3::uuid",
            self.chance.choice([*self.people, *self.groups]),
            self.chance.choice(self.roles),
        )

    async def join_or_leave(self) -> None:
        group, user = self.chance.choice(self.groups), self.chance.choice(list(self.people))
        left = await self.records.run(
            """UPDATE group_members SET ended_at = statement_timestamp()
               WHERE group_id = $1::uuid AND user_id = $2::uuid AND ended_at IS NULL RETURNING id""",
            group,
            user,
        )
        if not left:
            await self.records.run(
                """INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at)
                   VALUES (gen_random_uuid(), $1, $2::uuid, $3::uuid, statement_timestamp())""",
                DEFAULT_TENANT_ID,
                group,
                user,
            )

    async def change_role(self) -> None:
        body = {"permissions": self.chance.choice(BUNDLES)}
        answer = await self.hub.admin.patch(f"/api/v1/roles/{self.chance.choice(self.roles)}", json=body)
        assert answer.status_code == 200, answer.text

    async def replace_role(self) -> None:
        role = self.chance.choice(self.roles)
        await self.records.run("UPDATE data_sources SET owner_role_id = NULL WHERE owner_role_id = $1::uuid", role)
        await self.records.run("UPDATE data_domains SET owner_role_id = NULL WHERE owner_role_id = $1::uuid", role)
        assert (await self.hub.admin.delete(f"/api/v1/roles/{role}")).status_code == 204
        self.roles[self.roles.index(role)] = await self.rights.role(*self.chance.choice(BUNDLES))

    async def move_source(self) -> None:
        domain = self.chance.choice([None, *self.domains])
        await self.records.run(
            "UPDATE data_sources SET data_domain_id = $1 WHERE id = $2::uuid", domain, self.chance.choice(self.sources)
        )

    async def own(self, table: str, thing: str) -> None:
        role = self.chance.choice([None, *self.roles])
        await self.records.run(f"UPDATE {table} SET owner_role_id = $1::uuid WHERE id = $2::uuid", role, thing)
        await self.records.run("UPDATE roles SET is_owner = true WHERE id = $1::uuid", role)

    async def own_source(self) -> None:
        await self.own("data_sources", self.chance.choice(self.sources))

    async def own_domain(self) -> None:
        await self.own("data_domains", str(self.chance.choice(self.domains)))

    async def move_domain(self) -> None:
        """The second one: below the first, below the third, or at the top."""
        moved, parent = self.domains[1], self.chance.choice([None, self.domains[0], self.domains[2]])
        await self.records.run(
            """UPDATE data_domains SET parent_id = $1, lineage = coalesce(
                 (SELECT above.lineage FROM data_domains AS above WHERE above.id = $1), '{}') || $2::uuid
               WHERE id = $2""",
            parent,
            moved,
        )

    async def delete_source(self) -> None:
        source = self.chance.choice(self.sources)
        await self.end_where("scope_id = $2::uuid", source)
        assert (await self.hub.admin.delete(f"/api/v1/data-sources/{source}")).status_code == 204
        self.sources[self.sources.index(source)] = await self.rights.source(self.chance.choice(self.domains))

    async def turn_off_or_on(self) -> None:
        """In the database, so that their sessions stay."""
        user = self.chance.choice(list(self.people))
        self.inactive ^= {user}
        await self.records.run("UPDATE users SET is_active = $1 WHERE id = $2::uuid", user not in self.inactive, user)

    def checks(self) -> list[dict[str, Any]]:
        things = [*(on_source(action, each) for each in self.sources for action in ACTIONS)]
        things += [on_domain(action, each) for each in self.domains for action in ACTIONS]
        return [*({"action": action} for action in (*ACTIONS, "roles:read")), *things]


def in_order(results: list[dict[str, Any]]) -> list[tuple[bool, list[str]]]:
    return [(result["allowed"], sorted(map(str, result["via"]))) for result in results]


def about(user: str, checks: list[dict[str, Any]], at: datetime | None = None) -> list[dict[str, Any]]:
    return [each | {"user_id": user} | ({"at": at.isoformat()} if at else {}) for each in checks]


async def lines(hub: Hub, path: str, at: datetime | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while cursor is not None or not found:
        params = {"limit": "7"} | ({"cursor": cursor} if cursor else {}) | ({"at": at.isoformat()} if at else {})
        answer = await hub.admin.get(path, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found, cursor = found + page["items"], page["next_cursor"]
        if not page["items"]:
            break
    return sorted(({**each, "via": sorted(map(str, each["via"]))} for each in found), key=str)


@pytest.mark.parametrize("seed", sampled(range(3), every=3))
async def test_every_moment_is_answered_later_as_it_was_live(
    hub: Hub, rights: Rights, records: Records, seed: int
) -> None:
    world = World(hub, rights, records, seed)
    await world.prepare()
    told: list[tuple[datetime, str, str, list[dict[str, Any]], Any]] = []
    listed: list[tuple[datetime, str, Any]] = []
    done = []
    for _ in range(STEPS):
        done.append(await world.change())
        moment, checks = datetime.now(UTC), world.checks()
        for user, client in world.people.items():
            live = in_order(await asked(hub.admin, *about(user, checks)))
            if user not in world.inactive:
                assert in_order(await asked(client, *checks)) == live, done
            else:
                assert not any(allowed for allowed, _ in live)
            told.append((moment, user, done[-1], checks, live))
        paths = [f"/api/v1/users/{user}/effective-permissions" for user in world.people]
        paths += [f"/api/v1/data-sources/{world.sources[0]}/access", f"/api/v1/data-domains/{world.domains[1]}/access"]
        listed += [(moment, path, await lines(hub, path)) for path in paths]
    assert sum(allowed for *_, live in told for allowed, _ in live) > 50, "too few rights to tell anything"
    for moment, user, change, checks, live in told:
        assert in_order(await asked(hub.admin, *about(user, checks, moment))) == live, change
    for moment, path, before in listed:
        assert await lines(hub, path, moment) == before, path
