"""Users on the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType

from app.core.lookalikes import written_alike
from app.core.schemas import EntityOut, Input, Output, Rule, tag_with
from app.domain.users.identity import is_email

Email = Annotated[
    str, Meta(min_length=3, max_length=254, examples=["ada@example.org"], extra_json_schema={"format": "email"})
]
PersonName = Annotated[str, Meta(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z", examples=["Ada"])]
Password = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        examples=["a phrase that only I know"],
        extra_json_schema={"writeOnly": True, "format": "password"},
    ),
]


RULES: Mapping[str, Rule] = {"email": is_email, "first_name": written_alike, "last_name": written_alike}


class RoleRef(Output):
    id: UUID
    name: str


class UserOut(EntityOut):
    email: str
    first_name: str
    last_name: str
    is_active: bool
    has_password: bool
    """Whether the user can sign in with a password."""
    locked_until: datetime | None
    """When the account opens again by itself after too many failed logins; null for one that is not locked."""
    last_sign_in_at: datetime | None
    """When the user last proved to be themselves; null for never. No new version comes of it."""
    managed_by: str | None
    """What keeps the user: `scim` for a directory, which alone changes email, names and `is_active`, and deletes them;
    null for the hub itself."""
    roles: list[RoleRef]

    def entity_tag(self) -> str:
        """With a hash of what changes without a change of the user: names of roles, and whether a lock has ended."""
        return tag_with(self.version, self.roles, self.locked_until)


class UserCreate(Input):
    rules = RULES

    email: Email
    first_name: PersonName = ""
    last_name: PersonName = ""
    password: Password | None = None
    """Without one the user cannot sign in with a password."""
    is_active: bool = True


class UserPatch(Input):
    rules = RULES

    email: Email | UnsetType = UNSET
    first_name: PersonName | UnsetType = UNSET
    last_name: PersonName | UnsetType = UNSET
    password: Password | None | UnsetType = UNSET
    """Null takes the password away. A new password ends the user's sessions."""
    is_active: bool | UnsetType = UNSET
    managed_by: Literal["scim"] | None | UnsetType = UNSET
    """`scim` hands the user over to the tenant's directory, which finds them by their email address; null takes them
    back."""
