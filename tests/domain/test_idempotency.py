"""`Idempotency-Key` as api.md has it: the same key, principal, route and body replays the first answer, for a day."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.sealing import KeyRing
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records

pytestmark = pytest.mark.anyio

ROLES = "/api/v1/roles"


async def create(client: httpx.AsyncClient, key: str, body: Any, path: str = ROLES) -> httpx.Response:
    return await client.post(path, json=body, headers={"Idempotency-Key": key})


async def test_a_repeated_request_gets_the_first_answer(hub: Hub, records: Records) -> None:
    key, body = uuid4().hex, {"name": uuid4().hex}
    first = await create(hub.admin, key, body)
    before = await records.mark()
    again = await create(hub.admin, key, body)
    assert (again.status_code, again.content) == (201, first.content)
    assert (again.headers["location"], again.headers["etag"]) == (first.headers["location"], first.headers["etag"])
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await records.mark() == before


async def test_the_first_answer_is_replayed_even_when_the_thing_is_gone(hub: Hub) -> None:
    key, body = uuid4().hex, {"name": uuid4().hex}
    first = await create(hub.admin, key, body)
    await hub.admin.delete(first.headers["location"])
    assert (await create(hub.admin, key, body)).content == first.content


async def test_parallel_requests_with_one_key_create_one(hub: Hub, other_worker: Hub, records: Records) -> None:
    key, body, before = uuid4().hex, {"name": uuid4().hex}, await records.mark()
    other = other_worker.client(hub.admin.headers["authorization"].removeprefix("Bearer "))
    answers = await asyncio.gather(*(create(client, key, body) for client in [hub.admin, other] * 4))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    after = await records.mark()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


@pytest.mark.parametrize("change", [{"description": "x"}, {"name": "another"}, {"permissions": []}])
async def test_another_body_is_refused(hub: Hub, change: dict[str, Any]) -> None:
    key, body = uuid4().hex, {"name": uuid4().hex}
    await create(hub.admin, key, body)
    answer = await create(hub.admin, key, body | change)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_key_is_its_principals_own(hub: Hub) -> None:
    other = await hub.user_with("roles:write")
    key, body = uuid4().hex, {"name": uuid4().hex}
    assert (await create(hub.admin, key, body)).status_code == 201
    answer = await create(other, key, body)
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_a_key_is_its_routes_own(hub: Hub) -> None:
    key = uuid4().hex
    assert (await create(hub.admin, key, {"name": uuid4().hex})).status_code == 201
    made = await create(hub.admin, key, {"email": f"{uuid4().hex}@example.org"}, "/api/v1/users")
    assert made.status_code == 201


@pytest.mark.parametrize("failing", [{"name": "admin"}, {"name": ""}, {"name": "x", "permissions": ["no:such"]}])
async def test_a_first_try_that_failed_is_no_answer_to_keep(hub: Hub, failing: dict[str, Any]) -> None:
    key = uuid4().hex
    refused = await create(hub.admin, key, failing)
    assert refused.status_code in (400, 409)
    made = await create(hub.admin, key, {"name": uuid4().hex})
    assert made.status_code == 201


async def test_without_a_key_every_request_counts(hub: Hub) -> None:
    body = {"name": uuid4().hex}
    assert [(await hub.admin.post(ROLES, json=body)).status_code for _ in range(2)] == [201, 409]


@pytest.mark.parametrize("key", [b"", b" ", b"a b", b"x" * 256, b"\xff", "ü".encode(), b"a\tb"])
async def test_a_key_is_printable_and_short(hub: Hub, key: bytes) -> None:
    headers = {b"Idempotency-Key": key}
    answer = await hub.admin.post(ROLES, json={"name": uuid4().hex}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


async def test_two_keys_are_refused(hub: Hub) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await hub.admin.post(ROLES, json={"name": uuid4().hex}, headers=headers)).status_code == 400


async def test_a_key_is_free_again_after_a_day(hub: Hub, records: Records) -> None:
    key, body = uuid4().hex, {"name": uuid4().hex}
    first = await create(hub.admin, key, body)
    await records.run("UPDATE idempotency_keys SET created_at = created_at - interval '23 hours'")
    assert (await create(hub.admin, key, body)).content == first.content
    await records.run("UPDATE idempotency_keys SET created_at = created_at - interval '61 minutes'")
    other = await create(hub.admin, key, {"name": uuid4().hex})
    assert (other.status_code, other.headers.get("idempotency-replayed")) == (201, None)


async def test_who_lost_the_permission_gets_no_replay(hub: Hub) -> None:
    client = await hub.user_with("roles:write")
    me = (await client.get("/api/v1/auth/me")).json()
    key, body = uuid4().hex, {"name": uuid4().hex}
    assert (await create(client, key, body)).status_code == 201
    role = next(role for role in me["roles"] if role["name"] != "public")
    await hub.admin.patch(f"{ROLES}/{role['id']}", json={"permissions": []})
    assert (await create(client, key, body)).status_code == 403


async def test_a_new_secret_key_in_front_changes_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    key, body = uuid4().hex, {"name": uuid4().hex}
    first = await create(hub.admin, key, body)
    ring = hub.parts.key_ring
    rotated = KeyRing([("k2", b"2" * 32), *((key_id, ring._keys[key_id]) for key_id in ring.ids)])
    monkeypatch.setattr(hub.parts, "key_ring", rotated)
    assert (await create(hub.admin, key, body)).content == first.content
    assert (await create(hub.admin, key, body | {"description": "x"})).status_code == 422


async def test_no_body_and_no_answer_lies_about_in_the_open(hub: Hub, records: Records) -> None:
    """SS4: a body may hold a password."""
    key, email = uuid4().hex, f"{uuid4().hex}@example.org"
    made = await create(hub.admin, key, {"email": email, "password": PASSWORD}, "/api/v1/users")
    assert made.status_code == 201
    rows = await records.run("SELECT * FROM idempotency_keys")
    assert not any(
        text.encode() in row[name] for row in rows for name in ("answer", "fingerprint") for text in (email, PASSWORD)
    )
    assert (
        await create(hub.admin, key, {"email": email, "password": PASSWORD + "!"}, "/api/v1/users")
    ).status_code == 422


@pytest.mark.found("A7")
async def test_people_whom_nobody_knows_share_no_key(hub: Hub) -> None:
    key = uuid4().hex
    bodies = [{"email": f"{uuid4().hex}@example.org", "password": PASSWORD} for _ in range(3)]
    answers = [await create(hub.client(), key, body, "/api/v1/auth/register") for body in bodies]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    again = await create(hub.client(), key, bodies[0], "/api/v1/auth/register")
    assert (again.status_code, again.json()["code"]) == (409, "email_taken")
    assert "idempotency-replayed" not in again.headers


@pytest.mark.found("A7")
async def test_the_document_offers_keys_to_known_callers_only(hub: Hub) -> None:
    paths = (await hub.client().get("/openapi.json")).json()["paths"]
    for path, item in paths.items():
        for operation in item.values():
            named = [each for each in operation.get("parameters", ()) if "IdempotencyKey" in str(each)]
            assert not (named and operation.get("security") == [{}]), path


@pytest.mark.found("A8")
async def test_a_path_with_more_slashes_is_the_same_path(hub: Hub) -> None:
    key, body = uuid4().hex, {"name": uuid4().hex}
    first = await create(hub.admin, key, body)
    for path in (f"{ROLES}/", "/api//v1/roles", f"{ROLES}//"):
        again = await create(hub.admin, key, body, path)
        assert (again.status_code, again.content) == (201, first.content)


async def test_an_answer_is_replayed_in_the_form_that_is_asked_for(hub: Hub) -> None:
    """Or in the first one: never with a media type that the body does not have."""
    key, body = uuid4().hex, {"name": uuid4().hex}
    first = await create(hub.admin, key, body)
    headers = {"Idempotency-Key": key, "Accept": "application/msgpack"}
    again = await hub.admin.post(ROLES, json=body, headers=headers)
    assert (again.status_code, again.content, again.headers["content-type"]) == (201, first.content, "application/json")
