"""Who a provider vouches for, as a user of the tenant."""

from collections.abc import Sequence

from app.domain.auth.sessions import Authenticated, Method
from app.domain.identity_providers.registry import Provider
from app.domain.saml.schemas import Said
from app.domain.work import UnitOfWork


async def let_in(work: UnitOfWork, provider: Provider, said: Said, amr: Sequence[Method]) -> Authenticated:
    raise NotImplementedError
