"""`?q=`: what is found by which text, whichever index finds it (L9)."""

from typing import Any

import pytest

from tests.conftest import Hub

pytestmark = [pytest.mark.anyio, pytest.mark.found("L9")]

PEOPLE = [
    ("ada.lovelace@example.org", "Ada", "Lovelace"),
    ("grace@example.org", "Grace", "Hopper-Murray"),
    ("li@example.org", "明华", "李"),
    ("renee@example.org", "Renée", "Ångström"),
    ("odd_100%@example.org", "Back\\slash", "!bang"),
    ("x-y@example.org", "O'Neil", "de la Cruz"),
]


@pytest.fixture(scope="module", autouse=True)
async def people(hub: Hub) -> None:
    for email, first_name, last_name in PEOPLE:
        body = {"email": email, "first_name": first_name, "last_name": last_name}
        made = await hub.admin.post("/api/v1/users", json=body)
        assert made.status_code == 201, made.text


async def found(hub: Hub, text: str, **parameters: str) -> list[str]:
    answer = await hub.admin.get("/api/v1/users", params={"q": text, **parameters})
    assert answer.status_code == 200, answer.text
    return sorted(item["email"].partition("@")[0] for item in answer.json()["items"])


@pytest.mark.parametrize(
    ("text", "who"),
    [
        # inside of words, in any case
        ("LOVELACE", ["ada.lovelace"]),
        ("vela", ["ada.lovelace"]),
        ("lace@exa", ["ada.lovelace"]),
        ("ÅNGSTRÖM", ["renee"]),
        ("per-mur", ["grace"]),
        # across fields, as they are read
        ("ada lovelace", ["ada.lovelace"]),
        ("明华 李", ["li"]),
        ("la cruz", ["x-y"]),
        # one or two letters begin a word
        ("a", ["ada.lovelace", "admin"]),
        ("lo", ["ada.lovelace"]),
        ("ce", []),
        ("李", ["li"]),
        ("明", ["li"]),
        ("华", []),
        ("o", ["odd_100%", "x-y"]),
        ("å", ["renee"]),
        # what would mean something to LIKE, to a regular expression or to SQL
        ("%", ["odd_100%"]),
        ("_", ["odd_100%"]),
        ("d_1", ["odd_100%"]),
        ("d%1", []),
        ("\\", ["odd_100%"]),
        ("k\\s", ["odd_100%"]),
        ("!", ["odd_100%"]),
        ("'", ["x-y"]),
        ("o'n", ["x-y"]),
        ("-", ["grace", "x-y"]),
        ("[a-z]", []),
        (".*", []),
        ("🚀", []),
        ("'; --", []),
        # a symbol beside a letter
        ("x-", ["x-y"]),
        ("-y", ["x-y"]),
        ("@e", ["ada.lovelace", "admin", "grace", "li", "odd_100%", "renee", "x-y"]),
        ("no such person", []),
    ],
)
async def test_a_search_finds_who_has_the_text(hub: Hub, text: str, who: list[str]) -> None:
    assert await found(hub, text) == who
    assert await found(hub, text, sort="-email") == who


async def test_a_search_goes_on_from_page_to_page(hub: Hub) -> None:
    """Each text is asked in a way of its own: the cursor has to come back to the same one."""
    for text in ("example", "ex", "@"):
        first: Any = (await hub.admin.get("/api/v1/users", params={"q": text, "limit": 3, "count": "exact"})).json()
        shown = [item["id"] for item in first["items"]]
        while first["next_cursor"]:
            asked = {"q": text, "limit": 3, "cursor": first["next_cursor"]}
            first = (await hub.admin.get("/api/v1/users", params=asked)).json()
            shown += [item["id"] for item in first["items"]]
        everybody = (await hub.admin.get("/api/v1/users", params={"q": text})).json()["items"]
        assert shown == [item["id"] for item in everybody]


async def test_a_cursor_of_one_search_does_not_fit_another(hub: Hub) -> None:
    page = (await hub.admin.get("/api/v1/users", params={"q": "example", "limit": 2})).json()
    answer = await hub.admin.get("/api/v1/users", params={"q": "exampl", "limit": 2, "cursor": page["next_cursor"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_sources_and_roles_are_searched_alike(hub: Hub) -> None:
    for path, body in (
        ("/api/v1/roles", {"name": "shop_readers", "description": "Zz read_only"}),
        (
            "/api/v1/data-sources",
            {
                "name": "shop_orders",
                "description": "Zz 100%",
                "type": "rest",
                "config": {"base_url": "https://a.example"},
            },
        ),
    ):
        assert (await hub.admin.post(path, json=body)).status_code == 201
        for text, count in (("hop_", 1), ("sh", 1), ("ZZ", 1), ("p_", 0), ("_", 1), ("~", 0)):
            answer = await hub.admin.get(path, params={"q": text})
            assert len(answer.json()["items"]) == count, (path, text)
