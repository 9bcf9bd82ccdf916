"""Where the endpoints of OAuth are, and what the hub says of them (RFC 8414, RFC 9728)."""

from itertools import chain
from typing import Final

from app.core.security import SCOPE
from app.domain.oauth.schemas import ResourceMetadata, ServerMetadata
from app.domain.parts import Parts
from app.domain.service_accounts.jwks import ALGORITHMS
from app.settings import Settings

OF_VERSION = "/api/v1"
AUTHORIZE = f"{OF_VERSION}/auth/authorize"
TOKEN = f"{OF_VERSION}/auth/token"
REVOKE = f"{OF_VERSION}/auth/revoke"
INTROSPECT = f"{OF_VERSION}/auth/introspect"
JWKS = "/.well-known/jwks.json"

CLIENT_AUTHENTICATION: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
SIGNED_BY: Final = tuple(chain.from_iterable(ALGORITHMS.values()))


def url_of(settings: Settings, path: str) -> str:
    return settings.url.rstrip("/") + path


def server_metadata(parts: Parts) -> ServerMetadata:
    at = parts.settings
    methods, algorithms = list(CLIENT_AUTHENTICATION), list(SIGNED_BY)
    return ServerMetadata(
        issuer=parts.tokens.issuer,
        authorization_endpoint=url_of(at, AUTHORIZE),
        token_endpoint=url_of(at, TOKEN),
        revocation_endpoint=url_of(at, REVOKE),
        introspection_endpoint=url_of(at, INTROSPECT),
        jwks_uri=url_of(at, JWKS),
        service_documentation=url_of(at, "/docs"),
        scopes_supported=[SCOPE],
        response_types_supported=["code"],
        response_modes_supported=["query"],
        grant_types_supported=["authorization_code", "refresh_token", "client_credentials"],
        code_challenge_methods_supported=["S256"],
        token_endpoint_auth_methods_supported=methods,
        token_endpoint_auth_signing_alg_values_supported=algorithms,
        revocation_endpoint_auth_methods_supported=methods,
        revocation_endpoint_auth_signing_alg_values_supported=algorithms,
        introspection_endpoint_auth_methods_supported=["Bearer"],
        authorization_response_iss_parameter_supported=True,
    )


def resource_metadata(parts: Parts) -> ResourceMetadata:
    """The resource is the hub itself, by the address under which everybody knows it."""
    return ResourceMetadata(
        resource=parts.settings.url,
        resource_name="Data Fusion Hub",
        resource_documentation=url_of(parts.settings, "/docs"),
        authorization_servers=[parts.tokens.issuer],
        scopes_supported=[SCOPE],
        bearer_methods_supported=["header"],
    )
