"""API keys: made, listed and revoked; one's own, and with permissions everybody's."""

from typing import Any
from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody
from msgspec import convert

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.errors import NotFound
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import signed_in
from app.domain.api_keys.repositories import API_KEY, API_KEYS, OWN_API_KEYS
from app.domain.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyOut, KeyOwnerOut
from app.domain.api_keys.services import TO_READ, ApiKeyService, require_right_to_see
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
CREATING = outcomes("exceeds_own_permissions", "factor_required", "permission_missing")
DELETING = outcomes("permission_missing")


class ApiKeyController(Controller):
    path = "/api-keys"
    tags = ["api keys"]

    @get("/", opt=signed_in(listing=API_KEYS), summary="List API keys")
    async def list_api_keys(self, request: HubRequest) -> Answer[Page[ApiKeyOut]]:
        """One's own keys; with `api-keys:read` those of everybody, service accounts included."""
        principal = request.principal
        listing = API_KEYS if principal.may(TO_READ) else OWN_API_KEYS
        places: dict[str, Any] = {"tenant_id": principal.tenant_id, "own_id": principal.id}
        query = listing.parse(request.query_string)
        return answer(request.exchange, await request.parts.reads.page(listing, query, ApiKeyOut, **places))

    @get("/{key_id:uuid}", opt=signed_in(), summary="Get an API key")
    async def get_api_key(self, request: HubRequest, key_id: FromPath[UUID]) -> Tagged[ApiKeyOut]:
        """One's own key, or with `api-keys:read` anybody's. The key itself is never shown again."""
        return entity(request.exchange, await _seen_key(request, key_id))

    @post("/", opt=signed_in(needs_session=True) | CREATING, summary="Create an API key")
    @idempotent
    async def create_api_key(
        self, request: HubRequest, work: Work, data: RequestBody[ApiKeyCreate]
    ) -> Tagged[ApiKeyCreated]:
        """For oneself; with `api-keys:write` for a user who may do no more than oneself, with `service-accounts:write`
        for such a service account. `key` is shown this once: send it as `Authorization: Bearer <key>`.

        A key may do what is named in it and held by its owner at that moment. Whoever makes one names nothing that they
        lack themselves.
        """
        key = await ApiKeyService(work).create(data)
        return created(request.exchange, key, f"/api/v1/api-keys/{key.id}")

    @delete("/{key_id:uuid}", opt=signed_in() | DELETING, summary="Revoke an API key")
    async def delete_api_key(self, request: HubRequest, work: Work, key_id: FromPath[UUID]) -> Answer[None]:
        """One's own, with a key that key alone; with `api-keys:write` any user's, with `service-accounts:write` any
        service account's. It lets nobody in any more, on every worker within a second."""
        await ApiKeyService(work).delete(key_id)
        return no_content()


async def _seen_key(request: HubRequest, key_id: UUID) -> ApiKeyOut:
    """Raises NotFound, or Hidden for who may see their own only."""
    principal = request.principal
    found = await request.parts.reads.rows(API_KEY, {"id": key_id, "tenant_id": principal.tenant_id})
    key = ApiKeyOut(*found[0]) if found else None
    if key is not None:
        key.owner = convert(key.owner, KeyOwnerOut)
    require_right_to_see(principal, key)
    if key is None:
        raise NotFound
    return key
