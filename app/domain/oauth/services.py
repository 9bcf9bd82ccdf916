"""The rules about OAuth clients: told apart by their names, with a secret that nobody is shown twice."""

from typing import Final
from uuid import UUID

from msgspec.structs import asdict
from sqlalchemy import text, update
from uuid_utils.compat import uuid7

from app.core.errors import Conflict
from app.core.rows import Normaliser
from app.core.schemas import named, to_struct
from app.domain.auth.models import Session
from app.domain.lookalikes import refuse_lookalike
from app.domain.oauth.clients import client_id_of, new_secret
from app.domain.oauth.models import OAuthClient
from app.domain.oauth.repositories import OAuthClientRepository
from app.domain.oauth.schemas import OAuthClientCreate, OAuthClientCreated, OAuthClientOut, OAuthClientPatch
from app.domain.work import UnitOfWork

MOST: Final = 1000
"""Of one tenant."""
NOUN = "OAuth client"
COLUMNS = Normaliser(
    OAuthClientCreate,
    OAuthClientPatch,
    OAuthClient,
    OAuthClientOut,
    rules={"name": named},
    apart={"is_confidential": "said once, when it is made: whoever trusts a client to keep a secret trusts its code"},
)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('oauth clients of ' || CAST(:tenant AS text), 0))")


class OAuthClientService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    @property
    def _clients(self) -> OAuthClientRepository:
        return OAuthClientRepository(self._work.session, tenant_id=self._work.tenant_id)

    async def create(self, new: OAuthClientCreate) -> OAuthClientCreated:
        """Raises Conflict for a name that is taken or reads like one that is, and for one client too many."""
        await self._refuse_too_many()
        await refuse_lookalike(self._work, OAuthClientRepository, new.name, NOUN)
        row_id, tenant_id = uuid7(), self._work.tenant_id
        secret = new_secret(tenant_id, row_id) if new.is_confidential else None
        client = self._work.add(
            OAuthClient,
            id=row_id,
            **self._work.stamp(),
            **COLUMNS.columns_of_new(new),
            client_id=client_id_of(tenant_id, row_id),
            is_confidential=new.is_confidential,
            secret_digest=None if secret is None else secret.digest,
        )
        shown = to_struct(client, OAuthClientOut)
        self._work.audit("oauth_client.create", "oauth_client", row_id, after=shown)
        self._work.announce("oauth_client.created", f"oauth-clients/{row_id}", shown)
        return OAuthClientCreated(**asdict(shown), client_secret=None if secret is None else secret.text)

    async def update(self, row_id: UUID, patch: OAuthClientPatch) -> OAuthClientOut:
        client = await self._locked(row_id)
        before, changes = to_struct(client, OAuthClientOut), COLUMNS.columns_of_changes(patch)
        if "name" in changes:
            is_other = OAuthClient.id != row_id
            await refuse_lookalike(self._work, OAuthClientRepository, changes["name"], NOUN, is_other)
        if not self._work.apply(client, changes):
            return before
        await self._clients.update(client)
        after = to_struct(client, OAuthClientOut)
        self._work.audit("oauth_client.update", "oauth_client", row_id, before=before, after=after)
        self._work.announce("oauth_client.updated", f"oauth-clients/{row_id}", after)
        return after

    async def delete(self, row_id: UUID) -> None:
        """Its sessions end with it."""
        client = await self._locked(row_id)
        before = to_struct(client, OAuthClientOut)
        await self._end_sessions(client.client_id)
        await self._clients.delete(row_id)
        self._work.audit("oauth_client.delete", "oauth_client", row_id, before=before)
        self._work.announce("oauth_client.deleted", f"oauth-clients/{row_id}", {"id": str(row_id)})

    async def _end_sessions(self, client_id: str) -> None:
        its = (Session.client_id == client_id, Session.tenant_id == self._work.tenant_id, Session.revoked_at.is_(None))
        now = self._work.now
        ended = await self._work.session.scalars(
            update(Session).where(*its).values(revoked_at=now, updated_at=now).returning(Session.id),
            execution_options={"synchronize_session": False},
        )
        for session_id in ended:
            self._work.forget("session", session_id)

    async def _refuse_too_many(self) -> None:
        """One after the other: two at once would not see each other."""
        await self._work.session.execute(_LOCK, {"tenant": str(self._work.tenant_id)})
        if await self._clients.count() >= MOST:
            raise Conflict(code="too_many_clients")

    async def _locked(self, row_id: UUID) -> OAuthClient:
        client = await self._clients.get_one(id=row_id, with_for_update=True)
        self._work.require_match(client.version)
        return client
