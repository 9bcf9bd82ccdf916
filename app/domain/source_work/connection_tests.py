"""Tests of connections: the staged test of a source, saved or not."""

from contextlib import suppress
from uuid import UUID

from app.connectors import registry
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.steps import StepName, Steps, TestResult
from app.connectors.processes.sandbox import ConnectorSandbox, SandboxError
from app.core.security import Principal
from app.domain.parts import Parts
from app.domain.source_work.echoes import without_secrets
from app.domain.source_work.failures import as_refusal
from app.domain.source_work.own_database import policy_of
from app.domain.sources.reach import Reach
from app.domain.sources.schemas import NewDataSource, Value
from app.domain.sources.secrets import references
from app.domain.sources.secrets.given import check_together, given_values
from app.domain.sources.types import is_offered

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


async def run_test(
    parts: Parts, tenant_id: UUID, reach: Reach, *, sandbox: ConnectorSandbox | None = None
) -> TestResult:
    """The staged test, in a process of its own, within ten seconds. Raises for a cap, and Unopened: any other failure
    is a result. `sandbox` is one with caps of its own, where it is not to be the one of all requests.
    """
    if not is_offered(parts.settings, reach.type):
        return _ended_at_once("unsupported", "This is a rehearsal, which only a hub in development plays.")
    try:
        secrets = await reach.secrets.read(parts, reach.type)
        check = (sandbox or parts.sandbox).check
        result = await check(
            reach.type, reach.config, secrets, await policy_of(parts, tenant_id), tenant=str(tenant_id)
        )
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
