"""A tenant that asks all of its members for a second factor."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.factors import AUTH, Person

pytestmark = pytest.mark.anyio
SETTINGS = "/api/v1/tenant-settings"


async def asked_of_all(asks: bool, client: Any) -> Any:
    return await client.patch(SETTINGS, json={"requires_mfa": asks})


@pytest.fixture
async def ada(hub: Hub, records: Records) -> AsyncIterator[Person]:
    """An admin who has shown a factor; afterwards nobody is asked for one any more."""
    person = await (await Person.new(hub, records)).set_up_totp()
    me = (await person.client.get(f"{AUTH}/me")).json()["user"]["id"]
    roles = (await hub.admin.get("/api/v1/roles", params={"name": "admin"})).json()["items"]
    given = await hub.admin.put(f"/api/v1/users/{me}/roles/{roles[0]['id']}")
    assert given.status_code == 200, given.text
    person.client = await person.sign_in()
    yield person
    assert (await asked_of_all(False, person.client)).status_code == 200


async def test_who_has_shown_none_cannot_ask_it_of_all(hub: Hub) -> None:
    answer = await asked_of_all(True, hub.admin)
    assert (answer.status_code, answer.json()["code"]) == (403, "factor_required")
    assert (await hub.admin.get(SETTINGS)).json()["requires_mfa"] is False


async def test_sessions_without_one_may_do_nothing_until_it_is_shown(hub: Hub, ada: Person, records: Records) -> None:
    bob = await Person.new(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    me = (await bob.client.get(f"{AUTH}/me")).json()["user"]["id"]
    assert (await hub.admin.put(f"/api/v1/users/{me}/roles/{role['id']}")).status_code == 200
    assert (await asked_of_all(True, ada.client)).status_code == 200
    answer = await hub.admin.get("/api/v1/users")
    assert (answer.status_code, answer.json()["code"]) == (403, "factor_required")
    assert (await ada.client.get("/api/v1/users")).status_code == 200
    bob.client = await hub.sign_in(bob.email)
    assert (await bob.client.get(f"{AUTH}/me")).json()["permissions"] == []
    await bob.set_up_totp()  # with nothing but the session
    bob.client = await bob.sign_in()
    assert (await bob.client.get(f"{AUTH}/me")).json()["permissions"] == ["roles:read"]


async def test_keys_are_not_asked(hub: Hub, ada: Person) -> None:
    key = (await hub.admin.post("/api/v1/api-keys", json={"name": "script"})).json()["key"]
    assert (await asked_of_all(True, ada.client)).status_code == 200
    assert (await hub.client(key).get("/api/v1/users")).status_code == 200


async def test_nobody_makes_a_key_that_may_do_what_their_session_may_not(
    hub: Hub, ada: Person, records: Records
) -> None:
    bob = await Person.new(hub, records)
    assert (await asked_of_all(True, ada.client)).status_code == 200
    refused = await bob.client.post("/api/v1/api-keys", json={"name": "all of it"})
    assert (refused.status_code, refused.json()["code"]) == (403, "factor_required")
    nothing = await bob.client.post("/api/v1/api-keys", json={"name": "nothing", "permissions": []})
    named = await bob.client.post("/api/v1/api-keys", json={"name": "named", "permissions": ["users:read"]})
    assert [answer.status_code for answer in (nothing, named)] == [201, 403]
    await bob.set_up_totp()
    bob.client = await bob.sign_in()
    assert (await bob.client.post("/api/v1/api-keys", json={"name": "all of it"})).status_code == 201


async def test_nobody_decides_on_requests_or_has_others_decide(hub: Hub, ada: Person, records: Records) -> None:
    """Not in the place of somebody else either, whose rights are not their own."""
    bob, carl = await Person.new(hub, records), await hub.new_user()
    me = (await bob.client.get(f"{AUTH}/me")).json()["user"]["id"]
    wanted = await hub.new_role(is_requestable=True, permissions=["roles:read"])
    asker = await hub.user_with()
    body = {"role_id": wanted["id"], "justification": "For the audit."}
    asked = await asker.post("/api/v1/role-requests", json=body)
    assert asked.status_code == 201, asked.text
    to_bob = {"to_user_id": me, "ends_at": "2999-01-01T00:00:00Z"}
    assert (await hub.admin.post("/api/v1/delegations", json=to_bob)).status_code == 201
    assert (await asked_of_all(True, ada.client)).status_code == 200
    decided = await bob.client.post(f"/api/v1/role-requests/{asked.json()['id']}/approve")
    to_carl = {**to_bob, "to_user_id": carl["id"]}
    for answer in (decided, await bob.client.post("/api/v1/delegations", json=to_carl)):
        assert (answer.status_code, answer.json()["code"]) == (403, "factor_required")


async def test_another_tenant_is_not_asked(hub: Hub, ada: Person) -> None:
    other = await hub.new_tenant()
    assert (await asked_of_all(True, ada.client)).status_code == 200
    assert (await other.admin.get("/api/v1/users")).status_code == 200


async def test_an_identity_is_linked_and_unlinked_by_who_has_just_shown_that_it_is_them(
    hub: Hub, records: Records
) -> None:
    bob = await Person.new(hub, records)
    await bob.age_sessions()
    begun = await bob.client.post(
        f"{AUTH}/identities",
        json={"provider": "corp", "redirect_uri": "https://app.example.org/"},
    )
    unlinked = await bob.client.delete(f"{AUTH}/identities/00000000-0000-7000-8000-00000000dead")
    assert [answer.json()["code"] for answer in (begun, unlinked)] == ["step_up_required", "step_up_required"]


async def test_a_directory_decides_on_the_address_of_whom_it_keeps(hub: Hub, records: Records) -> None:
    bob = await Person.new(hub, records)
    await records.run("UPDATE users SET managed_by = 'scim' WHERE email = $1", bob.email)
    answer = await bob.client.post(
        f"{AUTH}/change-email", json={"new_email": "bob.new@example.org", "current_password": PASSWORD}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "managed_externally")


async def test_a_new_address_is_of_a_domain_that_the_tenant_takes(hub: Hub, records: Records) -> None:
    bob = await Person.new(hub, records)
    taken = await hub.admin.patch(SETTINGS, json={"allowed_email_domains": ["example.org"]})
    assert taken.status_code == 200, taken.text
    answer = await bob.client.post(
        f"{AUTH}/change-email", json={"new_email": "bob@elsewhere.example", "current_password": PASSWORD}
    )
    await hub.admin.patch(SETTINGS, json={"allowed_email_domains": None})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "domain_not_allowed"
