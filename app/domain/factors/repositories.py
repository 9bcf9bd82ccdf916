"""Which rows make a second factor on the wire: the caller's own."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by, array
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Repository
from app.core.lists.listing import Listing, Sort
from app.domain.factors.models import Factor, RecoveryCode
from app.domain.factors.schemas import FactorOut
from app.domain.users.models import User

NO_SYNC = {"synchronize_session": False}


class FactorRepository(Repository[Factor]):
    model_type = Factor
    computed = {"is_confirmed": Factor.confirmed_at.is_not(None)}


_IS_OWN = Factor.user_id == bindparam("user_id", type_=Factor.user_id.type)
FACTOR: Select[Any] = FactorRepository.selection_by_id(FactorOut).where(_IS_OWN)
FACTORS = Listing(
    FactorRepository.selection(FactorOut).where(_IS_OWN),
    name="factors",
    id_column=Factor.id,
    sorts={"created_at": Sort(Factor.created_at, "factors_user_id_created_at_idx")},
    default_sort="created_at",
)


async def confirmed(session: AsyncSession, user_id: UUID, kind: str) -> Sequence[Factor]:
    statement = select(Factor).where(Factor.user_id == user_id, Factor.type == kind, Factor.confirmed_at.is_not(None))
    return (await session.scalars(statement.order_by(Factor.created_at, Factor.id))).all()


async def ids_of_passkeys(session: AsyncSession, user_id: UUID) -> list[bytes]:
    """Of the confirmed ones: WebAuthn's credential ids."""
    return [each.credential_id or b"" for each in await confirmed(session, user_id, "passkey")]


async def has_recovery_codes(session: AsyncSession, user_id: UUID) -> bool:
    found = await session.scalar(select(RecoveryCode.id).where(RecoveryCode.user_id == user_id).limit(1))
    return found is not None


async def note_factors(session: AsyncSession, user_id: UUID) -> list[str]:
    """On the user, which types of confirmed factors there are now."""
    types = select(func.array_agg(aggregate_order_by(Factor.type.distinct(), Factor.type))).where(
        Factor.user_id == user_id, Factor.confirmed_at.is_not(None)
    )
    there = func.coalesce(types.scalar_subquery(), array([], type_=Factor.type.type))
    noted = update(User).where(User.id == user_id).values(factors=there).returning(User.factors)
    found: list[str] = await session.scalar(noted, execution_options=NO_SYNC) or []
    return found
