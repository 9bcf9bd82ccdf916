"""A provider's response: checked where it comes in, kept for a moment, and taken up by the browser that began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from uuid_utils.compat import uuid7

from app.core.answers import Answer
from app.core.database import Repository
from app.core.errors import BadRequest
from app.core.opaque_tokens import new_token, read_token
from app.core.sealed_values import seal, unseal
from app.domain.identity_providers.people import SignInRefused, Vouched
from app.domain.identity_providers.registry import Provider
from app.domain.identity_providers.sign_ins import (
    end_sign_in,
    error_address,
    record_refusal,
    refuse_sign_in,
    require_this_browser,
)
from app.domain.requests import HubRequest
from app.domain.saml.cookies import keep_in_browser, kept_by_browser
from app.domain.saml.models import SamlArrival
from app.domain.saml.own_side import own_side
from app.domain.saml.request_ids import is_ours
from app.domain.saml.requests import REQUEST
from app.domain.saml.schemas import Refusal, SamlForm, SamlRequest
from app.domain.saml.their_side import their_new_side, their_side
from app.domain.sign_in.services import CannotGoOn
from app.domain.spent.services import spend
from app.domain.work import UnitOfWork, work_of_its_own

if TYPE_CHECKING:
    from app.core.saml.metadata import IdentityProvider
    from app.core.saml.responses import Assertion, Received

KIND: Final = "dfa"
LIVES: Final = timedelta(minutes=5)
"""Of an arrival: the browser follows a redirect."""
REFUSAL: Final = "saml refusal"
MAX_RESPONSE_BYTES: Final = 262_144
MFA_CONTEXTS: Final = frozenset(
    (
        "https://refeds.org/profile/mfa",
        "http://schemas.microsoft.com/claims/multipleauthn",
        "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract",
        "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorUnregistered",
    )
)
MFA_ATTRIBUTE: Final = "http://schemas.microsoft.com/claims/authnmethodsreferences"
"""Entra ID says there how somebody has signed in."""
EMAIL: Final = ("email", "mail", "urn:oid:0.9.2342.19200300.100.1.3",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress", "emailAddress")  # fmt: skip
FIRST_NAME: Final = ("firstName", "givenName", "urn:oid:2.5.4.42",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname", "first_name")  # fmt: skip
LAST_NAME: Final = ("lastName", "sn", "surname", "urn:oid:2.5.4.4",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname", "last_name")  # fmt: skip
"""Where nothing is configured: how providers call them by default."""


class SamlArrivalRepository(Repository[SamlArrival]):
    model_type = SamlArrival


# From the provider ----------------------------------------------------------------------------------------------------


async def take_response(request: HubRequest, provider: Provider, sent: SamlForm) -> str:
    """Where the browser goes to be known again. Raises BadRequest with what is wrong, which is on record."""
    try:
        return await _taken(request, provider, sent)
    except BadRequest as error:
        await record_refusal(request, provider, error.code)
        raise


async def _taken(request: HubRequest, provider: Provider, sent: SamlForm) -> str:
    from app.core.saml.responses import decode_form_value, read_response

    document = decode_form_value(sent.saml_response, MAX_RESPONSE_BYTES)
    received = await asyncio.to_thread(read_response, document)
    ring, request_id = request.parts.key_ring, received.in_response_to
    if sent.relay_state != request_id or not is_ours(ring, provider, request_id):
        raise BadRequest(code="saml_wrong_request")
    if received.is_refusal:
        refused = seal(ring, REFUSAL, Refusal(request_id, received.status))
        return _finish_address(request, provider, refused=refused)
    assertion = await _checked(request, provider, received)
    async with work_of_its_own(request) as work:
        work.move_to(provider.tenant_id)
        token = await _keep(work, provider, request_id, assertion)
    return _finish_address(request, provider, response=token)


def _finish_address(request: HubRequest, provider: Provider, **parameters: str) -> str:
    address = provider.own_address(request.parts.settings, "finish")
    name, value = next(iter(parameters.items()))
    return f"{address}{'&' if '?' in address else '?'}{name}={value}"


async def _checked(request: HubRequest, provider: Provider, received: Received) -> Assertion:
    """A signature that does not fit may be of a key that the provider has had for a moment only."""
    theirs = await their_side(request.parts, provider)
    try:
        return await _verified(request, provider, received, theirs)
    except BadRequest as error:
        is_about_keys = error.code in ("saml_wrong_key", "saml_altered")
        changed = await their_new_side(request.parts, provider, theirs) if is_about_keys else None
        if changed is None:
            raise
    return await _verified(request, provider, received, changed)


async def _verified(request: HubRequest, provider: Provider, received: Received, theirs: IdentityProvider) -> Assertion:
    from app.core.saml.responses import Expected, verified

    own = await own_side(request.parts, provider)
    expected = Expected(
        issuer=theirs.entity_id,
        certificates=theirs.certificates,
        audience=own.entity_id,
        acs_url=own.acs_url,
        key=own.key.private,
        now=datetime.now(UTC),
    )
    return await asyncio.to_thread(verified, received, expected)


async def _keep(work: UnitOfWork, provider: Provider, request_id: str, assertion: Assertion) -> str:
    """Raises BadRequest for an assertion that was here before, whichever process has seen it."""
    said = f"{assertion.issuer} {assertion.id}".encode()
    if not await spend(work, "saml assertion", said, assertion.expires_at):
        raise BadRequest(code="saml_replayed")
    arrival_id = uuid7()
    token = new_token(KIND, work.tenant_id, arrival_id)
    work.add(
        SamlArrival,
        id=arrival_id,
        tenant_id=work.tenant_id,
        digest=token.digest,
        provider_id=provider.id,
        request_id=request_id,
        said=msgspec.to_builtins(_said(provider, assertion)),
        expires_at=work.now + LIVES,
    )
    return token.text


def _said(provider: Provider, assertion: Assertion) -> Vouched:
    """Raises BadRequest where it is nobody who can be known again."""
    subject = assertion.name_id
    if provider.attribute_subject is not None:
        subject = _first(assertion, (provider.attribute_subject,)) or ""
    elif assertion.is_transient:
        subject = ""
    if not subject:
        raise BadRequest(code="saml_no_subject")
    wants_groups = provider.attribute_groups is not None
    methods = assertion.attributes.get(MFA_ATTRIBUTE, ())
    return Vouched(
        issuer=assertion.issuer,
        subject=subject,
        session=assertion.session_index,
        is_multi_factor=not MFA_CONTEXTS.isdisjoint((*assertion.contexts, *methods)),
        email=_first(assertion, _named(provider.attribute_email, EMAIL)),
        is_email_verified=True,
        first_name=_first(assertion, _named(provider.attribute_first_name, FIRST_NAME)) or "",
        last_name=_first(assertion, _named(provider.attribute_last_name, LAST_NAME)) or "",
        groups=list(assertion.attributes.get(provider.attribute_groups or "", ())) if wants_groups else None,
    )


def _named(configured: str | None, usual: Sequence[str]) -> Sequence[str]:
    return usual if configured is None else (configured,)


def _first(assertion: Assertion, names: Sequence[str]) -> str | None:
    return next((values[0] for name in names if (values := assertion.attributes.get(name))), None)


# From the browser that began ------------------------------------------------------------------------------------------


async def take_up(request: HubRequest, provider: Provider, given: dict[str, str]) -> Answer[None]:
    """Where the browser goes with what came of it. Raises CannotGoOn where it is another one, or too late."""
    if "refused" in given:
        refusal = unseal(request.parts.key_ring, REFUSAL, given["refused"], Refusal)
        if refusal is None:
            raise CannotGoOn("altered")
        begun = _begun_here(request, provider, refusal.request_id)
        failed = BadRequest(code="saml_not_successful")
        await record_refusal(request, provider, f"{failed.code} ({refusal.status[-100:]})")
        address = error_address(request, begun.pending, failed.code, failed.detail)
        return _answer(request, provider, refusal.request_id, address)
    request_id, address = await _let_in(request, provider, given.get("response", ""))
    return _answer(request, provider, request_id, address)


async def _let_in(request: HubRequest, provider: Provider, text: str) -> tuple[str, str]:
    """An arrival is worth something once."""
    token = read_token(KIND, text)
    if token is None or token.tenant_id != provider.tenant_id:
        raise CannotGoOn("altered")
    async with work_of_its_own(request) as work:
        work.move_to(provider.tenant_id)
        arrivals = SamlArrivalRepository(work.session)
        arrival = await arrivals.get_one_or_none(id=token.row_id, with_for_update=True)
        if arrival is None or not token.fits(arrival.digest) or arrival.provider_id != provider.id:
            raise CannotGoOn("altered")
        begun = _begun_here(request, provider, arrival.request_id)
        if arrival.expires_at <= work.now:
            raise CannotGoOn("over", begun.pending)
        vouched = msgspec.convert(arrival.said, Vouched)
        try:
            address = await end_sign_in(work, provider, begun.pending, begun.link, vouched)
        except SignInRefused as error:
            await work.undo()
            refused = error
        else:
            await arrivals.delete(arrival.id)
            return begun.request_id, address
    return begun.request_id, await refuse_sign_in(request, provider, begun.pending, refused)


def _begun_here(request: HubRequest, provider: Provider, request_id: str) -> SamlRequest:
    """What this browser has begun with that request. Raises CannotGoOn."""
    settings = request.parts.settings
    kept = kept_by_browser(request.exchange, settings, request_id)
    begun = unseal(request.parts.key_ring, REQUEST, kept, SamlRequest) if kept else None
    if begun is None or (begun.provider_id, begun.request_id) != (provider.id, request_id):
        raise CannotGoOn("other_browser")
    require_this_browser(request, begun.pending)
    return begun


def _answer(request: HubRequest, provider: Provider, request_id: str, address: str) -> Answer[None]:
    headers = [
        (b"location", address.encode()),
        keep_in_browser(request.parts.settings, provider, request_id, "", for_s=0),
        (b"cache-control", b"no-store"),
    ]
    return Answer(303, headers, b"")
