"""Who is calling and what they may do: access tokens, the Principal, and what a route asks for.

Access tokens are RFC 9068 JWTs under one pinned algorithm per key. A principal is never read out of a token: the token
names a session, and the session's principal is held in memory and dropped when anything about it changes.
"""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Literal
from uuid import UUID

import jwt
import msgspec
from msgspec import Struct
from uuid_utils.compat import uuid4

from app.core.errors import Forbidden, Hidden, HubError, Unauthenticated
from app.core.extent import NOWHERE, Extent, Place
from app.core.lists.listing import Listing
from app.core.signing_keys import SigningKey

log = logging.getLogger("hub.keys")

ACCESS_TOKEN_S = 900
LEEWAY_S = 10
SIGNS_AFTER_S = 3.0
"""For a key that is new: in that time every process that has the same file knows it, and no token comes to one that
does not."""
AUDIENCE = "data-fusion-hub"
TOKEN_TYPE = "at+jwt"  # noqa: S105
SCOPE = "api"
"""The one that there is: what somebody may do hangs on their roles."""
ONE_FACTOR, TWO_FACTORS = "aal1", "aal2"
"""`acr`, after the assurance levels of NIST SP 800-63B-4 as far as the number of factors goes."""
MAX_TOKEN_BYTES = 4096
VERIFIED_TOKENS = 20_000
FORM_BYTES = 65_536
"""Of a form, where a route names no other: one token of 8,192 characters at most, each of three bytes at most."""

_COMPACT_JWS = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADER_FIELDS = {"alg", "kid", "typ"}


class Claims(Struct, frozen=True):
    """What a verified access token says (RFC 9068 section 2.2)."""

    sub: UUID
    sid: UUID
    tid: UUID
    jti: str
    iat: int
    exp: int
    scope: str
    client_id: str = ""
    """The OAuth client that it is for; the audience where it is the hub's own API."""

    @property
    def is_of_program(self) -> bool:
        """Whether a service account has got it for itself (RFC 9068 section 2.2: then the client is the subject)."""
        return self.client_id == str(self.sub)


PrincipalType = Literal["user", "service_account"]


class KeyLimits(Struct, frozen=True):
    """Of the API key that somebody came with."""

    id: UUID
    named: frozenset[str] | None
    """The permissions to which it is narrowed; None: all that its owner holds."""
    expires_at: datetime


class Principal(Struct, frozen=True, kw_only=True):
    """Who is calling, as the database knew it when the session or the API key was last loaded."""

    id: UUID
    type: PrincipalType = "user"
    tenant_id: UUID
    session_id: UUID | None
    """None for who came with a key."""
    key: KeyLimits | None = None
    """None for who is signed in."""
    name: str
    """The email address of a user, the name of a service account."""
    role_ids: frozenset[UUID]
    permissions: frozenset[str]
    """Held for the whole tenant, and left by the key."""
    extents: Mapping[str, Extent] = {}
    """By permission, for those that are held for a part of the tenant only."""
    has_factor: bool = False
    """Whether a second factor was shown in the session."""
    factor_permissions: frozenset[str] = frozenset()
    """What they would hold for the whole tenant with a second factor; empty where that would change nothing."""
    factor_extents: Mapping[str, Extent] = {}
    """As `extents`, with a second factor; empty where that would change nothing."""
    factor_role_ids: frozenset[UUID] = frozenset()
    """Their roles that bring nothing before they have shown one."""

    @property
    def own_session_id(self) -> UUID:
        """Raises Forbidden for who came with a key: routes that need a session say so (`signed_in`)."""
        if self.session_id is None:
            raise Forbidden(code="session_required")
        return self.session_id

    def may(self, permission: str) -> bool:
        """For the whole tenant."""
        return permission in self.permissions

    def may_at(self, permission: str, place: Place) -> bool:
        return permission in self.permissions or self.extents.get(permission, NOWHERE).covers(place)

    def may_somewhere(self, permission: str) -> bool:
        return permission in self.permissions or permission in self.extents

    def would_with_factor(self, permission: str) -> bool:
        """Whether a second factor would bring them the permission, for the whole tenant."""
        return permission in self.factor_permissions and permission not in self.permissions

    def would_somewhere_with_factor(self, permission: str) -> bool:
        return permission in self.factor_extents or self.would_with_factor(permission)

    def would_at_with_factor(self, permission: str, place: Place) -> bool:
        held = permission in self.factor_permissions or self.factor_extents.get(permission, NOWHERE).covers(place)
        return held and not self.may_at(permission, place)

    def may_together(self, *permissions: str) -> bool:
        """Whether there is a place where all of them are held."""
        extents = [extent for name in permissions if (extent := self.extent(name)) is not None]
        return not extents or bool(reduce(and_, extents).parts)

    def extent(self, permission: str) -> Extent | None:
        """Where the permission is held; None for the whole tenant."""
        return None if permission in self.permissions else self.extents.get(permission, NOWHERE)

    def holds_all(self, permissions: Iterable[str], place: Place | None = None) -> bool:
        """Nobody grants what they lack: for the whole tenant, or at the place for which it is to be given."""
        if place is None:
            return self.permissions.issuperset(permissions)
        return all(self.may_at(permission, place) for permission in permissions)


