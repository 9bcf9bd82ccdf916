"""What the sign-in page shows beside its form, named here because the page knows none of those who bring it."""

from collections.abc import Sequence

from app.domain.identity_providers.registry import tenant_meant, ways_to_sign_in
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PendingSignIn
from app.domain.sign_in.texts import TEXTS
from app.domain.sign_in.ways import WAYS, ProviderLink


async def buttons(request: HubRequest, pending: PendingSignIn, sealed: str) -> Sequence[ProviderLink]:
    """Of the identity providers of the tenant that is meant; each carries the sign-in along."""
    found = await ways_to_sign_in(request.parts, tenant_meant(request, pending.tenant), request=sealed)
    return [ProviderLink(each.name, TEXTS["provider"].format(each.label), each.login_url) for each in found]


def fill_page() -> None:
    WAYS.providers_of = buttons
