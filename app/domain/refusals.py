"""What a known principal was refused, on record before they are told: the one place that decides what a refusal is."""

from typing import Final
from uuid import UUID

from app.core.error_codes import Code, FaultCode
from app.core.errors import BadRequest, Forbidden, Hidden, HubError
from app.core.exchange import Exchange
from app.domain.audit.services import audit_row
from app.domain.auth.principals import CHANNEL
from app.domain.parts import Parts
from app.domain.records import Records

REFUSED: Final[frozenset[Code]] = frozenset(
    ("default_tenant", "admin_not_requestable", "last_admin", "secret_reentry_required", "system_role")
)
"""Conflicts that keep somebody from what nobody may do: to leave the hub without an admin, to carry a secret off, to
change what is built in."""
REFUSED_FAULTS: Final[frozenset[FaultCode]] = frozenset(
    ("exceeds_own_permissions", "permission_missing", "reference_not_allowed")
)
"""Of a field: to go beyond one's rights, or to read by reference what the operator did not allow."""

KIND: Final = "refusals"
"""Of work, where database connections are shared out."""


def reason_of(error: HubError) -> str | None:
    """Why the caller was refused; None where the error is no refusal but says that something does not fit, or is not
    there, whoever asks.
    """
    if isinstance(error, Hidden):
        return error.reason
    if isinstance(error, Forbidden) or error.code in REFUSED:
        return error.code
    if isinstance(error, BadRequest):
        return next((fault.code for fault in error.errors if fault.code in REFUSED_FAULTS), None)
    return None


async def record_refusal(parts: Parts, exchange: Exchange, reason: str) -> None:
    """In a transaction of its own: that of the request was undone. An anonymous caller leaves no row."""
    if exchange.principal is None:
        return
    row = audit_row(
        f"{exchange.method.lower()} {_template(exchange)}",
        "route",
        _first_id(exchange),
        tenant_id=exchange.principal.tenant_id,
        principal=exchange.principal,
        exchange=exchange,
        address=exchange.client_address(parts.trusted_proxies),
        outcome="refused",
        detail=reason,
    )
    records = Records(CHANNEL)
    records.audits.append(row)
    async with parts.reads.connection(KIND, row.tenant_id) as connection:
        await records.write(connection)


def _template(exchange: Exchange) -> str:
    """The route as the OpenAPI document writes it, so that the log can be searched by it."""
    template: str = exchange.scope["path_template"]
    return template.replace(":uuid}", "}").replace(":str}", "}")


def _first_id(exchange: Exchange) -> UUID | None:
    """What the call was about."""
    return next((value for value in exchange.scope["path_params"].values() if isinstance(value, UUID)), None)
