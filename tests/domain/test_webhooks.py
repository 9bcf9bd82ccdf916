"""Webhooks as requests see them: who may make one, what is shown of it, and where it may lead."""

import asyncio
import base64
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from msgspec import structs

from app.domain.resealing import count_unopened, reseal, secrets_by_key
from app.domain.webhooks import services, testing
from app.domain.webhooks.signing import BEGINNING
from tests.beside import beside
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.receivers import Received, answers, receiving, takes
from tests.silent_names import SilentNames

pytestmark = pytest.mark.anyio

WEBHOOKS = "/api/v1/webhooks"
URL = "https://hooks.example.org/hub?token=only-for-us"
SEE_AND_WRITE = ("webhooks:read", "webhooks:write", "events:read")


async def made(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(WEBHOOKS, json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def new_domain(hub: Hub, parent_id: str | None = None) -> str:
    made = await hub.admin.post("/api/v1/data-domains", json={"name": uuid4().hex, "parent_id": parent_id})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def scoped_user(hub: Hub, domain_id: str, *permissions: str) -> httpx.AsyncClient:
    """Somebody who holds these permissions for that domain, and none elsewhere."""
    user, role = await hub.new_user(password=PASSWORD), await hub.new_role(permissions=list(permissions))
    given = await hub.admin.post(
        "/api/v1/role-assignments",
        json={
            "subject": {"type": "user", "id": user["id"]},
            "role_id": role["id"],
            "scope": {"type": "data_domain", "id": domain_id},
        },
    )
    assert given.status_code == 201, given.text
    return await hub.sign_in(user["email"])


def faults(answer: httpx.Response) -> dict[str, str]:
    return {fault["path"]: fault["code"] for fault in answer.json()["errors"]}


# --- made, shown, changed, deleted ---


async def test_a_webhook_shows_its_secret_once(hub: Hub, records: Records) -> None:
    answer = await hub.admin.post(WEBHOOKS, json={"url": URL, "event_types": ["role.created"], "description": "ours"})
    webhook = answer.json()
    assert answer.headers["location"] == f"{WEBHOOKS}/{webhook['id']}"
    secret = webhook.pop("secret")
    assert secret.startswith(BEGINNING)
    assert len(base64.b64decode(secret.removeprefix(BEGINNING))) == 32
    shown = await hub.admin.get(f"{WEBHOOKS}/{webhook['id']}")
    assert shown.json() == webhook
    assert shown.headers["etag"] == '"v1"'
    assert webhook["is_active"] is True
    assert (await hub.admin.get(WEBHOOKS, params={"limit": 200})).text.find(secret) == -1
    for table in ("audit_events", "outbox_events", "webhooks", "webhook_secrets", "idempotency_keys"):
        found = await records.one(f"SELECT count(*) FROM {table} AS row WHERE row::text LIKE '%' || $1 || '%'", secret)
        assert found == 0, table


async def test_what_is_done_is_on_record_and_events_and_rows_hold_no_path_of_the_url(
    hub: Hub, records: Records
) -> None:
    _, events = await records.mark()
    created = await hub.admin.post(WEBHOOKS, json={"url": URL})
    path = f"{WEBHOOKS}/{created.json()['id']}"
    changed = await hub.admin.patch(path, json={"description": "another"}, headers={"if-match": '"v1"'})
    rotated = await hub.admin.post(f"{path}/rotate-secret")
    deleted = await hub.admin.delete(path)
    assert [answer.status_code for answer in (created, changed, rotated, deleted)] == [201, 200, 200, 204]
    rows = [await records.audit(each) for each in (created, changed, rotated, deleted)]
    assert "only-for-us" not in str(rows)
    assert "https://hooks.example.org/sha256:" in str(rows[0])
    actions = [[row["action"] for row in each] for each in rows]
    assert actions == [["webhook.create"], ["webhook.update"], ["webhook.rotate_secret"], ["webhook.delete"]]
    told = await records.events(events)
    names = [event["type"].removeprefix("org.datafusionhub.") for event in told]
    assert names == ["webhook.created", "webhook.updated", "webhook.secret_rotated", "webhook.deleted"]
    assert told[0]["data"]["host"] == "hooks.example.org"
    assert "only-for-us" not in str([event["data"] for event in told])


async def test_a_stale_change_is_refused_and_one_that_changes_nothing_counts_no_version(hub: Hub) -> None:
    webhook = await made(hub.admin)
    path = f"{WEBHOOKS}/{webhook['id']}"
    same = await hub.admin.patch(path, json={"url": URL, "event_types": None})
    assert same.json()["version"] == 1
    changed = await hub.admin.patch(path, json={"event_types": ["role.created"]}, headers={"if-match": '"v1"'})
    assert (changed.json()["version"], changed.json()["event_types"]) == (2, ["role.created"])
    for call in (
        hub.admin.patch(path, json={}, headers={"if-match": '"v1"'}),
        hub.admin.delete(path, headers={"if-match": '"v1"'}),
    ):
        assert (await call).status_code == 412
    assert (await hub.admin.delete(path, headers={"if-match": '"v2"'})).status_code == 204
    assert (await hub.admin.get(path)).status_code == 404


async def test_the_same_request_again_shows_the_same_secret(hub: Hub) -> None:
    headers = {"idempotency-key": uuid4().hex}
    first = await hub.admin.post(WEBHOOKS, json={"url": URL}, headers=headers)
    second = await hub.admin.post(WEBHOOKS, json={"url": URL}, headers=headers)
    assert first.json() == second.json()
    path = f"{WEBHOOKS}/{first.json()['id']}/rotate-secret"
    rotated = [await hub.admin.post(path, headers={"idempotency-key": "once"}) for _ in range(2)]
    assert rotated[0].json() == rotated[1].json()
    assert rotated[0].json()["secret"] != first.json()["secret"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, ("url", "required")),
        ({"url": "ftp://a.example/"}, ("url", "wrong_form")),
        ({"url": "https://u:p@a.example/"}, ("url", "invalid")),
        ({"url": "https://a.example/\n"}, ("url", "wrong_form")),
        ({"url": "https://169.254.169.254/"}, ("url", "not_allowed")),
        ({"url": "https://10.0.0.1/"}, ("url", "not_allowed")),
        ({"url": "http://93.184.215.14/"}, ("url", "not_allowed")),
        ({"url": URL, "event_types": ["role.created", "no.such"]}, ("event_types[1]", "unknown_event_type")),
        ({"url": URL, "event_types": ["role.created", "role.created"]}, ("event_types[1]", "duplicate")),
        ({"url": URL, "event_types": ["webhook.test"]}, ("event_types[0]", "unknown_event_type")),
        ({"url": URL, "data_domain_id": str(uuid4())}, ("data_domain_id", "unknown_domain")),
        ({"url": URL, "secret": "mine"}, ("secret", "unknown_field")),
    ],
)
async def test_what_cannot_be_one_is_refused_by_field(hub: Hub, body: dict[str, Any], fault: tuple[str, str]) -> None:
    answer = await hub.admin.post(WEBHOOKS, json=body)
    assert answer.status_code == 400
    assert faults(answer) == dict([fault])


