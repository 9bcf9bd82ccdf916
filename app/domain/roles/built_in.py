"""The two roles that each tenant is born with.

Their ids follow from the tenant's, so that nothing has to look them up. XOR leaves the version and the variant of a
UUIDv7 as they are, and makes of the first tenant's id the ones that its roles have had from the first migration.
"""

from typing import Final
from uuid import UUID

ADMIN: Final = 0x100
PUBLIC: Final = 0x103


def admin_role_id(tenant_id: UUID) -> UUID:
    """The role that holds every permission of its tenant."""
    return UUID(int=tenant_id.int ^ ADMIN)


def public_role_id(tenant_id: UUID) -> UUID:
    """The role that everybody of the tenant holds."""
    return UUID(int=tenant_id.int ^ PUBLIC)
