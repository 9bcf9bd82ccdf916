"""OAuth clients, and what the endpoints of OAuth take and answer."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.core.errors import HubError
from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Output, Rule
from app.domain.oauth.redirects import MAX_LENGTH, MOST_URIS, all_allowed

RULES: Mapping[str, Rule] = {"name": well_named, "redirect_uris": all_allowed}

RedirectUris = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH, examples=["https://app.example.org/signed-in"])]],
    Meta(min_length=1, max_length=MOST_URIS, extra_json_schema={"uniqueItems": True}),
]


class OAuthClientOut(EntityOut):
    client_id: str
    name: str
    redirect_uris: list[str]
    is_confidential: bool
    """Whether it has a secret. A program on its users' machines keeps none: it is public."""


class OAuthClientCreated(OAuthClientOut):
    client_secret: str | None
    """Shown now and never again; null for a public client."""


class OAuthClientCreate(Input):
    rules = RULES

    name: Name
    redirect_uris: RedirectUris
    """Where the browser may be sent with a code: `https`, a scheme of the program's own with a dot in it, or `http` to
    the loopback interface, where any port is the same. Compared character for character."""
    is_confidential: bool = False
    """Stays as it is."""


class OAuthClientPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    redirect_uris: RedirectUris | UnsetType = UNSET


# The endpoints -------------------------------------------------------------------------------------------------------

FaultName = Literal[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_token_type",
    "server_error",
    "temporarily_unavailable",
]
Given = Annotated[str, Meta(max_length=8192)]
Secret = Annotated[str, Meta(max_length=8192, extra_json_schema={"writeOnly": True})]


class OAuthFault(Output):
    """RFC 6749 section 5.2."""

    error: FaultName
    error_description: str

    @classmethod
    def telling(cls, error: HubError) -> "OAuthFault":
        """Of what the hub has refused by itself."""
        names: Mapping[int, FaultName] = {500: "server_error", 429: _LATER, 503: _LATER, 401: "invalid_client"}
        return cls(names.get(error.status, "invalid_request"), plain(_sentences(error)))

    @classmethod
    def status_of(cls, error: HubError | type[HubError]) -> int:
        """What is wrong with a request is a 400, but for a body that is too long to be read."""
        return error.status if error.status in (401, 413, 429) or error.status >= 500 else 400


_LATER: Final = "temporarily_unavailable"


def _sentences(error: HubError) -> str:
    return " ".join([error.detail, *(f"`{fault.path}` {fault.message}." for fault in error.errors)])


def plain(text: str) -> str:
    """In the characters that RFC 6749 leaves to a description."""
    return "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "'" for letter in text)[:500]


class ClientForm(Struct):
    """How a client says who it is, where it does not by Basic (RFC 6749 section 2.3.1, RFC 7523 section 2.2)."""

    client_id: Given | None = None
    client_secret: Secret | None = None
    client_assertion_type: Given | None = None
    client_assertion: Secret | None = None


class TokenForm(ClientForm):
    """RFC 6749 sections 4.1.3, 4.4.2 and 6. What is not known is ignored."""

    grant_type: Annotated[Given, Meta(examples=["client_credentials"])] | None = None
    code: Secret | None = None
    redirect_uri: Given | None = None
    code_verifier: Secret | None = None
    """43 to 128 characters (RFC 7636 section 4.1)."""
    refresh_token: Secret | None = None
    scope: Given | None = None


class RevocationForm(ClientForm):
    """RFC 7009 section 2.1."""

    token: Secret | None = None
    token_type_hint: Given | None = None
    """Not needed: a token says itself of what kind it is."""


class Granted(Output, omit_defaults=True):
    """RFC 6749 section 5.1."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    """Seconds."""
    scope: str
    refresh_token: str | None = None
    """Not for programs: those come again with what they came with."""
    refresh_expires_in: int | None = None
    """Seconds."""


class ServerMetadata(Output):
    """RFC 8414 section 2."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    service_documentation: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    response_modes_supported: list[str]
    grant_types_supported: list[str]
    code_challenge_methods_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    token_endpoint_auth_signing_alg_values_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_signing_alg_values_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    """An access token of one's own, or an API key."""
    authorization_response_iss_parameter_supported: bool
    """RFC 9207."""


class ResourceMetadata(Output):
    """RFC 9728 section 2."""

    resource: str
    resource_name: str
    resource_documentation: str
    authorization_servers: list[str]
    scopes_supported: list[str]
    bearer_methods_supported: list[str]


TEXT: dict[str, Any] = {"type": "string", "maxLength": 2048}
AUTHORIZATION: Mapping[str, Mapping[str, Any]] = {
    "response_type": TEXT | {"description": "`code`"},
    "client_id": TEXT | {"minLength": 1, "required": True, "description": "Of a registered client, or `hub-cli`."},
    "redirect_uri": TEXT | {"minLength": 1, "required": True, "description": "One that the client has registered."},
    "code_challenge": TEXT | {"description": "RFC 7636."},
    "code_challenge_method": TEXT | {"description": "`S256`"},
    "state": TEXT | {"description": "Comes back as it is."},
    "scope": TEXT | {"description": "`api` is all there is; what else is asked for is not given."},
    "tenant": TEXT | {"description": "Slug of the organisation that is meant, on a hub that serves several."},
}
"""Query parameters of the authorization endpoint (RFC 6749 section 4.1.1, RFC 7636 section 4.3). Of those that are
missing the client is told by way of the browser, but for the two without which there is nobody to tell."""
