"""What ended connector work, in the words of the API."""

from app.connectors.contract.failures import ConnectorError
from app.connectors.processes.sandbox import SandboxError, TooManyConnectorRuns
from app.core.errors import Conflict, HubError, NotFound, TooManyRequests, Unavailable


def as_refusal(error: SandboxError) -> HubError:
    if isinstance(error, TooManyConnectorRuns) and error.scope == "tenant":
        return TooManyRequests("Too many connector runs at once. Wait for one to end.", code="too_many_connector_runs")
    return Unavailable("All places for connector work are taken. Try again in a moment.", code="connectors_busy")


def as_error(error: ConnectorError) -> HubError:
    """409 for a source that cannot be read as it is, not a 5xx: the hub is well. `Retry-After` where that may pass."""
    sentence = f"{error.message} {error.advice}"
    if error.code == "not_found":
        return NotFound(sentence, code="object_not_found")
    headers = {"Retry-After": "5"} if error.can_retry else {}
    return Conflict(sentence, code=f"source_{error.code}", headers=headers)