async def test_in_production_only_https_is_taken(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await hub.admin.post(WEBHOOKS, json={"url": "http://127.0.0.1:1/"})).status_code == 201
    monkeypatch.setattr(hub.parts, "settings", structs.replace(hub.parts.settings, egress_loopback=False))
    answer = await hub.admin.post(WEBHOOKS, json={"url": "http://hooks.example.org/"})
    assert faults(answer) == {"url": "not_allowed"}


async def test_there_are_so_many_and_no_more(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await hub.new_tenant()
    monkeypatch.setattr(services, "MOST", 2)
    first = await made(tenant.admin)
    await made(tenant.admin)
    answer = await tenant.admin.post(WEBHOOKS, json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")
    await tenant.admin.delete(f"{WEBHOOKS}/{first['id']}")
    await made(tenant.admin)


# --- who may ---


async def test_whoever_makes_one_may_see_the_events(hub: Hub) -> None:
    blind = await hub.user_with("webhooks:read", "webhooks:write")
    refused = await blind.post(WEBHOOKS, json={"url": URL})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
    seeing = await hub.user_with(*SEE_AND_WRITE)
    webhook = await made(seeing)
    path = f"{WEBHOOKS}/{webhook['id']}"
    for change in ({"url": "https://elsewhere.example/"}, {"event_types": ["role.created"]}):
        assert (await blind.patch(path, json=change)).status_code == 403, change
    assert (await blind.patch(path, json={"is_active": False})).status_code == 200
    assert (await blind.patch(path, json={"is_active": True})).status_code == 403


async def test_in_a_domain_whoever_may_there_may(hub: Hub) -> None:
    domain_id = await new_domain(hub)
    below, beside = await new_domain(hub, domain_id), await new_domain(hub)
    client = await scoped_user(hub, domain_id, *SEE_AND_WRITE)
    own = [await made(client, data_domain_id=each) for each in (domain_id, below)]
    of_all, other = await made(hub.admin), await made(hub.admin, data_domain_id=beside)
    assert (await client.post(WEBHOOKS, json={"url": URL})).status_code == 403
    assert (await client.post(WEBHOOKS, json={"url": URL, "data_domain_id": beside})).status_code == 400
    shown = (await client.get(WEBHOOKS, params={"limit": 200})).json()["items"]
    assert {each["id"] for each in shown} == {each["id"] for each in own}
    for foreign in (of_all, other):
        path = f"{WEBHOOKS}/{foreign['id']}"
        calls = [
            client.get(path),
            client.patch(path, json={"is_active": False}),
            client.delete(path),
            client.post(f"{path}/test"),
            client.post(f"{path}/rotate-secret"),
            client.get(f"{path}/deliveries"),
        ]
        assert [(await call).status_code for call in calls] == [404] * 6
    path = f"{WEBHOOKS}/{own[0]['id']}"
    assert (await client.patch(path, json={"data_domain_id": None})).status_code == 403
    assert (await client.patch(path, json={"data_domain_id": beside})).status_code == 400
    assert (await client.patch(path, json={"data_domain_id": below})).status_code == 200
    only_reads = await scoped_user(hub, domain_id, "webhooks:read")
    assert (await only_reads.get(path)).status_code == 200
    assert (await only_reads.delete(path)).status_code == 403


async def test_a_domain_of_which_webhooks_tell_stays(hub: Hub) -> None:
    domain_id = await new_domain(hub)
    webhook = await made(hub.admin, data_domain_id=domain_id)
    refused = await hub.admin.delete(f"/api/v1/data-domains/{domain_id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "still_in_use")
    await hub.admin.delete(f"{WEBHOOKS}/{webhook['id']}")
    assert (await hub.admin.delete(f"/api/v1/data-domains/{domain_id}")).status_code == 204


async def test_another_tenant_sees_none_of_it(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    webhook = await made(hub.admin)
    for answer in (
        await other.admin.get(f"{WEBHOOKS}/{webhook['id']}"),
        await other.admin.post(f"{WEBHOOKS}/{webhook['id']}/test"),
        await other.admin.get(f"{WEBHOOKS}/{webhook['id']}/deliveries"),
    ):
        assert answer.status_code == 404
    assert webhook["id"] not in (await other.admin.get(WEBHOOKS, params={"limit": 200})).text


async def test_in_a_domain_one_sends_again_what_is_its_own(hub: Hub, records: Records) -> None:
    domain_id, beside = await new_domain(hub), await new_domain(hub)
    client = await scoped_user(hub, domain_id, *SEE_AND_WRITE)
    answers_by_domain = {}
    for each in (domain_id, beside):
        webhook = await made(hub.admin, data_domain_id=each)
        delivery_id = await records.one(
            """INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, subject, status, created_at,
                                               expires_at)
               SELECT gen_random_uuid(), tenant_id, $1, id, 'user.created', subject, 'failed', now(), now()
               FROM outbox_events WHERE data_domain_id = $2 LIMIT 1 RETURNING id""",
            UUID(webhook["id"]),
            UUID(each),
        )
        answers_by_domain[each] = await client.post(f"/api/v1/deliveries/{delivery_id}/retry")
    assert [answer.status_code for answer in answers_by_domain.values()] == [200, 404]
    retried = answers_by_domain[domain_id].json()
    assert (retried["status"], retried["attempts"], retried["next_attempt_at"]) == (
        "pending",
        0,
        retried["next_attempt_at"],
    )
    assert retried["next_attempt_at"] is not None


# --- the test button ---


async def test_a_test_is_sent_at_once_and_says_what_came_of_it(hub: Hub, records: Records) -> None:
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url, is_active=False)
        path = f"{WEBHOOKS}/{webhook['id']}"
        good = await hub.admin.post(f"{path}/test")
        receiver.answering = answers(500, b"the receiver's own secret")
        bad = await hub.admin.post(f"{path}/test")
    assert (good.json()["status"], good.json()["response_status"], good.json()["failure"]) == ("delivered", 204, None)
    assert good.json()["duration_ms"] > 0
    assert (bad.json()["status"], bad.json()["response_status"], bad.json()["failure"]) == ("failed", 500, "http_error")
    assert receiver.ids == [good.json()["event_id"], bad.json()["event_id"]]
    assert b'"type":"org.datafusionhub.webhook.test"' in receiver.received[0].body
    (row,) = await records.audit(bad)
    assert (row["action"], row["outcome"]) == ("webhook.test", "failure")
    kept = (await hub.admin.get(f"{path}/deliveries")).json()["items"]
    assert [(each["event_type"], each["status"]) for each in kept] == [
        ("webhook.test", "failed"),
        ("webhook.test", "delivered"),
    ]
    assert "own secret" not in (await hub.admin.get(f"{path}/deliveries")).text
    assert await records.one("SELECT count(*) FROM outbox_events WHERE type LIKE '%webhook.test'") == 0
    again = await hub.admin.post(f"/api/v1/deliveries/{kept[0]['id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "webhook_inactive")
    await hub.admin.patch(path, json={"is_active": True})
    again = await hub.admin.post(f"/api/v1/deliveries/{kept[0]['id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "event_gone")


async def test_a_test_goes_only_where_the_hub_may_go(hub: Hub) -> None:
    webhook = await made(hub.admin, url="https://no-such-name.invalid/hook")
    tested = await hub.admin.post(f"{WEBHOOKS}/{webhook['id']}/test")
    assert tested.json()["failure"] == "name_not_resolved"


async def test_a_test_whose_name_nobody_answers_for_takes_no_thread_that_others_wait_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = SilentNames(monkeypatch)
    webhook = await made(hub.admin, url="https://hooks.unanswered.example/")
    async with beside(hub.admin.post(f"{WEBHOOKS}/{webhook['id']}/test")):
        while not names.threads:
            await asyncio.sleep(0.02)
        names.release()
    assert [name.rstrip("_0123456789") for name in names.threads] == ["look up"]


async def test_a_tenant_tests_a_few_at_once(hub: Hub) -> None:
    released = asyncio.Event()

    async def waits(received: Received, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await takes(received, writer)

    async with receiving(waits) as receiver:
        path = f"{WEBHOOKS}/{(await made(hub.admin, url=receiver.url))['id']}/test"
        going_on = [asyncio.create_task(hub.admin.post(path)) for _ in range(testing.AT_ONCE)]
        while len(receiver.received) < testing.AT_ONCE:
            await asyncio.sleep(0.02)
        refused = await hub.admin.post(path)
        released.set()
        ended = await asyncio.gather(*going_on)
        again = await hub.admin.post(path)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert "retry-after" in refused.headers
    assert {answer.json()["status"] for answer in (*ended, again)} == {"delivered"}


# --- keys ---


async def test_secrets_are_sealed_anew_and_counted(hub: Hub, records: Records) -> None:
    webhook = await made(hub.admin)
    ring = hub.parts.key_ring
    old = "of before"
    sealed_before = await records.one("SELECT sealed FROM webhook_secrets WHERE webhook_id = $1", UUID(webhook["id"]))
    await records.run("UPDATE webhook_secrets SET key_id = $1 WHERE webhook_id = $2", old, UUID(webhook["id"]))
    async with hub.parts.sessions(None) as session:
        assert (await secrets_by_key(session))[old] == 1
        assert await count_unopened(session, ring) == 0
    total = await reseal(hub.parts)
    assert (total.done, total.unopened) == (1, 0)
    row = (await records.run("SELECT sealed, key_id FROM webhook_secrets WHERE webhook_id = $1", UUID(webhook["id"])))[
        0
    ]
    assert row["key_id"] == ring.current_id
    assert row["sealed"] != sealed_before
    (note,) = await records.run("SELECT after FROM audit_events WHERE action = 'webhook_secrets.reseal'")
    assert ring.current_id in note["after"]


async def test_a_secret_that_no_key_opens_signs_nothing(hub: Hub, records: Records) -> None:
    async with receiving() as receiver:
        webhook, other = await made(hub.admin, url=receiver.url), await made(hub.admin)
        await records.run(
            """UPDATE webhook_secrets SET sealed = (SELECT sealed FROM webhook_secrets WHERE webhook_id = $2)
               WHERE webhook_id = $1""",
            UUID(webhook["id"]),
            UUID(other["id"]),
        )
        tested = await hub.admin.post(f"{WEBHOOKS}/{webhook['id']}/test")
    assert (tested.status_code, tested.json()["code"]) == (409, "secret_unreadable"), "a sealed value is of one row"
    assert not receiver.received
    async with hub.parts.sessions(None) as session:
        assert await count_unopened(session, hub.parts.key_ring) == 1
    await hub.admin.post(f"{WEBHOOKS}/{webhook['id']}/rotate-secret")
    await records.run("DELETE FROM webhook_secrets WHERE expires_at IS NOT NULL")
