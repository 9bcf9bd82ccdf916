"""Tests on a schedule: each source at its own interval, on whichever worker comes first.

A place that gets free is filled at once, and many sources are claimed and recorded with a few statements. What is
silent or dead takes none of the good ones down with it: at most half of the places are for sources whose last test did
not pass, few are for one host, and such sources are asked less and less often (`due.py`).
"""

import asyncio
import contextlib
import logging
from collections import Counter
from itertools import groupby
from typing import Final
from uuid import UUID

from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.connector_runs import watched_run
from app.core.database import DATABASE_ERRORS
from app.core.errors import HubError
from app.core.lanes import Lane, Lanes
from app.core.log_context import LogContext
from app.core.tracing import background_work
from app.domain.parts import Parts
from app.domain.source_work import metrics
from app.domain.source_work.connection_tests import run_test, undialled
from app.domain.source_work.due import DueTest, claim_due, put_off
from app.domain.source_work.history import FinishedTest, finished_test, record_tests
from app.domain.sources.secrets.uses import Unopened
from app.domain.tenants.suspension import stop_suspended
from app.domain.work import unit_of_work_of

log = logging.getLogger("hub.schedule")

POLL_S = 1.0
"""Between two looks for due sources where there were none."""
RECORDED_AT_ONCE = 100
LAST_RECORDS_S = 2.0
SCHEDULED_TEST: Final = "scheduled test"
RECORDING: Final = "results of scheduled tests"
TEMPLATES: Final = 8
"""Types whose drivers are kept imported between tests."""


async def test_on_schedule(parts: Parts) -> None:
    """Until cancelled. A database that is away is tried again at the next turn."""
    schedule = Schedule(parts)
    try:
        await schedule.run_forever()
    finally:
        await schedule.close()


class Schedule:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        places = parts.settings.tests_at_once
        self._lanes: Lanes[DueTest] = Lanes(places)
        self._host_cap = parts.settings.tests_at_once_per_host
        self._sandbox = ConnectorSandbox(
            max_runs=places, max_runs_per_tenant=places, max_templates=TEMPLATES, watch=watched_run
        )
        self._finished: asyncio.Queue[tuple[UUID, FinishedTest]] = asyncio.Queue()

    async def run_forever(self) -> None:
        beside = [
            asyncio.create_task(self._record_forever()),
            asyncio.create_task(stop_suspended(self._parts, self._lanes.tenant_by_task, asyncio.Task.cancel)),
        ]
        try:
            while True:
                are_more_due = await self._fill_places()
                await self._lanes.wait(POLL_S, for_a_place=are_more_due)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def close(self) -> None:
        """Ends what goes on; results that are there are kept."""
        await self._lanes.cancel()
        await self._sandbox.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_RECORDS_S):
                while not self._finished.empty():
                    await self._record_some()

    # Places -----------------------------------------------------------------------------------------------------------

    async def _fill_places(self) -> bool:
        """Whether more may be due than there are places for."""
        try:
            return any([await self._fill(lane) for lane in ("well", "doubtful")])
        except DATABASE_ERRORS as error:
            log.warning("scheduled tests are put off: %s", type(error).__name__)
            return False

    async def _fill(self, lane: Lane) -> bool:
        free = self._lanes.free(lane)
        if free <= 0:
            return True
        due = await claim_due(
            self._parts,
            lane,
            free,
            running=self._running_by_host(),
            host_cap=self._host_cap,
            busy_tenants=[test.tenant_id for test in self._lanes.works()],
        )
        for test in due:
            metrics.test_lag.observe(max(0.0, test.lag_s))
            task = asyncio.create_task(self._carry_out(test))
            self._lanes.add(task, lane, test)
        return len(due) == free or self._host_cap in self._running_by_host().values()

    def _running_by_host(self) -> Counter[str]:
        return Counter(test.host for test in self._lanes.works() if test.host is not None)

    # Tests ------------------------------------------------------------------------------------------------------------

    async def _carry_out(self, due: DueTest) -> None:
        context = LogContext(tenant_id=due.tenant_id, activity=SCHEDULED_TEST)
        with background_work(SCHEDULED_TEST, context, {"hub.data_source_id": str(due.source_id)}):
            await self._test(due)

    async def _test(self, due: DueTest) -> None:
        """What goes wrong here is the hub's: the source is tested again soon."""
        try:
            self._finished.put_nowait((due.tenant_id, await self._tested(due)))
        except HubError as error:
            log.info("the test of data source %s is put off: %s", due.source_id, error.code)
            await self._put_off(due)
        except Exception:
            log.exception("the test of data source %s failed", due.source_id)

    async def _tested(self, due: DueTest) -> FinishedTest:
        try:
            result = await run_test(self._parts, due.tenant_id, due.reach, sandbox=self._sandbox)
        except Unopened as error:  # no key opens a secret: the source must not go on to look well
            return FinishedTest(due.source_id, undialled(error.detail), {}, due.host)
        return finished_test(due.source_id, due.reach, result)

    async def _put_off(self, due: DueTest) -> None:
        try:
            await put_off(self._parts, due)
        except DATABASE_ERRORS as error:
            log.warning("the test of data source %s is lost: %s", due.source_id, type(error).__name__)

    # Results ----------------------------------------------------------------------------------------------------------

    async def _record_forever(self) -> None:
        while True:
            await self._record_some()

    async def _record_some(self) -> None:
        """As many as are there, tenant by tenant: each tenant's in one transaction."""
        batch = [await self._finished.get()]
        while len(batch) < RECORDED_AT_ONCE and not self._finished.empty():
            batch.append(self._finished.get_nowait())
        batch.sort(key=lambda each: each[0])
        for tenant_id, tests in groupby(batch, lambda each: each[0]):
            await self._record(tenant_id, [test for _, test in tests])

    async def _record(self, tenant_id: UUID, tests: list[FinishedTest]) -> None:
        with background_work(RECORDING, LogContext(tenant_id=tenant_id, activity=RECORDING)):
            await self._write_down(tenant_id, tests)

    async def _write_down(self, tenant_id: UUID, tests: list[FinishedTest]) -> None:
        try:
            async with unit_of_work_of(self._parts, tenant_id=tenant_id) as work:
                await record_tests(work, tests)
        except DATABASE_ERRORS as error:
            log.warning("the results of %d scheduled tests are lost: %s", len(tests), type(error).__name__)
        except Exception:
            log.exception("the results of %d scheduled tests are lost", len(tests))
