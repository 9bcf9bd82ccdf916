"""A12: nobody makes a role, a source or an account whose name is taken for another's."""

from uuid import uuid4

import pytest

from tests.conftest import PASSWORD, Hub
from tests.domain.sources import NOWHERE, SOURCES, faults, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("A12")]

ROLES, USERS = "/api/v1/roles", "/api/v1/users"


async def test_no_name_mixes_scripts_that_look_alike(hub: Hub) -> None:
    role = (await hub.admin.post(ROLES, json={"name": uuid4().hex})).json()
    source, email = await registered(hub), f"{uuid4().hex}@example.org"
    user = await hub.new_user()
    for method, path, body, field in (
        ("POST", ROLES, {"name": "аdmin"}, "name"),
        ("PATCH", f"{ROLES}/{role['id']}", {"name": "рublic"}, "name"),
        ("POST", SOURCES, {"name": "shоp", "type": "postgresql", "config": NOWHERE}, "name"),
        ("PATCH", f"{SOURCES}/{source['id']}", {"name": "shоp"}, "name"),
        (
            "POST",
            f"{SOURCES}/bulk",
            {"data_sources": [{"name": "shоp", "type": "postgresql", "config": NOWHERE}]},
            "data_sources[0].name",
        ),
        ("POST", USERS, {"email": email, "first_name": "Аda"}, "first_name"),
        ("PATCH", f"{USERS}/{user['id']}", {"last_name": "Lovelаce"}, "last_name"),
        ("POST", USERS, {"email": "аda@example.org"}, "email"),
        ("POST", "/api/v1/auth/register", {"email": "adа@example.org", "password": PASSWORD}, "email"),
    ):
        answer = await hub.admin.request(method, path, json=body)
        assert (answer.status_code, faults(answer)) == (400, {field: "mixed_scripts"}), path


async def test_no_role_looks_like_another(hub: Hub) -> None:
    assert (await hub.admin.post(ROLES, json={"name": "ace"})).status_code == 201
    other = (await hub.admin.post(ROLES, json={"name": uuid4().hex})).json()
    for answer in (
        await hub.admin.post(ROLES, json={"name": "асе"}),
        await hub.admin.post(ROLES, json={"name": "АСЕ"}),
        await hub.admin.post(ROLES, json={"name": "ꓮꓓꓟꓲꓠ"}),
        await hub.admin.post(ROLES, json={"name": "admın"}),
        await hub.admin.patch(f"{ROLES}/{other['id']}", json={"name": "асе"}),
    ):
        assert (answer.status_code, faults(answer)) == (409, {"name": "name_taken"})


async def test_a_role_may_have_a_name_of_any_script(hub: Hub) -> None:
    for name in ("сахар", "Продажи CRM", "売上データ", "مبيعات"):
        made = await hub.admin.post(ROLES, json={"name": name})
        assert made.status_code == 201, made.text
        again = await hub.admin.patch(f"{ROLES}/{made.json()['id']}", json={"name": f"{name} 2"})
        assert again.status_code == 200, again.text


async def test_a_role_may_be_renamed_to_what_looks_like_itself(hub: Hub) -> None:
    made = (await hub.admin.post(ROLES, json={"name": "hope"})).json()
    answer = await hub.admin.patch(f"{ROLES}/{made['id']}", json={"name": "норе"})
    assert (answer.status_code, answer.json()["name"]) == (200, "норе")
