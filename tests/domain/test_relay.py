"""The relay to any destination: what is published, in which order, what is noted, and what is set aside."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from sqlalchemy import text

from app.cli import _parser
from app.core.embedded import EmbeddedPostgres
from app.core.publishing import TAKEN, Confirmation, DestinationAway
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events import relay
from app.domain.events.destinations import DestinationName, WaitingEvent
from app.domain.events.relay import Relay, waves_of
from app.domain.events.sequencing import give_positions
from app.domain.health import controllers as health
from app.domain.upkeep import services as upkeep
from tests.beside import beside
from tests.commands.hubs import run
from tests.conftest import Hub, running_hub
from tests.domain.conftest import Records
from tests.domain.test_gauges import scraped

pytestmark = pytest.mark.anyio

TYPE = "org.datafusionhub.thing.changed"
WRITE = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
           SELECT gen_random_uuid(), $1, $2, '/api/v1', $3, now(), jsonb_build_object('n', n)
           FROM generate_series($4::int, $5::int) AS n"""


class Notebook:
    """A destination that writes down what it takes, and fails as it is told to."""

    name: DestinationName = "broker"

    def __init__(self) -> None:
        self.taken: list[WaitingEvent] = []
        self.waves: list[list[str]] = []
        self.is_connected = False
        self.is_away: str | None = None
        self.fails: Callable[[WaitingEvent], Confirmation | None] = lambda _: None
        """What it answers in place of taking an event; after `unknown` it hangs up."""

    async def connect(self) -> None:
        if self.is_away is not None:
            raise DestinationAway(self.is_away)
        self.is_connected = True

    async def publish(self, events: Sequence[WaitingEvent]) -> list[Confirmation]:
        self.waves.append([event.subject for event in events])
        answers = [self.fails(event) or TAKEN for event in events]
        if any(answer.outcome == "unknown" for answer in answers):
            self.is_connected = False
        self.taken += [event for event, answer in zip(events, answers, strict=True) if answer is TAKEN]
        return answers

    async def close(self) -> None:
        self.is_connected = False

    def numbers(self, subject: str) -> list[int]:
        return [number_of(event) for event in self.taken if event.subject == subject]


def number_of(event: WaitingEvent) -> int:
    found: int = msgspec.json.decode(event.data)["n"]
    return found


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    """With a broker that nobody connects to but for the relays of the tests."""
    folder: Path = tmp_path_factory.mktemp("hub")
    async with running_hub(cluster, migrated, folder, HUB_BROKER_URL="stomp://127.0.0.1:1") as running:
        yield running


