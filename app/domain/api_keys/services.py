"""The rules about API keys: whose they may be, what they may do and for how long."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import convert
from msgspec.structs import asdict
from sqlalchemy import select
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Fault, Forbidden
from app.core.schemas import single_spaced
from app.core.security import Principal, PrincipalType, missing, unseen
from app.domain.api_keys.keys import new_key
from app.domain.api_keys.models import ApiKey
from app.domain.api_keys.repositories import ApiKeyRepository
from app.domain.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyOut, KeyOwner, KeyOwnerOut
from app.domain.assignments.services import UNKNOWN
from app.domain.reach import require_reach
from app.domain.roles.built_in import admin_role_id
from app.domain.roles.models import Role
from app.domain.roles.permissions import refuse_unknown
from app.domain.service_accounts.repositories import ServiceAccountRepository
from app.domain.tenants.repositories import settings_of
from app.domain.users.repositories import UserRepository
from app.domain.work import UnitOfWork

USUAL_LIFETIME = timedelta(days=90)
TO_WRITE: dict[PrincipalType, str] = {"user": "api-keys:write", "service_account": "service-accounts:write"}
"""By the type of the owner, what one needs for keys that are not one's own."""
TO_READ = "api-keys:read"


class ApiKeyService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def create(self, new: ApiKeyCreate) -> ApiKeyCreated:
        """Raises Forbidden for an owner or permissions beyond the actor's reach, BadRequest for a lifetime that is."""
        actor = self._work.actor
        owner = new.owner or KeyOwner(type=actor.type, id=actor.id)
        is_own = _is_own(actor, owner.type, owner.id)
        await refuse_unknown(self._work, new.permissions or [], "permissions")
        permissions = self._narrowed(new.permissions, actor.may_somewhere if is_own else actor.may)
        if permissions is None and is_own:
            await self._require_factor()
        elif permissions is None:
            permissions = await self._held_by_maker()
        expires_at = await self._end(new.expires_at)
        if not is_own:
            await self._require_reach(owner)
        key_id = uuid7()
        key = new_key(key_id)
        columns = self._work.add(
            ApiKey,
            id=key_id,
            **self._work.stamp(),
            name=single_spaced(new.name),
            prefix=key.prefix,
            digest=key.digest,
            owner_type=owner.type,
            owner_id=owner.id,
            permissions=permissions,
            expires_at=expires_at,
        )
        shown = _shown(ApiKey(**columns))
        self._work.audit("api_key.create", "api_key", key_id, after=shown)
        self._work.announce("api_key.created", f"api-keys/{key_id}", shown)
        return ApiKeyCreated(**asdict(shown), key=key.text)

    async def delete(self, key_id: UUID) -> None:
        """Dead on every worker within a second. Nobody rises by it, so that whoever may revoke keys revokes any."""
        keys = ApiKeyRepository(self._work.session, tenant_id=self._work.tenant_id)
        found = await keys.get_one_or_none(id=key_id, with_for_update=True)
        self._require_right_to_revoke(found)
        key = keys.check_not_found(found)
        self._work.require_match(key.version)
        await keys.delete(key_id)
        self._work.forget("api_key", key_id)
        self._work.audit("api_key.delete", "api_key", key_id, before=_shown(key))
        self._work.announce("api_key.deleted", f"api-keys/{key_id}", {"id": str(key_id)})

    def _narrowed(self, named: list[str] | None, is_held: Callable[[str], bool]) -> list[str] | None:
        """What the key is narrowed to. One's own may be to permissions that one holds for a part of the tenant: it
        reaches no further than oneself.

        Raises Forbidden for permissions that the actor lacks.
        """
        if named is None:
            return None
        if not all(map(is_held, named)):
            raise Forbidden("The key would have permissions that you do not hold.", code="exceeds_own_permissions")
        return sorted(set(named))

    async def _require_factor(self) -> None:
        """Of who makes a key of all that they may, where the tenant asks everybody: no key is asked for one, so that it
        would do what their session may not. Raises Forbidden."""
        settings = await settings_of(self._work.session, self._work.tenant_id)
        if settings.requires_mfa and not self._work.actor.has_factor:
            raise Forbidden(code="factor_required")

    async def _held_by_maker(self) -> list[str] | None:
        """What somebody else's key is narrowed to where nothing is named: its maker does not rise with its owner. None
        for an admin, who holds whatever there will be."""
        actor, tenant_id = self._work.actor, self._work.tenant_id
        of_admin = select(Role.permissions).where(Role.id == admin_role_id(tenant_id), Role.tenant_id == tenant_id)
        admin = await self._work.session.scalar(of_admin)
        return None if actor.holds_all(admin or ()) else sorted(actor.permissions)

    async def _end(self, wanted: datetime | None) -> datetime:
        """Raises BadRequest for a time that has passed or is too far away."""
        now = self._work.now
        latest = now + await longest_lifetime(self._work)
        if wanted is None:
            return min(now + USUAL_LIFETIME, latest)
        if wanted <= now:
            raise BadRequest(errors=[Fault("expires_at", "too_small", "must be in the future")])
        if wanted > latest:
            raise BadRequest(
                errors=[Fault("expires_at", "too_large", f"must be {latest:%Y-%m-%dT%H:%M:%SZ} at the latest")]
            )
        return wanted.astimezone(UTC)

    async def _require_reach(self, owner: KeyOwner) -> None:
        """Somebody else's key is a way to act as them. Raises Forbidden for who may do more than the actor, BadRequest
        for an owner that is not there."""
        needed = TO_WRITE[owner.type]
        if not self._work.actor.may(needed):
            raise missing(self._work.actor, needed)
        if not await self._is_there(owner):
            sentence = f"is not a {owner.type.replace('_', ' ')}"
            raise BadRequest(errors=[Fault("owner.id", UNKNOWN[owner.type], sentence)])
        await require_reach(self._work, owner.type, owner.id, "The owner may do more than you.")

    async def _is_there(self, owner: KeyOwner) -> bool:
        session, tenant_id = self._work.session, self._work.tenant_id
        if owner.type == "user":
            return await UserRepository(session, tenant_id=tenant_id).exists(id=owner.id)
        return await ServiceAccountRepository(session, tenant_id=tenant_id).exists(id=owner.id)

    def _require_right_to_revoke(self, key: ApiKey | None) -> None:
        """Raises Forbidden for a key that the actor may only see, Hidden for one that they may not, there or not."""
        actor = self._work.actor
        is_own = key is not None and _is_own(actor, key.owner_type, key.owner_id)
        if key is not None and is_own and (actor.key is None or actor.key.id == key.id):
            return
        needed = TO_WRITE["service_account" if key is not None and key.owner_type == "service_account" else "user"]
        if actor.may(needed):
            return
        if not is_own and not actor.may(TO_READ):
            raise unseen(actor, TO_READ)
        if key is not None:
            raise missing(actor, needed)


async def longest_lifetime(work: UnitOfWork) -> timedelta:
    """Of a key of the tenant that is made now."""
    return timedelta(days=(await settings_of(work.session, work.tenant_id)).max_key_days)


def require_right_to_see(principal: Principal, key: ApiKeyOut | None) -> None:
    """One's own keys, or with `api-keys:read` everybody's. Raises Hidden for any other, there or not."""
    is_own = key is not None and _is_own(principal, key.owner.type, key.owner.id)
    if not is_own and not principal.may(TO_READ):
        raise unseen(principal, TO_READ)


def _is_own(principal: Principal, owner_type: str, owner_id: UUID) -> bool:
    return (owner_type, owner_id) == (principal.type, principal.id)


def _shown(key: ApiKey) -> ApiKeyOut:
    return ApiKeyOut(
        key.id,
        key.created_at,
        key.updated_at,
        key.created_by,
        key.updated_by,
        key.version,
        key.name,
        key.prefix,
        KeyOwnerOut(convert(key.owner_type, PrincipalType), key.owner_id),
        key.permissions,
        key.expires_at,
        key.last_used_at,
    )
