"""The authorization endpoint (RFC 6749 section 4.1.1, RFC 7636, RFC 9207): from a client to the hub's sign-in page.

Until client and redirect URI are known to belong together nobody is redirected anywhere: an address that anybody can
make up is a way to send people elsewhere in the hub's name.
"""

import re
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from app.core.answers import Answer, found_there
from app.core.errors import BadRequest
from app.core.sealed_values import seal
from app.domain.oauth.clients import Client, find_client
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import (
    LIVES_S,
    PENDING,
    PendingSignIn,
    browser_of,
    cookie_header,
    digest_of,
    new_browser,
)

SIGN_IN: Final = "/sign-in"
MOST_PARAMETERS: Final = 50
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""SHA-256 in base64url (RFC 7636 section 4.2)."""
_TEXT = re.compile(r"[ -~]{0,1000}")
"""Of `state` and `scope` (RFC 6749, appendix A)."""
_SLUG = re.compile(r"[a-z0-9-]{1,100}")


class _Fault(Exception):
    """Told to the client, by way of the browser."""

    def __init__(self, name: str, sentence: str) -> None:
        self.name, self.sentence = name, sentence
        super().__init__(name)


async def authorize(request: HubRequest) -> Answer[None]:
    """Raises BadRequest for a client that is not known, or a redirect URI that is not its."""
    given = _parameters(request.query_string)
    client = await find_client(request.parts, _single(given, "client_id"))
    if client is None:
        raise BadRequest(code="unknown_client")
    redirect_uri = _single(given, "redirect_uri")
    if not client.allows(redirect_uri):
        raise BadRequest(code="unregistered_redirect")
    try:
        return _to_sign_in(request, client, redirect_uri, given)
    except _Fault as fault:
        return _back(request, redirect_uri, given, fault)


def _parameters(query: bytes) -> Mapping[str, list[str]]:
    """Raises BadRequest for more of them than any client has."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=MOST_PARAMETERS)  # without a value is left out: 3.1
    except ValueError:
        raise BadRequest(f"There are more than {MOST_PARAMETERS} parameters.", code="invalid_parameter") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _single(given: Mapping[str, list[str]], name: str) -> str:
    """Raises BadRequest: without it there is nowhere to send the browser."""
    values = given.get(name, [])
    if len(values) > 1:
        raise BadRequest(f"`{name}` is given more than once.", code="repeated_parameter")
    if not values:
        raise BadRequest(f"`{name}` is missing.", code="invalid_parameter")
    return values[0]


def _to_sign_in(request: HubRequest, client: Client, redirect_uri: str, given: Mapping[str, list[str]]) -> Answer[None]:
    """Raises _Fault."""
    said = {name: values[0] for name, values in given.items()}
    _refuse_faulty(given, said, client)
    settings, exchange = request.parts.settings, request.exchange
    known = browser_of(exchange, settings)
    browser = known or new_browser()
    pending = PendingSignIn(
        client_id=client.id,
        redirect_uri=redirect_uri,
        state=said.get("state"),
        code_challenge=said["code_challenge"],
        scope=said.get("scope"),
        tenant=client.tenant or said.get("tenant"),
        browser=digest_of(browser),
        expires_at=int(time.time()) + LIVES_S,
    )
    sealed = seal(request.parts.key_ring, PENDING, pending)
    cookies = [] if known else [cookie_header(settings, browser)]
    return found_there(f"{exchange.base_path}{SIGN_IN}?request={sealed}", *cookies)


def _refuse_faulty(given: Mapping[str, list[str]], said: Mapping[str, str], client: Client) -> None:
    """Raises _Fault for the first thing that is wrong."""
    if repeated := next((name for name, values in given.items() if len(values) > 1), None):
        shown = repeated if re.fullmatch(r"[a-z_]{1,40}", repeated) else "A parameter"
        raise _Fault("invalid_request", f"{shown} is given more than once.")
    if "response_type" not in said:
        raise _Fault("invalid_request", "response_type is missing.")
    if said["response_type"] != "code":
        raise _Fault("unsupported_response_type", "response_type is code.")
    if said.get("response_mode", "query") != "query":
        raise _Fault("invalid_request", "response_mode is query.")
    if said.get("code_challenge_method") != "S256":
        raise _Fault("invalid_request", "code_challenge_method has to be S256 (RFC 7636).")
    if not _CHALLENGE.fullmatch(said.get("code_challenge", "")):
        raise _Fault("invalid_request", "code_challenge has to be the SHA-256 of the verifier in base64url.")
    if not all(_TEXT.fullmatch(said.get(name, "")) for name in ("state", "scope")):
        raise _Fault("invalid_request", "state and scope have at most 1000 printable ASCII characters.")
    tenant = said.get("tenant")
    if tenant is not None and (not _SLUG.fullmatch(tenant) or client.tenant not in (None, tenant)):
        raise _Fault("invalid_request", "tenant is not the one whose client this is.")
    if "request" in said or "request_uri" in said:
        name = "request_not_supported" if "request" in said else "request_uri_not_supported"
        raise _Fault(name, "Parameters come as they are (RFC 9101 is not served).")


def _back(request: HubRequest, redirect_uri: str, given: Mapping[str, list[str]], fault: _Fault) -> Answer[None]:
    """With `iss`, so that the client can tell which server answers (RFC 9207), and with its own state where it has one
    that can be given back."""
    states = given.get("state", [])
    told = {"error": fault.name, "error_description": fault.sentence}
    if len(states) == 1 and _TEXT.fullmatch(states[0]):
        told["state"] = states[0]
    told["iss"] = request.parts.tokens.issuer
    separator = "&" if urlsplit(redirect_uri).query else "?"
    return found_there(f"{redirect_uri}{separator}{urlencode(told)}")
