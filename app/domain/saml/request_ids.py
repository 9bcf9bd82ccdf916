"""Ids of requests that say themselves whether they are ours: 128 random bits, the moment, and a MAC over both, the
tenant and the provider. Nothing is stored for a sign-in that may never be carried on, and nobody can fill a table."""

import hmac
import secrets
import time
from hashlib import sha256

from app.core import base64url
from app.core.sealing import KeyRing
from app.domain.identity_providers.registry import Provider
from app.domain.sign_in.pending import LIVES_S

_RANDOM, _MOMENT, _MAC = 16, 4, 16


def new_request_id(ring: KeyRing, provider: Provider) -> str:
    """An xs:NCName, as an ID in XML has to be; with 49 characters it is a `RelayState` as well (80 bytes at most)."""
    said = secrets.token_bytes(_RANDOM) + int(time.time()).to_bytes(_MOMENT, "big")
    return "_" + base64url.encode(said + _mac(ring, ring.current_id, provider, said))


def is_ours(ring: KeyRing, provider: Provider, request_id: str) -> bool:
    """Whether it was sent to this provider, and not too long ago."""
    try:
        read = base64url.decode(request_id[1:])
    except ValueError:
        return False
    said, mac = read[: _RANDOM + _MOMENT], read[_RANDOM + _MOMENT :]
    if request_id[:1] != "_" or len(mac) != _MAC:
        return False
    if not any(hmac.compare_digest(mac, _mac(ring, key_id, provider, said)) for key_id in ring.ids):
        return False
    return int.from_bytes(said[_RANDOM:], "big") + LIVES_S > time.time()


def _mac(ring: KeyRing, key_id: str, provider: Provider, said: bytes) -> bytes:
    meant = provider.tenant_id.bytes + provider.id.bytes + said
    return hmac.digest(ring.derive("saml requests", key_id), meant, sha256)[:_MAC]