class Tokens:
    """Issues access tokens, verifies them, and remembers verified ones until they expire.

    The cache is bounded and holds claims only: whether a session still lives is asked of the principals each time.
    """

    def __init__(self, keys: list[SigningKey], *, issuer: str, audience: str = AUDIENCE) -> None:
        self._signing = keys[0]
        self._next: tuple[SigningKey, float] | None = None
        """Signs from that moment on, as `time.monotonic` counts."""
        self._keys = {key.kid: key for key in keys}
        self._issuer = issuer
        self._audience = audience
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    @property
    def issuer(self) -> str:
        return self._issuer

    @property
    def audience(self) -> str:
        return self._audience

    def issue(
        self,
        *,
        subject: UUID,
        session: UUID,
        tenant: UUID,
        now: float | None = None,
        lasts_s: int = ACCESS_TOKEN_S,
        client_id: str | None = None,
        amr: Sequence[str] = (),
        auth_time: datetime | None = None,
    ) -> str:
        """`session` is what it rests on: the row whose end is its end. `amr` and `auth_time` are how and when the user
        has proven to be themselves (RFC 9068 section 2.2.1); a program has nothing of the kind."""
        issued = int(time.time() if now is None else now)
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(subject),
            "client_id": client_id or self._audience,
            "sid": str(session),
            "tid": str(tenant),
            "jti": uuid4().hex,
            "iat": issued,
            "exp": issued + lasts_s,
            "scope": SCOPE,
        }
        if amr:
            claims |= {"amr": list(amr), "acr": TWO_FACTORS if "mfa" in amr else ONE_FACTOR}
        if auth_time is not None:
            claims["auth_time"] = int(auth_time.timestamp())
        key = self._key_to_sign()
        return jwt.encode(claims, key.private, key.algorithm, headers={"typ": TOKEN_TYPE, "kid": key.kid})

    def take(self, keys: list[SigningKey]) -> None:
        """As they are now: all of them verify at once. The first one signs, if it is new a little later, unless the one
        that signs now is gone. Tokens of a key that is gone are worth nothing any more."""
        known, self._keys = self._keys, {key.kid: key for key in keys}
        if known.keys() - self._keys.keys():
            self._verified.clear()
        if keys[0].kid in known or self._signing.kid not in self._keys:
            self._signing, self._next = keys[0], None
        else:
            self._next = keys[0], time.monotonic() + SIGNS_AFTER_S
        if known.keys() != self._keys.keys():
            log.info("signing keys: %s", ", ".join(self._keys))

    def _key_to_sign(self) -> SigningKey:
        if self._next is not None and time.monotonic() >= self._next[1]:
            self._signing, self._next = self._next[0], None
        return self._signing

    def verify(self, token: bytes) -> Claims:
        """The claims of a token that is genuine, meant for this service and not expired. Raises Unauthenticated."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._checked(token)
            self._remember(token, claims)
        elif claims.exp + LEEWAY_S <= time.time():
            raise Unauthenticated(code="token_expired")
        return claims

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """RFC 7517: the public keys, for services that verify tokens themselves."""
        return {"keys": [key.jwk | {"kid": key.kid, "use": "sig", "alg": key.algorithm} for key in self._keys.values()]}

    def _remember(self, token: bytes, claims: Claims) -> None:
        self._verified[token] = claims
        if len(self._verified) > VERIFIED_TOKENS:
            self._verified.popitem(last=False)

    def _checked(self, token: bytes) -> Claims:
        if len(token) > MAX_TOKEN_BYTES or not _COMPACT_JWS.fullmatch(token):
            raise Unauthenticated(code="invalid_token")
        try:
            key = self._key_of(jwt.get_unverified_header(token))
            found = jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={
                    "require": ["iss", "aud", "sub", "sid", "tid", "jti", "iat", "exp", "scope"],
                    "verify_iat": True,
                },
            )
            return msgspec.convert(found, Claims)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated(code="token_expired") from None
        except (jwt.PyJWTError, msgspec.ValidationError, ValueError, TypeError, RecursionError):
            raise Unauthenticated(code="invalid_token") from None

    def _key_of(self, header: Mapping[str, object]) -> SigningKey:
        """Only headers that we would write ourselves are read at all: no `jwk`, `jku`, `x5c` or `crit`."""
        if set(header) != _HEADER_FIELDS or header["typ"] != TOKEN_TYPE:
            raise jwt.InvalidTokenError("unexpected header")
        key = self._keys.get(header["kid"]) if isinstance(header["kid"], str) else None
        if key is None or header["alg"] != key.algorithm:
            raise jwt.InvalidTokenError("unknown key")
        return key


def bearer_token(authorization: bytes | None) -> bytes:
    """RFC 6750 section 2.1, and no other way. Raises Unauthenticated."""
    if authorization is None:
        raise Unauthenticated
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise Unauthenticated(code="invalid_token")
    return token


def missing(principal: Principal, permission: str, sentence: str | None = None) -> Forbidden:
    """What to raise for who lacks a permission: it may be that a second factor would bring it."""
    if principal.would_somewhere_with_factor(permission):
        return Forbidden(code="factor_required")
    return Forbidden(sentence or f"This needs the permission `{permission}`.", code="permission_missing")


def unseen(principal: Principal, permission: str) -> HubError:
    """What to raise for what nobody may see who lacks a permission: likewise."""
    return Forbidden(code="factor_required") if principal.would_somewhere_with_factor(permission) else Hidden()


Parameters = Mapping[str, Mapping[str, object]]
ScopedKind = Literal["data_source", "data_domain", "webhook", "delivery"]


class Access(Struct, frozen=True, kw_only=True):
    """What a route asks of its caller, and which query parameters it takes.

    Every route declares it: none is open by omission.
    """

    is_open: bool = False
    permission: str | None = None
    lets_others_in: bool = False
    """Whoever lacks the permission comes in, too: the handler shows them less, or refuses."""
    on: ScopedKind | None = None
    """What the route is about, where the permission may be held for a part of the tenant: the thing that the path
    names, or else, in a list and where something is made, whatever of its kind the caller has to do with."""
    listing: Listing | None = None
    parameters: Parameters = {}
    """Other query parameters, as JSON Schemas by name."""
    takes_form: bool = False
    """The body is an HTML form (RFC 7662, SAML), and nothing else."""
    form_bytes: int = FORM_BYTES
    """Of the form, at most."""
    needs_session: bool = False
    """An API key does not do."""
    takes_directory_key: bool = False
    """The key of a directory lets in, and nothing else does (SCIM). Unknown query parameters are ignored."""
    needs_database: bool = True
    """False for what is answered whatever state the database is in."""

    def __deepcopy__(self, memo: object) -> "Access":
        """Litestar copies the handlers of a controller; what cannot change need not be copied."""
        return self

    @property
    def takes_query(self) -> bool:
        return self.takes_directory_key or self.listing is not None or bool(self.parameters)


def requires(
    permission: str,
    *,
    on: ScopedKind | None = None,
    listing: Listing | None = None,
    parameters: Parameters | None = None,
    lets_others_in: bool = False,
    needs_session: bool = False,
) -> dict[str, object]:
    """The guard: only principals who hold the permission, written `<path segment>:<verb>`; with `on`, who hold it for
    the thing that the path names, or where it names none, anywhere."""
    access = Access(
        permission=permission,
        lets_others_in=lets_others_in,
        needs_session=needs_session,
        on=on,
        listing=listing,
        parameters=parameters or {},
    )
    return {"access": access}


def signed_in(
    *,
    listing: Listing | None = None,
    parameters: Parameters | None = None,
    takes_form: bool = False,
    needs_session: bool = False,
) -> dict[str, object]:
    """Any principal; the service narrows it to what is their own."""
    access = Access(listing=listing, parameters=parameters or {}, takes_form=takes_form, needs_session=needs_session)
    return {"access": access}


def open_to_all(
    *,
    parameters: Parameters | None = None,
    needs_database: bool = True,
    takes_form: bool = False,
    form_bytes: int = FORM_BYTES,
) -> dict[str, object]:
    access = Access(
        is_open=True,
        parameters=parameters or {},
        needs_database=needs_database,
        takes_form=takes_form,
        form_bytes=form_bytes,
    )
    return {"access": access}


def for_directories() -> dict[str, object]:
    """For whoever comes with a key of `/scim-keys`."""
    return {"access": Access(takes_directory_key=True)}
