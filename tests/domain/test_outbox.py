"""The outbox: each change as a CloudEvent 1.0, written with the change or not at all."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, post_source, registered

pytestmark = pytest.mark.anyio

PREFIX = "org.datafusionhub."


def same_moment(shown: str, stored: datetime) -> bool:
    return datetime.fromisoformat(shown) == stored.astimezone(UTC)


async def test_each_change_of_a_source_is_one_event(hub: Hub, records: Records) -> None:
    _, since = await records.mark()
    made = await registered(hub, secrets={"password": "canary"})
    path = f"{SOURCES}/{made['id']}"
    changed = (await hub.admin.patch(path, json={"description": "x"})).json()
    await hub.admin.delete(path)
    found = await records.events(since)
    assert [event["type"] for event in found] == [
        f"{PREFIX}data_source.{what}" for what in ("created", "updated", "deleted")
    ]
    assert [event["data"] for event in found] == [made, changed, {"id": made["id"]}]
    assert "canary" not in str(found)


async def test_an_event_has_the_attributes_of_a_cloud_event(hub: Hub, records: Records) -> None:
    _, since = await records.mark()
    made = await registered(hub)
    (event,) = await records.events(since)
    assert UUID(str(event["id"])).version == 7
    assert (event["source"], event["subject"]) == ("/api/v1", f"data-sources/{made['id']}")
    assert same_moment(made["created_at"], event["time"])
    assert event["published_at"] is None
    assert str(event["tenant_id"]) == (await hub.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]


async def test_sequence_and_ids_follow_the_order_of_changes(hub: Hub, records: Records) -> None:
    _, since = await records.mark()
    for _ in range(3):
        await registered(hub)
    found: list[dict[str, Any]] = await records.events(since)
    assert [event["id"] for event in found] == sorted(event["id"] for event in found)
    assert len({event["sequence"] for event in found}) == 3


async def test_a_change_that_fails_has_no_event(hub: Hub, records: Records) -> None:
    made = await registered(hub)
    before = await records.mark()
    for answer in (
        await post_source(hub.admin, name=made["name"]),
        await post_source(hub.admin, config={}),
        await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"name": "y"}, headers={"If-Match": '"v7"'}),
    ):
        assert answer.status_code >= 400
    assert await records.mark() == before
