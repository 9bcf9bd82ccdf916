"""Public keys of a service account (RFC 7517), by which it shows who it is without a secret (`private_key_jwt`)."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import jwt
import msgspec
from msgspec import Meta

from app.core import base64url
from app.core.errors import Fault
from app.core.schemas import Input

MOST_KEYS: Final = 10
RSA_BITS: Final = range(2048, 4097)
"""A longer key makes whoever verifies pay for it."""
ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "OKP": ("EdDSA", "Ed25519"),
    "EC": ("ES256",),
    "RSA": ("RS256", "PS256"),
}
"""By `kty`, none of which takes a secret: a public key is never mistaken for one (RFC 8725 section 2.1)."""
THUMBED: Final[Mapping[str, tuple[str, ...]]] = {
    "OKP": ("crv", "kty", "x"),
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
}
"""By `kty`, what the key itself is made of, in order (RFC 7638 section 3.2)."""
_KEPT = ("kty", "crv", "x", "y", "n", "e", "kid", "alg", "use")

Number = Annotated[str, Meta(min_length=1, max_length=700, pattern=r"^[A-Za-z0-9_-]+\Z")]
"""Base64url, without padding."""
Algorithm = Literal["EdDSA", "Ed25519", "ES256", "RS256", "PS256"]
KeyId = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+\Z")]


class JsonWebKey(Input):
    """A public key: Ed25519, P-256, or RSA of 2048 to 4096 bits. Members of a private one are refused."""

    kty: Literal["OKP", "EC", "RSA"]
    crv: Literal["Ed25519", "P-256"] | None = None
    x: Number | None = None
    y: Number | None = None
    n: Number | None = None
    e: Number | None = None
    kid: KeyId | None = None
    alg: Algorithm | None = None
    use: Literal["sig"] | None = None
    key_ops: Annotated[list[Literal["verify"]], Meta(max_length=1)] | None = None
    """As browsers export it; not kept."""
    ext: bool | None = None


class JsonWebKeys(Input):
    keys: Annotated[list[JsonWebKey], Meta(min_length=1, max_length=MOST_KEYS)]


def usable(value: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """Rule: each is a key of its kind, and none has another's `kid`."""
    seen: set[str] = set()
    for place, key in enumerate(value["keys"]):
        where = f"{path}.keys[{place}]"
        if why := _why_unusable(key):
            yield Fault(where, "invalid_key", why)
        elif key.get("kid") in seen:
            yield Fault(f"{where}.kid", "duplicate", "is another key's `kid` too")
        seen.add(key.get("kid") or f"#{place}")


def _why_unusable(key: Mapping[str, Any]) -> str | None:
    kind, curve = key["kty"], {"OKP": "Ed25519", "EC": "P-256"}.get(key["kty"])
    if key.get("crv") != curve or any(key.get(name) is None for name in THUMBED[kind]):
        return f"a key of type {kind} has `{'`, `'.join(THUMBED[kind])}`" + (f", of {curve}" if curve else "")
    if key.get("alg") not in (None, *ALGORITHMS[kind]):
        return f"`alg` of a key of type {kind} is {' or '.join(ALGORITHMS[kind])}"
    if kind == "RSA" and (_number(key["n"]).bit_length() not in RSA_BITS or not _is_exponent(_number(key["e"]))):
        return f"an RSA key has {RSA_BITS[0]} to {RSA_BITS[-1]} bits, and an odd exponent of at most 32"
    try:
        public_key(key)
    except (jwt.PyJWTError, ValueError, TypeError):
        return f"is no key of type {kind}"
    return None


def _number(text: str) -> int:
    try:
        return int.from_bytes(base64url.decode(text), "big")
    except ValueError:
        return 0


def _is_exponent(number: int) -> bool:
    return number % 2 == 1 and 3 <= number < 2**32


def kept(given: JsonWebKeys | None) -> dict[str, object]:
    """The column."""
    if given is None:
        return {"jwks": None}
    keys = [{name: value for name in _KEPT if (value := getattr(key, name)) is not None} for key in given.keys]
    return {"jwks": {"keys": keys}}


def public_key(key: Mapping[str, Any]) -> Any:
    """As PyJWT takes it. Raises PyJWTError or ValueError for what is none."""
    plain = {name: key[name] for name in THUMBED[key["kty"]]}
    return jwt.PyJWK(plain, algorithm=ALGORITHMS[key["kty"]][0]).key


def keys_of(stored: Any) -> list[dict[str, str]]:
    """Of a column, as whoever has read it was given it."""
    plain = msgspec.json.decode(stored) if isinstance(stored, msgspec.Raw) else stored
    found: list[dict[str, str]] = [] if plain is None else plain["keys"]
    return found


def id_of_key(account_id: UUID, key: Mapping[str, Any]) -> UUID:
    """What a token rests on whose account has shown itself by this key: the same key of another account, and another
    key under the same `kid`, are others."""
    thumbed = msgspec.json.encode({name: key[name] for name in THUMBED[key["kty"]]})
    return UUID(bytes=sha256(account_id.bytes + sha256(thumbed).digest()).digest()[:16])
