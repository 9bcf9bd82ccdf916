"""Which place a config means, whoever signs in there and however safely: two sources of one place are duplicates."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Mapping
from functools import cache
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from app.core.egress import EgressRefused, canonical_host

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_WEB: Final = frozenset(_DEFAULT_PORTS)

NOT_A_PLACE: Final = frozenset(
    {"tls", "ssl", "verify", "certificate", "certificates", "ca", "cert", "known", "fingerprint", "proxy", "tunnel"}
    | {"user", "username", "auth", "authentication", "sasl", "mechanism", "client", "key", "token", "scope", "tenant"}
    | {"login", "role", "warehouse", "identity", "issuer", "audience", "openapi", "style", "mode", "secret", "password"}
)
"""A field with one of these words in its name says how a place is reached, or as whom."""
_HOSTS: Final = frozenset(
    {"host", "hosts", "server", "servers", "address", "addresses", "broker", "brokers", "account"}
)
_PATHS: Final = frozenset({"path", "folder", "file", "root"})


def place_of(config: Struct, destination_fields: frozenset[str]) -> dict[str, object]:
    """The fields that say where, in one spelling: of the destination and of what a config cannot do without. Empty
    where none does."""
    names = _places(type(config), destination_fields)
    return {name: _in_one_spelling(name, msgspec.to_builtins(getattr(config, name))) for name in names}


def host_of(place: Mapping[str, object]) -> str | None:
    """The host of a place, or the first of several; None where it has none that its fields name."""
    for name, value in place.items():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and "://" in first:
            return urlsplit(first).hostname
        if isinstance(first, str) and first and not _HOSTS.isdisjoint(name.split("_")):
            return first
    return None


@cache
def _places(config_type: type[Struct], destination_fields: frozenset[str]) -> tuple[str, ...]:
    needed = {field.name for field in msgspec.structs.fields(config_type) if field.required}
    return tuple(sorted(name for name in needed | destination_fields if NOT_A_PLACE.isdisjoint(name.split("_"))))


def _in_one_spelling(name: str, value: object) -> object:
    words = set(name.split("_"))
    if isinstance(value, list):
        return sorted((_in_one_spelling(name, item) for item in value), key=str)
    if isinstance(value, dict):
        return {key: _in_one_spelling(key, item) for key, item in sorted(value.items())}
    if not isinstance(value, str):
        return value
    if "://" in value:
        return _url(value)
    if words & _HOSTS:
        return _host(value)
    return posixpath.normpath(value) if words & _PATHS else value


def _url(text: str) -> str:
    """Without user and fragment, and without the port that its scheme stands for (RFC 3986, section 6.2)."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return text
    place = _host(url.hostname or "")
    if port is not None and port != _DEFAULT_PORTS.get(url.scheme):
        place = f"{place}:{port}"
    return urlunsplit((url.scheme, place, url.path.rstrip("/"), url.query, ""))


def _host(text: str) -> str:
    with contextlib.suppress(EgressRefused):
        return str(canonical_host(text))
    return text.strip().casefold()


def destination(value: object) -> object:
    """What of a destination field decides where a secret goes. Of a web address that is all but query and fragment,
    its host in any case; whatever else is meant by a value, every change of it counts."""
    if not isinstance(value, str) or "://" not in value:
        return value
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return value
    if url.scheme not in _WEB:
        return value  # the query of a DSN may say whether TLS is used
    userinfo = url.netloc.rpartition("@")[0]
    return (url.scheme, userinfo, (url.hostname or "").lower(), port or _DEFAULT_PORTS[url.scheme], url.path or "/")
