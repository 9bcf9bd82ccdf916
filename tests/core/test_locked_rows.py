"""A row that a change locks is how it is now, whatever the change has read of it before."""

from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.roles.models import Role
from app.domain.roles.repositories import RoleRepository
from tests.conftest import Hub

pytestmark = pytest.mark.anyio


async def _describe(hub: Hub, role_id: UUID, description: str) -> None:
    """By somebody else, and committed."""
    async with hub.parts.sessions.begin(DEFAULT_TENANT_ID) as session:
        await session.execute(update(Role).where(Role.id == role_id).values(description=description))


async def test_what_was_read_before_is_read_anew_with_the_lock(hub: Hub) -> None:
    role_id = UUID((await hub.new_role(description="before"))["id"])
    async with hub.parts.sessions(DEFAULT_TENANT_ID) as session:
        roles = RoleRepository(session, tenant_id=DEFAULT_TENANT_ID)
        held = await roles.get_one(id=role_id)
        await session.commit()  # so that the other is not kept waiting
        await _describe(hub, role_id, "meanwhile")
        await roles.get_one(id=role_id)
        assert held.description == "before", "a plain read keeps what the session holds"
        await roles.get_one(id=role_id, with_for_update=True)
        assert held.description == "meanwhile"


async def test_what_the_session_has_changed_itself_is_not_lost(hub: Hub) -> None:
    role_id = UUID((await hub.new_role(description="before"))["id"])
    async with hub.parts.sessions.begin(DEFAULT_TENANT_ID) as session:
        role = await RoleRepository(session).get_one(id=role_id, with_for_update=True)
        role.description = "changed"
        again = await session.scalar(select(Role).where(Role.id == role_id).with_for_update())
        assert again is role
        assert role.description == "changed"
    assert (await hub.admin.get(f"/api/v1/roles/{role_id}")).json()["description"] == "changed"
