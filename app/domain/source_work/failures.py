"""What ended connector work, in the words of the API."""

from collections.abc import Mapping
from typing import cast, get_args

from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.processes.sandbox import SandboxError, TooManyConnectorRuns
from app.core.error_codes import CONFLICT, SourceCode
from app.core.errors import Conflict, HubError, NotFound, TooManyRequests, Unavailable


def as_refusal(error: SandboxError) -> HubError:
    if isinstance(error, TooManyConnectorRuns) and error.scope == "tenant":
        return TooManyRequests(code="too_many_connector_runs")
    return Unavailable(code="connectors_busy")


SOURCE_CODES: Mapping[Code, SourceCode] = {
    code: cast(SourceCode, f"source_{code}") for code in get_args(Code) if f"source_{code}" in CONFLICT
}
"""By the connector's own code. Without one: codes of steps that did not fail, and `not_found`, which is a 404."""


_WAIT_S = 5


def as_error(error: ConnectorError) -> HubError:
    """409 for a source that cannot be read as it is, not a 5xx: the hub is well. `Retry-After` where that may pass; a
    server that says itself how long is taken at its word."""
    sentence = f"{error.message} {error.advice}"
    if error.code == "not_found":
        return NotFound(sentence, code="object_not_found")
    wait_s = _WAIT_S if error.retry_after_s is None else error.retry_after_s
    headers = {"Retry-After": str(wait_s)} if error.can_retry else {}
    return Conflict(sentence, code=SOURCE_CODES[error.code], headers=headers)
