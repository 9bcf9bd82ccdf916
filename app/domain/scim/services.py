"""The rules about keys of directories."""

from uuid import UUID

from msgspec.structs import asdict
from sqlalchemy import select
from uuid_utils.compat import uuid7

from app.core.errors import Forbidden
from app.core.opaque_tokens import new_token
from app.core.schemas import single_spaced, to_struct
from app.domain.roles.built_in import admin_role_id
from app.domain.roles.models import Role
from app.domain.scim.admission import KIND
from app.domain.scim.models import ScimKey
from app.domain.scim.repositories import ScimKeyRepository
from app.domain.scim.schemas import ScimKeyCreate, ScimKeyCreated, ScimKeyOut
from app.domain.work import UnitOfWork


class ScimKeyService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def create(self, new: ScimKeyCreate) -> ScimKeyCreated:
        """Raises Forbidden for whoever may do less than an admin: with the key they would choose the members of groups
        whatever those bring, and the addresses of whomever the directory manages."""
        await self._require_all_rights()
        key_id = uuid7()
        key = new_token(KIND, self._work.tenant_id, key_id)
        columns = self._work.add(
            ScimKey, id=key_id, **self._work.stamp(), name=single_spaced(new.name), digest=key.digest
        )
        shown = to_struct(columns, ScimKeyOut)
        self._work.audit("scim_key.create", "scim_key", key_id, after=shown)
        self._work.announce("scim_key.created", f"scim-keys/{key_id}", shown)
        return ScimKeyCreated(**asdict(shown), key=key.text)

    async def delete(self, key_id: UUID) -> None:
        """Dead on every worker within a second. What its directory has made stays."""
        keys = ScimKeyRepository(self._work.session, tenant_id=self._work.tenant_id)
        key = await keys.get_one(id=key_id, with_for_update=True)
        self._work.require_match(key.version)
        await keys.delete(key_id)
        self._work.forget("scim_key", key_id)
        self._work.audit("scim_key.delete", "scim_key", key_id, before=to_struct(key, ScimKeyOut))
        self._work.announce("scim_key.deleted", f"scim-keys/{key_id}", {"id": str(key_id)})

    async def _require_all_rights(self) -> None:
        tenant_id = self._work.tenant_id
        of_admin = select(Role.permissions).where(Role.id == admin_role_id(tenant_id), Role.tenant_id == tenant_id)
        if not self._work.actor.holds_all(await self._work.session.scalar(of_admin) or ()):
            sentence = "Whoever has the key of a directory may do what an admin may, and you may not."
            raise Forbidden(sentence, code="exceeds_own_permissions")
