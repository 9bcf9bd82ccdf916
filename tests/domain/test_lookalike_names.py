"""A12: nobody makes a role, a source or an account whose name is taken for another's."""

from typing import Any
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
        ("POST", SOURCES, {"name": "a", "type": "postgresql", "config": NOWHERE, "tags": ["x", "sаles"]}, "tags[1]"),
        ("PATCH", f"{SOURCES}/{source['id']}", {"tags": ["sal\u200bеs"]}, "tags[0]"),
        (
            "POST",
            f"{SOURCES}/bulk",
            {"data_sources": [{"name": "a", "type": "postgresql", "config": NOWHERE, "tags": ["а team"]}]},
            "data_sources[0].tags[0]",
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


BLANKS = ("  ", "\u00a0", "\u2003", "\u3000 ", "\u2028", " \u200b ", "\u1680", "\u202f")


async def test_blanks_that_nobody_sees_make_no_second_role_and_no_second_source(hub: Hub) -> None:
    stem = uuid4().hex
    source = {"name": f"{stem} x", "type": "postgresql", "config": NOWHERE}
    other_role = (await hub.admin.post(ROLES, json={"name": uuid4().hex})).json()
    assert (await hub.admin.post(ROLES, json={"name": f"  {stem}  x\u00a0"})).json()["name"] == f"{stem} x"
    made = await hub.admin.post(SOURCES, json=source | {"name": f"{stem}\u2003x"})
    other = await registered(hub)
    assert made.json()["name"] == f"{stem} x"
    for blank in BLANKS:
        name = f"{stem}{blank}x"
        bulk = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": [source | {"name": name}]})
        assert (bulk.status_code, faults(bulk)) == (409, {"data_sources[0].name": "name_taken"})
        for answer in (
            await hub.admin.post(ROLES, json={"name": name}),
            await hub.admin.patch(f"{ROLES}/{other_role['id']}", json={"name": name}),
            await hub.admin.post(SOURCES, json=source | {"name": name}),
            await hub.admin.patch(f"{SOURCES}/{other['id']}", json={"name": name}),
        ):
            assert (answer.status_code, faults(answer)) == (409, {"name": "name_taken"}), repr(blank)
        found = await hub.admin.get(SOURCES, params={"name": name})
        assert [item["id"] for item in found.json()["items"]] == [made.json()["id"]], repr(blank)


async def test_two_of_one_bulk_that_differ_in_blanks_are_one(hub: Hub) -> None:
    stem = uuid4().hex
    items: list[dict[str, Any]] = [
        {"name": f"{stem}{blank}x", "type": "postgresql", "config": NOWHERE} for blank in (" ", "  ")
    ]
    answer = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})
    assert answer.status_code == 409
    assert set(faults(answer)) <= {"data_sources[0].name", "data_sources[1].name"}
    found = await hub.admin.get(SOURCES, params={"name": f"{stem}  x"})
    assert found.json()["items"] == []


async def test_names_of_people_are_single_spaced(hub: Hub) -> None:
    user = await hub.new_user()
    changed = await hub.admin.patch(
        f"{USERS}/{user['id']}", json={"first_name": " Ada\u00a0 May ", "last_name": "L\u3000"}
    )
    assert (changed.json()["first_name"], changed.json()["last_name"]) == ("Ada May", "L")


async def test_tags_are_stored_as_they_are_read(hub: Hub) -> None:
    source = await registered(hub)
    given = [
        " north \u00a0west ",
        "north west",
        "sal\u200bes",
        "sales",
        "cafe\u0301",
        "café",
        "👩\u200d💻",
        "می\u200cخواهم",
    ]
    changed = await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"tags": given})
    assert changed.json()["tags"] == ["north west", "sales", "café", "👩\u200d💻", "می\u200cخواهم"]
    hidden = await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"tags": ["\u200b"]})
    assert faults(hidden) == {"tags[0]": "blank"}
