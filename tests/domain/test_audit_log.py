"""The audit log: one row for each write, login and refusal, in the transaction of what it records, and unchangeable."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.domain.conftest import Records, unwritable
from tests.domain.sources import NOWHERE, SOURCES, faults, post_source, registered

pytestmark = pytest.mark.anyio

LOG = "/api/v1/audit-events"
NDJSON, CSV = {"Accept": "application/x-ndjson"}, {"Accept": "text/csv"}


# --- one row each ---


async def test_every_write_has_one_row_that_says_who_what_and_from_where(hub: Hub, records: Records) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    made = await registered(hub)
    path = f"{SOURCES}/{made['id']}"
    calls = {
        "data_source.create": await post_source(hub.admin),
        "data_source.update": await hub.admin.patch(path, json={"description": "x"}),
        "data_source.test": await hub.admin.post(f"{path}/test"),
        "data_source.test_unsaved": await hub.admin.post(
            f"{SOURCES}/test", json={"type": "postgresql", "config": NOWHERE}
        ),
        "data_source.discover": (started := await hub.admin.post(f"{path}/discover")),
        "job.cancel": await hub.admin.post(f"/api/v1/jobs/{started.json()['id']}/cancel"),
        "data_source.delete": await hub.admin.delete(path),
        "role.create": await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex}),
    }
    for action, answer in calls.items():
        assert answer.status_code < 300, answer.text
        rows = await records.audit(answer)
        assert [row["action"] for row in rows] == [action]
        (row,) = rows
        outcome = "failure" if action.startswith("data_source.test") else "success"  # nothing listens there
        assert (row["actor_id"], row["actor_name"], row["outcome"]) == (UUID(me), ADMIN_EMAIL, outcome)
        assert (row["address"], row["request_id"]) == ("127.0.0.1", answer.headers["x-request-id"])
        assert row["resource_type"] == action.partition(".")[0]


async def test_a_row_shows_what_was_before_and_after_without_secrets(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "before-canary"})
    change = {"description": "new", "secrets": {"password": "after-canary"}}
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json=change)
    (row,) = await records.audit(answer)
    assert (row["before"], row["after"]) == (made, answer.json())
    assert "canary" not in str(row)
    user = await hub.admin.post("/api/v1/users", json={"email": f"{uuid4().hex}@example.org", "password": PASSWORD})
    (row,) = await records.audit(user)
    assert PASSWORD not in str(row)
    assert "argon2" not in str(row)


async def test_logins_and_refusals_have_one_row(hub: Hub, records: Records) -> None:
    login = "/api/v1/auth/login"
    good = await hub.client().post(login, json={"email": ADMIN_EMAIL, "password": PASSWORD})
    bad = await hub.client().post(login, json={"email": ADMIN_EMAIL, "password": "not the password"})
    nobody = await hub.user_with()
    refused = await nobody.get(SOURCES)
    assert [(row["outcome"], row["actor_name"]) for row in await records.audit(good)] == [("success", ADMIN_EMAIL)]
    assert [row["outcome"] for row in await records.audit(bad)] == ["failure"]
    (row,) = await records.audit(refused)
    assert (row["outcome"], row["action"], row["detail"]) == (
        "refused",
        "get /api/v1/data-sources",
        "permission_missing",
    )


async def test_what_changed_nothing_has_no_row(hub: Hub, records: Records) -> None:
    made = await registered(hub)
    path = f"{SOURCES}/{made['id']}"
    for answer in (
        await hub.admin.get(path),
        await hub.admin.patch(path, json={"name": ""}),
        await hub.admin.patch(path, json={"name": made["name"]}),
        await hub.admin.patch(path, json={"name": "x"}, headers={"If-Match": '"v9"'}),
        await post_source(hub.admin, name=made["name"]),
        await hub.client().get(path),
    ):
        assert await records.audit(answer) == []


# --- reading it ---


@pytest.fixture(scope="module")
async def story(hub: Hub) -> dict[str, Any]:
    """A source that was made, changed twice and deleted."""
    made = await registered(hub)
    for text in ("a", "b"):
        await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"description": text})
    await hub.admin.delete(f"{SOURCES}/{made['id']}")
    return made


async def events(hub: Hub, **query: str) -> list[dict[str, Any]]:
    answer = await hub.admin.get(LOG, params={"limit": "200", **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_events_come_newest_first_and_are_narrowed(hub: Hub, story: dict[str, Any]) -> None:
    of_source = await events(hub, resource_id=story["id"])
    actions = [event["action"].rpartition(".")[2] for event in of_source]
    assert actions == ["delete", "update", "update", "create"]
    assert await events(hub, resource_id=story["id"], action="data_source.create") == of_source[-1:]
    assert await events(hub, resource_id=story["id"], resource_type="data_source", outcome="success") == of_source
    assert await events(hub, resource_id=story["id"], outcome="refused") == []
    assert await events(hub, resource_id=story["id"], actor_id=of_source[0]["actor_id"]) == of_source
    assert await events(hub, actor_id=str(uuid4())) == []


async def test_events_are_narrowed_by_time(hub: Hub, story: dict[str, Any]) -> None:
    of_source = await events(hub, resource_id=story["id"])
    begin, end = of_source[2]["occurred_at"], of_source[0]["occurred_at"]
    assert await events(hub, resource_id=story["id"], **{"from": begin, "to": end}) == of_source[1:3]
    assert await events(hub, resource_id=story["id"], **{"from": end}) == of_source[:1]
    assert await events(hub, resource_id=story["id"], to=begin) == of_source[3:]


@pytest.mark.parametrize(
    "query",
    ["outcome=ok", "actor_id=5", "from=yesterday", "to=2024-13-01T00:00:00Z", "resource_id=x", "who=me", "sort=action"],
)
async def test_a_filter_that_makes_no_sense_is_a_400_that_names_it(hub: Hub, query: str) -> None:
    answer = await hub.admin.get(f"{LOG}?{query}")
    assert (answer.status_code, list(faults(answer))) == (400, [query.partition("=")[0]])


async def test_the_log_is_asked_for_one_request_and_for_one_address(hub: Hub, records: Records) -> None:
    """Of everything that a client did under one id, and of everything that came from one place."""
    asked = {"X-Request-ID": f"of-{uuid4().hex}"}
    made = await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex}, headers=asked)
    await hub.admin.delete(f"/api/v1/roles/{made.json()['id']}", headers=asked)
    found = await events(hub, request_id=asked["X-Request-ID"])
    assert [event["action"] for event in found] == ["role.delete", "role.create"]
    assert await events(hub, request_id=asked["X-Request-ID"], action="role.create") == found[1:]
    assert await events(hub, request_id=asked["X-Request-ID"].upper()) == []
    await records.run(
        """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome, address)
           VALUES ($1, $2, now(), 'x.elsewhere', 'x', 'success', '2001:db8::7')""",
        uuid4(),
        DEFAULT_TENANT_ID,
    )
    assert [event["action"] for event in await events(hub, address="2001:db8::7")] == ["x.elsewhere"]
    assert {event["address"] for event in await events(hub, address="127.0.0.1")} == {"127.0.0.1"}
    assert await events(hub, address="127.0.0.1", request_id=asked["X-Request-ID"]) == found


async def test_the_log_is_for_those_who_may_read_it(hub: Hub) -> None:
    may, may_not = await hub.user_with("audit-events:read"), await hub.user_with("data-sources:read")
    assert (await may.get(LOG)).status_code == 200
    assert (await may_not.get(LOG)).status_code == 403
    for form in (NDJSON, CSV):
        assert (await may.get(LOG, headers=form, params={"limit": 1})).status_code == 200
        assert (await may_not.get(LOG, headers=form)).status_code == 403
        assert (await hub.client().get(LOG, headers=form)).status_code == 401
    assert (await hub.client().get(LOG)).status_code == 401


async def test_rows_of_another_tenant_are_not_shown(hub: Hub, records: Records) -> None:
    tenant, event = uuid4(), uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'x', true, now(), now())",
        tenant,
        tenant.hex,
    )
    await records.run(
        """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome)
           VALUES ($1, $2, now(), 'foreign.action', 'foreign', 'success')""",
        event,
        tenant,
    )
    assert await events(hub, action="foreign.action") == []
    assert (await hub.admin.get(f"{LOG}?action=foreign.action&count=exact")).json()["total"] == 0
    for form in (NDJSON, CSV):
        assert "foreign.action" not in (await hub.admin.get(LOG, headers=form)).text


# --- unchangeable ---


async def test_nothing_in_the_api_changes_the_log(hub: Hub, story: dict[str, Any]) -> None:
    (event, *_) = await events(hub, resource_id=story["id"])
    for path in (LOG, f"{LOG}/{event['id']}"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await hub.admin.request(method, path, json={})
            assert answer.status_code in (404, 405)
    assert event in await events(hub, resource_id=story["id"])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET action = 'x'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "ALTER TABLE audit_events DISABLE TRIGGER ALL",
        "DROP TABLE audit_events",
        "INSERT INTO audit_events (sequence, id, tenant_id, occurred_at, action, resource_type, outcome) "
        "OVERRIDING USER VALUE SELECT 1, id, tenant_id, now(), 'x', 'x', 'x' FROM audit_events LIMIT 1 "
        "ON CONFLICT (id) DO UPDATE SET action = 'x'",
        "ALTER SEQUENCE audit_events_sequence_seq RESTART",
    ],
)
async def test_the_application_role_cannot_alter_the_log(hub: Hub, statement: str) -> None:
    async with hub.parts.reads.connection(None, DEFAULT_TENANT_ID) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


# --- no record, no change ---


async def test_what_cannot_be_recorded_does_not_happen(hub: Hub, records: Records, cluster: EmbeddedPostgres) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path = f"{SOURCES}/{made['id']}"
    job = (await hub.admin.post(f"{path}/discover")).json()
    _, before = await records.mark()
    calls = [
        post_source(hub.admin, name="Unrecorded"),
        hub.admin.patch(path, json={"description": "x", "secrets": {"password": "new"}}),
        hub.admin.post(f"{path}/test"),
        hub.admin.post(f"/api/v1/jobs/{job['id']}/cancel"),
        hub.admin.delete(path),
        hub.client().post("/api/v1/auth/login", json={"email": ADMIN_EMAIL, "password": PASSWORD}),
    ]
    async with unwritable(hub, cluster):
        answers = [await call for call in calls]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "audit" not in answer.text
    assert (await hub.admin.get(path)).json() == made
    assert (await hub.admin.get(f"{path}/tests")).json()["items"] == []
    assert (await hub.admin.get(f"/api/v1/jobs/{job['id']}")).json()["status"] == "queued"
    assert (await hub.admin.get(f"{SOURCES}?name=unrecorded")).json()["items"] == []
    assert (await records.mark())[1] == before
