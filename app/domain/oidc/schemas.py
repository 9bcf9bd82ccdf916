"""Linked identities on the wire, and what a sign-in by OpenID Connect keeps in the browser's hands, sealed."""

from typing import Annotated

from msgspec import Meta, Struct

from app.core.schemas import Input, Output
from app.domain.identity_providers.linking import LinkFor
from app.domain.identity_providers.schemas import ProviderName
from app.domain.sign_in.pending import PendingSignIn


class OidcSignIn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `state` holds, sealed: the provider gives it back to the browser, and learns nothing of it."""

    pending: PendingSignIn
    provider: str
    tenant: str
    """Slug of the provider's tenant."""
    nonce: str
    verifier: str
    """Of PKCE (RFC 7636)."""
    link: LinkFor | None = None


class LinkBegin(Input, kw_only=True):
    provider: ProviderName
    """Its name in `GET /auth/providers`."""
    redirect_uri: Annotated[str, Meta(min_length=1, max_length=2000, examples=["https://app.example.org/account"])]
    """Where the browser ends: one of HUB_SIGN_IN_REDIRECTS."""
    state: Annotated[str, Meta(max_length=500)] | None = None
    """Comes back with it."""


class LinkBegun(Output):
    login_url: str
    """To be opened within ten minutes in the browser that has asked for it."""


class LogoutForm(Struct):
    logout_token: Annotated[str, Meta(min_length=1, max_length=32_768)]
