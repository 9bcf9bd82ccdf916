"""Which rows make a user on the wire, and which lists of users there are."""

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, select, text
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by

from app.core.database import Repository, json_object
from app.core.lists.filters import Filter, OrderOfFilter, boolean_filter, search_filter
from app.core.lists.listing import Listing, Sort
from app.core.lists.parameters import UUID_SCHEMA, parse_uuid
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IN_FORCE, OF_WHOLE_TENANT
from app.domain.roles.models import Role
from app.domain.roles.repositories import RoleRepository
from app.domain.roles.schemas import RoleOut
from app.domain.users.identity import email_filter
from app.domain.users.models import User
from app.domain.users.schemas import UserOut


def _roles_of_user() -> ColumnElement[object]:
    """`[{id, name}]` in order of name."""
    role = json_object({"id": Role.id, "name": Role.name})
    found = func.json_agg(aggregate_order_by(role, Role.name_key), type_=JSON)
    held = select(func.coalesce(found, text("'[]'::json"))).join(RoleAssignment, RoleAssignment.role_id == Role.id)
    of_user = and_(RoleAssignment.subject_id == User.id, OF_WHOLE_TENANT, IN_FORCE)
    return held.where(of_user).correlate(User).scalar_subquery()


def _holds_role(name: str) -> ColumnElement[bool]:
    """Joins the one open assignment that a user can have of the role, for whose order see `RoleAssignment`."""
    role_id = bindparam(name, type_=RoleAssignment.role_id.type)
    is_of_role = and_(RoleAssignment.role_id == role_id, RoleAssignment.tenant_id == User.tenant_id)
    return and_(RoleAssignment.subject_id == User.id, is_of_role, OF_WHOLE_TENANT, IN_FORCE)


class UserRepository(Repository[User]):
    model_type = User
    computed = {
        "has_password": User.password_hash.is_not(None),
        "locked_until": case((User.locked_until > func.now(), User.locked_until)),
        "roles": _roles_of_user(),
    }


def roles_of_user_listing() -> Listing:
    """The roles that one user holds (bound as `user_id`): few, so that they are found first and sorted then."""
    is_of_user = RoleAssignment.subject_id == bindparam("user_id", type_=RoleAssignment.subject_id.type)
    held = exists().where(RoleAssignment.role_id == Role.id, is_of_user, OF_WHOLE_TENANT, IN_FORCE)
    return Listing(
        RoleRepository.selection(RoleOut).where(held),
        name="roles of a user",
        id_column=Role.id,
        sorts={
            "name": Sort(Role.name_key, "roles_tenant_id_name_key_id_idx"),
            "created_at": Sort(Role.created_at, "roles_tenant_id_created_at_id_idx"),
        },
        default_sort="name",
        few_by=tuple(f"role_assignments_{name}_idx" for name in ("subject_id", "subject_id_created_at", "subject")),
    )


def members_listing() -> Listing:
    """The users who hold one role (bound as `member_role_id`)."""
    return Listing(
        UserRepository.selection(UserOut).where(_holds_role("member_role_id")),
        name="members of a role",
        id_column=RoleAssignment.subject_id,
        sorts={
            "email": Sort(RoleAssignment.user_email_key, "role_assignments_members_email_idx"),
            "created_at": Sort(RoleAssignment.user_created_at, "role_assignments_members_created_at_idx"),
        },
        default_sort="email",
    )


MEMBERSHIPS = OrderOfFilter(
    {
        "created_at": RoleAssignment.user_created_at,
        "updated_at": RoleAssignment.user_updated_at,
        "email": RoleAssignment.user_email_key,
    },
    RoleAssignment.subject_id,
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
            index="role_assignments_members_{sort}_idx",
            description="Users who hold this role.",
            order=MEMBERSHIPS,
        ),
        "q": search_filter(User.email, User.first_name, User.last_name, index="users_search_idx"),
    },
)
