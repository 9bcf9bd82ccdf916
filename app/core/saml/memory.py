"""What a process has in memory of SAML providers: our keys to them, opened, and their metadata, read."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec import Struct

if TYPE_CHECKING:
    from app.core.saml.keys import ProviderKey
    from app.core.saml.metadata import IdentityProvider

Place = tuple[UUID, UUID]
"""Tenant and provider."""


class Known(Struct):
    """The metadata of one provider."""

    mark: object
    """Of what it was read from: the text itself, the file's time, the URL."""
    read: IdentityProvider | None
    document: str = ""
    fetched_at: float = 0.0
    """As `time.time` counts, as the next: the last time that it was had, and the last time that it was asked for."""
    asked_at: float = 0.0


class SamlMemory:
    def __init__(self) -> None:
        self.keys: dict[Place, ProviderKey] = {}
        self.metadata: dict[Place, Known] = {}
        self.locks: defaultdict[Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One asks, and the others wait for what it hears."""