@pytest.fixture(autouse=True)
async def quick(hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for long, and nothing of another test waits at all."""
    for name in ("LOOK_EVERY_S", "LEAD_EVERY_S", "FIRST_RETRY_S", "FIRST_BACK_OFF_S"):
        monkeypatch.setattr(relay, name, 0.02)
    monkeypatch.setattr(relay, "LONGEST_RETRY_S", 0.1)
    monkeypatch.setattr(relay, "LONGEST_BACK_OFF_S", 0.1)
    await positioned(hub)
    await records.run("UPDATE outbox_events SET published_at = now() - interval '1 hour' WHERE published_at IS NULL")
    await records.run("UPDATE relays SET away_since = NULL, reason = NULL")


async def positioned(hub: Hub) -> None:
    """All that is committed; for a moment other transactions may be in the way."""
    async with asyncio.timeout(10):
        while True:
            await give_positions(hub.parts)
            async with hub.parts.sessions.begin(None) as session:
                if await session.scalar(text("SELECT waiting FROM public.figures_of_events(1)")) == 0:
                    return


async def write(
    records: Records, subject: str, *numbers: int, kind: str = TYPE, tenant_id: UUID = DEFAULT_TENANT_ID
) -> None:
    for number in numbers:
        await records.run(WRITE, tenant_id, kind, subject, number, number)


@asynccontextmanager
async def relaying(hub: Hub, destination: Any) -> AsyncIterator[None]:
    async with beside(Relay(hub.parts, destination).run()) as task:
        yield
        assert not task.done() or task.result()


async def until(holds: Callable[[], Any], timeout_s: float = 20) -> None:
    ends = monotonic() + timeout_s
    while True:
        found = holds()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert monotonic() < ends, "it does not come to that"
        await asyncio.sleep(0.01)


async def unpublished(records: Records) -> int:
    found: int = await records.one(
        "SELECT count(*) FROM outbox_events WHERE published_at IS NULL AND set_aside_at IS NULL"
    )
    return found


# --- order ---


def waiting(subject: str, number: int) -> WaitingEvent:
    now = datetime.now(UTC)
    return WaitingEvent(uuid4(), DEFAULT_TENANT_ID, "default", TYPE, "/", subject, now, f'{{"n": {number}}}', 0)


async def test_a_wave_has_one_event_of_each_subject_and_a_suspect_goes_alone() -> None:
    events = [waiting("a", 1), waiting("b", 1), waiting("a", 2), waiting("a", 3), waiting("c", 1), waiting("c", 2)]
    plain = [[(event.subject, number_of(event)) for event in wave] for wave in waves_of(events, {})]
    assert plain == [[("a", 1), ("b", 1), ("c", 1)], [("a", 2), ("c", 2)], [("a", 3)]]
    careful = [
        [(event.subject, number_of(event)) for event in wave]
        for wave in waves_of(events, {events[4].id: 1, events[1].id: 0})
    ]
    assert careful == [[("a", 1)], [("a", 2)], [("a", 3)], [("b", 1)], [("c", 1)]]


async def test_every_event_with_a_position_is_published_once_and_noted(hub: Hub, records: Records) -> None:
    for number in range(1, 31):
        await write(records, f"things/{number % 3}", number)
    notebook = Notebook()
    async with relaying(hub, notebook):
        await asyncio.sleep(0.1)
        assert notebook.taken == []
        await positioned(hub)
        await until(lambda: len(notebook.taken) == 30)
        await until(lambda: unpublished_is_zero(records))
    for rest in range(3):
        assert notebook.numbers(f"things/{rest}") == [n for n in range(1, 31) if n % 3 == rest]
    event = msgspec.json.decode(notebook.taken[0].in_envelope())
    assert set(event) == {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"}
    assert (event["specversion"], event["type"], event["data"]) == ("1.0", TYPE, {"n": 1})
    assert event["time"].endswith("Z")


async def unpublished_is_zero(records: Records) -> bool:
    return await unpublished(records) == 0


async def test_a_crowd_of_one_tenant_keeps_no_other_waiting(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "AT_ONCE", 10)
    other = (await hub.new_tenant()).admin
    await other.aclose()
    await positioned(hub)
    await records.run("UPDATE outbox_events SET published_at = now() WHERE published_at IS NULL")
    theirs: UUID = await records.one("SELECT id FROM tenants ORDER BY created_at DESC LIMIT 1")
    await records.run(WRITE, DEFAULT_TENANT_ID, TYPE, "crowd", 1, 60)
    await write(records, "small", 1, tenant_id=theirs)
    await positioned(hub)
    notebook = Notebook()
    async with relaying(hub, notebook):
        await until(lambda: len(notebook.taken) == 61)
    place = [event.subject for event in notebook.taken].index("small")
    assert place < 20, "within the first two times"
    assert {event.slug for event in notebook.taken} == {"default", notebook.taken[place].slug}


async def test_a_batch_has_no_more_bytes_than_it_may_but_one_event_in_any_case(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BYTES_AT_ONCE", 2500)
    for number in (1, 2, 3, 4):
        await records.run(
            """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
               VALUES (gen_random_uuid(), $1, $2, '/', $3, now(), jsonb_build_object('n', $4::int, 'x', repeat('x', $5)))""",
            *(DEFAULT_TENANT_ID, TYPE, f"big/{number}", number, 9000 if number == 3 else 1000),
        )
    await positioned(hub)
    notebook = Notebook()
    async with relaying(hub, notebook):
        await until(lambda: len(notebook.taken) == 4)
    assert notebook.waves == [["big/1", "big/2"], ["big/3"], ["big/4"]]


# --- faults ---


async def test_what_was_sent_and_not_noted_is_sent_again_with_the_same_id(hub: Hub, records: Records) -> None:
    """Killed before it sends, between sending and noting, and after noting."""

    class Killed(BaseException):
        pass

    class Dying(Notebook):
        dies = "before"

        async def publish(self, events: Sequence[WaitingEvent]) -> list[Confirmation]:
            if self.dies == "before":
                raise Killed
            answers = await super().publish(events)
            if self.dies == "between":
                raise Killed
            return answers

    class DyingRelay(Relay):
        async def _note(self, connection: Any, published: Any) -> None:
            await super()._note(connection, published)
            raise Killed

    await write(records, "mortal", 1, 2, 3)
    await positioned(hub)
    dying = Dying()
    with pytest.raises(Killed):
        await Relay(hub.parts, dying).run()
    assert (dying.taken, await unpublished(records)) == ([], 3)
    dying.dies = "between"
    with pytest.raises(Killed):
        await Relay(hub.parts, dying).run()
    assert (dying.numbers("mortal"), await unpublished(records)) == ([1], 3)
    dying.dies = "never"
    with pytest.raises(Killed):
        await DyingRelay(hub.parts, dying).run()
    assert (dying.numbers("mortal"), await unpublished(records)) == ([1, 1, 2, 3], 0)
    assert dying.taken[0].id == dying.taken[1].id
    async with relaying(hub, dying):
        await asyncio.sleep(0.2)
    assert dying.numbers("mortal") == [1, 1, 2, 3]


async def test_an_event_that_breaks_the_connection_is_found_set_aside_and_blocks_its_own_subject_alone(
    hub: Hub, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    poison = Confirmation("unknown", "the broker hung up")
    notebook = Notebook()
    notebook.fails = lambda event: poison if (event.subject, number_of(event)) == ("bad", 2) else None
    for number in range(1, 6):
        await write(records, "bad", number)
        for other in range(4):
            await write(records, f"good/{other}", number)
    await positioned(hub)
    before = await records.one("SELECT set_aside FROM relays WHERE destination = 'broker'")
    async with relaying(hub, notebook):
        await until(lambda: all(notebook.numbers(f"good/{other}")[-1:] == [5] for other in range(4)))
        assert notebook.numbers("bad") == [1], "what comes after it waits"
        await until(lambda: records.one("SELECT count(*) = 1 FROM event_attempts"))
        number = 5
        while not await records.one(
            "SELECT bool_or(set_aside_at IS NOT NULL) FROM outbox_events WHERE subject = 'bad'"
        ):
            number += 1  # others go on, which shows that the destination is well
            await write(records, "good/0", number)
            await positioned(hub)
            await until(lambda: notebook.numbers("good/0")[-1] == number)  # noqa: B023 - it ends before the next turn
        await until(lambda: notebook.numbers("bad") == [1, 3, 4, 5])
    for other in range(4):
        numbers = notebook.numbers(f"good/{other}")
        assert sorted(set(numbers)) == list(range(1, number + 1 if other == 0 else 6))
        assert [n for place, n in enumerate(numbers) if n not in numbers[:place]] == sorted(set(numbers))
    assert await records.one("SELECT set_aside FROM relays WHERE destination = 'broker'") == before + 1
    assert await records.one("SELECT count(*) FROM event_attempts") == 0
    told = [record.getMessage() for record in caplog.records if "set aside" in record.getMessage()]
    assert len(told) == 1
    assert "the broker hung up" in told[0]


async def test_a_destination_that_refuses_everything_sets_nothing_aside(hub: Hub, records: Records) -> None:
    """It is no fault of the events; once it takes some, all arrive."""
    notebook = Notebook()
    notebook.fails = lambda _: Confirmation("refused", "the disk is full")
    for number in range(1, 4):
        for subject in ("a", "b", "c"):
            await write(records, subject, number)
    await positioned(hub)
    async with relaying(hub, notebook):
        await until(lambda: len(notebook.waves) > 20)
        assert not await records.one(
            "SELECT bool_or(set_aside_at IS NOT NULL) FROM outbox_events WHERE subject IN ('a', 'b', 'c')"
        )
        assert await records.one("SELECT max(attempts) FROM event_attempts") == 1
        assert await records.one("SELECT reason FROM relays WHERE away_since IS NOT NULL") == "the disk is full"
        notebook.fails = lambda _: None
        await until(lambda: len(notebook.taken) == 9)
        await until(lambda: unpublished_is_zero(records))
    assert [notebook.numbers(subject) for subject in ("a", "b", "c")] == [[1, 2, 3]] * 3
    assert await records.one("SELECT count(*) FROM relays WHERE away_since IS NOT NULL") == 0


async def test_a_connection_that_ends_after_all_was_confirmed_is_opened_again(hub: Hub, records: Records) -> None:
    class Curt(Notebook):
        async def publish(self, events: Sequence[WaitingEvent]) -> list[Confirmation]:
            answers = await super().publish(events)
            self.is_connected = False
            return answers

    await write(records, "curt", 1, 2, 3)
    await positioned(hub)
    notebook = Curt()
    async with relaying(hub, notebook):
        await until(lambda: notebook.numbers("curt") == [1, 2, 3])
        await until(lambda: unpublished_is_zero(records))


async def test_what_can_never_be_sent_is_set_aside_at_once(hub: Hub, records: Records) -> None:
    notebook = Notebook()
    notebook.fails = lambda event: Confirmation("unsendable", "no topic") if number_of(event) == 1 else None
    await write(records, "odd", 1, 2)
    await positioned(hub)
    async with relaying(hub, notebook):
        await until(lambda: notebook.numbers("odd") == [2])
        await until(lambda: unpublished_is_zero(records))
    assert await records.one(
        "SELECT set_aside_at IS NOT NULL FROM outbox_events WHERE subject = 'odd' AND data @> '{\"n\": 1}'"
    )


async def test_a_reason_is_told_once_however_often_it_is_tried(
    hub: Hub, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    notebook = Notebook()
    notebook.is_away = "it refuses the password; check HUB_BROKER_URL"
    caplog.set_level("INFO", "hub.relay")
    async with relaying(hub, notebook):
        await until(lambda: records.one("SELECT away_since IS NOT NULL FROM relays WHERE destination = 'broker'"))
        await asyncio.sleep(0.3)
        notebook.is_away = None
        await until(lambda: records.one("SELECT away_since IS NULL FROM relays WHERE destination = 'broker'"))
    told = [record.getMessage() for record in caplog.records if record.name == "hub.relay"]
    assert len(told) == 2
    assert "check HUB_BROKER_URL" in told[0]
    assert "again" in told[1]


# --- one at a time ---


async def run_as_the_application(hub: Hub, sql: str) -> None:
    connection = await asyncpg.connect(hub.url)
    await connection.execute(sql)
    await connection.close()


async def test_of_two_workers_one_publishes_and_the_other_goes_on_when_it_is_gone(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    one, other = Notebook(), Notebook()
    async with relaying(other_worker, other):
        async with relaying(hub, one):
            for number in range(1, 41):
                await write(records, "shared", number)
                await positioned(hub)
            await until(lambda: len(one.taken) + len(other.taken) == 40)
            await asyncio.sleep(0.1)
            assert [] in (one.taken, other.taken), "one of them has all"
            leader = one if one.taken else other
            await run_as_the_application(
                hub,
                """SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid IN
                   (SELECT pid FROM pg_stat_activity WHERE application_name = 'hub relay')""",
            )
            await until(lambda: unpublished_is_zero(records))
            for number in range(41, 61):
                await write(records, "shared", number)
            await positioned(hub)
            await until(lambda: len(one.taken) + len(other.taken) >= 60)
        numbers = (one if leader is one else other).numbers("shared") + (other if leader is one else one).numbers(
            "shared"
        )
        assert [n for place, n in enumerate(numbers) if n not in numbers[:place]] == list(range(1, 61))


# --- how it goes ---


async def test_metrics_and_readiness_tell_of_what_waits_and_of_who_is_away(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.domain.events.figures.AWAY_FOR_LONG_S", 0)
    label = '{destination="broker"}'
    before = await scraped(hub)
    assert before[f"hub_events_unpublished{label}"] == 0
    assert before[f"hub_events_oldest_unpublished_age_seconds{label}"] == 0
    await write(records, "measured", 1, 2, 3)
    await records.run("UPDATE outbox_events SET time = now() - interval '50 seconds' WHERE subject = 'measured'")
    waits = await scraped(hub)
    assert 50 <= waits["hub_events_oldest_without_position_seconds"] < 100
    await positioned(hub)
    notebook = Notebook()
    notebook.is_away = "nobody is at secret.example.org"
    async with relaying(hub, notebook):
        await until(lambda: records.one("SELECT away_since < now() FROM relays WHERE destination = 'broker'"))
        away = await scraped(hub)
        ready = await hub.client().get("/health/ready")
        notebook.is_away = None
        await until(lambda: unpublished_is_zero(records))
    assert away[f"hub_events_unpublished{label}"] == 3
    assert 50 <= away[f"hub_events_oldest_unpublished_age_seconds{label}"] < 100
    assert away["hub_events_oldest_without_position_seconds"] == 0
    assert away[f"hub_events_destination_away{label}"] == 1
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "The broker is away" in ready.json()["detail"]
    assert "secret" not in ready.text
    after = await scraped(hub)
    assert after[f"hub_events_sent_total{label}"] == before[f"hub_events_sent_total{label}"] + 3
    assert after[f"hub_events_destination_away{label}"] == 0
    assert not [name for name in after if 'destination="stream"' in name], "it is not set"
    assert (await hub.client().get("/health/ready")).json()["status"] == "ok"
    assert health._DONE_WITHOUT.keys() == {"broker", "stream", "redis"}


async def test_an_event_that_waits_for_its_broker_outlives_the_history(hub: Hub, records: Records) -> None:
    await write(records, "kept", 1, 2, 3)
    await positioned(hub)
    await records.run("UPDATE outbox_events SET time = now() - interval '2 years' WHERE subject = 'kept'")
    await records.run("""UPDATE outbox_events SET published_at = now() WHERE subject = 'kept' AND data @> '{"n": 1}'""")
    await records.run("""UPDATE outbox_events SET set_aside_at = now() WHERE subject = 'kept' AND data @> '{"n": 2}'""")
    await upkeep.remove_due(hub.parts, datetime.now(UTC))
    left = await records.run("SELECT data->>'n' FROM outbox_events WHERE subject = 'kept'")
    assert [row[0] for row in left] == ["3"]
    await records.run("UPDATE outbox_events SET published_at = now() WHERE subject = 'kept'")
    await upkeep.remove_due(hub.parts, datetime.now(UTC))
    assert await records.one("SELECT count(*) FROM outbox_events WHERE subject = 'kept'") == 0


# --- again ---


async def test_events_are_published_again_with_their_ids(hub: Hub, records: Records) -> None:
    started = datetime.now(UTC)
    for number in (1, 2, 3):
        await write(records, "again", number, kind="org.datafusionhub.wanted" if number > 1 else TYPE)
    await positioned(hub)
    notebook = Notebook()
    async with relaying(hub, notebook):
        await until(lambda: unpublished_is_zero(records))
        window = {"from": started.isoformat(), "to": (started + timedelta(hours=1)).isoformat()}
        answer = await hub.admin.post("/api/v1/events/redeliver", json={**window, "type": "org.datafusionhub.wanted"})
        assert (answer.status_code, answer.json()) == (202, {"count": 2})
        await until(lambda: len(notebook.numbers("again")) == 5)
        await until(lambda: unpublished_is_zero(records))
    assert notebook.numbers("again") == [1, 2, 3, 2, 3]
    ids = [event.id for event in notebook.taken if event.subject == "again"]
    assert ids[1:3] == ids[3:5]
    (row,) = await records.audit(answer)
    assert (row["action"], row["after"]["count"]) == ("event.redeliver", 2)


async def test_events_of_others_are_not_published_again(hub: Hub, records: Records) -> None:
    started = datetime.now(UTC)
    await write(records, "ours", 1)
    await records.run("UPDATE outbox_events SET published_at = now() WHERE subject = 'ours'")
    theirs = await hub.new_tenant()
    window = {"from": started.isoformat(), "to": (started + timedelta(hours=1)).isoformat()}
    answer = await theirs.admin.post("/api/v1/events/redeliver", json=window)
    assert (answer.status_code, answer.json()["count"]) == (202, 0)
    assert await records.one("SELECT published_at IS NOT NULL FROM outbox_events WHERE subject = 'ours'")
    reader = await hub.user_with("audit-events:read")
    assert (await reader.post("/api/v1/events/redeliver", json=window)).status_code == 403


@pytest.mark.slow
async def test_the_command_has_events_of_all_tenants_or_of_one_published_again(hub: Hub, records: Records) -> None:
    theirs = f"t{uuid4().hex}"
    await hub.new_tenant(theirs)
    other: UUID = await records.one("SELECT id FROM tenants WHERE slug = $1", theirs)
    for tenant_id in (DEFAULT_TENANT_ID, other):
        await write(records, "commanded", 1, 2, tenant_id=tenant_id)
    await records.run("UPDATE outbox_events SET time = '2001-02-03T04:05:00Z' WHERE subject = 'commanded'")
    published = "UPDATE outbox_events SET published_at = now() - interval '1 hour' WHERE subject = 'commanded'"
    again = "SELECT count(*) FROM outbox_events WHERE subject = 'commanded' AND published_at IS NULL"

    async def redeliver(*more: str) -> "subprocess.CompletedProcess[str]":
        window = ("--from", "2001-02-03T04:05:00Z", "--to", "2001-02-03T04:06:00Z")
        given = {"HUB_DATABASE_URL": hub.url, "HUB_ENV": "development"}
        return await asyncio.to_thread(run, hub.settings.data_dir, "events", "redeliver", *window, *more, **given)

    await records.run(published)
    done = await redeliver()
    assert (done.returncode, done.stdout.split()[0], await records.one(again)) == (0, "4", 4), done.stderr
    await records.run(published)
    done = await redeliver("--tenant", theirs, "--type", TYPE.removeprefix("org.datafusionhub."))
    assert (done.returncode, done.stdout.split()[0], await records.one(again)) == (0, "2", 2), done.stderr
    rows = await records.run(
        "SELECT actor_id, after FROM audit_events WHERE action = 'event.redeliver' AND tenant_id = $1", other
    )
    assert [(row["actor_id"], msgspec.json.decode(row["after"])["count"]) for row in rows] == [(None, 2), (None, 2)]
    unknown = await redeliver("--tenant", "nowhere")
    assert (unknown.returncode, "nowhere" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("begin", ["2001-02-03T04:05:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_a_time_without_its_zone_or_beyond_all_times_is_no_time(begin: str) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["events", "redeliver", "--from", begin, "--to", "2001-02-03T04:06:00Z"])
