"""Who comes to `/scim/v2`: keys of directories in memory, dead within a second of their deletion or of their tenant's
end, as sessions are (`domain.auth.principals`)."""

from collections import OrderedDict
from hashlib import sha256
from typing import Final

from app.core.errors import Unauthenticated
from app.core.opaque_tokens import GivenToken, read_token
from app.core.reads import Reads
from app.core.security import Principal
from app.domain.api_keys.uses import KeyUses
from app.domain.auth.principals import Mark, Principals
from app.domain.scim.repositories import LIVE_SCIM_KEY

KIND: Final = "dfd"
"""How the text of each begins."""
NO_KEY: Final = "This is no key of a directory, or one that was deleted. An admin makes one: POST /api/v1/scim-keys."
MOST_KEYS = 1000
DIGEST = 2


class DirectoryKeys:
    def __init__(self, reads: Reads, principals: Principals, uses: KeyUses) -> None:
        self._reads = reads
        self._principals = principals
        self._uses = uses
        self._kept: OrderedDict[bytes, tuple[Principal, tuple[Mark, Mark]]] = OrderedDict()
        """By the digest of the key."""

    async def of(self, token: bytes) -> Principal:
        """Who acts by this key. Raises Unauthenticated for anything but a living one."""
        principal, marks = self._kept.get(sha256(token).digest(), (None, ()))
        if principal is None or not self._principals.is_trusted or any(mark.has_changed for mark in marks):
            principal = await self._load(token)
        self._uses.note(principal.id)
        return principal

    async def _load(self, token: bytes) -> Principal:
        """Whatever is wrong with a key is answered alike."""
        given = read_token(KIND, token.decode("ascii", "replace"))
        if given is None:
            raise Unauthenticated(NO_KEY, code="invalid_token")
        marks = self._principals.mark_of(given.row_id), self._principals.mark_of(given.tenant_id)
        rows = await self._reads.rows(LIVE_SCIM_KEY, {"scim_key_id": given.row_id, "tenant_id": given.tenant_id})
        if not rows or not given.fits(rows[0][DIGEST]):
            raise Unauthenticated(NO_KEY, code="invalid_token")
        principal = _principal(given, rows[0][1])
        if self._principals.is_trusted and not any(mark.has_changed for mark in marks):
            self._kept[given.digest] = principal, marks
            if len(self._kept) > MOST_KEYS:
                self._kept.popitem(last=False)
        return principal


def _principal(given: GivenToken, name: str) -> Principal:
    """A program that holds no permission: what it may is what `/scim/v2` does."""
    return Principal(
        id=given.row_id,
        type="service_account",
        tenant_id=given.tenant_id,
        session_id=None,
        name=f"SCIM key {name}",
        role_ids=frozenset(),
        permissions=frozenset(),
    )
