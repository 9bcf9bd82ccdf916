"""What the forms of these pages mean to the rules behind them."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from app.core.across_tenants import are_there_several_tenants
from app.core.errors import BadRequest
from app.core.faults import FORBIDDEN
from app.core.schemas import Input
from app.core.sealed_values import unseal
from app.domain.auth.services import slug_of
from app.domain.recovery.schemas import ForgotPassword
from app.domain.recovery.services import forget_password
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PENDING, PendingSignIn
from app.domain.sign_in.texts import TEXTS

I = TypeVar("I", bound=Input)  # noqa: E741


def checked(form: Mapping[str, object], kind: type[I]) -> I:
    """A form as the body of the API's own call. Raises BadRequest with a sentence for people."""
    if any(isinstance(value, str) and FORBIDDEN.search(value) for value in form.values()):
        raise BadRequest(TEXTS["no_such_text"])
    try:
        given = msgspec.convert(form, kind)
    except msgspec.ValidationError:
        raise BadRequest(TEXTS["no_such_text"]) from None
    for name, rule in kind.rules.items():
        value = getattr(given, name)
        for fault in rule(value, name) if value is not None else ():
            raise BadRequest(f"{TEXTS[name]}: {fault.message}.")
    return given


async def forget(request: HubRequest, sealed: str, email: str, tenant: str) -> None:
    """Raises BadRequest for what can be nobody's, TooManyRequests for too many."""
    form = {"email": email.strip(), "tenant": tenant_named(request, sealed) or tenant.strip() or None}
    await forget_password(request, checked(form, ForgotPassword))


def tenant_named(request: HubRequest, sealed: str) -> str | None:
    """By the sign-in, or else by the host. Nothing hangs on it that the sign-in is this browser's."""
    pending = unseal(request.parts.key_ring, PENDING, sealed, PendingSignIn) if sealed else None
    return slug_of(request, pending.tenant if pending else None)


async def asks_for_tenant(request: HubRequest, sealed: str) -> bool:
    return tenant_named(request, sealed) is None and await are_there_several_tenants(request.parts.reads)
