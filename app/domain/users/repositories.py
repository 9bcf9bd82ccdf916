"""Which rows make a user on the wire, and which lists of users there are."""

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, select, text
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by

from app.core.database import Repository, json_object
from app.core.listing import (
    UUID_SCHEMA,
    Filter,
    Listing,
    OrderOfFilter,
    Sort,
    boolean_filter,
    parse_uuid,
    search_filter,
)
from app.domain.roles.models import Role
from app.domain.roles.repositories import RoleRepository
from app.domain.roles.schemas import RoleOut
from app.domain.users.identity import email_filter
from app.domain.users.models import User, UserRole
from app.domain.users.schemas import UserOut


def _roles_of_user() -> ColumnElement[object]:
    """`[{id, name}]` in order of name."""
    role = json_object({"id": Role.id, "name": Role.name})
    found = func.json_agg(aggregate_order_by(role, Role.name_key), type_=JSON)
    held = select(func.coalesce(found, text("'[]'::json"))).join(UserRole, UserRole.role_id == Role.id)
    return held.where(UserRole.user_id == User.id).correlate(User).scalar_subquery()


def _holds_role(name: str) -> ColumnElement[bool]:
    """Joins the one membership that a user can have in the role, for whose order see `UserRole`."""
    role_id = bindparam(name, type_=UserRole.role_id.type)
    return and_(UserRole.user_id == User.id, UserRole.role_id == role_id, UserRole.tenant_id == User.tenant_id)


class UserRepository(Repository[User]):
    model_type = User
    computed = {
        "has_password": User.password_hash.is_not(None),
        "locked_until": case((User.locked_until > func.now(), User.locked_until)),
        "roles": _roles_of_user(),
    }


class UserRoleRepository(Repository[UserRole]):
    model_type = UserRole


def roles_of_user_listing() -> Listing:
    """The roles that one user holds (bound as `user_id`): few, so that they are found first and sorted then."""
    held = exists().where(
        UserRole.role_id == Role.id, UserRole.user_id == bindparam("user_id", type_=UserRole.user_id.type)
    )
    return Listing(
        RoleRepository.selection(RoleOut).where(held),
        name="roles of a user",
        id_column=Role.id,
        sorts={
            "name": Sort(Role.name_key, "roles_tenant_id_name_key_id_idx"),
            "created_at": Sort(Role.created_at, "roles_tenant_id_created_at_id_idx"),
        },
        default_sort="name",
        few_by="user_roles_pkey",
    )


def members_listing() -> Listing:
    """The users who hold one role (bound as `member_role_id`)."""
    return Listing(
        UserRepository.selection(UserOut).where(_holds_role("member_role_id")),
        name="members of a role",
        id_column=UserRole.user_id,
        sorts={
            "email": Sort(UserRole.user_email_key, "user_roles_email_idx"),
            "created_at": Sort(UserRole.user_created_at, "user_roles_created_at_idx"),
        },
        default_sort="email",
    )


MEMBERSHIPS = OrderOfFilter(
    {
        "created_at": UserRole.user_created_at,
        "updated_at": UserRole.user_updated_at,
        "email": UserRole.user_email_key,
    },
    UserRole.user_id,
)
ROLES_OF_USER = roles_of_user_listing()
MEMBERS = members_listing()
USER = UserRepository.selection_by_id(UserOut)
USERS = Listing(
    UserRepository.selection(UserOut),
    name="users",
    id_column=User.id,
    sorts={
        "created_at": Sort(User.created_at, "users_tenant_id_created_at_id_idx"),
        "updated_at": Sort(User.updated_at, "users_tenant_id_updated_at_id_idx"),
        "email": Sort(User.email_key, "users_tenant_id_email_key_id_idx"),
    },
    default_sort="created_at",
    filters={
        "email": email_filter(User.email_key, index="users_tenant_id_email_key_id_idx"),
        "is_active": boolean_filter(User.is_active, index="users_is_active_{sort}_idx"),
        "role_id": Filter(
            where=_holds_role,
            parse=parse_uuid,
            schema=UUID_SCHEMA,
            index="user_roles_{sort}_idx",
            description="Users who hold this role.",
            order=MEMBERSHIPS,
        ),
        "q": search_filter(User.email, User.first_name, User.last_name, index="users_search_idx"),
    },
)
