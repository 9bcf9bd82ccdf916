"""Tests on a schedule: each source at its own interval, on whichever worker comes first.

A due source is claimed by moving its next test on (`FOR UPDATE SKIP LOCKED`), so that no two workers test it and a
worker that is killed costs one test at most. Intervals vary by a tenth, so that sources registered together do not stay
together.
"""

import asyncio
import logging
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import text

from app.connectors.contract.steps import TestResult
from app.core.database import DATABASE_ERRORS
from app.core.errors import Conflict, HubError, NotFound
from app.domain.parts import Parts
from app.domain.source_work.connection_tests import record_test, run_test, undialled
from app.domain.source_work.connections import reach_of
from app.domain.work import unit_of_work_of

log = logging.getLogger("hub.schedule")

POLL_S = 2.0
AT_ONCE = 4

_CLAIM = text(
    """UPDATE data_sources SET next_test_at = now() + make_interval(secs => test_interval_s * (0.9 + random() * 0.2))
       WHERE id IN (SELECT id FROM data_sources
                    WHERE next_test_at <= now() AND NOT is_paused
                    ORDER BY next_test_at LIMIT :places FOR UPDATE SKIP LOCKED)
       RETURNING id, tenant_id"""
)
_PUT_OFF = text(
    """UPDATE data_sources SET next_test_at = now() + make_interval(secs => 5 + random() * 10)
       WHERE id = :id AND next_test_at IS NOT NULL"""
)


async def test_on_schedule(parts: Parts) -> None:
    """Until cancelled. A database that is away is tried again at the next turn."""
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            try:
                for source_id, tenant_id in await _claim(parts, AT_ONCE - len(running)):
                    task = asyncio.create_task(test_one(parts, tenant_id, source_id))
                    running.add(task)
                    task.add_done_callback(running.discard)
            except DATABASE_ERRORS as error:
                log.warning("scheduled tests are put off: %s", type(error).__name__)
            await asyncio.sleep(POLL_S)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _claim(parts: Parts, places: int) -> list[tuple[UUID, UUID]]:
    if places <= 0:
        return []
    async with parts.sessions.begin() as session:
        return [(row.id, row.tenant_id) for row in await session.execute(_CLAIM, {"places": places})]


async def test_one(parts: Parts, tenant_id: UUID, source_id: UUID) -> None:
    """Tests a source and records the result as the system's. Nothing where the source is gone by now."""
    try:
        await _test_or_put_off(parts, tenant_id, source_id)
    except DATABASE_ERRORS as error:
        log.warning("the test of data source %s is lost: %s", source_id, type(error).__name__)
    except Exception:
        log.exception("the test of data source %s failed", source_id)


async def _test_or_put_off(parts: Parts, tenant_id: UUID, source_id: UUID) -> None:
    try:
        result, secret_versions = await _tested(parts, tenant_id, source_id)
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            await record_test(work, source_id, result, secret_versions)
    except NotFound:
        return
    except HubError as error:
        log.info("the test of data source %s is put off: %s", source_id, error.code)
        await _put_off(parts, source_id)


async def _tested(parts: Parts, tenant_id: UUID, source_id: UUID) -> tuple[TestResult, Mapping[str, int]]:
    """The result, and which versions of the secrets it is of."""
    try:
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            reach = await reach_of(work, source_id)
    except Conflict as error:  # a secret that no key opens: the source must not go on to look well
        return undialled(error.detail), {}
    return await run_test(parts, tenant_id, reach), reach.secret_versions


async def _put_off(parts: Parts, source_id: UUID) -> None:
    async with parts.sessions.begin() as session:
        await session.execute(_PUT_OFF, {"id": source_id})
