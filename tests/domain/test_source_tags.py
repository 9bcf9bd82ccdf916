"""Tags of data sources as rows of their own: right after every write, whoever wrote, and in every order of the list."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("L9")]

WANTED = """
    SELECT DISTINCT tag, tenant_id, created_at, updated_at, name_key FROM data_sources, unnest(tags) AS tag
    WHERE id = $1::uuid ORDER BY tag
"""
KEPT = """
    SELECT tag, tenant_id, source_created_at, source_updated_at, source_name_key FROM data_source_tags
    WHERE data_source_id = $1::uuid ORDER BY tag
"""


async def tags_kept(records: Records, source_id: str) -> list[str]:
    """Raises where a copy differs from what it is a copy of."""
    kept, wanted = await records.run(KEPT, source_id), await records.run(WANTED, source_id)
    assert [tuple(row) for row in kept] == [tuple(row) for row in wanted]
    return [row["tag"] for row in kept]


async def test_a_new_source_has_a_row_for_each_tag(hub: Hub, records: Records) -> None:
    for tags in ([], ["one"], ["b", "a", "Ä"]):
        made = await registered(hub, tags=tags)
        assert await tags_kept(records, made["id"]) == sorted(tags)


async def test_many_sources_of_one_request_have_theirs(hub: Hub, records: Records) -> None:
    items = [
        {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE, "tags": ["of many", f"number {number}"]}
        for number in range(5)
    ]
    items.append({"name": uuid4().hex, "type": "postgresql", "config": NOWHERE})
    answer = await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": items})
    assert answer.status_code == 201, answer.text
    for item, made in zip(items, answer.json()["items"], strict=True):
        assert await tags_kept(records, made["data_source"]["id"]) == sorted(item.get("tags", []))


CHANGES: dict[str, dict[str, Any]] = {
    "tags": {"tags": ["c", "b"]},
    "no tag any more": {"tags": []},
    "null": {"tags": None},
    "name": {"name": "Renamed with its tags"},
    "what is no copy": {"description": "and yet it is changed later"},
    "all of it": {"name": "All of it", "tags": ["z"], "is_paused": True},
}


@pytest.mark.parametrize("given", CHANGES)
async def test_a_changed_source_has_them_as_it_is_now(hub: Hub, records: Records, given: str) -> None:
    made = await registered(hub, tags=["a", "b"])
    change = CHANGES[given]
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json=change)
    assert answer.status_code == 200, answer.text
    assert await tags_kept(records, made["id"]) == sorted(change.get("tags", ["a", "b"]) or [])


BY_HAND: dict[str, Callable[[str], str]] = {
    "tags given twice": lambda source: f"UPDATE data_sources SET tags = '{{x,y,x}}' WHERE id = '{source}'",
    "later": lambda source: f"UPDATE data_sources SET updated_at = now() WHERE id = '{source}'",
    "deleted": lambda source: f"DELETE FROM data_sources WHERE id = '{source}'",
}


@pytest.mark.parametrize("given", BY_HAND)
async def test_who_writes_past_the_hub_finds_them_kept(hub: Hub, records: Records, given: str) -> None:
    """As a hub of the release before does, which knows nothing of these rows."""
    made = await registered(hub, tags=["a"])
    await records.run(BY_HAND[given](made["id"]))
    found = await tags_kept(records, made["id"])
    assert found == {"tags given twice": ["x", "y"], "later": ["a"], "deleted": []}[given]


async def test_what_is_not_sorted_by_writes_no_tags(hub: Hub, records: Records) -> None:
    """A test's result is written often: it must not cost a row for each tag."""
    made = await registered(hub, tags=["a", "b"])
    before = await records.run("SELECT xmin FROM data_source_tags WHERE data_source_id = $1::uuid", made["id"])
    await records.run("UPDATE data_sources SET status = 'passed' WHERE id = $1::uuid", made["id"])
    after = await records.run("SELECT xmin FROM data_source_tags WHERE data_source_id = $1::uuid", made["id"])
    assert before == after


@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at", "updated_at", "-updated_at"])
async def test_pages_of_one_tag_show_every_source_once_and_in_order(hub: Hub, sort: str) -> None:
    tag = f"paged {uuid4().hex}"
    made = [await registered(hub, tags=[tag, "another"], name=f"{number} {uuid4().hex}") for number in (3, 1, 2, 5, 4)]
    await hub.admin.patch(f"{SOURCES}/{made[1]['id']}", json={"description": "changed last"})
    shown: list[dict[str, Any]] = []
    asked: dict[str, Any] = {"tag": tag, "sort": sort, "limit": 2, "count": "exact"}
    while True:
        page = (await hub.admin.get(SOURCES, params=asked)).json()
        shown += page["items"]
        assert page["total"] == len(made)
        if page["next_cursor"] is None:
            break
        asked["cursor"] = page["next_cursor"]
    wanted = sorted(shown, key=lambda source: source[sort.removeprefix("-")], reverse=sort.startswith("-"))
    assert [source["id"] for source in shown] == [source["id"] for source in wanted]
    assert {source["id"] for source in shown} == {source["id"] for source in made}
