"""Reading events: in pages and as they come, nothing missing, nothing twice, and nothing that somebody may not see."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.core import answers, streams
from app.core.embedded import SUPERUSER, EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain import following
from app.domain.events import feed as feeds
from app.domain.events import sequencing
from app.domain.events.repositories import NEXT
from app.domain.events.sequencing import keep_in_order
from tests.beside import beside
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, ended, registered, working
from tests.domain.streams import Streaming

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/events"
PREFIX = "org.datafusionhub."
STREAM = {"accept": "text/event-stream"}
UPDATED = f"{PREFIX}role.updated"


@pytest.fixture(autouse=True)
async def in_order(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """As the worker does it, only sooner."""
    monkeypatch.setattr(sequencing, "EVERY_S", 0.02)
    async with beside(keep_in_order(hub.parts)):
        yield


@asynccontextmanager
async def following_as(
    hub: Hub, client: httpx.AsyncClient, after: int | str | None = None, query: str = ""
) -> AsyncIterator[Streaming]:
    headers = STREAM if after is None else STREAM | {"last-event-id": str(after)}
    stream = Streaming(hub, client, EVENTS, headers=headers, query=query)
    try:
        await stream.first()
        assert stream.status == 200, stream.text
        yield stream
    finally:
        await stream.left()


async def settled(hub: Hub) -> None:
    """Every event has its position."""
    owner = await asyncpg.connect(hub.owner_url)
    async with asyncio.timeout(10):
        while await owner.fetchval("SELECT EXISTS (SELECT FROM outbox_events WHERE position IS NULL)"):
            await asyncio.sleep(0.01)
    await owner.close()


async def last_position(hub: Hub) -> int:
    await settled(hub)
    (newest,) = (await hub.admin.get(EVENTS, params={"limit": 1})).json()["items"]
    return int(newest["position"])


def positions(stream: Streaming) -> list[int]:
    return [int(block["id"]) for block in stream.blocks]


async def shown_to(client: httpx.AsyncClient, **narrowed: Any) -> list[dict[str, Any]]:
    answer = await client.get(EVENTS, params={"limit": 200, "sort": "position", **narrowed})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


# --- pages ---


async def test_a_page_shows_cloud_events_with_their_positions_newest_first(hub: Hub) -> None:
    roles = [await hub.new_role() for _ in range(3)]
    await settled(hub)
    page = (await hub.admin.get(EVENTS, params={"limit": 3})).json()
    assert [event["subject"] for event in page["items"]] == [f"roles/{role['id']}" for role in reversed(roles)]
    newest = page["items"][0]
    assert {name: newest[name] for name in ("specversion", "type", "source", "datacontenttype", "data")} == {
        "specversion": "1.0",
        "type": f"{PREFIX}role.created",
        "source": "/api/v1",
        "datacontenttype": "application/json",
        "data": roles[2],
    }
    assert UUID(newest["id"]).version == 7
    assert [event["position"] for event in page["items"]] == [newest["position"] - back for back in range(3)]


async def test_pages_read_on_to_the_end_in_either_order(hub: Hub) -> None:
    for _ in range(5):
        await hub.new_role()
    end = await last_position(hub)
    for sort in ("position", "-position"):
        found: list[int] = []
        parameters: dict[str, Any] = {"limit": 7, "sort": sort, "count": "exact"}
        while True:
            answer = await hub.admin.get(EVENTS, params=parameters)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [event["position"] for event in page["items"]]
            assert page["total"] == end
            if page["next_cursor"] is None:
                break
            parameters["cursor"] = page["next_cursor"]
        assert found == sorted(range(1, end + 1), reverse=sort == "-position")


async def test_pages_are_narrowed(hub: Hub, records: Records) -> None:
    role = await hub.new_role()
    await hub.admin.patch(f"/api/v1/roles/{role['id']}", json={"description": "changed"})
    await settled(hub)
    subject = f"roles/{role['id']}"
    created, updated = await shown_to(hub.admin, subject=subject)
    assert [event["type"] for event in (created, updated)] == [f"{PREFIX}role.created", UPDATED]
    assert await shown_to(hub.admin, subject=subject, type=UPDATED) == [updated]
    assert await shown_to(hub.admin, subject=subject, **{"from": updated["time"]}) == [updated]
    assert await shown_to(hub.admin, subject=subject, to=updated["time"]) == [created]
    for asked in ({"type": "no.such.type"}, {"from": "yesterday"}, {"nonsense": "1"}, {"sort": "time"}):
        assert (await hub.admin.get(EVENTS, params=asked)).status_code == 400, asked


async def test_a_piece_of_time_is_found_though_positions_are_in_another_order(hub: Hub, records: Records) -> None:
    """A transaction that began long before it wrote, and clocks that differ: as far as the skew goes."""
    other, start = await hub.new_tenant(), datetime.now(UTC) + timedelta(days=2)
    tenant_id = UUID((await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"])
    await settled(hub)
    of_before = await last_position(other)
    seconds = [random.Random(7).uniform(-140, 140) + 20 * number for number in range(200)]
    times = [start + timedelta(seconds=each) for each in seconds]
    for number, moment in enumerate(times, 1):
        await records.run(
            """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data, position)
               VALUES (gen_random_uuid(), $1, 'x', '/', 'x', $2, '{}', $3)""",
            tenant_id,
            moment,
            of_before + number,
        )
    for begin, end in ((1000, 1500), (0, 4000), (3000, 3001)):
        asked = {"from": start + timedelta(seconds=begin), "to": start + timedelta(seconds=end)}
        found = await shown_to(other.admin, subject="x", **{name: at.isoformat() for name, at in asked.items()})
        wanted = [of_before + at for at, moment in enumerate(times, 1) if asked["from"] <= moment < asked["to"]]
        assert [event["position"] for event in found] == wanted


async def test_what_has_no_position_yet_is_not_shown(hub: Hub, records: Records) -> None:
    slow = await asyncpg.connect(hub.owner_url)
    async with slow.transaction():
        await slow.execute("SELECT pg_current_xact_id()")
        role = await hub.new_role()
        assert await shown_to(hub.admin, subject=f"roles/{role['id']}") == []
    await settled(hub)
    assert len(await shown_to(hub.admin, subject=f"roles/{role['id']}")) == 1
    await slow.close()


@pytest.mark.parametrize("headers", [{}, STREAM], ids=["page", "stream"])
async def test_head_has_the_headers_and_nothing_else(hub: Hub, headers: dict[str, str]) -> None:
    answer = await hub.admin.head(EVENTS, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == headers.get("accept", "application/json")
    assert hub.parts.events.followed == 0


# --- streams ---


async def test_a_stream_tells_each_event_from_now_on(hub: Hub) -> None:
    end = await last_position(hub)
    async with following_as(hub, hub.admin) as stream:
        assert dict(stream.sent[0]["headers"])[b"content-type"] == b"text/event-stream"
        assert stream.text == f"id: {end}\n\n"
        role = await hub.new_role()
        await stream.count(1)
        (block,) = stream.blocks
        assert (block["id"], block["event"]) == (str(end + 1), f"{PREFIX}role.created")
        (listed,) = await shown_to(hub.admin, subject=f"roles/{role['id']}")
        assert stream.data == [listed]


async def test_a_stream_is_narrowed_by_type_and_subject_and_by_nothing_else(hub: Hub) -> None:
    role, other = await hub.new_role(), await hub.new_role()
    query = f"type={UPDATED}&subject=roles/{role['id']}"
    await settled(hub)
    async with following_as(hub, hub.admin, query=query) as stream:
        for each in (other, role):
            await hub.admin.patch(f"/api/v1/roles/{each['id']}", json={"description": "changed"})
        await stream.count(1)
        assert stream.data[0]["subject"] == f"roles/{role['id']}"
    for name in ("limit=5", "cursor=x", "sort=position", "count=exact", "from=2030-01-01T00:00:00Z", "x=1", "type=x"):
        assert (await hub.admin.get(f"{EVENTS}?{name}", headers=STREAM)).status_code == 400, name


async def test_nothing_is_missed_or_told_twice_however_often_a_client_comes_back(hub: Hub) -> None:
    """Several write at once, one transaction is open all the while, and another takes numbers and is undone."""
    other = await hub.new_tenant()
    begin = await last_position(other)
    slow = await asyncpg.connect(hub.owner_url)
    tenant_id = UUID((await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"])

    async def write(number: int) -> None:
        for turn in range(15):
            made = await other.admin.post("/api/v1/roles", json={"name": f"{number} {turn} {uuid4().hex}"})
            assert made.status_code == 201

    async def write_slowly() -> None:
        for _ in range(4):
            async with slow.transaction():
                await slow.execute(
                    """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
                       VALUES (gen_random_uuid(), $1, 'slow', '/', 'x', now(), '{}')""",
                    tenant_id,
                )
                await asyncio.sleep(0.15)

    told: list[int] = []
    writing = asyncio.gather(write_slowly(), *(write(number) for number in range(4)))
    while len(told) < 64:
        async with following_as(hub, other.admin, told[-1] if told else begin) as stream:
            await stream.count(min(7, 64 - len(told)), at_least=True)
            told += positions(stream)
    await writing
    assert told == list(range(begin + 1, begin + 65))
    assert [event["position"] for event in await shown_to(other.admin)][-64:] == told
    await slow.close()


async def test_who_follows_for_others_reads_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    rows = hub.parts.reads.rows

    async def counted(statement: Any, values: Any, **options: Any) -> list[Any]:
        if statement is NEXT:
            asked.append(values["after"])
        return await rows(statement, values, **options)

    monkeypatch.setattr(hub.parts.reads, "rows", counted)
    end = await last_position(hub)
    opened = [Streaming(hub, hub.admin, EVENTS, headers=STREAM) for _ in range(15)]
    for stream in opened:
        await stream.first()
    await asyncio.sleep(0.6)
    quiet = len(asked)
    await asyncio.sleep(1)
    assert len(asked) == quiet, "nobody asks where nothing has happened"
    for _ in range(3):
        await hub.new_role()
    for stream in opened:
        await stream.count(3)
        assert positions(stream) == [end + 1, end + 2, end + 3]
    assert len(asked) - quiet <= 6, "three events, and a look behind each"
    for stream in opened:
        await stream.left()


async def test_a_slow_client_costs_no_memory_and_misses_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_KEPT", 5)
    end = await last_position(hub)
    async with following_as(hub, hub.admin) as quick, following_as(hub, hub.admin) as slow:
        slow.may_send.clear()
        for _ in range(30):
            await hub.new_role()
        await quick.count(30)
        (of_tenant,) = hub.parts.events._tenants.values()
        assert len(of_tenant._kept) <= 5
        assert of_tenant._bytes_kept == sum(len(each.text) for each in of_tenant._kept)
        assert len(slow.blocks) == 0
        slow.may_send.set()
        await slow.count(30)
        for stream in (quick, slow):
            assert positions(stream) == list(range(end + 1, end + 31))


async def test_who_takes_nothing_for_long_is_let_go(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TAKEN_WITHIN_S", 0.2)
    async with following_as(hub, hub.admin) as stream:
        stream.may_send.clear()
        await hub.new_role()
        await asyncio.wait_for(asyncio.shield(stream.task), 10)
    assert hub.parts.streams.count == hub.parts.events.followed == 0


async def test_an_event_of_a_megabyte_is_told_whole(hub: Hub, records: Records) -> None:
    end = await last_position(hub)
    text = "x" * 1_000_000
    async with following_as(hub, hub.admin) as stream:
        for data in (text, "short", text, text):
            await records.run(
                """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
                   VALUES (gen_random_uuid(), $1, 'large', '/', 'large', now(), jsonb_build_object('text', $2::text))""",
                DEFAULT_TENANT_ID,
                data,
            )
        await stream.count(4)
        assert [each["data"]["text"] for each in stream.data] == [text, "short", text, text]
        (of_tenant,) = hub.parts.events._tenants.values()
        assert sum(len(each.text) for each in of_tenant._kept) <= feeds.BYTES_KEPT
    assert [len(each["data"]["text"]) for each in await shown_to(hub.admin, subject="large")] == [
        10**6,
        5,
        10**6,
        10**6,
    ]
    async with following_as(hub, hub.admin, end) as again:
        await again.count(4)
        assert again.data == stream.data


async def test_a_quiet_stream_says_that_it_is_there_and_from_where_it_goes_on(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "KEEP_ALIVE_S", 0.3)
    reader = await hub.user_with("events:read")
    async with following_as(hub, reader, query=f"type={PREFIX}tenant.created") as stream:
        await hub.new_role()
        end = await last_position(hub)
        await stream.until(lambda: f"id: {end}\n\n: still here\n\n" in stream.text)
        assert stream.blocks == []


async def test_what_was_told_while_the_listener_was_away_is_told_all_the_same(
    hub: Hub, cluster: EmbeddedPostgres
) -> None:
    superuser = await asyncpg.connect(cluster.url(SUPERUSER, hub.url.rpartition("/")[2].partition("?")[0]))
    async with following_as(hub, hub.admin) as stream:
        await asyncio.sleep(0.3)
        found = await superuser.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hub listener'"
            " AND datname = current_database()"
        )
        assert len(found) == 2, "one for all streams, one for principals"
        await hub.new_role()
        await stream.count(1)
    await superuser.close()


async def test_who_leaves_leaves_nothing_behind(hub: Hub) -> None:
    before = len(asyncio.all_tasks())
    opened = [Streaming(hub, hub.admin, EVENTS, headers=STREAM | {"last-event-id": "0"}) for _ in range(3)]
    for stream in opened:
        await stream.first()
    opened[1].may_send.clear()
    await hub.new_role()
    await asyncio.sleep(0.2)  # it is on its way to the one that takes nothing
    assert hub.parts.events.followed == 1
    for stream in opened:
        await stream.left()
    async with asyncio.timeout(1):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)
    assert hub.parts.events.followed == 0
    assert hub.parts.events._listener is None
    assert hub.parts.streams.count == 0


async def test_so_many_streams_of_one_principal_and_no_more(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "OF_ONE_PRINCIPAL", 2)
    async with following_as(hub, hub.admin), following_as(hub, hub.admin):
        refused = await hub.admin.get(EVENTS, headers=STREAM)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert hub.parts.streams.count == 0


@pytest.mark.parametrize(
    "odd", ["", "-1", "+1", "1.0", "x", " ", "0x1", "1e3", "٣", "9" * 19, "9" * 30, "1, 2", "nan", "ahead"]
)
async def test_an_id_that_was_never_told_is_refused(hub: Hub, odd: str) -> None:
    """One that is ahead, too: who comes with it would miss what comes until then."""
    given = str(await last_position(hub) + 1) if odd == "ahead" else odd
    headers = [(b"accept", b"text/event-stream"), (b"last-event-id", given.encode())]
    answer = await hub.admin.get(EVENTS, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "Last-Event-ID"), answer.text


async def test_zero_is_the_beginning_of_what_is_kept(hub: Hub, records: Records) -> None:
    """What was before is gone; the stream does not wait for it."""
    other = await hub.new_tenant()
    end = await last_position(other)
    tenant_id = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    await records.run("DELETE FROM outbox_events WHERE tenant_id = $1::uuid AND position <= $2", tenant_id, end)
    async with following_as(hub, other.admin, 0) as stream:
        await other.new_role()
        await stream.count(1)
        assert positions(stream) == [end + 1]


# --- who sees what ---


async def test_another_tenants_events_are_not_there_and_leave_no_gap(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    of_ours, of_theirs = await last_position(hub), await last_position(other)
    async with following_as(hub, hub.admin) as ours, following_as(hub, other.admin) as theirs:
        for _ in range(4):
            role, foreign = await hub.new_role(), await other.new_role()
        for stream in (ours, theirs):
            await stream.count(4)
        assert positions(ours) == list(range(of_ours + 1, of_ours + 5))
        assert positions(theirs) == list(range(of_theirs + 1, of_theirs + 5))
        assert role["id"] in ours.text
        assert role["id"] not in theirs.text
        assert foreign["id"] not in ours.text
    assert foreign["id"] not in (await hub.admin.get(EVENTS, params={"limit": 200})).text
    assert await shown_to(other.admin, subject=f"roles/{role['id']}") == []


async def guest_of(hub: Hub, scope_type: str, scope_id: str, permission: str = "events:read") -> Any:
    """Who they are, with the assignment that lets them in there, and nowhere else."""
    user, role = await hub.new_user(password=PASSWORD), await hub.new_role(permissions=[permission])
    given = await hub.admin.post(
        "/api/v1/role-assignments",
        json={
            "subject": {"type": "user", "id": user["id"]},
            "role_id": role["id"],
            "scope": {"type": scope_type, "id": scope_id},
        },
    )
    assert given.status_code == 201, given.text
    return await hub.sign_in(user["email"]), f"/api/v1/role-assignments/{given.json()['id']}"


async def life_of(hub: Hub, **fields: Any) -> dict[str, Any]:
    """A source that is registered, tested and discovered."""
    source = await registered(hub, type="simulated", config={}, **fields)
    path = f"{SOURCES}/{source['id']}"
    assert (await hub.admin.post(f"{path}/test")).status_code == 200
    async with working(hub.parts):
        job = (await hub.admin.post(f"{path}/discover")).json()
        await ended(hub.admin, job["id"])
    return source


LIFE = ["data_source.created", "data_source.status_changed", "job.created", "data_source.discovered", "job.succeeded"]


def names(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix(PREFIX) for event in events]


async def test_a_guest_of_one_source_sees_what_is_about_it_and_nothing_else(hub: Hub) -> None:
    begin = await last_position(hub)
    mine, other = await life_of(hub), await life_of(hub)
    guest, _ = await guest_of(hub, "data_source", mine["id"])
    await settled(hub)
    seen = await shown_to(guest)
    assert names(seen) == LIFE
    assert other["id"] not in str(seen)
    assert await shown_to(guest, subject=f"data-sources/{other['id']}") == []
    assert (await guest.get(EVENTS, params={"count": "exact"})).json()["total"] == len(LIFE)
    async with following_as(hub, guest, begin) as stream:
        await stream.count(len(LIFE))
        for source in (other, mine):
            await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"description": "changed"})
        await stream.count(len(LIFE) + 1)
        assert stream.data[:-1] == seen
        assert stream.data[-1]["subject"] == f"data-sources/{mine['id']}"


async def test_a_guest_of_a_domain_sees_what_is_in_it_and_below_it(hub: Hub) -> None:
    """What has left is not told any more, and what was deleted is, where it was."""
    top = (await hub.admin.post("/api/v1/data-domains", json={"name": uuid4().hex})).json()
    guest, _ = await guest_of(hub, "data_domain", top["id"])
    inner = (await hub.admin.post("/api/v1/data-domains", json={"name": "in", "parent_id": top["id"]})).json()
    source = await life_of(hub, data_domain_id=inner["id"])
    outside = await life_of(hub)
    await settled(hub)
    assert names(await shown_to(guest)) == ["data_domain.created", "data_domain.created", *LIFE]
    for body in ({"data_domain_id": None}, {"description": "elsewhere"}, {"data_domain_id": top["id"]}):
        moved = await hub.admin.patch(f"{SOURCES}/{source['id']}", json=body)
        assert moved.status_code == 200, moved.text
    assert (await hub.admin.delete(f"{SOURCES}/{source['id']}")).status_code == 204
    assert (await hub.admin.delete(f"/api/v1/data-domains/{inner['id']}")).status_code == 204
    await settled(hub)
    seen = await shown_to(guest)
    assert names(seen)[-3:] == ["data_source.updated", "data_source.deleted", "data_domain.deleted"]
    assert [event["data"].get("description") for event in seen].count("elsewhere") == 1, "once it is back"
    assert outside["id"] not in str(seen)


async def test_a_right_to_other_things_there_shows_no_events(hub: Hub) -> None:
    source = await registered(hub)
    guest, _ = await guest_of(hub, "data_source", source["id"], "data-sources:read")
    for headers in ({}, STREAM):
        answer = await guest.get(EVENTS, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")


async def test_jobs_about_something_else_than_a_source_are_for_who_sees_all(hub: Hub, records: Records) -> None:
    """Whatever the id of what they are about."""
    source = await registered(hub)
    guest, _ = await guest_of(hub, "data_source", source["id"])
    await settled(hub)
    before = await shown_to(guest)
    found = await records.run(
        "SELECT type, data_source_id FROM outbox_events WHERE subject LIKE 'roles/%' OR subject LIKE 'users/%'"
    )
    assert found
    assert {row["data_source_id"] for row in found} == {None}
    assert names(before) == ["data_source.created"]


# --- rights that end under a stream ---


async def test_a_right_that_ends_is_seen_within_a_second(hub: Hub) -> None:
    source = await registered(hub)
    guest, assignment = await guest_of(hub, "data_source", source["id"])
    await settled(hub)
    async with following_as(hub, guest) as stream:
        assert (await hub.admin.delete(assignment)).status_code == 204
        await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"description": "not for them"})
        await asyncio.wait_for(asyncio.shield(stream.task), 5)
        assert stream.is_complete
        assert stream.blocks == []


async def test_a_right_that_shrinks_shows_less_from_then_on(hub: Hub) -> None:
    kept, lost = await registered(hub), await registered(hub)
    guest, _ = await guest_of(hub, "data_source", kept["id"])
    me = (await guest.get("/api/v1/auth/me")).json()["user"]["id"]
    role = await hub.new_role(permissions=["events:read"])
    body = {"subject": {"type": "user", "id": me}, "role_id": role["id"]}
    given = await hub.admin.post(
        "/api/v1/role-assignments", json=body | {"scope": {"type": "data_source", "id": lost["id"]}}
    )
    await settled(hub)
    async with following_as(hub, guest) as stream:
        await hub.admin.patch(f"{SOURCES}/{lost['id']}", json={"description": "before"})
        await stream.until(lambda: "before" in stream.text)
        assert (await hub.admin.delete(f"/api/v1/role-assignments/{given.json()['id']}")).status_code == 204
        for source, text in ((lost, "after"), (kept, "kept")):
            await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"description": text})
        await stream.until(lambda: "kept" in stream.text)
        assert '"description":"after"' not in stream.text
        assert not stream.task.done()


async def test_what_was_read_before_the_right_ended_is_not_told_after_it(hub: Hub) -> None:
    """To a client so slow that what it is to be told waits for it."""
    reader = await hub.user_with("events:read")
    me = (await reader.get("/api/v1/auth/me")).json()
    (role,) = [role["id"] for role in me["roles"] if role["name"] != "public"]
    await settled(hub)
    async with following_as(hub, reader) as stream:
        stream.may_send.clear()
        await hub.new_role(name=f"first {uuid4().hex}")
        await asyncio.sleep(0.5)  # it is on its way
        for _ in range(3):
            await hub.new_role(name=f"later {uuid4().hex}")
        assert (await hub.admin.delete(f"/api/v1/users/{me['user']['id']}/roles/{role}")).status_code in (200, 204)
        stream.may_send.set()
        await asyncio.wait_for(asyncio.shield(stream.task), 5)
        assert len(stream.blocks) == 1
        assert "later " not in stream.text


async def test_a_stream_ends_with_the_session_and_with_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = await hub.user_with("events:read")
    async with following_as(hub, reader) as stream:
        assert (await reader.post("/api/v1/auth/logout")).status_code == 204
        await asyncio.wait_for(asyncio.shield(stream.task), 5)
        assert stream.is_complete
    async with following_as(hub, hub.admin) as stream:
        monkeypatch.setattr(following, "time", lambda: datetime.now(UTC).timestamp() + 3600)
        await asyncio.wait_for(asyncio.shield(stream.task), 5)
        assert stream.is_complete


async def test_the_streams_of_a_suspended_tenant_end_on_every_worker(hub: Hub, other_worker: Hub) -> None:
    other = await hub.new_tenant()
    tenant_id = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    async with following_as(hub, other.admin) as here, following_as(other_worker, other.admin) as there:
        assert (await hub.admin.post(f"/api/v1/tenants/{tenant_id}/suspend")).status_code == 200
        for stream in (here, there):
            await asyncio.wait_for(asyncio.shield(stream.task), 5)
            assert stream.is_complete
    assert hub.parts.events.followed == other_worker.parts.events.followed == 0
