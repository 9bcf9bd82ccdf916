"""What a request is held against first: the body by itself, then what may be seen and done, then `If-Match`, then what
is stored besides (RFC 9110 section 13.2.1)."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Hub
from tests.domain.sources import NOWHERE

pytestmark = pytest.mark.anyio

STALE = {"If-Match": '"v77"'}
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"


async def made(hub: Hub, kind: str) -> str:
    """The path of a new entity."""
    kinds: dict[str, dict[str, Any]] = {
        "users": {"email": f"{uuid4().hex}@example.org"},
        "roles": {"name": uuid4().hex},
        "data-sources": {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE},
    }
    answer = await hub.admin.post(f"/api/v1/{kind}", json=kinds[kind])
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def faults(answer: httpx.Response) -> set[tuple[str, str]]:
    return {(fault["path"], fault["code"]) for fault in answer.json().get("errors", ())}


@pytest.mark.parametrize(
    ("kind", "patch", "fault"),
    [
        ("users", {"email": "000"}, ("email", "invalid_email")),
        ("users", {"email": "ada@-example.org"}, ("email", "invalid_email")),
        ("users", {"password": "too short"}, ("password", "weak_password")),
        ("users", {"password": "ada lovelace 15", "last_name": "Lovelace", "first_name": "Ada"}, ("password", "weak_password")),
        ("roles", {"name": " \u200b"}, ("name", "blank")),
        ("roles", {"permissions": ["roles:read", "roles:fly"]}, ("permissions[1]", "unknown_permission")),
        ("data-sources", {"name": "\u3164"}, ("name", "blank")),
        ("data-sources", {"tags": ["sales", " "]}, ("tags[1]", "blank")),
        ("data-sources", {"secrets": {"password": "********"}}, ("secrets.password", "masked_secret")),
        ("data-sources", {"secrets": {"password": {"ref": "env:HOME"}}}, ("secrets.password.ref", "reference_not_allowed")),
    ],
)  # fmt: skip
async def test_a_body_that_is_wrong_by_itself_is_a_400_whatever_the_version(
    hub: Hub, kind: str, patch: dict[str, Any], fault: tuple[str, str]
) -> None:
    path = await made(hub, kind)
    for headers in (STALE, {}):
        answer = await hub.admin.patch(path, json=patch, headers=headers)
        assert (answer.status_code, faults(answer)) == (400, {fault})
    assert (await hub.admin.get(path)).json()["version"] == 1


async def test_faults_of_every_kind_are_named_at_once(hub: Hub) -> None:
    wrong = {"email": "000", "first_name": 5, "nickname": "x"}
    for answer in (
        await hub.admin.post("/api/v1/users", json=wrong),
        await hub.admin.patch(await made(hub, "users"), json=wrong),
    ):
        assert faults(answer) == {
            ("email", "invalid_email"), ("first_name", "wrong_type"), ("nickname", "unknown_field")
        }  # fmt: skip


async def test_what_is_not_there_is_a_404_whatever_the_version(hub: Hub) -> None:
    user, role = await made(hub, "users"), await made(hub, "roles")
    role_id = role.rpartition("/")[2]
    assert (await hub.admin.put(f"{user}/roles/{uuid4()}", headers=STALE)).status_code == 404
    assert (await hub.admin.delete(f"{user}/roles/{uuid4()}", headers=STALE)).status_code == 404
    assert (await hub.admin.delete(f"{user}/roles/{role_id}", headers=STALE)).status_code == 404  # not held
    assert (await hub.admin.patch(f"/api/v1/users/{uuid4()}", json={}, headers=STALE)).status_code == 404


async def test_what_one_may_not_do_is_a_403_whatever_the_version(hub: Hub) -> None:
    weak = await hub.user_with("users:write", "users:read", "roles:write", "data-sources:write")
    admin_id = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    stronger = await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex, "permissions": ["jobs:read"]})
    for answer in (
        await weak.patch(f"/api/v1/users/{admin_id}", json={"first_name": "x"}, headers=STALE),
        await weak.put(f"{await made(hub, 'users')}/roles/{ADMIN_ROLE}", headers=STALE),
        await weak.delete(f"/api/v1/users/{admin_id}/roles/{ADMIN_ROLE}", headers=STALE),
        await weak.patch(stronger.headers["location"], json={"name": "x"}, headers=STALE),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    referring = {"secrets": {"password": {"ref": "env:SHOP_PASSWORD"}}}
    answer = await weak.patch(await made(hub, "data-sources"), json=referring, headers=STALE)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")


async def test_a_built_in_role_is_one_whatever_the_version(hub: Hub) -> None:
    for answer in (
        await hub.admin.patch(f"/api/v1/roles/{PUBLIC_ROLE}", json={"name": "x"}, headers=STALE),
        await hub.admin.delete(f"{await made(hub, 'users')}/roles/{PUBLIC_ROLE}", headers=STALE),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "system_role")


async def test_a_role_is_taken_from_the_version_that_was_read(hub: Hub) -> None:
    user, role = await made(hub, "users"), await made(hub, "roles")
    held = f"{user}/roles/{role.rpartition('/')[2]}"
    first = (await hub.admin.get(user)).headers["etag"]
    second = (await hub.admin.put(held, headers={"If-Match": first})).headers["etag"]
    assert second.startswith('"v2-')
    assert (await hub.admin.delete(held, headers={"If-Match": first})).status_code == 412
    assert (await hub.admin.delete(held, headers={"If-Match": second})).status_code == 204


async def test_what_is_stored_besides_is_looked_at_last(hub: Hub) -> None:
    """The role that a field refers to, the config that a patch is merged into: a stale copy may be why it is wrong."""
    for kind, patch in (
        ("roles", {"owner_role_id": str(uuid4())}),
        ("data-sources", {"config": {"port": "five"}}),
    ):
        path = await made(hub, kind)
        assert (await hub.admin.patch(path, json=patch, headers=STALE)).status_code == 412
        assert (await hub.admin.patch(path, json=patch, headers={"If-Match": '"v1"'})).status_code == 400
