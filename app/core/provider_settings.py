"""Identity providers that the operator names by variables: `HUB_OIDC_<NAME>_*` and `HUB_SAML_<NAME>_*`."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from app.core import saml

ProviderKind = Literal["oidc", "saml"]
VARIABLE: Final = re.compile(r"HUB_(OIDC|SAML)_([A-Z0-9]+)_([A-Z0-9_]+)")
SECRET_SUFFIXES: Final = ("_CLIENT_SECRET",)
"""Of variables that are shown as set or not set, never as a value."""

DEFAULT_SCOPES: Final = ("openid", "email", "profile")
SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")
"""RFC 6749 section 3.3."""
DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class ConfiguredProvider(Struct, frozen=True, kw_only=True):
    """One provider of the settings. What belongs to the other kind is None or empty."""

    kind: ProviderKind
    name: str
    tenant: str = "default"
    """Slug of the tenant whose users come from it."""
    label: str
    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    groups_claim: str | None = None
    allowed_domains: tuple[str, ...] = ()
    metadata_url: str | None = None
    metadata_file: Path | None = None
    attribute_subject: str | None = None
    """Says who it is, in place of the NameID."""
    attribute_email: str | None = None
    attribute_first_name: str | None = None
    attribute_last_name: str | None = None
    attribute_groups: str | None = None

    @property
    def look_ups_of(self) -> Hashable:
        """Whose share of look-ups its names are taken from: its own, since the operator has named it."""
        return self.kind, self.tenant, self.name


def web_address_fault(url: str, *, is_development: bool) -> str | None:
    """What is wrong with the address of a provider: it has to be https, and on this machine, in development, may be
    http. OpenID Connect Discovery section 3 allows an issuer no query and no fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is no URL such as https://login.example.org"
    if any(sign <= " " or sign == "\x7f" for sign in url) or not parts.hostname or port == 0 or "\\" in url:
        return "is no URL such as https://login.example.org"
    if parts.username is not None or parts.password is not None:
        return "must hold no user name and no password"
    if parts.scheme == "https" or (parts.scheme == "http" and is_development and parts.hostname in _LOOPBACK):
        return None
    return "must start with https://; in development it may be http:// on this machine"


def issuer_fault(url: str, *, is_development: bool) -> str | None:
    if "?" in url or "#" in url:
        return "must hold no query and no fragment"
    return web_address_fault(url, is_development=is_development)


def scopes_fault(scopes: tuple[str, ...]) -> str | None:
    if "openid" not in scopes:
        return "must hold `openid`"
    return None if all(SCOPE.fullmatch(scope) for scope in scopes) else "must be scopes such as `openid email`"


def parse_providers(
    given: Mapping[str, str], *, is_development: bool
) -> tuple[tuple[ConfiguredProvider, ...], list[str]]:
    """What the variables name, and one line for each that does not fit."""
    by_provider: dict[tuple[str, str], dict[str, str]] = {}
    for variable, text in sorted(given.items()):
        found = VARIABLE.fullmatch(variable)
        assert found is not None
        by_provider.setdefault((found[1], found[2]), {})[found[3]] = text
    reader = _Reader(is_development)
    made = [reader.provider(kind, name, texts) for (kind, name), texts in by_provider.items()]
    reader.problems += _twice(made)
    return tuple(made), reader.problems


def _twice(providers: list[ConfiguredProvider]) -> Iterator[str]:
    seen: dict[tuple[str, str], ConfiguredProvider] = {}
    for provider in providers:
        other = seen.setdefault((provider.tenant, provider.name), provider)
        if other is not provider:
            name = provider.name.upper()
            yield f"HUB_SAML_{name}_*: the tenant has a provider of this name: HUB_OIDC_{name}_*"


class _Reader:
    def __init__(self, is_development: bool) -> None:
        self._is_development = is_development
        self.problems: list[str] = []

    def provider(self, kind: str, name: str, texts: Mapping[str, str]) -> ConfiguredProvider:
        known, needed = (_OIDC, _OIDC_NEEDS) if kind == "OIDC" else (_SAML, _SAML_NEEDS)
        said: dict[str, object] = {}
        for suffix, text in texts.items():
            variable = f"HUB_{kind}_{name}_{suffix}"
            if suffix not in known:
                self.problems.append(f"{variable}: is not a setting of the hub; there are {', '.join(known)}")
                continue
            try:
                said |= known[suffix](text, self._is_development)
            except ValueError as error:
                self.problems.append(f"{variable}: {error}")
        for suffix in needed:
            if suffix not in texts:
                self.problems.append(f"HUB_{kind}_{name}_{suffix}: is needed for this provider")
        of_kind: ProviderKind = "oidc" if kind == "OIDC" else "saml"
        return ConfiguredProvider(
            **{"kind": of_kind, "name": name.lower(), "label": name.capitalize(), **said}  # type: ignore[arg-type]
        )


Part = Callable[[str, bool], dict[str, object]]
"""From the text and whether this is development to fields. Raises ValueError with what is wrong."""


def _text(field: str) -> Part:
    return lambda text, _: {field: text.strip()}


def _label(text: str, _: bool) -> dict[str, object]:
    if not text.strip() or len(text) > 100:
        raise ValueError("a name of 1 to 100 characters for the sign-in page is wanted")
    return {"label": text.strip()}


def _issuer(text: str, is_development: bool) -> dict[str, object]:
    if (fault := issuer_fault(text, is_development=is_development)) is not None:
        raise ValueError(fault)
    return {"issuer": text}


def _scopes(text: str, _: bool) -> dict[str, object]:
    scopes = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if (fault := scopes_fault(scopes)) is not None:
        raise ValueError(fault)
    return {"scopes": scopes}


def _domains(text: str, _: bool) -> dict[str, object]:
    domains = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for domain in domains:
        if not DOMAIN.fullmatch(domain):
            raise ValueError(f"`{domain}` is not the domain of an email address such as example.org")
    return {"allowed_domains": domains}


def _tenant(text: str, _: bool) -> dict[str, object]:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError("a tenant's slug such as acme is wanted")
    return {"tenant": text}


def _metadata(text: str, is_development: bool) -> dict[str, object]:
    if not saml.is_installed():
        raise ValueError("sign-in by SAML needs the extra `saml`: install data-fusion-hub[saml]")
    if "://" in text:
        if (fault := web_address_fault(text, is_development=is_development)) is not None:
            raise ValueError(fault)
        return {"metadata_url": text}
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError("there is no such file")
    return {"metadata_file": path}


_BOTH: Final[dict[str, Part]] = {"TENANT": _tenant, "LABEL": _label}
_OIDC: Final[dict[str, Part]] = {
    "ISSUER": _issuer,
    "CLIENT_ID": _text("client_id"),
    "CLIENT_SECRET": lambda text, _: {"client_secret": text},
    "SCOPES": _scopes,
    "GROUPS_CLAIM": _text("groups_claim"),
    "ALLOWED_DOMAINS": _domains,
    **_BOTH,
}
_OIDC_NEEDS: Final = ("ISSUER", "CLIENT_ID", "CLIENT_SECRET")
_SAML: Final[dict[str, Part]] = {
    "METADATA": _metadata,
    "ATTRIBUTE_SUBJECT": _text("attribute_subject"),
    "ATTRIBUTE_EMAIL": _text("attribute_email"),
    "ATTRIBUTE_FIRST_NAME": _text("attribute_first_name"),
    "ATTRIBUTE_LAST_NAME": _text("attribute_last_name"),
    "ATTRIBUTE_GROUPS": _text("attribute_groups"),
    **_BOTH,
}
_SAML_NEEDS: Final = ("METADATA",)
