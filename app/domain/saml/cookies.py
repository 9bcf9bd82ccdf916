"""The cookie in which a browser keeps a request that was sent to a provider: one for each request, and only for the
address at which that sign-in is carried on.

It is `Lax`, as the browser's own cookie is, and so does not come along with the form that a provider makes the browser
send. What has come is kept, and the browser led on by a redirect to a GET of our own, with which both come (RFC 6265bis
section 5.2).
"""

from urllib.parse import urlsplit

from app.core.exchange import Exchange
from app.domain.identity_providers.registry import Provider
from app.domain.sign_in.pending import LIVES_S
from app.settings import Settings

Header = tuple[bytes, bytes]


def _name(settings: Settings, request_id: str) -> str:
    prefix = "__Secure-" if urlsplit(settings.url).scheme == "https" else ""
    return f"{prefix}hub-saml-{request_id[1:17]}"


def kept_by_browser(exchange: Exchange, settings: Settings, request_id: str) -> str | None:
    wanted = _name(settings, request_id)
    for pair in (exchange.header(b"cookie") or "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == wanted and value:
            return value
    return None


def keep_in_browser(
    settings: Settings, provider: Provider, request_id: str, value: str, *, for_s: int = LIVES_S
) -> Header:
    """With no seconds it is deleted."""
    path = urlsplit(provider.address(settings, "finish")).path
    secure = "; Secure" if urlsplit(settings.url).scheme == "https" else ""
    attributes = f"Path={path}; Max-Age={for_s}; HttpOnly; SameSite=Lax{secure}"
    return b"set-cookie", f"{_name(settings, request_id)}={value}; {attributes}".encode()
