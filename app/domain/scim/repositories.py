"""Which rows make a key of a directory on the wire, and which list of them there is."""

from sqlalchemy import bindparam, select

from app.core.database import Repository
from app.core.lists.listing import Listing, Sort
from app.domain.scim.models import ScimKey
from app.domain.scim.schemas import ScimKeyOut
from app.domain.tenants.models import Tenant


class ScimKeyRepository(Repository[ScimKey]):
    model_type = ScimKey


SCIM_KEYS = Listing(
    ScimKeyRepository.selection(ScimKeyOut),
    name="scim keys",
    id_column=ScimKey.id,
    sorts={
        "created_at": Sort(ScimKey.created_at, "scim_keys_created_at_idx"),
        "name": Sort(ScimKey.name, "scim_keys_name_idx"),
    },
    default_sort="-created_at",
)
LIVE_SCIM_KEY = (
    select(ScimKey.id, ScimKey.name, ScimKey.digest)
    .join(Tenant, Tenant.id == ScimKey.tenant_id)
    .where(
        ScimKey.id == bindparam("scim_key_id", type_=ScimKey.id.type),
        ScimKey.tenant_id == bindparam("tenant_id", type_=ScimKey.tenant_id.type),
        Tenant.is_active,
    )
)
"""No row once the key is deleted, or its tenant has ended."""
