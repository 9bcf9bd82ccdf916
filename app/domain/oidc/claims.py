"""Claims of a provider, verified, as what they say of somebody."""

from collections.abc import Mapping
from typing import Any

from app.core.faults import FORBIDDEN
from app.domain.identity_providers.people import Vouched
from app.domain.identity_providers.registry import Provider
from app.domain.oidc.tokens import is_multi_factor


def vouched_of(provider: Provider, claims: Mapping[str, Any]) -> Vouched:
    verified = claims.get("email_verified")
    return Vouched(
        issuer=claims["iss"],
        subject=claims["sub"],
        email=_text(claims, "email") or None,
        is_email_verified=verified if isinstance(verified, bool) else _read(verified),
        first_name=_text(claims, "given_name") or _text(claims, "name"),
        last_name=_text(claims, "family_name"),
        groups=_groups(provider, claims),
        session=_text(claims, "sid") or None,
        is_multi_factor=is_multi_factor(claims),
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    """Nothing where it is none, or holds what no text may hold: JSON can write half of a character, and NUL."""
    value = claims.get(name)
    if not isinstance(value, str) or len(value) > 1000 or FORBIDDEN.search(value) is not None:
        return ""
    return value.strip()


def _read(verified: object) -> bool | None:
    """Some providers write it as a text; whatever else it is says that it is not so."""
    return None if verified is None else verified == "true"


def _groups(provider: Provider, claims: Mapping[str, Any]) -> list[str] | None:
    """None where the provider is not asked; where it is and says nothing, they are in no group."""
    if provider.groups_claim is None:
        return None
    said = claims.get(provider.groups_claim, [])
    listed = [said] if isinstance(said, str) else said
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
