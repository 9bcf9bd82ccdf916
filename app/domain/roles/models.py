"""Roles: named sets of permissions, which roles approve requests for them, and permissions of other services."""

from uuid import UUID

from sqlalchemy import ForeignKey, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.core.database import IN_USE_SENTENCES, UNIQUE_SENTENCES, Base, Entity, Tenanted


class Role(Tenanted, Entity):
    __tablename__ = "roles"
    __table_args__ = (UniqueConstraint("tenant_id", "name_key", name="roles_name_key"),)

    name: Mapped[str]
    name_key: Mapped[str]
    """The form under which names are compared."""
    description: Mapped[str | None]
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    owner_role_id: Mapped[UUID | None] = mapped_column(ForeignKey("roles.id"))
    is_system: Mapped[bool] = mapped_column(default=False)
    is_requestable: Mapped[bool] = mapped_column(default=False)
    """Of the built-in role `admin` the tenant's settings decide it."""
    is_owner: Mapped[bool] = mapped_column(default=False)
    """Whether sources or domains were ever owned by it: what it owns is looked up for such roles alone."""
    requires_mfa: Mapped[bool] = mapped_column(default=False)
    """Whether what it brings is there only for who has signed in with a second factor."""


class RoleApprover(Tenanted, Base):
    """Members of the approver role decide on requests for the role."""

    __tablename__ = "role_approvers"

    role_id: Mapped[UUID] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True)
    approver_role_id: Mapped[UUID] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True)


class RegisteredPermission(Tenanted, Entity):
    """A permission of another service of the platform: roles bring it and checks answer for it, and to the hub itself
    it means nothing."""

    __tablename__ = "permissions"
    __table_args__ = (UniqueConstraint("tenant_id", "name", name="permissions_name_key"),)

    name: Mapped[str]
    description: Mapped[str]


UNIQUE_SENTENCES["roles_name_key"] = ("name", "name_taken", "A role of this name exists already.")
IN_USE_SENTENCES["roles_owner_role_id_fkey"] = "The role owns other roles. Give them another owner first."
