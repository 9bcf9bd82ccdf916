"""Which permissions there are in a tenant, in memory: the hub's own, and those that other services registered."""

from collections import OrderedDict
from collections.abc import Mapping
from uuid import UUID

from app.core.reads import Reads
from app.domain.auth.principals import Mark, Principals
from app.domain.roles.repositories import REGISTERED, known_set_id
from app.domain.roles.schemas import PermissionOut, permissions_of

MOST_TENANTS = 1000

Known = Mapping[str, PermissionOut]


class KnownPermissions:
    """Loaded once for each tenant, dropped within a second of a change, as principals are and by the same
    notifications."""

    def __init__(self, reads: Reads, principals: Principals) -> None:
        self._reads = reads
        self._principals = principals
        self._kept: OrderedDict[UUID, tuple[Mark, Known]] = OrderedDict()

    async def of_tenant(self, tenant_id: UUID) -> Known:
        """By name."""
        known = self.in_memory(tenant_id)
        return await self._load(tenant_id) if known is None else known

    def in_memory(self, tenant_id: UUID) -> Known | None:
        """Where it is known without asking the database."""
        mark, known = self._kept.get(tenant_id, (None, None))
        return known if mark is not None and not mark.has_changed and self._principals.is_trusted else None

    async def _load(self, tenant_id: UUID) -> Known:
        mark = self._principals.mark_of(known_set_id(tenant_id))
        rows = await self._reads.rows(REGISTERED, {"tenant_id": tenant_id})
        known = {**permissions_of(tenant_id)} | {name: PermissionOut(name, sentence) for name, sentence in rows}
        if not mark.has_changed and self._principals.is_trusted:
            self._kept[tenant_id] = mark, known
            if len(self._kept) > MOST_TENANTS:
                self._kept.popitem(last=False)
        return known
