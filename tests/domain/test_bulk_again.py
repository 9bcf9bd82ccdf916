"""The same file of sources, sent again: what has the names already fails, is passed over, or is changed (`on_conflict`)."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, faults

pytestmark = [pytest.mark.anyio, pytest.mark.found("U13")]

BULK = f"{SOURCES}/bulk"
COUNTS = ("created", "updated", "unchanged", "skipped", "failed")


def item(**fields: Any) -> dict[str, Any]:
    config = NOWHERE | {"database": f"db_{uuid4().hex}"}
    return {"name": f"again {uuid4().hex}", "type": "postgresql", "config": config, **fields}


async def send(hub: Hub, items: list[dict[str, Any]], status: int, **options: Any) -> dict[str, Any]:
    answer = await hub.admin.post(BULK, json={"data_sources": items, **options})
    assert answer.status_code == status, answer.text[:600]
    report: dict[str, Any] = answer.json()
    return report


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {name: report[name] for name in COUNTS if report[name]}


async def test_without_a_word_the_second_run_is_refused_as_before(hub: Hub) -> None:
    items = [item() for _ in range(3)]
    await send(hub, items, 201)
    assert (await send(hub, items, 409))["code"] == "name_taken"
    assert (await send(hub, items, 409, on_conflict="fail"))["code"] == "name_taken"


async def test_sources_that_are_there_are_passed_over(hub: Hub, records: Records) -> None:
    items = [item(secrets={"password": "x"}) for _ in range(3)]
    first = await send(hub, items, 201)
    before = await records.mark()
    again = await send(hub, items, 200, on_conflict="skip")
    assert counts(again) == {"skipped": 3}
    assert [each["data_source"] for each in again["items"]] == [each["data_source"] for each in first["items"]]
    assert await records.mark() == before
    more = await send(hub, [*items, item()], 201, on_conflict="skip")
    assert counts(more) == {"created": 1, "skipped": 3}


async def test_the_second_run_of_the_same_file_changes_nothing(hub: Hub, records: Records) -> None:
    items = [item(tags=["a"], description="d") for _ in range(3)]
    first = await send(hub, items, 201)
    before = await records.mark()
    again = await send(hub, items, 200, on_conflict="update")
    assert counts(again) == {"unchanged": 3}
    assert [each["data_source"] for each in again["items"]] == [each["data_source"] for each in first["items"]]
    assert await records.mark() == before


async def test_what_the_file_says_is_changed_and_what_it_leaves_out_stays(hub: Hub) -> None:
    one, other = item(), item()
    ids = [each["data_source"]["id"] for each in (await send(hub, [one, other], 201))["items"]]
    await hub.admin.patch(f"{SOURCES}/{ids[0]}", json={"description": "by hand", "is_paused": True})
    changed = one | {"name": one["name"].upper(), "tags": ["new"], "config": one["config"] | {"port": 5433}}
    report = await send(hub, [changed, other, item()], 201, on_conflict="update")
    assert counts(report) == {"created": 1, "updated": 1, "unchanged": 1}
    shown = report["items"][0]["data_source"]
    assert shown == (await hub.admin.get(f"{SOURCES}/{ids[0]}")).json()
    assert (shown["id"], shown["name"], shown["tags"], shown["config"]["port"]) == (
        ids[0],
        changed["name"],
        ["new"],
        5433,
    )
    assert (shown["description"], shown["is_paused"], shown["version"]) == ("by hand", True, 3)


async def test_a_secret_is_given_anew_and_one_that_is_left_out_stays(hub: Hub, records: Records) -> None:
    """Whether a secret is the same is told to nobody: it could be found out by guessing."""
    made = item(secrets={"password": "one"})
    await send(hub, [made], 201)
    report = await send(hub, [made], 200, on_conflict="update")
    assert counts(report) == {"updated": 1}
    assert report["items"][0]["data_source"]["secrets"]["password"]["version"] == 2
    without = {name: value for name, value in made.items() if name != "secrets"}
    assert counts(await send(hub, [without], 200, on_conflict="update")) == {"unchanged": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"type": "rest", "config": {"base_url": "http://a.invalid"}, "secrets": {}}, {"type": "type_differs"}),
        ({"config": NOWHERE | {"host": "elsewhere.invalid"}}, {"secrets.password": "secret_reentry_required"}),
        ({"owner_role_id": str(uuid4())}, {"owner_role_id": "unknown_role"}),
        ({"config": {}}, {"config.host": "required", "config.database": "required", "config.username": "required"}),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_a_patch_would_refuse_is_a_fault_of_the_item(
    hub: Hub, change: dict[str, Any], expected: dict[str, str], dry_run: bool
) -> None:
    made, good = item(secrets={"password": "x"}), item()
    await send(hub, [made], 201)
    faulty = {name: value for name, value in made.items() if name != "secrets"} | change
    answer = await hub.admin.post(
        BULK, json={"data_sources": [good, faulty], "on_conflict": "update", "dry_run": dry_run}
    )
    assert answer.status_code in (400, 409)
    assert faults(answer) == {f"data_sources[1].{path}": code for path, code in expected.items()}
    assert not (await hub.admin.get(SOURCES, params={"name": good["name"]})).json()["items"]
    report = await send(
        hub, [good, faulty], 200 if dry_run else 201, on_conflict="update", atomic=False, dry_run=dry_run
    )
    assert [each["status"] for each in report["items"]] == ["valid" if dry_run else "created", "failed"]


async def test_all_or_none_holds_for_changes_too(hub: Hub) -> None:
    one, other = item(secrets={"password": "x"}), item(secrets={"password": "x"})
    ids = [each["data_source"]["id"] for each in (await send(hub, [one, other], 201))["items"]]
    changed = {"name": one["name"], "type": "postgresql", "config": one["config"], "description": "changed"}
    moved = {"name": other["name"], "type": "postgresql", "config": NOWHERE | {"host": "moved.invalid"}}
    assert (await send(hub, [changed, moved], 409, on_conflict="update"))["code"] == "secret_reentry_required"
    assert (await hub.admin.get(f"{SOURCES}/{ids[0]}")).json()["description"] is None


async def test_a_dry_run_changes_nothing(hub: Hub, records: Records) -> None:
    made = item()
    await send(hub, [made], 201)
    before = await records.mark()
    report = await send(hub, [made | {"description": "new"}, item()], 200, on_conflict="update", dry_run=True)
    assert [each["status"] for each in report["items"]] == ["valid", "valid"]
    assert await records.mark() == before


async def test_a_name_twice_in_one_request_is_a_fault_all_the_same(hub: Hub) -> None:
    made = item()
    for on_conflict in ("skip", "update"):
        answer = await hub.admin.post(BULK, json={"data_sources": [made, made], "on_conflict": on_conflict})
        assert (answer.status_code, faults(answer)) == (409, {"data_sources[1].name": "name_taken"})


async def test_messagepack_changes_as_json_does(hub: Hub) -> None:
    made = item()
    await send(hub, [made], 201)
    body = {"data_sources": [made | {"description": "packed"}], "on_conflict": "update"}
    headers = {"Content-Type": "application/msgpack"}
    answer = await hub.admin.post(BULK, content=msgspec.msgpack.encode(body), headers=headers)
    assert (answer.status_code, answer.json()["updated"]) == (200, 1)


async def test_another_word_is_refused(hub: Hub) -> None:
    answer = await hub.admin.post(BULK, json={"data_sources": [item()], "on_conflict": "replace"})
    assert (answer.status_code, set(faults(answer))) == (400, {"on_conflict"})
