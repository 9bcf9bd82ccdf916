"""The audit log sent whole, in NDJSON and CSV: every row once, a chunk at a time, and broken off where it cannot end."""

import asyncio
import csv
import io
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.core import streams
from app.core.lists.parameters import MAX_LIMIT
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.audit import exports
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.streams import Streaming

pytestmark = pytest.mark.anyio

LOG = "/api/v1/audit-events"
NDJSON, CSV = "application/x-ndjson", "text/csv"
FORMS = (NDJSON, CSV)
ROWS = 2 * MAX_LIMIT + 50
MOMENT = datetime(2025, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
async def resource(records: Records) -> str:
    """Something that was changed `ROWS` times; pairs of rows are of one moment."""
    resource_id = uuid4()
    values = [
        (uuid4(), DEFAULT_TENANT_ID, MOMENT + timedelta(seconds=number // 2), resource_id, f"r{number}")
        for number in range(ROWS)
    ]
    for row in values:
        await records.run(
            """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, resource_id, outcome,
                                         request_id, after)
               VALUES ($1, $2, $3, 'thing.change', 'thing', $4, 'success', $5, '{"text": "a \\"b\\", c"}')""",
            *row,
        )
    return str(resource_id)


async def exported(client: httpx.AsyncClient, form: str, **query: Any) -> httpx.Response:
    answer = await client.get(LOG, params=query, headers={"Accept": form})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == form
    return answer


def rows_in(answer: httpx.Response) -> list[dict[str, Any]]:
    if answer.headers["content-type"].startswith(CSV):
        return list(csv.DictReader(io.StringIO(answer.text, newline="")))
    return [json.loads(line) for line in answer.text.splitlines()]


async def all_pages(hub: Hub, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await hub.admin.get(LOG, params={"limit": MAX_LIMIT, **query, **cursor})).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


# --- whole ---


@pytest.mark.parametrize("sort", ["occurred_at", "-occurred_at"])
async def test_every_row_comes_once_and_in_order(hub: Hub, resource: str, sort: str) -> None:
    expected = await all_pages(hub, resource_id=resource, sort=sort)
    assert len(expected) == ROWS
    assert rows_in(await exported(hub.admin, NDJSON, resource_id=resource, sort=sort)) == expected
    in_csv = rows_in(await exported(hub.admin, CSV, resource_id=resource, sort=sort))
    assert [row["id"] for row in in_csv] == [row["id"] for row in expected]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [1, MAX_LIMIT - 1, MAX_LIMIT, MAX_LIMIT + 1, 2 * MAX_LIMIT, ROWS - 1, ROWS, 10**17])
async def test_limit_means_rows_in_all(hub: Hub, resource: str, form: str, limit: int) -> None:
    found = rows_in(await exported(hub.admin, form, resource_id=resource, limit=limit))
    expected = await all_pages(hub, resource_id=resource)
    assert [row["id"] for row in found] == [row["id"] for row in expected[:limit]]


@pytest.mark.parametrize("form", FORMS)
async def test_a_cursor_says_where_to_begin(hub: Hub, resource: str, form: str) -> None:
    page = (await hub.admin.get(LOG, params={"resource_id": resource, "limit": 7})).json()
    rest = rows_in(await exported(hub.admin, form, resource_id=resource, cursor=page["next_cursor"]))
    assert [row["id"] for row in rest] == [row["id"] for row in (await all_pages(hub, resource_id=resource))[7:]]


@pytest.mark.parametrize("form", FORMS)
async def test_a_few_rows_have_a_link_to_what_comes_behind(hub: Hub, resource: str, form: str) -> None:
    """As clients of earlier releases walk through an export page by page."""
    query = {"resource_id": resource, "limit": "3", "sort": "occurred_at"}
    answer = await exported(hub.admin, form, **query)
    link = answer.headers["link"]
    assert link.startswith("</api/v1/audit-events?")
    assert link.endswith('>; rel="next"')
    after = link[1:].partition(">")[0]
    assert {name: value for name, (value,) in parse_qs(urlsplit(after).query).items() if name != "cursor"} == query
    rest = rows_in(await hub.admin.get(after, headers={"Accept": form}))
    expected = await all_pages(hub, resource_id=resource, sort="occurred_at")
    assert [row["id"] for row in rest] == [row["id"] for row in expected[3:6]]
    for whole in ({"limit": ROWS}, {}):
        assert "link" not in (await exported(hub.admin, form, resource_id=resource, **whole)).headers


async def test_what_matches_nothing_is_empty_and_complete(hub: Hub) -> None:
    assert (await exported(hub.admin, NDJSON, actor_id=uuid4())).content == b""
    assert (await exported(hub.admin, CSV, actor_id=uuid4())).text.count("\r\n") == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=" + "9" * 19, "count=exact", "sort=action", "cursor=x", "who=me"]
)
async def test_what_makes_no_sense_is_told_before_the_answer_begins(hub: Hub, form: str, query: str) -> None:
    answer = await hub.admin.get(f"{LOG}?{query}", headers={"Accept": form})
    assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (
        400,
        [query.partition("=")[0]],
    )


@pytest.mark.parametrize("form", FORMS)
async def test_head_tells_what_get_would_and_sends_no_row(hub: Hub, resource: str, form: str) -> None:
    headers = {"Accept": form}
    answer = await hub.admin.head(LOG, params={"resource_id": resource, "limit": 2}, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].partition(";")[0] == form
    assert "link" in answer.headers
    assert (await hub.admin.head(LOG, params={"limit": 0}, headers=headers)).status_code == 400
    assert hub.parts.streams.count == 0


# --- CSV ---


async def test_csv_says_what_json_says(hub: Hub, resource: str) -> None:
    """RFC 4180: a header line, CRLF, quotes doubled; null is nothing, and documents are JSON."""
    answer = await exported(hub.admin, CSV, resource_id=resource, limit=5)
    header, *lines = answer.text.split("\r\n")
    assert lines.pop() == ""
    assert len(lines) == 5
    assert header.split(",") == list((await all_pages(hub, resource_id=resource, limit=1))[0])
    for row, shown in zip(rows_in(answer), await all_pages(hub, resource_id=resource), strict=False):
        assert json.loads(row.pop("after")) == shown.pop("after") == {"text": 'a "b", c'}
        assert row == {name: "" if value is None else value for name, value in shown.items() if name != "after"}


@pytest.mark.parametrize("text", ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\uff1d1", "'=1"])
async def test_a_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_alone(
    hub: Hub, records: Records, text: str
) -> None:
    """Whoever may be refused chooses what stands in the log: their names, and the ids of their requests."""
    event = uuid4()
    await records.run(
        """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, resource_id, outcome,
                                     actor_name, detail)
           VALUES ($1, $2, now(), 'x.formula', 'x', $1, 'success', $3, $3)""",
        event,
        DEFAULT_TENANT_ID,
        text,
    )
    (row,) = rows_in(await exported(hub.admin, CSV, resource_id=event))
    assert (row["actor_name"], row["detail"]) == ("'" + text, "'" + text)
    (exact,) = rows_in(await exported(hub.admin, NDJSON, resource_id=event))
    assert (exact["actor_name"], exact["detail"]) == (text, text)


# --- a chunk at a time ---


class Watching(Streaming):
    """A client that takes no more than so many parts at first."""

    def __init__(self, hub: Hub, form: str, query: str, *, parts: int) -> None:
        self.is_full, self._goes_on = asyncio.Event(), asyncio.Event()
        self._parts = parts
        super().__init__(hub, hub.admin, LOG, query=query, headers={"accept": form})

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        if len(self.sent) > self._parts:
            self.is_full.set()
            await self._goes_on.wait()

    def go_on(self) -> None:
        self._goes_on.set()


@pytest.fixture
async def halfway(hub: Hub, resource: str) -> AsyncIterator[Watching]:
    """An export of which the first of three pages was sent."""
    client = Watching(hub, NDJSON, f"resource_id={resource}", parts=1)
    await asyncio.wait_for(client.is_full.wait(), 20)
    yield client
    client.leave()
    client.go_on()
    await asyncio.wait_for(client.task, 20)


async def test_nothing_is_open_between_two_chunks(hub: Hub, records: Records, halfway: Watching) -> None:
    """While a client takes its time, no transaction holds up the vacuum, and no connection is kept from others."""
    busy = await records.one(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hub reads' AND datname = current_database() AND state <> 'idle'"
    )
    assert busy == 0
    assert hub.parts.reads.places.free == hub.settings.pool_size
    assert hub.parts.streams.count == 1
    halfway.go_on()
    await halfway.task
    assert halfway.is_complete
    assert hub.parts.streams.count == 0


async def test_a_client_that_leaves_ends_its_export(hub: Hub, halfway: Watching) -> None:
    """FT3: at once, and with it its place among the streams."""
    halfway.leave()
    await asyncio.wait_for(halfway.task, 1)
    assert not halfway.is_complete
    assert hub.parts.streams.count == 0


async def test_rows_that_come_meanwhile_are_in_nobodys_way(hub: Hub, resource: str, halfway: Watching) -> None:
    made = await hub.admin.post("/api/v1/roles", json={"name": uuid4().hex})
    assert made.status_code == 201
    halfway.go_on()
    await halfway.task
    body = b"".join(message.get("body", b"") for message in halfway.sent)
    assert len(body.splitlines()) == ROWS


async def test_an_export_without_an_end_is_not_ended(
    hub: Hub, halfway: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database goes away in the middle: no client may take what it has for everything."""

    async def failing(*_: Any, **__: Any) -> Any:
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(hub.parts.reads, "rows", failing)
    with caplog.at_level(logging.WARNING, "hub.exports"):
        halfway.go_on()
        await halfway.task
    assert not halfway.is_complete
    assert [record.getMessage() for record in caplog.records] == ["an export is broken off: database_unavailable"]


async def test_a_database_that_is_away_before_the_first_row_is_a_503(
    hub: Hub, resource: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(hub.parts.reads, "rows", failing)
    answer = await hub.admin.get(LOG, params={"resource_id": resource}, headers={"Accept": CSV})
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert hub.parts.streams.count == 0


@pytest.mark.parametrize("loss", ["the session ends", "the right ends"])
async def test_an_export_ends_with_the_right_to_it(
    hub: Hub, resource: str, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """ST6: within a second, and never as if it were complete."""
    monkeypatch.setattr(exports, "LOOK_EVERY_S", 0.0)
    role = await hub.new_role(permissions=["audit-events:read"])
    user = await hub.new_user(password=PASSWORD_OF_READER)
    await hub.admin.put(f"/api/v1/users/{user['id']}/roles/{role['id']}")
    reader = await hub.sign_in(user["email"], PASSWORD_OF_READER)
    client = Watching(replaced(hub, reader), NDJSON, f"resource_id={resource}", parts=1)
    await asyncio.wait_for(client.is_full.wait(), 20)
    if loss == "the session ends":
        assert (await reader.post("/api/v1/auth/logout")).status_code == 204
    else:
        assert (await hub.admin.delete(f"/api/v1/users/{user['id']}/roles/{role['id']}")).status_code == 204
    client.go_on()
    await asyncio.wait_for(client.task, 20)
    assert len(client.sent) == 2
    assert not client.is_complete


PASSWORD_OF_READER = "a heron waits where two rivers meet"


def replaced(hub: Hub, client: httpx.AsyncClient) -> Hub:
    return Hub(hub.parts, hub.app, hub.settings, hub.url, hub.owner_url, client)


async def test_exports_are_counted_among_the_streams(
    hub: Hub, resource: str, halfway: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "OF_ONE_PRINCIPAL", 1)
    refused = await hub.admin.get(LOG, params={"resource_id": resource}, headers={"Accept": NDJSON})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert (await hub.admin.get(LOG, params={"limit": 1})).status_code == 200, "a page is no stream"


async def test_the_document_says_what_comes_whole(hub: Hub) -> None:
    document = (await hub.client().get("/openapi.json")).json()
    operation = document["paths"][LOG]["get"]
    assert set(FORMS) <= set(operation["responses"]["200"]["content"])
    described = {each["name"]: each.get("description", "") for each in operation["parameters"] if "name" in each}
    assert "rows in all" in described["limit"]
    assert {"request_id", "address"} <= set(described)
    assert "too_many_streams" in operation["responses"]["429"]["description"]


async def test_an_export_is_of_ones_own_tenant(two_tenants: tuple[Hub, Hub], resource: str) -> None:
    _, other = two_tenants
    assert rows_in(await exported(other.admin, NDJSON, resource_id=resource)) == []
    found = rows_in(await exported(other.admin, NDJSON))
    assert found
    assert resource not in {row["resource_id"] for row in found}
    assert UUID(found[0]["id"])
