"""One thing has one path: an id is taken in its canonical form, and in no other."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Hub
from tests.domain.sources import registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("A8")]

SPELLINGS: dict[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "one capital": lambda text: next(
        text[:at] + text[at].upper() + text[at + 1 :] for at in range(len(text)) if text[at].isalpha()
    ),
    "no dashes": lambda text: text.replace("-", ""),
    "dashes elsewhere": lambda text: f"{text[:9]}-{text[9:].replace('-', '', 1)}",
    "more dashes": lambda text: text.replace("-", "--"),
    "braces": lambda text: f"{{{text}}}",
    "a URN": lambda text: f"urn:uuid:{text}",
    "a URN without dashes": lambda text: f"urn:uuid:{text.replace('-', '')}",
    "white space": lambda text: f"{text} ",
    "other digits": lambda text: text.replace("0", "\u0660"),
    "full width": lambda text: text.replace("a", "\uff41").replace("0", "\uff10"),
    "underscores": lambda text: text.replace("-", "_"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_another_spelling_of_an_id_is_not_there(hub: Hub, spelling: str) -> None:
    made = await registered(hub)
    other = SPELLINGS[spelling](made["id"])
    assert other != made["id"]
    assert (await hub.admin.get(f"/api/v1/data-sources/{made['id']}")).status_code == 200
    for encode in (str, quote):
        answer = await hub.admin.get(f"/api/v1/data-sources/{encode(other)}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("spelling", ["capitals", "no dashes", "braces", "a URN"])
async def test_no_operation_takes_another_spelling(hub: Hub, spelling: str) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()
    role = (await hub.admin.post("/api/v1/roles", json={"name": spelling})).json()
    ids: dict[str, Any] = {"user_id": me["user"]["id"], "role_id": role["id"]}
    ids["source_id"] = (await registered(hub))["id"]
    paths = (await hub.client().get("/openapi.json")).json()["paths"]
    tried = 0
    for path, item in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{") and part.endswith("_id}")]
        for odd in names:
            filled = path
            for name in names:
                right = ids.get(name, ids["source_id"])
                filled = filled.replace(f"{{{name}}}", SPELLINGS[spelling](right) if name == odd else right)
            for method in item:
                answer = await hub.admin.request(method.upper(), filled)
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, filled)
                tried += 1
    assert tried >= 30


async def test_the_same_id_twice_has_to_be_canonical_twice(hub: Hub) -> None:
    same = (await registered(hub))["id"]
    for path in (f"{same}/objects/{same.upper()}", f"{same.upper()}/objects/{same}"):
        assert (await hub.admin.get(f"/api/v1/data-sources/{path}")).status_code == 404


@pytest.mark.parametrize("spelling", ["dashes elsewhere", "no dashes", "braces", "a URN", "white space"])
async def test_a_filter_takes_a_uuid_as_it_is_written(hub: Hub, spelling: str) -> None:
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    answer = await hub.admin.get("/api/v1/audit-events", params={"actor_id": SPELLINGS[spelling](me)})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
