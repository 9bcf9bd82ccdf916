"""Signing in, on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from app.core.schemas import Input, Output
from app.domain.service_accounts.schemas import ServiceAccountOut
from app.domain.users.schemas import RULES, Email, Password, PersonName, RoleRef, UserOut

RefreshToken = Annotated[str, Meta(min_length=1, max_length=4096, extra_json_schema={"writeOnly": True})]
GivenPassword = Annotated[str, Meta(max_length=1024, extra_json_schema={"writeOnly": True, "format": "password"})]
"""A password to check, not to set: the rules for new ones do not apply."""
TenantSlug = Annotated[str, Meta(max_length=100, examples=["default"])]
"""The organisation that is meant, on a hub that serves several."""


class Register(Input):
    rules = RULES

    email: Email
    password: Password
    first_name: PersonName = ""
    last_name: PersonName = ""
    tenant: TenantSlug | None = None


class Login(Input):
    email: Annotated[str, Meta(max_length=320, examples=["ada@example.org"])]
    password: GivenPassword
    tenant: TenantSlug | None = None
    """Without one the host of the request says which, or the address, where one tenant alone has somebody of it."""


class Refresh(Input):
    refresh_token: RefreshToken


class Logout(Input):
    scope: Literal["session", "all"] = "session"


class ChangePassword(Input):
    current_password: GivenPassword
    new_password: Password


class TokenPair(Output):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    """Seconds."""
    refresh_token: str
    refresh_expires_in: int
    """Seconds."""


class TenantRef(Output):
    id: UUID
    slug: str
    name: str


class Me(Output):
    user: UserOut | None
    """Null where a service account asks."""
    service_account: ServiceAccountOut | None
    """Null where a user asks."""
    roles: list[RoleRef]
    permissions: list[str]
    """Of an API key those that it leaves."""
    tenant: TenantRef


class SessionOut(Output):
    id: UUID
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    device: str | None
    """What the browser or program said of itself when it signed in."""
    address: str | None
    is_current: bool


class Introspection(Output, omit_defaults=True):
    """RFC 7662 section 2.2. For a token that is not valid `active` is all there is."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: str | None = None
    exp: int | None = None
    iat: int | None = None
    sub: str | None = None
    aud: str | None = None
    iss: str | None = None
    jti: str | None = None
    sid: str | None = None
    tid: str | None = None
    permissions: list[str] | None = None


class JsonWebKeySet(Output):
    keys: list[dict[str, str]]
