"""Many data sources in one request: all or none unless told otherwise, and every faulty one named."""

import asyncio
import gc
import time
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from sqlalchemy import event

from app.core.slices import ROWS_AT_ONCE
from app.domain.sources.schemas import MAX_BULK
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, faults, registered

pytestmark = pytest.mark.anyio

BULK = f"{SOURCES}/bulk"


def item(**fields: Any) -> dict[str, Any]:
    config = NOWHERE | {"database": f"db_{uuid4().hex}"}
    return {
        "name": f"bulk {uuid4().hex}",
        "type": "postgresql",
        "config": config,
        "secrets": {"password": "pw"},
        **fields,
    }


async def post(client: httpx.AsyncClient, *items: Any, **options: Any) -> httpx.Response:
    return await client.post(BULK, json={"data_sources": list(items), **options})


async def exists(hub: Hub, name: str) -> bool:
    return bool((await hub.admin.get(SOURCES, params={"name": name})).json()["items"])


# --- all of them ---


async def test_many_sources_are_made_as_one_would_be(hub: Hub) -> None:
    rest = item(type="rest", config={"base_url": "http://nowhere.invalid/v1"}, secrets={}, tags=[" b ", "a", "b"])
    wanted = [item(), rest, item(is_paused=True)]
    answer = await post(hub.admin, *wanted)
    assert (answer.status_code, answer.headers["location"]) == (201, SOURCES)
    report = answer.json()
    assert (report["created"], report["failed"], report["dry_run"]) == (3, 0, False)
    assert [one["index"] for one in report["items"]] == [0, 1, 2]
    for one, given in zip(report["items"], wanted, strict=True):
        assert (one["status"], one["errors"], one["warnings"]) == ("created", [], [])
        made = one["data_source"]
        assert made["name"] == given["name"]
        assert (await hub.admin.get(f"{SOURCES}/{made['id']}")).json() == made
    assert report["items"][1]["data_source"]["tags"] == ["b", "a"]
    assert report["items"][0]["data_source"]["secrets"]["password"]["version"] == 1


async def test_each_source_is_on_record(hub: Hub, records: Records) -> None:
    _, events = await records.mark()
    answer = await post(hub.admin, item(), item())
    ids = [one["data_source"]["id"] for one in answer.json()["items"]]
    audited, announced = await records.audit(answer), await records.events(events)
    assert [(row["action"], str(row["resource_id"])) for row in audited] == [
        ("data_source.create", each) for each in ids
    ]
    assert [row["subject"] for row in announced] == [f"data-sources/{each}" for each in ids]
    assert [row["after"]["id"] for row in audited] == [row["data"]["id"] for row in announced] == ids


async def test_a_bulk_secret_opens(hub: Hub, records: Records) -> None:
    made = (await post(hub.admin, item(secrets={"password": "pw", "client_key_passphrase": "key"}))).json()["items"][0]
    rows = await records.run(
        "SELECT * FROM data_source_secrets WHERE data_source_id = $1::uuid", made["data_source"]["id"]
    )
    opened = {
        row["name"]: hub.parts.key_ring.open(
            row["sealed"],
            tenant_id=row["tenant_id"],
            row_id=row["data_source_id"],
            field=f"data_sources.secrets.{row['name']}",
        )
        for row in rows
    }
    assert opened == {"password": b"pw", "client_key_passphrase": b"key"}


async def test_each_of_five_hundred_is_on_record_once(hub: Hub, records: Records) -> None:
    """They are written a hundred at a time, in one transaction."""
    _, events_before = await records.mark()
    answer = await post(hub.admin, *(item() for _ in range(MAX_BULK)))
    made = [one["data_source"]["id"] for one in answer.json()["items"]]
    audited = [str(row["resource_id"]) for row in await records.audit(answer)]
    announced = [event["subject"].rpartition("/")[2] for event in await records.events(events_before)]
    assert audited == announced == made


