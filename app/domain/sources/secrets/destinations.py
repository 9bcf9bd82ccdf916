"""A stored secret is sent only where it was given for."""

from collections.abc import Iterable, Mapping

from app.connectors.contract.identity import destination
from app.connectors.registry import AnyConnector
from app.core.errors import Conflict, Fault

REENTRY = "Where the stored secrets would be sent has changed. Give them again with the change."


def require_reentry(
    connector: AnyConnector,
    before: Mapping[str, object],
    after: Mapping[str, object],
    stored: Iterable[str],
    given: Iterable[str],
) -> None:
    """A secret goes only where it was given for, references included: raises Conflict naming those to give again."""
    moved = sorted(
        field
        for field in connector.destination_fields
        if destination(before.get(field)) != destination(after.get(field))
    )
    kept = sorted(set(stored) - set(given))
    if moved and kept:
        faults = [
            Fault(f"secrets.{name}", "secret_reentry_required", f"give it again: {', '.join(moved)} changed")
            for name in kept
        ]
        raise Conflict(
            REENTRY,
            code="secret_reentry_required",
            errors=faults,
        )
