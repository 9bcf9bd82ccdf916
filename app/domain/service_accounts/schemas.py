"""Service accounts on the wire."""

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule, Text
from app.domain.service_accounts.jwks import JsonWebKeys, usable

RULES: Mapping[str, Rule] = {"name": well_named, "jwks": usable}


class ServiceAccountOut(EntityOut):
    name: str
    description: str | None
    is_active: bool
    """False: its keys let nobody in."""
    jwks: dict[str, Any] | None
    """Its public keys (RFC 7517): what is signed with one of them is as good as a secret at `/auth/token`."""


class ServiceAccountCreate(Input):
    rules = RULES

    name: Name
    description: Text | None = None
    is_active: bool = True
    jwks: JsonWebKeys | None = None
    """Public keys for `private_key_jwt` (RFC 7523); null: none."""


class ServiceAccountPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET
    description: Text | None | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    """With false its keys let nobody in, on every worker within a second; with true they do again."""
    jwks: JsonWebKeys | None | UnsetType = UNSET
    """All of them anew; tokens that rest on one that is gone are dead within a second."""