async def test_each_hundred_are_made_in_as_many_statements_as_two(hub: Hub) -> None:
    """More rows in one statement would be encoded in one go, while everybody else waits (L10)."""
    counts = []
    for number in (2, ROWS_AT_ONCE, MAX_BULK):
        statements: list[str] = []
        engine = hub.parts.engine.sync_engine

        def note(*arguments: Any, said: list[str] = statements) -> None:
            said.append(arguments[2])

        event.listen(engine, "before_cursor_execute", note)
        try:
            answer = await post(hub.admin, *(item() for _ in range(number)))
        finally:
            event.remove(engine, "before_cursor_execute", note)
        assert (answer.status_code, answer.json()["created"]) == (201, number), answer.text[:500]
        counts.append(len(statements))
    asked_first = counts[0] - 2  # of names and of places; then sources and secrets of each hundred
    assert counts == [asked_first + 2, asked_first + 2, asked_first + 2 * MAX_BULK // ROWS_AT_ONCE]
    assert asked_first <= 4


@pytest.mark.parametrize("number", [0, MAX_BULK + 1])
async def test_none_and_more_than_five_hundred_are_refused(hub: Hub, number: int) -> None:
    answer = await post(hub.admin, *(item() for _ in range(number)))
    assert answer.status_code == 400
    assert set(faults(answer)) == {"data_sources"}


async def test_a_body_over_the_limit_is_refused(hub: Hub) -> None:
    assert (await post(hub.admin, item(description="x" * hub.settings.max_body_bytes))).status_code == 413


async def test_the_same_key_gets_the_same_answer_and_makes_nothing_again(hub: Hub) -> None:
    headers, body = {"Idempotency-Key": uuid4().hex}, {"data_sources": [item(), item()]}
    first = await hub.admin.post(BULK, json=body, headers=headers)
    again = await hub.admin.post(BULK, json=body, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    other = await hub.admin.post(BULK, json={"data_sources": [item()]}, headers=headers)
    assert other.status_code == 422


async def test_messagepack_goes_in_and_out(hub: Hub) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    answer = await hub.admin.post(BULK, content=msgspec.msgpack.encode({"data_sources": [item()]}), headers=headers)
    assert (answer.status_code, msgspec.msgpack.decode(answer.content)["created"]) == (201, 1)


async def test_an_item_is_read_as_strictly_as_it_would_be_alone(hub: Hub) -> None:
    """A text is no bytes in MessagePack, a number with a point no whole one, and a field comes once."""
    pointed = await post(hub.admin, item(config=NOWHERE | {"port": 5433.0}))
    assert (pointed.status_code, set(faults(pointed))) == (400, {"data_sources[0].config.port"})
    packed = msgspec.msgpack.encode({"data_sources": [item(name=b"bytes")]})
    answer = await hub.admin.post(BULK, content=packed, headers={"Content-Type": "application/msgpack"})
    assert (answer.status_code, set(faults(answer))) == (400, {"data_sources[0].name"})
    twice = (
        b'{"data_sources": [{"name": "a", "name": "b", "type": "rest", "config": {"base_url": "http://a.invalid"}}]}'
    )
    answer = await hub.admin.post(BULK, content=twice, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "duplicate_field")


async def test_it_takes_the_permission_to_write(hub: Hub) -> None:
    reader = await hub.user_with("data-sources:read")
    assert (await post(reader, item())).status_code == 403


# --- all or none ---


FAULTY: list[tuple[Any, dict[str, str]]] = [
    ({"config": NOWHERE | {"port": "5"}}, {"config.port": "wrong_type"}),
    ({"config": {"host": "h", "zz": 1}}, {"config.zz": "unknown_field", "config.database": "required"}),
    ({"secrets": {"password": "********"}}, {"secrets.password": "masked_secret"}),
    ({"secrets": {"password": {"ref": "env:PATH"}}}, {"secrets.password.ref": "reference_not_allowed"}),
    ({"name": "  "}, {"name": "blank"}),
    ({"type": "nothing"}, {"type": "not_allowed"}),
    ({"owner_role_id": str(uuid4())}, {"owner_role_id": "unknown_role"}),
    ({"zz": 1}, {"zz": "unknown_field"}),
    (5, {"": "wrong_type"}),
    (None, {"": "wrong_type"}),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTY)
async def test_a_faulty_item_is_named_and_nothing_is_made(hub: Hub, fault: Any, expected: dict[str, str]) -> None:
    good = item()
    answer = await post(hub.admin, good, item(**fault) if isinstance(fault, dict) else fault)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    found = {path.removeprefix("data_sources[1]").removeprefix("."): code for path, code in faults(answer).items()}
    assert expected.items() <= found.items()
    assert all(path.startswith("data_sources[1]") for path in faults(answer))
    assert not await exists(hub, good["name"])


async def test_every_faulty_item_of_five_hundred_is_named(hub: Hub) -> None:
    answer = await post(hub.admin, *(item(config={}) for _ in range(MAX_BULK)))
    places = {fault["path"].partition(".")[0] for fault in answer.json()["errors"]}
    assert places == {f"data_sources[{index}]" for index in range(MAX_BULK)}


async def test_a_name_is_taken_once(hub: Hub) -> None:
    """By what is there in any spelling, and by an item before."""
    made, again = await registered(hub, name=f"Taken {uuid4().hex}"), item()
    answer = await post(
        hub.admin, item(name=made["name"].upper()), again, item(name=f" {again['name'].upper()} "), item()
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    assert faults(answer) == {"data_sources[0].name": "name_taken", "data_sources[2].name": "name_taken"}


async def test_a_secret_is_not_repeated_in_what_is_wrong(hub: Hub) -> None:
    answer = await post(hub.admin, item(secrets={"password": ["canary"], "pin": "canary"}), item(secrets="canary"))
    assert answer.status_code == 400
    assert "canary" not in answer.text


# --- those that can be ---


async def test_without_atomic_the_good_ones_are_made_and_the_others_reported(hub: Hub, records: Records) -> None:
    taken = await registered(hub, name=f"taken {uuid4().hex}")
    good, bad = [item(), item()], [item(config={}), item(name=taken["name"])]
    answer = await post(hub.admin, good[0], bad[0], bad[1], good[1], atomic=False)
    report = answer.json()
    assert (answer.status_code, report["created"], report["failed"]) == (201, 2, 2)
    assert [one["status"] for one in report["items"]] == ["created", "failed", "failed", "created"]
    assert [one["data_source"] is None for one in report["items"]] == [False, True, True, False]
    assert {fault["path"] for fault in report["items"][1]["errors"]} == {
        f"data_sources[1].config.{name}" for name in ("host", "database", "username")
    }
    assert [fault["code"] for fault in report["items"][2]["errors"]] == ["name_taken"]
    assert [await exists(hub, one["name"]) for one in good] == [True, True]
    assert len(await records.audit(answer)) == 2


async def test_without_atomic_and_without_a_good_one_it_is_an_error(hub: Hub) -> None:
    answer = await post(hub.admin, item(config={}), 5, atomic=False)
    assert answer.status_code == 400
    assert {path.partition(".")[0] for path in faults(answer)} == {"data_sources[0]", "data_sources[1]"}


# --- as if ---


async def test_a_dry_run_says_what_would_be_and_saves_nothing(hub: Hub, records: Records) -> None:
    before, wanted = await records.mark(), [item(), item(config={}), item()]
    answer = await post(hub.admin, *wanted, atomic=False, dry_run=True)
    report = answer.json()
    assert (answer.status_code, report["created"], report["failed"], report["dry_run"]) == (200, 0, 1, True)
    assert [one["status"] for one in report["items"]] == ["valid", "failed", "valid"]
    assert [one["data_source"] for one in report["items"]] == [None, None, None]
    assert "location" not in answer.headers
    assert not any([await exists(hub, one["name"]) for one in wanted])
    assert await records.mark() == before


async def test_a_dry_run_ends_as_the_real_one_would(hub: Hub) -> None:
    taken = await registered(hub, name=f"taken {uuid4().hex}")
    assert (await post(hub.admin, item(), item(config={}), dry_run=True)).status_code == 400
    assert (await post(hub.admin, item(), item(name=taken["name"]), dry_run=True)).status_code == 409
    good = item()
    assert (await post(hub.admin, good, dry_run=True)).status_code == 200
    assert (await post(hub.admin, good)).status_code == 201


async def test_a_number_that_is_too_large_is_a_fault_of_its_item(hub: Hub) -> None:
    body = msgspec.json.encode({"data_sources": [item(), item(config=NOWHERE | {"port": 4321})]})
    body = body.replace(b"4321", b"1e400")
    answer = await hub.admin.post(BULK, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert [fault["path"] for fault in answer.json()["errors"]] == ["data_sources[1].config.port"]


@pytest.mark.found("A2")
async def test_faults_of_a_bulk_are_bounded_and_every_item_at_fault_is_told(hub: Hub) -> None:
    """Twenty of an item, and one of each item behind two thousand."""
    items = [item() | {f"k{index}": 1 for index in range(80)} for _ in range(500)]
    answer = await post(hub.admin, *items)
    assert answer.status_code == 400
    told = [fault["path"].partition("]")[0].removeprefix("data_sources[") for fault in answer.json()["errors"]]
    assert [told.count(str(index)) for index in (0, 99, 100, 499)] == [20, 20, 1, 1]
    assert set(told) == set(map(str, range(500)))


# --- others meanwhile ---


async def longest_turn_and_all(hub: Hub, body: bytes) -> tuple[float, float]:
    """CPU seconds of the loop's thread: the longest that others waited for their turn, and of the whole request."""
    gaps: list[float] = []

    async def wait_for_turns() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            gaps.append(time.thread_time() - before)

    waiting = asyncio.create_task(wait_for_turns())
    answer = await hub.admin.post(BULK, content=body, headers={"Content-Type": "application/json"})
    waiting.cancel()
    assert answer.status_code == 201
    worked = [gap for gap in gaps if gap > 0.0002]  # what is shorter is the loop's own turning
    return max(worked), sum(worked)


@pytest.mark.slow
@pytest.mark.found("L10")
async def test_others_have_their_turn_while_five_hundred_are_registered(hub: Hub) -> None:
    """No step of it, from the body to the answer, may take a twentieth of the whole in one go."""
    shares = []
    for _ in range(5):
        body = msgspec.json.encode({"data_sources": [item(tags=["a", "b"]) for _ in range(MAX_BULK)]})
        gc.collect()
        gc.disable()  # a hub that serves has frozen what it was started with; this process has not
        try:
            longest, whole = await longest_turn_and_all(hub, body)
        finally:
            gc.enable()
        shares.append(longest / whole)
    assert min(shares) < 1 / 20, shares
