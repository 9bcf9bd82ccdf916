"""Tests of connections: the staged test of a source, saved or not, and its place in the history."""

from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from app.connectors import registry
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.steps import StepName, Steps, TestResult
from app.connectors.processes.sandbox import SandboxError
from app.core.security import Principal
from app.domain.parts import Parts
from app.domain.source_work.echoes import without_secrets
from app.domain.source_work.failures import as_refusal
from app.domain.source_work.models import DataSourceTest
from app.domain.source_work.repositories import TestRepository
from app.domain.sources.models import DataSource
from app.domain.sources.reach import Reach
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import NewDataSource, Value
from app.domain.sources.secrets import references
from app.domain.sources.secrets.given import check_together, given_values
from app.domain.sources.types import offered
from app.domain.work import UnitOfWork

UNDIALLED: tuple[StepName, ...] = ("resolve", "connect", "tls")


def values_to_test(
    parts: Parts, principal: Principal, connector: registry.AnyConnector, given: NewDataSource
) -> dict[str, Value]:
    """The secrets of a source that is not saved, judged as they would be if it were. Raises BadRequest, Forbidden."""
    values = given_values(given.secrets)
    references.require_permission(principal, values)
    references.refuse_foreign(parts.settings, values)
    check_together(connector, given.config, values)
    return values


async def run_test(parts: Parts, tenant_id: UUID, reach: Reach) -> TestResult:
    """The staged test, in a process of its own, within ten seconds. Raises for a cap only: a failure is a result."""
    if reach.type not in offered(parts.settings):
        return _ended_at_once("unsupported", "This is a rehearsal, which only a hub in development plays.")
    try:
        secrets = await references.resolved(parts.settings, reach.type, reach.secrets)
        result = await parts.sandbox.check(reach.type, reach.config, secrets, parts.egress, tenant=str(tenant_id))
    except references.UnresolvedReference as error:
        return undialled(error.detail)
    except SandboxError as error:
        raise as_refusal(error) from None
    return without_secrets(result, secrets)


def _ended_at_once(code: Code, why: str) -> TestResult:
    steps = Steps()
    with suppress(ConnectorError), steps.step("resolve", ""):
        raise ConnectorError(code, why)
    return steps.result(0.0)


def undialled(why: str) -> TestResult:
    """A test that ended before anything was dialled, for want of a secret."""
    steps = Steps()
    for name in UNDIALLED:
        steps.skip(name, "Nothing was dialled: a secret is missing.")
    with suppress(ConnectorError), steps.step("authenticate", ""):
        raise ConnectorError("invalid_configuration", why)
    return steps.result(0.0)


async def record_test(
    work: UnitOfWork, source_id: UUID, result: TestResult, secret_versions: Mapping[str, int]
) -> None:
    """Keep the result in the history and on the source; an event where the status changed.

    No version is counted.
    """
    source = await DataSourceRepository(work.session, tenant_id=work.tenant_id).get_one(
        id=source_id, with_for_update=True
    )
    test = DataSourceTest(
        id=uuid7(),
        tenant_id=source.tenant_id,
        data_source_id=source_id,
        status=result.status,
        steps=msgspec.to_builtins(result.steps),
        server=result.server,
        duration_ms=result.duration_ms,
        secret_versions=dict(secret_versions),
        created_at=work.now,
        created_by=work.actor_id,
    )
    await TestRepository(work.session, tenant_id=work.tenant_id).add(test)
    await _set_status(work, source, result.status)
    work.audit("data_source.test", "data_source", source_id, after={"status": result.status, "test_id": str(test.id)})


async def _set_status(work: UnitOfWork, source: DataSource, status: str) -> None:
    """By a statement of its own: the ORM would count the version."""
    changed = source.status != status
    values = {"status": status, "last_tested_at": work.now}
    values |= {"status_since": work.now} if changed else {}
    await work.session.execute(
        DataSource.__table__.update().where(DataSource.id == source.id).values(values)  # type: ignore[attr-defined]
    )
    if changed:
        data = {"id": str(source.id), "status": status, "before": source.status}
        work.announce("data_source.status_changed", f"data-sources/{source.id}", data)
