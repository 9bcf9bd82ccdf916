"""Which rows make an API key on the wire, and which lists of keys there are."""

from sqlalchemy import bindparam

from app.core.database import Repository, json_object
from app.core.lists.filters import text_filter, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.api_keys.models import ApiKey
from app.domain.api_keys.schemas import ApiKeyOut


class ApiKeyRepository(Repository[ApiKey]):
    model_type = ApiKey
    computed = {"owner": json_object({"type": ApiKey.owner_type, "id": ApiKey.owner_id})}


API_KEY = ApiKeyRepository.selection_by_id(ApiKeyOut)
_FILTERS = {
    "owner_id": uuid_filter(ApiKey.owner_id, index="api_keys_owner_id_{sort}_idx", description="Keys of this owner."),
    "prefix": text_filter(ApiKey.prefix, index="api_keys_prefix_key", description="The key that begins like this."),
}
API_KEYS = Listing(
    ApiKeyRepository.selection(ApiKeyOut),
    name="api keys",
    id_column=ApiKey.id,
    sorts={
        "created_at": Sort(ApiKey.created_at, "api_keys_created_at_idx"),
        "expires_at": Sort(ApiKey.expires_at, "api_keys_expires_at_idx"),
        "name": Sort(ApiKey.name, "api_keys_name_idx"),
    },
    default_sort="-created_at",
    filters=_FILTERS,
)
OWN_API_KEYS = Listing(
    ApiKeyRepository.selection(ApiKeyOut).where(
        ApiKey.owner_id == bindparam("own_id", type_=ApiKey.owner_id.type),
    ),
    name="own api keys",
    id_column=ApiKey.id,
    sorts={
        "created_at": Sort(ApiKey.created_at, "api_keys_owner_id_created_at_idx"),
        "expires_at": Sort(ApiKey.expires_at, "api_keys_owner_id_expires_at_idx"),
        "name": Sort(ApiKey.name, "api_keys_owner_id_name_idx"),
    },
    default_sort="-created_at",
    filters=_FILTERS,
)
"""Those of one owner (bound as `own_id`), with the parameters of the whole list."""
