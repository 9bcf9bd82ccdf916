"""Redirect URIs: which may be registered, and which one of a client's is meant (RFC 6749 section 3.1.2, RFC 8252).

A browser is sent there with a code, so that nothing is guessed: what is asked for is what was registered, character for
character, but for the port of a program that listens on its own machine.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from app.core.errors import Fault

MOST_URIS = 20
MAX_LENGTH = 1000
_CHARACTERS = re.compile(r"[!-~]+")
_NOT_IN_ANY = re.compile(r"[#*\\<>\"^`{|}]")
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::([0-9]{1,5}))?((?:[/?].*)?)")
"""Origin without port, port, and the rest (RFC 8252 section 7.3)."""
_PRIVATE_USE = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+:/.*")
"""A scheme of a program's own has a dot, because it is a domain name turned around (RFC 8252 section 7.1): so no scheme
that a browser knows is one, `javascript` the last."""
_HTTPS = re.compile(r"https://([^/?]+)([/?].*)?")


def why_not_allowed(uri: str) -> str | None:
    """What is wrong with a redirect URI that is to be registered."""
    if len(uri) > MAX_LENGTH:
        return f"has more than {MAX_LENGTH} characters"
    if not _CHARACTERS.fullmatch(uri) or _NOT_IN_ANY.search(uri):
        return "holds a fragment, a wildcard, or a character that no URI has"
    if is_loopback(uri):
        return None
    if uri.startswith("https://"):
        return _why_no_web_page(uri)
    if _PRIVATE_USE.fullmatch(uri) and "@" not in uri:
        return None
    return "must begin with https://, http://127.0.0.1, http://[::1], or a scheme with a dot such as org.example.app:/"


def _why_no_web_page(uri: str) -> str | None:
    found = _HTTPS.fullmatch(uri)
    try:
        parts = urlsplit(uri)
        is_whole = found is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        return "leads to no host"
    return "holds user information" if "@" in parts.netloc else None


def is_loopback(uri: str) -> bool:
    """Whether a program on the user's own machine listens there."""
    found = _LOOPBACK.fullmatch(uri)
    is_clean = _CHARACTERS.fullmatch(uri) is not None and not _NOT_IN_ANY.search(uri) and len(uri) <= MAX_LENGTH
    return found is not None and is_clean and _is_port(found[2])


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text) <= 65535


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    return any(uri == each or _differ_in_port_only(uri, each) for each in registered)


def _differ_in_port_only(uri: str, registered: str) -> bool:
    """Of two that lead to the loopback interface: the operating system gives the program whatever port is free."""
    one, other = _LOOPBACK.fullmatch(uri), _LOOPBACK.fullmatch(registered)
    return one is not None and other is not None and (one[1], one[3]) == (other[1], other[3]) and _is_port(one[2])


def all_allowed(values: list[str], path: str) -> Iterator[Fault]:
    """Rule: each may be registered, and none twice."""
    seen: set[str] = set()
    for place, uri in enumerate(values):
        if why := why_not_allowed(uri):
            yield Fault(f"{path}[{place}]", "invalid_redirect_uri", why)
        elif uri in seen:
            yield Fault(f"{path}[{place}]", "duplicate", "is given more than once")
        seen.add(uri)
