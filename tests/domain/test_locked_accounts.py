"""A lock is seen, is on record, and can be lifted; somebody's sessions can be ended by who may change them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.errors import BadRequest, NotFound
from app.domain.users.admins import reset_password
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records, new_user

pytestmark = [pytest.mark.anyio, pytest.mark.found("U6")]

NEW_PASSWORD = "paper boats under a copper moon"


async def attempt(hub: Hub, email: str, password: str = PASSWORD) -> httpx.Response:
    return await hub.client().post("/api/v1/auth/login", json={"email": email, "password": password})


async def shown(hub: Hub, email: str) -> dict[str, Any]:
    (user,) = (await hub.admin.get("/api/v1/users", params={"email": email})).json()["items"]
    return dict(user)


async def locked_user(hub: Hub, records: Records) -> str:
    """Somebody who has just guessed wrong for the tenth time."""
    email = await new_user(hub, records, failed_logins=9)
    assert (await attempt(hub, email, "wrong")).status_code == 401
    return email


async def test_who_is_locked_is_shown_until_when(hub: Hub, records: Records) -> None:
    user = await shown(hub, await locked_user(hub, records))
    left = datetime.fromisoformat(user["locked_until"]) - datetime.now(UTC)
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)


async def test_a_lock_that_ran_out_is_not_shown(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=10)
    assert (await shown(hub, email))["locked_until"] is None
    await records.run("UPDATE users SET locked_until = now() - interval '1 second' WHERE email = $1", email)
    assert (await shown(hub, email))["locked_until"] is None


async def test_the_guess_that_locks_is_on_record_as_a_lock_too(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=8)
    ninth, tenth, eleventh = [await attempt(hub, email, "wrong") for _ in range(3)]
    assert [row["action"] for row in await records.audit(ninth)] == ["auth.login"]
    assert sorted(row["action"] for row in await records.audit(tenth)) == ["auth.login", "user.lock"]
    assert [row["action"] for row in await records.audit(eleventh)] == ["auth.login"]
    (lock,) = [row for row in await records.audit(tenth) if row["action"] == "user.lock"]
    assert str(lock["resource_id"]) == (await shown(hub, email))["id"]
    assert "locked_until" in lock["after"]


async def test_a_lock_can_be_lifted(hub: Hub, records: Records) -> None:
    email = await locked_user(hub, records)
    user = await shown(hub, email)
    assert (await attempt(hub, email)).status_code == 401
    lifted = await hub.admin.post(f"/api/v1/users/{user['id']}/unlock")
    assert (lifted.status_code, lifted.content) == (204, b"")
    assert [row["action"] for row in await records.audit(lifted)] == ["user.unlock"]
    assert (await shown(hub, email))["locked_until"] is None
    assert (await attempt(hub, email)).status_code == 200


async def test_lifting_what_is_not_there_changes_nothing(hub: Hub, records: Records) -> None:
    user = await shown(hub, await new_user(hub, records))
    answer = await hub.admin.post(f"/api/v1/users/{user['id']}/unlock")
    assert answer.status_code == 204
    assert await records.audit(answer) == []
    assert (await hub.admin.post(f"/api/v1/users/{uuid4()}/unlock")).status_code == 404


async def test_ending_somebodys_sessions_signs_them_out(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    theirs = hub.client((await attempt(hub, email)).json()["access_token"])
    assert (await theirs.get("/api/v1/auth/me")).status_code == 200
    ended = await hub.admin.post(f"/api/v1/users/{(await shown(hub, email))['id']}/end-sessions")
    assert ended.status_code == 204
    assert [row["action"] for row in await records.audit(ended)] == ["user.end_sessions"]
    assert (await theirs.get("/api/v1/auth/me")).status_code == 401
    assert (await attempt(hub, email)).status_code == 200


@pytest.mark.parametrize("action", ["unlock", "end-sessions"])
async def test_neither_is_a_way_up(hub: Hub, action: str) -> None:
    admin = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    helper = await hub.user_with("users:read", "users:write")
    assert (await helper.post(f"/api/v1/users/{admin}/{action}")).status_code == 403
    reader = await hub.user_with("users:read")
    assert (await reader.post(f"/api/v1/users/{admin}/{action}")).status_code == 403


async def test_a_reset_unlocks_and_signs_out_and_is_on_record(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    theirs = hub.client((await attempt(hub, email)).json()["access_token"])
    for _ in range(10):
        await attempt(hub, email, "wrong")
    user = await reset_password(hub.parts, email.upper(), NEW_PASSWORD)
    assert user.locked_until is None
    assert (await attempt(hub, email)).status_code == 401
    assert (await attempt(hub, email, NEW_PASSWORD)).status_code == 200
    await asyncio.sleep(0)
    assert (await theirs.get("/api/v1/auth/me")).status_code == 401
    last = await records.run(
        "SELECT * FROM audit_events WHERE resource_id = $1 ORDER BY sequence DESC LIMIT 1", user.id
    )
    assert (last[0]["action"], last[0]["actor_id"]) == ("user.set_password", None)


async def test_a_reset_keeps_the_rules_of_passwords(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    with pytest.raises(BadRequest):
        await reset_password(hub.parts, email, "password password")
    with pytest.raises(NotFound):
        await reset_password(hub.parts, "nobody@example.org", NEW_PASSWORD)
    assert (await attempt(hub, email)).status_code == 200
