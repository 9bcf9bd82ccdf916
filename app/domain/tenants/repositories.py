"""Which rows make a tenant on the wire, and all that is read without knowing whose it is."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from sqlalchemy import Select, Uuid, any_, bindparam, func, literal, not_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Repository, Selection, enter_tenant
from app.core.errors import NotFound
from app.core.lists.filters import boolean_filter
from app.core.lists.listing import Listing, Sort
from app.core.tenancy import DEFAULT_TENANT_ID, TENANT_SETTING
from app.domain.tenants.models import Tenant, TenantSettings
from app.domain.tenants.schemas import TenantOut, TenantSettingsOut


class TenantRepository(Repository[Tenant]):
    model_type = Tenant


class TenantSettingsRepository(Repository[TenantSettings]):
    model_type = TenantSettings


def _seen_by_operators() -> Selection:
    """Bound to the tenant of whoever asks, like every list: members of `default` see tenants, all others none."""
    asks = bindparam("tenant_id", type_=Uuid()) == literal(DEFAULT_TENANT_ID, Uuid())
    return TenantRepository.selection(TenantOut).where(asks, Tenant.deleted_at.is_(None))


TENANT = _seen_by_operators().where(Tenant.id == bindparam("id", type_=Tenant.id.type))
TENANTS = Listing(
    _seen_by_operators(),
    name="tenants",
    id_column=Tenant.id,
    sorts={
        "created_at": Sort(Tenant.created_at, "tenants_created_at_id_idx"),
        "slug": Sort(Tenant.slug, "tenants_slug_id_idx"),
    },
    default_sort="created_at",
    filters={"is_active": boolean_filter(Tenant.is_active, index="tenants_is_active_{sort}_idx")},
)
SETTINGS = TenantSettingsRepository.selection(TenantSettingsOut)


async def settings_of(session: AsyncSession, tenant_id: UUID) -> TenantSettingsOut:
    """What the tenant has decided for itself. Raises NotFound for a tenant that is gone."""
    return await TenantSettingsRepository(session).read(TenantSettingsOut, id=tenant_id, tenant_id=tenant_id)


# Of all tenants ---------------------------------------------------------------------------------------------------


async def tenant_of_slug(session: AsyncSession, slug: str) -> Tenant | None:
    """Suspended or not; None for one that was deleted, as for one that never was."""
    found: Tenant | None = await session.scalar(select(Tenant).where(Tenant.slug == slug, Tenant.deleted_at.is_(None)))
    return found


async def id_of_slug(session: AsyncSession, slug: str) -> UUID:
    """Raises NotFound where no tenant has it."""
    tenant = await tenant_of_slug(session, slug)
    if tenant is None:
        raise NotFound(f"There is no tenant {slug}.")
    return tenant.id


_SLUG = "SELECT slug FROM tenants WHERE id = $1"
_SLUGS_OF_OTHERS = "SELECT slug FROM tenants WHERE id <> $1"


async def folders_for(connection: asyncpg.Connection, tenant_id: UUID) -> tuple[str | None, list[str]]:
    """The tenant's own folder below that for files; or, of `default`, which has none of its own, all those that are
    others', be they suspended or deleted."""
    if tenant_id != DEFAULT_TENANT_ID:
        return await connection.fetchval(_SLUG, tenant_id), []
    return None, [row["slug"] for row in await connection.fetch(_SLUGS_OF_OTHERS, tenant_id)]


async def slugs(connection: asyncpg.Connection) -> set[str]:
    """Of all tenants, suspended ones too, but for deleted ones: `default` sees them."""
    async with connection.transaction():
        await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, str(DEFAULT_TENANT_ID))
        return {row["slug"] for row in await connection.fetch("SELECT slug FROM tenants WHERE deleted_at IS NULL")}


async def known_tenants(session: AsyncSession) -> Sequence[Tenant]:
    """All, suspended ones too, but for deleted ones. It leaves the session in `default`, which sees them."""
    await enter_tenant(session, DEFAULT_TENANT_ID)
    return (await session.scalars(select(Tenant).where(Tenant.deleted_at.is_(None)).order_by(Tenant.slug))).all()


async def tenant_to_empty(session: AsyncSession, deleted_before: datetime) -> UUID | None:
    """One that was deleted before that moment, of which there are rows left."""
    wanted = (Tenant.deleted_at < deleted_before, Tenant.emptied_at.is_(None))
    found: UUID | None = await session.scalar(select(Tenant.id).where(*wanted).order_by(Tenant.deleted_at).limit(1))
    return found


async def note_emptied(session: AsyncSession, tenant_id: UUID) -> None:
    await session.execute(
        update(Tenant).where(Tenant.id == tenant_id).values(emptied_at=func.now()),
        execution_options={"synchronize_session": False},
    )


def suspended_tenants() -> Select[tuple[UUID]]:
    """The ids of tenants, deleted ones too, for which nothing is done."""
    return select(Tenant.id).where(not_(Tenant.is_active))


async def suspended_among(session: AsyncSession, tenant_ids: Collection[UUID]) -> set[UUID]:
    these = suspended_tenants().where(Tenant.id == any_(bindparam("ids", type_=ARRAY(Tenant.id.type))))
    return set(await session.scalars(these, {"ids": list(tenant_ids)}))


async def slug_that_reads(session: AsyncSession, reading: str) -> str | None:
    """The slug of a tenant, deleted ones too, that is read alike (`read_as`)."""
    read = func.replace(func.replace(func.translate(Tenant.slug, "01", "ol"), "rn", "m"), "vv", "w")
    found: str | None = await session.scalar(select(Tenant.slug).where(read == reading).limit(1))
    return found


def read_as(slug: str) -> str:
    """What somebody reads who takes digits for letters, and two letters for one."""
    return slug.translate(str.maketrans("01", "ol")).replace("rn", "m").replace("vv", "w")
