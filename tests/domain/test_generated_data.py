"""Whatever is valid comes back as it was sent, made by polyfactory from the Structs of the API."""

from typing import Any

import pytest

from tests.conftest import Hub
from tests.factories import RoleFactory, ServiceAccountFactory, UserFactory, body_of

pytestmark = pytest.mark.anyio

BODIES = [
    *(("users", body_of(user)) for user in UserFactory.batch(10)),
    *(("roles", body_of(role)) for role in RoleFactory.batch(10)),
    *(("service-accounts", body_of(account)) for account in ServiceAccountFactory.batch(5)),
    *(("roles", body_of(role)) for role in RoleFactory.batch(5, description=None, permissions=["users:read"])),
]


@pytest.mark.parametrize(("collection", "body"), BODIES)
async def test_what_was_sent_is_what_is_shown(hub: Hub, collection: str, body: dict[str, Any]) -> None:
    made = await hub.admin.post(f"/api/v1/{collection}", json=body)
    assert made.status_code == 201, made.text
    shown = (await hub.admin.get(made.headers["location"])).json()
    assert shown == made.json()
    assert {name: shown[name] for name in body if name != "password"} == {
        name: value for name, value in body.items() if name != "password"
    }


@pytest.mark.parametrize(("collection", "body"), BODIES[8:14])
async def test_a_patch_of_every_field_leaves_what_it_was(hub: Hub, collection: str, body: dict[str, Any]) -> None:
    """Create and update normalise alike: what was made is not changed by saying it again."""
    other = {"email": f"x{body['email']}"} if collection == "users" else {"name": f"x{body['name']}"[:100]}
    made = (await hub.admin.post(f"/api/v1/{collection}", json=body | other)).json()
    patched = await hub.admin.patch(f"/api/v1/{collection}/{made['id']}", json=body | other)
    assert (patched.status_code, patched.json()) == (200, made)
