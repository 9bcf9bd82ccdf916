"""`private_key_jwt`: a short-lived JWT that a service account has signed with a key whose public half the hub has
(RFC 7523 section 3, RFC 8725)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from time import time
from typing import Annotated, Any, Final
from uuid import UUID

import jwt
import msgspec
from msgspec import Meta, Struct
from sqlalchemy import bindparam, select

from app.core import base64url
from app.core.across_tenants import tenant_of_service_account
from app.core.security import LEEWAY_S
from app.domain.oauth.endpoints import SIGNED_BY, TOKEN, url_of
from app.domain.oauth.faults import NotShown
from app.domain.parts import Parts
from app.domain.service_accounts.jwks import ALGORITHMS, id_of_key, keys_of, public_key
from app.domain.service_accounts.models import ServiceAccount
from app.domain.spent.services import moment_of, spend
from app.domain.tenants.models import Tenant
from app.domain.work import UnitOfWork

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LASTS_AT_MOST_S: Final = 300
_HEADER = {"alg", "kid", "typ"}
"""Only what says which key it is: no `jwk`, `jku`, `x5c` or `crit`."""


_JWS = jwt.PyJWS(algorithms=[name for name in SIGNED_BY if name != "Ed25519"])
_JWS.register_algorithm("Ed25519", jwt.get_algorithm_by_name("EdDSA"))  # the name of RFC 9864, as WebCrypto has it


class _Claims(Struct, frozen=True):
    """RFC 7523 section 3; `jti`, which it leaves open, is asked for."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: int | float
    jti: Annotated[str, Meta(min_length=1, max_length=255)]
    nbf: int | float | None = None
    iat: int | float | None = None


class Assertion(Struct, frozen=True, kw_only=True):
    account_id: UUID
    tenant_id: UUID
    name: str
    jwk_id: UUID
    jti: str
    expires_at: datetime


async def read_assertion(parts: Parts, text: str) -> Assertion:
    """Raises NotShown, with the account where it is one."""
    account_id = _subject(text)
    tenant_id = None if account_id is None else await tenant_of_service_account(parts.reads, account_id)
    if account_id is None or tenant_id is None:
        raise NotShown
    rows = await parts.reads.rows(_ACCOUNT, {"account_id": account_id, "tenant_id": tenant_id})
    if not rows:
        raise NotShown
    name, jwks = rows[0]
    audiences = (parts.tokens.issuer, url_of(parts.settings, TOKEN))
    verified = _verified(text, keys_of(jwks), audiences, account_id)
    if verified is None:
        raise NotShown(tenant_id, "service_account", account_id)
    key, claims = verified
    return Assertion(
        account_id=account_id,
        tenant_id=tenant_id,
        name=name,
        jwk_id=id_of_key(account_id, key),
        jti=claims.jti,
        expires_at=moment_of(claims.exp),
    )


_ACCOUNT = (
    select(ServiceAccount.name, ServiceAccount.jwks)
    .join(Tenant, Tenant.id == ServiceAccount.tenant_id)
    .where(
        ServiceAccount.id == bindparam("account_id", type_=ServiceAccount.id.type),
        ServiceAccount.tenant_id == bindparam("tenant_id", type_=ServiceAccount.tenant_id.type),
        ServiceAccount.is_active,
        Tenant.is_active,
    )
)


def _subject(text: str) -> UUID | None:
    """Whose it says that it is: nothing is believed of it before its signature is checked."""
    _, _, rest = text.partition(".")
    payload = rest.partition(".")[0]
    try:
        said = msgspec.json.decode(base64url.decode(payload), type=_Said).sub
    except (ValueError, RecursionError):
        return None
    return account_id_of(said)


def account_id_of(text: str) -> UUID | None:
    """In the one spelling that it has in answers."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None


class _Said(Struct):
    sub: str


def _verified(
    text: str, keys: Sequence[Mapping[str, str]], audiences: Sequence[str], account_id: UUID
) -> tuple[Mapping[str, str], _Claims] | None:
    """The key that has signed it, and its claims; None for what is not valid."""
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    if set(header) - _HEADER:
        return None
    for key in keys:
        if _may_fit(key, header) and (payload := _signed(text, key, header["alg"])) is not None:
            claims = _claims(payload)
            return (key, claims) if claims is not None and _are_sound(claims, audiences, account_id) else None
    return None


def _may_fit(key: Mapping[str, str], header: Mapping[str, Any]) -> bool:
    """The algorithm has to be one of the key's own kind: the header never chooses how a key is used."""
    is_narrowed = "alg" in key and key["kty"] != "OKP"  # of Ed25519 both names mean the same
    of_key = (key["alg"],) if is_narrowed else ALGORITHMS[key["kty"]]
    return header.get("alg") in of_key and header.get("kid") in (None, key.get("kid"))


def _signed(text: str, key: Mapping[str, str], algorithm: str) -> bytes | None:
    """What the key has signed. Raises nothing for what it has not."""
    try:
        payload: bytes = _JWS.decode(text, public_key(key), algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    return payload


def _claims(payload: bytes) -> _Claims | None:
    try:
        return msgspec.json.decode(payload, type=_Claims)
    except (ValueError, RecursionError):
        return None


def _are_sound(claims: _Claims, audiences: Sequence[str], account_id: UUID) -> bool:
    """It is the account itself that speaks, to this server alone, now and not for long."""
    now = time()
    is_own = claims.iss == claims.sub == str(account_id)
    meant = {claims.aud} if isinstance(claims.aud, str) else set(claims.aud)
    is_current = now - LEEWAY_S < claims.exp <= now + LASTS_AT_MOST_S + LEEWAY_S
    has_begun = max(claims.nbf or 0, claims.iat or 0) <= now + LEEWAY_S
    return is_own and bool(meant) and meant <= set(audiences) and is_current and has_begun


async def use_up(work: UnitOfWork, assertion: Assertion) -> bool:
    """False for one that was used before, by whichever process. `work` is in the account's tenant."""
    said = assertion.account_id.bytes + assertion.jti.encode("utf-8", "surrogatepass")
    return await spend(work, "client assertion", said, assertion.expires_at + timedelta(seconds=LEEWAY_S))
