"""The history of tests: each result in its table, what follows from it on the source's row, and who is told.

One test that a request asked for and a hundred that were due go the same way, in as many statements.
"""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import ARRAY, Row, Uuid, any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from uuid_utils.compat import uuid7

from app.connectors import registry
from app.connectors.contract.steps import Step, TestResult
from app.core.rows import insertion, values_of_row
from app.domain.audit.schemas import Outcome
from app.domain.source_work import metrics
from app.domain.source_work.models import DataSourceTest
from app.domain.sources.configs import host_of_stored
from app.domain.sources.models import DataSource
from app.domain.sources.reach import Reach
from app.domain.work import UnitOfWork

log = logging.getLogger("hub.sources")

JITTER = 0.1
"""Intervals vary by a tenth, so that sources registered together do not stay together."""

Found = Row[Any]
"""Of `_HELD`."""
_HELD = (
    select(DataSource.id, DataSource.type, DataSource.status, DataSource.test_failures, DataSource.test_interval_s)
    .where(DataSource.id == any_(bindparam("ids", type_=ARRAY(Uuid))), DataSource.tenant_id == bindparam("tenant_id"))
    .order_by(DataSource.id)
    .with_for_update()
)
_INSERT = text(insertion(DataSourceTest, ":rows")).bindparams(bindparam("rows", type_=JSONB))
_UPDATE = text(
    """UPDATE data_sources AS source
       SET status = given.status, last_tested_at = :now, test_failures = given.test_failures, host = given.host,
           status_since = CASE WHEN source.status = given.status THEN source.status_since ELSE :now END,
           next_test_at = CASE WHEN source.next_test_at IS NULL THEN NULL
                               ELSE least(source.next_test_at, given.next_test_at) END
       FROM jsonb_to_recordset(:rows) AS given (
         id uuid, status text, test_failures integer, host text, next_test_at timestamptz)
       WHERE source.id = given.id"""
).bindparams(bindparam("rows", type_=JSONB))
"""By a statement of its own: the ORM would count the version."""


class FinishedTest(Struct):
    source_id: UUID
    result: TestResult
    secret_versions: Mapping[str, int]
    host: str | None


class Transition(Struct):
    """A source went down, or came back."""

    source_id: UUID
    tenant_id: UUID
    type: str
    status: str
    step: str
    code: str

    @property
    def is_down(self) -> bool:
        return self.status == "failed"


def finished_test(source_id: UUID, reach: Reach, result: TestResult) -> FinishedTest:
    return FinishedTest(source_id, result, reach.secrets.versions, host_of_stored(reach.type, reach.config))


async def record_tests(work: UnitOfWork, finished: Sequence[FinishedTest]) -> list[UUID]:
    """Keep the results, of those sources that are still there, and return their ids. No version is counted.

    A status that changes is an event; a source that goes down or comes back is told in the log and counted, once.
    """
    tests = {each.source_id: each for each in finished}
    held = await _hold(work, tests)
    if not held:
        return []
    rows = {row.id: _row(work, row.id, tests[row.id]) for row in held}
    await work.session.execute(_INSERT, {"rows": [values_of_row(row) for row in rows.values()]})
    after = [_after(work, row, tests[row.id]) for row in held]
    await work.session.execute(_UPDATE, {"rows": msgspec.to_builtins(after), "now": work.now})
    for row in held:
        _note(work, row, tests[row.id].result, rows[row.id].id)
    return [row.id for row in held]


async def _hold(work: UnitOfWork, source_ids: Iterable[UUID]) -> Sequence[Found]:
    """In the order of their ids, so that two who record the same sources do not wait for each other."""
    found = await work.session.execute(_HELD, {"ids": list(source_ids), "tenant_id": work.tenant_id})
    return found.all()


def _row(work: UnitOfWork, source_id: UUID, test: FinishedTest) -> DataSourceTest:
    return DataSourceTest(
        id=uuid7(),
        tenant_id=work.tenant_id,
        data_source_id=source_id,
        status=test.result.status,
        steps=msgspec.to_builtins(test.result.steps),
        server=test.result.server,
        duration_ms=test.result.duration_ms,
        secret_versions=dict(test.secret_versions),
        created_at=work.now,
        created_by=work.actor_id,
    )


def _after(work: UnitOfWork, row: Found, test: FinishedTest) -> dict[str, object]:
    """What the test makes of the source's row. One that is well again is tested at its interval from now on."""
    is_well = test.result.status == "passed"
    is_back = is_well and row.test_failures > 0 and row.test_interval_s is not None
    return {
        "id": row.id,
        "status": test.result.status,
        "test_failures": 0 if is_well else row.test_failures + 1,
        "host": test.host,
        "next_test_at": next_test(work.now, row.test_interval_s) if is_back else None,
    }


def next_test(now: datetime, interval_s: int) -> datetime:
    return now + timedelta(seconds=interval_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - no secret


# Who is told ----------------------------------------------------------------------------------------------------------


def outcome_of(result: TestResult) -> Outcome:
    """Of the action, in the audit log: a test that failed did not do what it was asked for (decision 0024)."""
    return "success" if result.status == "passed" else "failure"


def summary_of(result: TestResult) -> dict[str, object]:
    """For the audit log: how it ended, and where."""
    if (step := decisive_step(result)) is None:
        return {"status": result.status}
    return {"status": result.status, "step": step.name, "code": step.code}


def decisive_step(result: TestResult) -> Step | None:
    """The one that says why it did not pass."""
    codes = {"unsupported", "driver_missing"}
    return next((step for step in result.steps if step.status == "failed" or step.code in codes), None)


def _note(work: UnitOfWork, row: Found, result: TestResult, test_id: UUID) -> None:
    after = summary_of(result) | {"test_id": str(test_id)}
    work.audit("data_source.test", "data_source", row.id, outcome=outcome_of(result), after=after)
    if row.status == result.status:
        return
    data = {"id": str(row.id), "status": result.status, "before": row.status}
    work.announce("data_source.status_changed", f"data-sources/{row.id}", data)
    if "failed" in (row.status, result.status):
        step = decisive_step(result)
        transition = Transition(
            *(row.id, work.tenant_id, row.type, result.status),
            *((step.name, step.code) if step else ("list", "ok")),
        )
        work.once_committed(lambda: _tell(transition))


def _tell(transition: Transition) -> None:
    known = transition.type if transition.type in registry.find() else "unknown"
    if transition.is_down:
        metrics.transitions.labels("down", known, transition.code).inc()
        log.warning(
            "data source %s of tenant %s is down: step %s, code %s",
            *(transition.source_id, transition.tenant_id, transition.step, transition.code),
        )
    else:
        metrics.transitions.labels("up", known, transition.code).inc()
        log.info("data source %s of tenant %s is up again", transition.source_id, transition.tenant_id)
