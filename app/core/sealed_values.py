"""Values that somebody else keeps for the hub: sealed, so that nobody can read, alter or make one."""

from typing import TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from app.core import base64url
from app.core.sealing import KeyRing, SealingError

NOBODYS = UUID(int=0)

T = TypeVar("T", bound=Struct)


def seal(ring: KeyRing, purpose: str, value: Struct) -> str:
    """As text that nobody else can read or make, for the browser to keep. `purpose` keeps one kind from passing for
    another."""
    sealed = ring.seal(msgspec.msgpack.encode(value), tenant_id=NOBODYS, row_id=NOBODYS, field=purpose)
    return base64url.encode(sealed)


def unseal(ring: KeyRing, purpose: str, text: str, kind: type[T]) -> T | None:
    """None for what was not sealed here for this purpose, or is not written as it was: what is good once is known by
    its text, and base64 has many for one value."""
    try:
        sealed = base64url.decode(text)
        if base64url.encode(sealed) != text:
            return None
        opened = ring.open(sealed, tenant_id=NOBODYS, row_id=NOBODYS, field=purpose)
        return msgspec.msgpack.decode(opened, type=kind)
    except (SealingError, ValueError):
        return None
