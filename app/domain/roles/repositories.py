"""Which rows make a role on the wire, and which lists of roles there are."""

from app.core.database import Repository
from app.core.listing import Listing, boolean_filter, search_filter, text_filter, uuid_filter
from app.domain.roles.models import Role, RoleApprover
from app.domain.roles.schemas import RoleOut


class RoleRepository(Repository[Role]):
    model_type = Role


class RoleApproverRepository(Repository[RoleApprover]):
    model_type = RoleApprover


ROLE = RoleRepository.selection_by_id(RoleOut)
ROLES = Listing(
    RoleRepository.selection(RoleOut),
    name="roles",
    id_column=Role.id,
    sorts={"created_at": Role.created_at, "updated_at": Role.updated_at, "name": Role.name_key},
    default_sort="created_at",
    filters={
        "name": text_filter(Role.name_key, name_key=True, description="This name, in any case."),
        "is_system": boolean_filter(Role.is_system),
        "owner_role_id": uuid_filter(Role.owner_role_id),
        "q": search_filter(Role.name, Role.description),
    },
)
