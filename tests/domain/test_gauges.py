"""What a scrape tells of pools, queues and jobs."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from app.core.errors import Unavailable
from app.domain.health import gauges
from tests.conftest import Hub
from tests.domain.sources import SOURCES, registered

pytestmark = pytest.mark.anyio


async def scraped(hub: Hub) -> dict[str, float]:
    answer = await hub.admin.get("/metrics")
    assert answer.status_code == 200, answer.text
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_pools_say_how_many_places_are_taken_and_how_many_wait(hub: Hub) -> None:
    size = hub.settings.pool_size
    async with AsyncExitStack() as held:
        for _ in range(size - 1):
            await held.enter_async_context(hub.parts.engine.connect())
        await held.enter_async_context(hub.parts.reads.connection(None, None))
        found = await scraped(hub)
    assert found['hub_database_places{pool="changes",role="server",state="taken"}'] == size - 1
    assert found['hub_database_places{pool="changes",role="server",state="all"}'] == size
    assert found['hub_database_places{pool="reads",role="server",state="taken"}'] == 1
    assert found['hub_database_places{pool="reads",role="server",state="waiting"}'] == 0
    assert found["hub_password_checks_waiting"] == 0
    assert found["hub_streams_open"] == 0
    assert "hub_principals_cached" in found


async def test_jobs_that_wait_are_counted_by_kind_with_the_age_of_the_oldest(hub: Hub) -> None:
    for _ in range(2):
        await hub.admin.post(f"{SOURCES}/{(await registered(hub))['id']}/discover")
    await asyncio.sleep(0.05)
    found = await scraped(hub)
    labels = '{kind="data_source.discover",status="queued"}'
    assert found[f"hub_jobs{labels}"] == 2
    assert 0.05 <= found[f"hub_oldest_job_age_seconds{labels}"] < 60


async def test_a_scrape_without_a_database_tells_what_the_process_knows(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.parts.reads, "connection", _none_to_be_had)
    found = await scraped(hub)
    assert "hub_principals_cached" in found
    assert found["hub_database_up"] == 0
    assert not [name for name in found if name.startswith("hub_jobs")]


def _none_to_be_had(*_: object) -> None:
    raise Unavailable(code="database_busy")


async def test_a_figure_that_cannot_be_had_takes_no_other_along(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, of_jobs), *others = gauges.FIGURES
    monkeypatch.setattr(gauges, "FIGURES", (("SELECT FROM nothing_of_that_name", of_jobs), *others))
    found = await scraped(hub)
    assert found["hub_database_up"] == 1
    assert "hub_data_sources_failing" in found
    assert not [name for name in found if name.startswith("hub_jobs")]
