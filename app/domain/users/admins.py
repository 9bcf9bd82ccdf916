"""The first admin, and admins made on the command line: without a request, by whoever has the database."""

import secrets
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import exists, select
from sqlalchemy.exc import SQLAlchemyError

from app.core.database import explain
from app.core.errors import BadRequest, Conflict, NotFound
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.parts import Parts
from app.domain.roles.built_in import admin_role_id
from app.domain.users.identity import email_key, is_email
from app.domain.users.models import User
from app.domain.users.schemas import UserCreate, UserOut
from app.domain.users.services import UserService
from app.domain.work import unit_of_work_of

DEFAULT_EMAIL = "admin@example.org"


class NewAdmin(msgspec.Struct, frozen=True):
    email: str
    password: str


def generated(email: str | None = None) -> NewAdmin:
    """An admin with a password of 120 random bits, to be shown once."""
    return NewAdmin(email or DEFAULT_EMAIL, secrets.token_urlsafe(15))


async def refuse_unfit_address(parts: Parts, email: str, *, tenant_id: UUID = DEFAULT_TENANT_ID) -> None:
    """Raises BadRequest for what may be nobody's address, Conflict for one that is taken."""
    if faults := list(is_email(email, "email")):
        raise BadRequest(errors=faults)
    if await _id_by_address(parts, email, tenant_id) is not None:
        raise Conflict(code="email_taken")


async def id_by_address(parts: Parts, email: str, *, tenant_id: UUID = DEFAULT_TENANT_ID) -> UUID:
    """Raises NotFound where nobody has it."""
    user_id = await _id_by_address(parts, email, tenant_id)
    if user_id is None:
        raise NotFound(f"Nobody has the address {email}.")
    return user_id


async def _id_by_address(parts: Parts, email: str, tenant_id: UUID) -> UUID | None:
    has_address = (User.tenant_id == tenant_id, User.email_key == email_key(email))
    async with parts.sessions(tenant_id) as session:
        return (await session.scalars(select(User.id).where(*has_address))).first()


async def create_admin(parts: Parts, admin: NewAdmin, *, tenant_id: UUID = DEFAULT_TENANT_ID) -> UserOut:
    """Raises BadRequest for a weak password, Conflict for a taken address."""
    new = UserCreate(email=admin.email, password=admin.password)
    try:
        async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
            user = await UserService(work).create(new, roles=[admin_role_id(work.tenant_id)])
    except (SQLAlchemyError, asyncpg.PostgresError) as error:
        raise (explain(error) or error) from None
    return user


async def reset_password(parts: Parts, email: str, password: str, *, tenant_id: UUID = DEFAULT_TENANT_ID) -> UserOut:
    """A new password for somebody who lost theirs: the account is unlocked, and whoever is signed in as them is signed
    out. Raises NotFound for an unknown address, BadRequest for a weak password."""
    user_id = await id_by_address(parts, email, tenant_id=tenant_id)
    async with unit_of_work_of(parts, tenant_id=tenant_id) as work:
        return await UserService(work).set_password(user_id, password)


async def create_first_admin(parts: Parts, admin: NewAdmin) -> bool:
    """Make the admin where the database has no user at all. False where somebody was there first."""
    async with parts.sessions(DEFAULT_TENANT_ID) as session:
        if await session.scalar(select(exists().where(User.tenant_id == DEFAULT_TENANT_ID))):
            return False
    try:
        await create_admin(parts, admin)
    except Conflict:
        return False
    return True
