"""Which rows make a service account on the wire, and the list of them."""

from app.core.database import Repository
from app.core.listing import Listing, Sort, boolean_filter, search_filter, text_filter
from app.domain.service_accounts.models import ServiceAccount
from app.domain.service_accounts.schemas import ServiceAccountOut


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
