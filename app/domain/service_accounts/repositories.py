"""Which rows make a service account on the wire, and the list of them."""

from sqlalchemy import ColumnElement, and_, func, select, text
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by

from app.core.database import Repository, json_object
from app.core.lists.filters import boolean_filter, search_filter, text_filter
from app.core.lists.listing import Listing, Sort
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IN_FORCE
from app.domain.roles.models import Role
from app.domain.service_accounts.models import ServiceAccount
from app.domain.service_accounts.schemas import ServiceAccountOut


def roles_of_account() -> ColumnElement[object]:
    """`[{id, name}]` in order of name, those held for the whole tenant."""
    role = json_object({"id": Role.id, "name": Role.name})
    found = func.json_agg(aggregate_order_by(role, Role.name_key), type_=JSON)
    held = select(func.coalesce(found, text("'[]'::json"))).join(RoleAssignment, RoleAssignment.role_id == Role.id)
    of_account = and_(RoleAssignment.subject_id == ServiceAccount.id, RoleAssignment.scope_id.is_(None), IN_FORCE)
    return held.where(of_account).correlate(ServiceAccount).scalar_subquery()


class ServiceAccountRepository(Repository[ServiceAccount]):
    model_type = ServiceAccount


SERVICE_ACCOUNT = ServiceAccountRepository.selection_by_id(ServiceAccountOut)
SERVICE_ACCOUNTS = Listing(
    ServiceAccountRepository.selection(ServiceAccountOut),
    name="service accounts",
    id_column=ServiceAccount.id,
    sorts={
        "created_at": Sort(ServiceAccount.created_at, "service_accounts_created_at_idx"),
        "updated_at": Sort(ServiceAccount.updated_at, "service_accounts_updated_at_idx"),
        "name": Sort(ServiceAccount.name_key, "service_accounts_name_idx"),
    },
    default_sort="created_at",
    filters={
        "name": text_filter(
            ServiceAccount.name_key,
            name_key=True,
            index="service_accounts_name_idx",
            description="This name, in any case.",
        ),
        "is_active": boolean_filter(ServiceAccount.is_active, index="service_accounts_is_active_{sort}_idx"),
        "q": search_filter(ServiceAccount.name, ServiceAccount.description, index="service_accounts_search_idx"),
    },
)
