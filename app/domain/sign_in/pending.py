"""A sign-in that is under way in a browser: who asked for it, and where it is to end.

It is kept by the browser, sealed, in the page's address and form, and stored nowhere; a cookie of the browser's says
that whoever ends it is whoever began it. Several tabs share the cookie, and each has a sign-in of its own.
"""

import hmac
import secrets
import time
from typing import Final
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from app.core.base64url import encoded_sha256
from app.core.exchange import Exchange
from app.settings import Settings

LIVES_S = 1800
"""Until the form is to be sent; then the page says to begin anew."""

PENDING: Final = "sign-in"
"""The purpose that a `PendingSignIn` is sealed for, by whoever sends a browser to the sign-in page."""


class PendingSignIn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    client_id: str | None
    """None for a page of HUB_SIGN_IN_REDIRECTS."""
    redirect_uri: str
    """Known to be allowed."""
    state: str | None
    code_challenge: str
    """S256 (RFC 7636)."""
    scope: str | None = None
    tenant: str | None = None
    """Slug of the tenant that is meant; None: as the host or the address says."""
    is_tenant_chosen: bool = False
    """On the page, by whoever signs in; with no tenant they have left it to their address."""
    browser: str
    """Digest of the browser's cookie."""
    expires_at: int
    """In seconds since 1970."""

    @property
    def is_over(self) -> bool:
        return self.expires_at <= time.time()

    def is_of(self, browser: str | None) -> bool:
        """Whether the browser with this cookie began it."""
        return browser is not None and hmac.compare_digest(self.browser, digest_of(browser))

    def ends_at(self, **parameters: str | None) -> str:
        """Where the browser goes with what came of it, and the state."""
        given = {name: value for name, value in {**parameters, "state": self.state}.items() if value is not None}
        separator = "&" if urlsplit(self.redirect_uri).query else "?"
        return f"{self.redirect_uri}{separator}{urlencode(given)}"


# The browser's cookie -------------------------------------------------------------------------------------------------


def cookie_name(settings: Settings) -> str:
    """Where the hub is reached by plain http, as in development, browsers take no `__Host-` cookie."""
    return "__Host-hub-browser" if urlsplit(settings.url).scheme == "https" else "hub-browser"


def browser_of(exchange: Exchange, settings: Settings) -> str | None:
    """The value of the cookie; None for a browser that has none yet, or keeps none."""
    wanted = cookie_name(settings)
    for pair in (exchange.header(b"cookie") or "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == wanted and value:
            return value
    return None


def new_browser() -> str:
    return secrets.token_urlsafe(24)


def cookie_header(settings: Settings, browser: str) -> tuple[bytes, bytes]:
    """Ends with the browser. `Lax`: it has to come along when an identity provider sends the browser back."""
    secure = "; Secure" if cookie_name(settings).startswith("__Host-") else ""
    return b"set-cookie", f"{cookie_name(settings)}={browser}; Path=/; HttpOnly; SameSite=Lax{secure}".encode()


def digest_of(browser: str) -> str:
    return encoded_sha256(browser)
