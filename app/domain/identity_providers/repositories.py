"""Which rows make identity providers and identities."""

from sqlalchemy import null

from app.core.database import Repository
from app.domain.identity_providers.models import IdentityProvider, UserIdentity
from app.domain.identity_providers.schemas import IdentityProviderOut


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
