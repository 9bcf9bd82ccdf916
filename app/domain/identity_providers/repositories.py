"""Which rows make identity providers and identities."""

from sqlalchemy import bindparam, null

from app.core.database import Repository
from app.domain.identity_providers.models import IdentityProvider, UserIdentity
from app.domain.identity_providers.schemas import IdentityOut, IdentityProviderOut


class IdentityProviderRepository(Repository[IdentityProvider]):
    model_type = IdentityProvider
    computed = {
        "managed_by": null(),
        "has_client_secret": IdentityProvider.sealed.is_not(None),
    }


class UserIdentityRepository(Repository[UserIdentity]):
    model_type = UserIdentity


PROVIDERS = IdentityProviderRepository.selection(IdentityProviderOut)
PROVIDER = IdentityProviderRepository.selection_by_id(IdentityProviderOut)
IDENTITIES = UserIdentityRepository.selection(IdentityOut).where(
    UserIdentity.user_id == bindparam("user_id", type_=UserIdentity.user_id.type)
)
