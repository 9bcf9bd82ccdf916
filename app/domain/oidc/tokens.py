"""ID tokens and logout tokens: what has to be true of them before anything that they say is believed (OpenID Connect
Core section 3.1.3.7, Back-Channel Logout section 2.6, RFC 8725).

    TokenRefused     `reason` is one word for what is wrong: for the log and the audit log, not for the browser
"""

import hmac
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256, sha512
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import InvalidSignatureError, PyJWTError

from app.core import base64url

ALGORITHMS: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""By name, the type of key and the curve that each takes. Neither `none` nor one with a shared secret is among them,
whatever a provider says of itself."""
SKEW_S: Final = 60
OLDEST_S: Final = 600
"""An ID token comes straight from the provider: one that was made earlier was made for something else."""
MOST_BYTES: Final = 65_536
SMALLEST_RSA_BITS: Final = 2048
MULTI_FACTOR: Final = frozenset(
    (
        "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
        "https://refeds.org/profile/mfa",
        "https://schemas.microsoft.com/claims/multipleauthn",
        "http://schemas.microsoft.com/claims/multipleauthn",
    )
)
"""Values of `acr` and `amr` that say more than one factor, beside `mfa` (RFC 8176)."""
LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"

Claims = Mapping[str, Any]


class TokenRefused(Exception):
    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class KeyUnknown(TokenRefused):
    """Other keys may be there by now."""


def verified_claims(token: str, keys: Sequence[Mapping[str, Any]], *, types: Sequence[str | None]) -> Claims:
    """What a token says that one of the keys has signed. Raises TokenRefused; KeyUnknown where newer keys may help."""
    if len(token) > MOST_BYTES:
        raise TokenRefused("too_large")
    try:
        header = jwt.get_unverified_header(token)
    except (PyJWTError, ValueError, RecursionError):
        raise TokenRefused("malformed") from None
    algorithm = str(header.get("alg"))
    if algorithm not in ALGORITHMS:
        raise TokenRefused("algorithm")
    if "crit" in header or "b64" in header or _type_of(header) not in types:
        raise TokenRefused("header")
    try:
        claims = jwt.decode(token, _key_for(header, algorithm, keys), algorithms=[algorithm], options=_SIGNATURE_ONLY)
    except InvalidSignatureError:
        raise KeyUnknown("signature") from None
    except (PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenRefused("malformed") from None
    return dict(claims)


_CHECKED_BELOW: Final = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
_SIGNATURE_ONLY: Any = {f"verify_{name}": False for name in _CHECKED_BELOW}
"""All else is checked below, with a reason for each."""


def _type_of(header: Mapping[str, Any]) -> str | None:
    found = header.get("typ")
    return None if found is None else str(found).lower().removeprefix("application/")


_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")
"""Of a key: a provider that shows private parts is none whose signatures prove anything, but no reason to hold them."""


def of_use(keys: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of a provider by which some token could be checked."""
    return [key for key in keys if any(_fits(key, algorithm) for algorithm in ALGORITHMS)]


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    kty, curve = ALGORITHMS[algorithm]
    return (
        key.get("kty") == kty
        and (curve is None or key.get("crv") == curve)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and "verify" in key.get("key_ops", ["verify"])
    )


def _key_for(header: Mapping[str, Any], algorithm: str, keys: Sequence[Mapping[str, Any]]) -> PyJWK:
    """The one that the token names; where it names none, the only one that could be it."""
    fitting = [key for key in keys if _fits(key, algorithm)]
    kid = header.get("kid")
    named = fitting if kid is None else [key for key in fitting if key.get("kid") == kid]
    if len(named) != 1:
        raise KeyUnknown("key_unknown")
    try:
        made = PyJWK({name: named[0][name] for name in _PUBLIC if name in named[0]}, algorithm=algorithm)
    except (PyJWTError, ValueError, TypeError, KeyError):
        raise TokenRefused("key_unusable") from None
    if ALGORITHMS[algorithm][0] == "RSA" and made.key.key_size < SMALLEST_RSA_BITS:
        raise TokenRefused("key_too_short")
    return made


def require_id_token(
    claims: Claims, *, issuer: str, client_id: str, nonce: str, access_token: str, algorithm: str
) -> None:
    """Raises TokenRefused for the first thing that is not as it has to be."""
    _require_from(claims, issuer, client_id)
    _require_time(claims)
    said = claims.get("nonce")
    if not isinstance(said, str) or not said.isascii() or not hmac.compare_digest(said, nonce):
        raise TokenRefused("nonce")
    if not _is_text(claims.get("sub")):
        raise TokenRefused("subject")
    if "at_hash" in claims and claims["at_hash"] != access_token_hash(access_token, algorithm):
        raise TokenRefused("at_hash")


def require_logout_token(claims: Claims, *, issuer: str, client_id: str) -> None:
    """Raises TokenRefused likewise."""
    _require_from(claims, issuer, client_id)
    _require_time(claims)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT), dict):
        raise TokenRefused("events")
    if "nonce" in claims:
        raise TokenRefused("nonce")
    if not _is_text(claims.get("jti")):
        raise TokenRefused("jti")
    for name in ("sub", "sid"):
        if name in claims and not _is_text(claims[name]):
            raise TokenRefused("subject")
    if "sub" not in claims and "sid" not in claims:
        raise TokenRefused("subject")


def _require_from(claims: Claims, issuer: str, client_id: str) -> None:
    if claims.get("iss") != issuer:
        raise TokenRefused("issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        raise TokenRefused("audience")
    authorized = claims.get("azp")
    if (len(audiences) > 1 and authorized is None) or authorized not in (None, client_id):
        raise TokenRefused("authorized_party")


def _require_time(claims: Claims) -> None:
    now = time.time()
    issued, expires, begins = (claims.get(name) for name in ("iat", "exp", "nbf"))
    if not _is_time(issued) or not _is_time(expires) or (begins is not None and not _is_time(begins)):
        raise TokenRefused("times")
    assert issued is not None
    assert expires is not None
    if expires <= now - SKEW_S:
        raise TokenRefused("expired")
    if issued > now + SKEW_S or (begins is not None and begins > now + SKEW_S):
        raise TokenRefused("not_yet_valid")
    if issued < now - OLDEST_S - SKEW_S:
        raise TokenRefused("too_old")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()


_HASHES: Final = {"RS256": sha256, "PS256": sha256, "ES256": sha256, "EdDSA": sha512}


def access_token_hash(access_token: str, algorithm: str) -> str:
    """Section 3.1.3.6; of Ed25519 the hash that it uses itself, SHA-512."""
    digest = _HASHES[algorithm](access_token.encode("ascii", "replace")).digest()
    return base64url.encode(digest[: len(digest) // 2])


def algorithm_of(token: str) -> str:
    """Of one that was verified."""
    return str(jwt.get_unverified_header(token)["alg"])


def is_multi_factor(claims: Claims) -> bool:
    """Whether the provider says that it has asked for more than one factor."""
    methods = claims.get("amr")
    said = {str(each) for each in methods} if isinstance(methods, list) else set()
    return "mfa" in said or bool((said | {str(claims.get("acr"))}) & MULTI_FACTOR)
