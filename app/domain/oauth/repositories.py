"""Which rows make an OAuth client on the wire, and the list of them."""

from app.core.database import Repository
from app.core.lists.filters import text_filter
from app.core.lists.listing import Listing, Sort
from app.domain.oauth.models import OAuthClient
from app.domain.oauth.schemas import OAuthClientOut


class OAuthClientRepository(Repository[OAuthClient]):
    model_type = OAuthClient


OAUTH_CLIENT = OAuthClientRepository.selection_by_id(OAuthClientOut)
OAUTH_CLIENTS = Listing(
    OAuthClientRepository.selection(OAuthClientOut),
    name="oauth clients",
    id_column=OAuthClient.id,
    sorts={
        "created_at": Sort(OAuthClient.created_at, "oauth_clients_created_at_idx"),
        "name": Sort(OAuthClient.name_key, "oauth_clients_name_idx"),
    },
    default_sort="created_at",
    filters={
        "name": text_filter(
            OAuthClient.name_key, name_key=True, index="oauth_clients_name_idx", description="This name, in any case."
        ),
    },
)
