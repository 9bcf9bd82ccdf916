"""The rules about delegations: one gives what is one's own, to somebody else who is there, for a time that ends."""

from uuid import UUID

from sqlalchemy import func, or_, select
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Fault, Forbidden
from app.core.schemas import to_struct
from app.domain.assignments.kinds import SUBJECTS
from app.domain.delegations.models import Delegation
from app.domain.delegations.repositories import DelegationRepository
from app.domain.delegations.schemas import DelegationCreate, DelegationOut
from app.domain.work import UnitOfWork


class DelegationService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._delegations = DelegationRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: DelegationCreate) -> DelegationOut:
        """Raises BadRequest for who is not there or is oneself, and for times that do not fit; Forbidden for who has
        shown no second factor, and has roles that bring nothing without: whoever receives it shows but their own."""
        if self._work.actor.factor_role_ids:
            raise Forbidden(code="factor_required")
        now = (await self._work.session.execute(select(func.statement_timestamp()))).scalar_one()
        starts_at = max(new.starts_at or now, now)
        if new.ends_at <= starts_at:
            raise BadRequest(errors=[Fault("ends_at", "too_small", "must be in the future and later than starts_at")])
        await self._check_receiver(new.to_user_id)
        made = Delegation(
            id=uuid7(),
            **self._work.stamp(),
            user_id=self._work.actor_id,
            to_user_id=new.to_user_id,
            starts_at=starts_at,
            ends_at=new.ends_at,
        )
        await self._delegations.add(made)
        shown = to_struct(made, DelegationOut)
        self._work.audit("delegation.create", "delegation", shown.id, after=shown)
        self._work.announce("delegation.created", f"delegations/{shown.id}", shown)
        return shown

    async def delete(self, delegation_id: UUID) -> None:
        """By who gave it, and by who was given it. What was decided by it stays. Raises NotFound for all others."""
        actor = self._work.actor_id
        is_own = or_(Delegation.user_id == actor, Delegation.to_user_id == actor)
        found = await self._delegations.get_one(is_own, id=delegation_id, with_for_update=True)
        before = to_struct(found, DelegationOut)
        self._work.require_match(found.version)
        await self._delegations.delete(delegation_id)
        self._work.audit("delegation.delete", "delegation", delegation_id, before=before)
        self._work.announce("delegation.deleted", f"delegations/{delegation_id}", {"id": str(delegation_id)})

    async def _check_receiver(self, user_id: UUID) -> None:
        """Locked, so that they are not deleted meanwhile."""
        if user_id == self._work.actor_id:
            raise BadRequest(errors=[Fault("to_user_id", "not_allowed", "must be somebody else")])
        users = SUBJECTS["user"]
        found = select(users.id).where(users.id == user_id, users.tenant_id == self._work.tenant_id)
        if await self._work.session.scalar(found.with_for_update(read=True, key_share=True)) is None:
            raise BadRequest(errors=[Fault("to_user_id", "unknown_user", "is not a user")])


async def drop_delegations(work: UnitOfWork, user_id: UUID) -> None:
    """Of somebody who is deleted: those that they gave, and those that they were given."""
    of_user = or_(Delegation.user_id == user_id, Delegation.to_user_id == user_id)
    await DelegationRepository(work.session, tenant_id=work.tenant_id).delete_where(of_user)
