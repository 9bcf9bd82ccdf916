"""What comes by the browser: parameters of a sign-in that begins, and the form that a provider makes it send."""

from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct, field

from app.domain.identity_providers.linking import LinkFor
from app.domain.identity_providers.schemas import TENANT
from app.domain.sign_in.pending import PendingSignIn


class SamlForm(Struct):
    """HTTP-POST (SAML Bindings section 3.5). Other fields are not looked at."""

    saml_response: Annotated[
        str,
        Meta(min_length=1, max_length=400_000, description="The response, as base64.", examples=["PFJlc3BvbnNlLz4="]),
    ] = field(name="SAMLResponse")
    relay_state: Annotated[
        str, Meta(max_length=100, description="What the request said as `RelayState`.", examples=["_AZNPbHwa"])
    ] = field(name="RelayState", default="")


class SamlRequest(Struct, frozen=True):
    """A request that was sent to a provider. Kept by the browser, sealed, in a cookie of its own."""

    provider_id: UUID
    request_id: str
    pending: PendingSignIn
    link: LinkFor | None = None


class Refusal(Struct, frozen=True):
    """What a provider has answered in place of an assertion. Sealed in the address to which the browser is sent."""

    request_id: str
    status: str


Parameters = dict[str, Any]
OF_LOGIN: Parameters = {
    "redirect_uri": {
        "type": "string",
        "maxLength": 2000,
        "description": "A page of HUB_SIGN_IN_REDIRECTS, or a port of one's own machine.",
        "examples": ["https://app.example.org/signed-in"],
    },
    "code_challenge": {
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{43}$",
        "description": "S256 of the verifier (RFC 7636 section 4.2).",
        "examples": ["E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"],
    },
    "code_challenge_method": {"type": "string", "enum": ["S256"]},
    "state": {"type": "string", "maxLength": 1000, "description": "Comes back as it was given."},
    **TENANT,
    "request": {
        "type": "string",
        "maxLength": 8000,
        "description": "In place of the others: a sign-in of the hub's own page, sealed.",
    },
    "link": {
        "type": "string",
        "maxLength": 8000,
        "description": "Likewise: a link that `POST /auth/identities` has begun.",
    },
}
OF_FINISH: Parameters = {
    "response": {"type": "string", "maxLength": 200, "description": "What the provider's answer is kept under."},
    "refused": {"type": "string", "maxLength": 2000, "description": "In its place: the provider has refused."},
    **TENANT,
}
