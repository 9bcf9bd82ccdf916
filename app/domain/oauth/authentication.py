"""Who asks for tokens: a client by its secret, a program by its API key or by what it has signed, or anybody at all in
the name of a public client (RFC 6749 section 2.3, RFC 7523 section 2.2)."""

import binascii
from base64 import b64decode
from datetime import datetime
from urllib.parse import unquote_plus
from uuid import UUID

from msgspec import Struct

from app.core.errors import Unauthenticated
from app.core.exchange import Exchange
from app.core.limits.limiter import address_key
from app.core.limits.prices import Price
from app.domain.api_keys.keys import BEGINNING, PresentedKey
from app.domain.oauth.assertions import ASSERTION_TYPE, Assertion, account_id_of, read_assertion, use_up
from app.domain.oauth.clients import HUBS_OWN, Client, find_client, is_secret_of
from app.domain.oauth.faults import NotShown, OAuthRefused, invalid_client
from app.domain.oauth.schemas import ClientForm
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork, work_of_its_own

ONE_OF_ADDRESS = Price(1, "login-address")


class Program(Struct, frozen=True, kw_only=True):
    """A service account that has shown who it is."""

    account_id: UUID
    tenant_id: UUID
    name: str
    api_key_id: UUID | None = None
    jwk_id: UUID | None = None
    """Or the public key of its own that fits what it has signed."""
    ends_at: datetime | None = None
    """When the API key does."""
    assertion: Assertion | None = None
    """Not used up yet: that is for the transaction of whatever it is used for."""


class _Shown(Struct, frozen=True):
    """What a request says of its client."""

    client_id: str | None
    secret: str | None
    assertion: str | None


async def authenticate(request: HubRequest, form: ClientForm) -> Client | Program:
    """Raises OAuthRefused, on record where the client is known, and TooManyRequests after too many failures."""
    shown = _read(request.exchange, form)
    try:
        return await _identify(request, shown)
    except NotShown as failed:
        await _charge_failure(request, shown.client_id or "")
        await _record(request, failed)
        raise invalid_client() from None


def _read(exchange: Exchange, form: ClientForm) -> _Shown:
    """Raises OAuthRefused for two ways at once, and for a header that cannot be read."""
    by_header = _basic(exchange)
    client_id, secret = form.client_id or None, form.client_secret or None
    assertion = form.client_assertion or None
    if (form.client_assertion_type or None) != (ASSERTION_TYPE if assertion else None):
        raise OAuthRefused("invalid_request", f"`client_assertion` comes with the type {ASSERTION_TYPE}.")
    if sum((by_header is not None, secret is not None, assertion is not None)) > 1:
        raise OAuthRefused("invalid_request", "A client shows who it is in one way, not in two.")
    if by_header is None:
        return _Shown(client_id, secret, assertion)
    if client_id not in (None, by_header[0]):
        raise OAuthRefused("invalid_request", "`client_id` is another one than in the header `Authorization`.")
    return _Shown(by_header[0], by_header[1] or None, None)


def _basic(exchange: Exchange) -> tuple[str, str] | None:
    """Id and secret, each of them form-encoded (RFC 6749 section 2.3.1)."""
    given = exchange.headers.get(b"authorization")
    if given is None:
        return None
    scheme, _, encoded = given.partition(b" ")
    try:
        text = b64decode(encoded.strip(), validate=True).decode() if scheme.lower() == b"basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    client_id, separator, secret = text.partition(":")
    if not separator or not client_id:
        raise invalid_client()
    return unquote_plus(client_id), unquote_plus(secret)


async def _identify(request: HubRequest, shown: _Shown) -> Client | Program:
    """Raises NotShown."""
    if shown.assertion is not None:
        return await _by_assertion(request, shown.client_id, shown.assertion)
    if shown.client_id is None:
        if shown.secret is not None:
            raise NotShown
        return HUBS_OWN
    if (account_id := account_id_of(shown.client_id)) is not None:
        return await _by_key(request, account_id, shown.secret or "")
    client = await find_client(request.parts, shown.client_id)
    if client is None:
        raise NotShown
    if client.secret_digest is None and shown.secret is None:
        return client
    if not is_secret_of(client, shown.secret or ""):
        raise NotShown(client.tenant_id, "oauth_client", client.row_id)
    return client


async def _by_key(request: HubRequest, account_id: UUID, secret: str) -> Program:
    """The secret of a service account is one of its API keys."""
    if not secret.encode().startswith(BEGINNING):
        raise NotShown
    try:
        signed = await request.parts.principals.of(PresentedKey.read(secret.encode()))
    except Unauthenticated:
        raise NotShown from None
    principal = signed.principal
    assert principal.key is not None
    if principal.type != "service_account" or principal.id != account_id:
        raise NotShown(principal.tenant_id, "api_key", principal.key.id)
    request.parts.key_uses.note(principal.key.id)
    return Program(
        account_id=principal.id,
        tenant_id=principal.tenant_id,
        name=principal.name,
        api_key_id=principal.key.id,
        ends_at=principal.key.expires_at,
    )


async def _by_assertion(request: HubRequest, client_id: str | None, text: str) -> Program:
    assertion = await read_assertion(request.parts, text)
    if client_id not in (None, str(assertion.account_id)):
        raise NotShown(assertion.tenant_id, "service_account", assertion.account_id)
    return Program(
        account_id=assertion.account_id,
        tenant_id=assertion.tenant_id,
        name=assertion.name,
        jwk_id=assertion.jwk_id,
        assertion=assertion,
    )


async def _charge_failure(request: HubRequest, client_id: str) -> None:
    """Like sign-ins, by address and by name; only failures, since a client comes for each of its users. Raises
    TooManyRequests, where nothing more goes on record."""
    limits, exchange = request.parts.limits, request.exchange
    await limits.charge(exchange, ONE_OF_ADDRESS, address_key(exchange.client_address(request.parts.trusted_proxies)))
    await limits.charge_account(exchange, "oauth", client_id)


async def _record(request: HubRequest, failed: NotShown) -> None:
    """Of a client that is known, in its tenant's log; anybody else's failures are counted by the metrics of answers."""
    if failed.tenant_id is None:
        return
    async with work_of_its_own(request) as work:
        work.move_to(failed.tenant_id)
        work.audit("auth.client", failed.kind, failed.row_id, outcome="failure")


async def is_first_use(work: UnitOfWork, program: Program) -> bool:
    """Of what it has signed, which is used up by this; an API key is used again and again. A second use goes on record.
    `work` is in the program's tenant."""
    if program.assertion is None or await use_up(work, program.assertion):
        return True
    work.audit("auth.client", "service_account", program.account_id, outcome="failure", detail="assertion used before")
    return False
