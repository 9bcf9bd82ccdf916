"""Tokens that are shown once, are worth something once or until they are revoked, and say where they are kept.

`<kind>_<place>_<secret>`: the place is the tenant and the row, so that nothing has to be looked for in all tenants; the
secret has 256 bits, so that its digest needs no slow hash. Both are base64url (RFC 4648 section 5) without padding.
What is no secret, and is to be found as well, is called by its place alone: `<kind>_<place>`.
"""

import hmac
import re
import secrets
from hashlib import sha256
from uuid import UUID

from msgspec import Struct

from app.core import base64url

_FORM = re.compile(r"([a-z]{3})_([A-Za-z0-9_-]{43})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"([a-z]{3})_([A-Za-z0-9_-]{43})")


class NewToken(Struct, frozen=True):
    text: str
    """Shown once, stored nowhere."""
    digest: bytes
    """What is stored: SHA-256 of the text."""


class GivenToken(Struct, frozen=True):
    """What somebody came with. Its row says whether it is worth anything (`fits`)."""

    tenant_id: UUID
    row_id: UUID
    digest: bytes

    def fits(self, stored: bytes) -> bool:
        return hmac.compare_digest(self.digest, stored)


def new_token(kind: str, tenant_id: UUID, row_id: UUID, *, secret: bytes | None = None) -> NewToken:
    """`kind` is three small letters. `secret`: 32 bytes that nobody can guess, where the same token has to be made
    again; else they are random."""
    hidden = base64url.encode(secret or secrets.token_bytes(32))
    text = f"{name_of_place(kind, tenant_id, row_id)}_{hidden}"
    return NewToken(text, sha256(text.encode()).digest())


def read_token(kind: str, text: str) -> GivenToken | None:
    """None for what cannot be one of that kind; no database is asked."""
    found = _FORM.fullmatch(text)
    if found is None or found[1] != kind:
        return None
    return GivenToken(*_place(found[2]), sha256(text.encode()).digest())


def name_of_place(kind: str, tenant_id: UUID, row_id: UUID) -> str:
    return f"{kind}_{base64url.encode(tenant_id.bytes + row_id.bytes)}"


def read_name(kind: str, text: str) -> tuple[UUID, UUID] | None:
    """The tenant and the row; None for what cannot be a name of that kind, or is another spelling of one."""
    found = _NAME.fullmatch(text)
    if found is None or found[1] != kind:
        return None
    place = _place(found[2])
    return place if name_of_place(kind, *place) == text else None


def _place(text: str) -> tuple[UUID, UUID]:
    place = base64url.decode(text)
    return UUID(bytes=place[:16]), UUID(bytes=place[16:])
