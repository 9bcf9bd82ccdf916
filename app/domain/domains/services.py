"""The rules about data domains: a tree at most eight deep, whose moves are made one after the other."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, select, text, update
from uuid_utils.compat import uuid7

from app.core.errors import Conflict, Fault
from app.core.extent import UUIDS, Place
from app.core.rows import Normaliser
from app.core.schemas import named
from app.domain.assignments.endings import end_assignments
from app.domain.assignments.models import RoleAssignment
from app.domain.domains.models import DataDomain
from app.domain.domains.places import refuse_gain, require_room
from app.domain.domains.repositories import DataDomainRepository
from app.domain.domains.schemas import DataDomainCreate, DataDomainOut, DataDomainPatch
from app.domain.dry_runs.services import Change, before_change
from app.domain.lookalikes import refuse_lookalike
from app.domain.role_requests.endings import cancel_requests
from app.domain.role_requests.models import RoleRequest
from app.domain.roles.services import RoleService
from app.domain.work import UnitOfWork

MAX_DEPTH: Final = 8
WRITE: Final = "data-domains:write"
COLUMNS = Normaliser(DataDomainCreate, DataDomainPatch, DataDomain, DataDomainOut, rules={"name": named})

_LOCK_TREE = text("SELECT pg_advisory_xact_lock(hashtextextended('data domains of ' || CAST(:tenant AS text), 0))")


class DataDomainService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._domains = DataDomainRepository(work.session, tenant_id=work.tenant_id)
        self._roles = RoleService(work)

    async def create(self, new: DataDomainCreate) -> DataDomainOut:
        """Raises Conflict for a name taken in the same domain and for a place that is too deep, Forbidden where the
        actor may not write, BadRequest for a parent or an owner that is not there."""
        await self._lock_tree()
        above = await require_room(self._work, WRITE, new.parent_id, "parent_id")
        _refuse_depth(len(above) + 1)
        columns = COLUMNS.columns_of_new(new)
        await self._refuse_lookalike(columns["name"], new.parent_id)
        await self._roles.judge_owner(None, new.owner_role_id, Place(domain_id=new.parent_id))
        row_id = uuid7()
        domain = DataDomain(id=row_id, **self._work.stamp(), **columns, lineage=[*above, row_id])
        await self._domains.add(domain)
        await self._say_changed([*domain.lineage], None, domain.owner_role_id)
        shown = await self._shown(row_id)
        self._work.audit("data_domain.create", "data_domain", row_id, after=shown)
        self._work.announce("data_domain.created", f"data-domains/{row_id}", shown)
        return shown

    async def update(self, domain_id: UUID, patch: DataDomainPatch) -> DataDomainOut:
        """Raises as `create` does, and Conflict for a move below itself."""
        changes = COLUMNS.columns_of_changes(patch)
        if "parent_id" in changes:
            await self._lock_tree()
        domain = await self._domains.get_one(id=domain_id, with_for_update=True)
        before = await self._shown(domain_id)
        self._work.require_match(before.entity_tag())
        await self._judge(domain, changes)
        was = (list(domain.lineage), domain.owner_role_id)
        if "lineage" in changes or changes.get("owner_role_id", was[1]) != was[1]:
            await before_change(self._work, _moved_or_owned(domain, changes))
        if not self._work.apply(domain, changes):
            return before
        await self._domains.update(domain)
        await self._carry_along(domain, was[0])
        await self._say_changed([*was[0], *domain.lineage], was[1], domain.owner_role_id)
        after = await self._shown(domain_id)
        self._work.audit("data_domain.update", "data_domain", domain_id, before=before, after=after)
        self._work.announce("data_domain.updated", f"data-domains/{domain_id}", after)
        return after

    async def delete(self, domain_id: UUID) -> None:
        """One that holds sources or other domains is still in use: the database refuses. What was given to somebody for
        this domain ends with it."""
        domain = await self._domains.get_one(id=domain_id, with_for_update=True)
        before = await self._shown(domain_id)
        self._work.require_match(before.entity_tag())
        await before_change(self._work, _moved_or_owned(domain, {}))
        await end_assignments(self._work, RoleAssignment.scope_id == domain_id)
        await cancel_requests(self._work, RoleRequest.scope_id == domain_id, because="The data domain was deleted.")
        await self._domains.delete(domain_id)
        await self._say_changed(domain.lineage, domain.owner_role_id, None)
        self._work.audit("data_domain.delete", "data_domain", domain_id, before=before)
        self._work.announce(
            "data_domain.deleted", f"data-domains/{domain_id}", {"id": str(domain_id)}, domain_id=before.parent_id
        )

    async def _judge(self, domain: DataDomain, changes: dict[str, Any]) -> None:
        """Whether the changes may be made; a move gets its lineage."""
        parent_id = changes.get("parent_id", domain.parent_id)
        if parent_id != domain.parent_id:
            changes["lineage"] = await self._lineage_after_move(domain, parent_id)
        if "name" in changes or "lineage" in changes:
            await self._refuse_lookalike(changes.get("name", domain.name), parent_id, but=domain.id)
        owner_role_id = changes.get("owner_role_id", domain.owner_role_id)
        await self._roles.judge_owner(domain.owner_role_id, owner_role_id, Place(domain_id=domain.id))

    async def _lineage_after_move(self, domain: DataDomain, parent_id: UUID | None) -> list[UUID]:
        above = await require_room(self._work, WRITE, parent_id, "parent_id")
        if domain.id in above:
            raise Conflict(code="domain_cycle", errors=[Fault("parent_id", "domain_cycle", "is in this domain")])
        deepest = select(func.max(func.cardinality(DataDomain.lineage))).where(*self._below(domain.id))
        depth_below = (await self._work.session.scalar(deepest)) - len(domain.lineage)
        _refuse_depth(len(above) + 1 + depth_below)
        await refuse_gain(self._work, set(above) - set(domain.lineage), Place(domain_id=domain.id), "parent_id")
        return [*above, domain.id]

    async def _carry_along(self, domain: DataDomain, was: list[UUID]) -> None:
        """All below a domain that has moved, in one statement. Their versions stay: nothing of theirs has changed but
        their path, for which their tags have a hash."""
        if domain.lineage == was:
            return
        lineage = literal(domain.lineage, UUIDS).concat(DataDomain.lineage[len(was) + 1 : MAX_DEPTH])
        moved = update(DataDomain).where(*self._below(domain.id), DataDomain.id != domain.id)
        await self._work.session.execute(
            moved.values(lineage=lineage, version=DataDomain.version), execution_options={"synchronize_session": False}
        )

    def _below(self, domain_id: UUID) -> tuple[ColumnElement[bool], ...]:
        """The domain itself, too."""
        return (DataDomain.tenant_id == self._work.tenant_id, DataDomain.lineage.contains(literal([domain_id], UUIDS)))

    async def _lock_tree(self) -> None:
        """Until the end of the transaction: two moves at once could make a circle of which neither knows."""
        await self._work.session.execute(_LOCK_TREE, {"tenant": str(self._work.tenant_id)})

    async def _refuse_lookalike(self, name: str, parent_id: UUID | None, *, but: UUID | None = None) -> None:
        """Raises Conflict for a name that is read as the one of another domain in the same place."""
        others = (DataDomain.id != but, DataDomain.parent_id == parent_id)
        await refuse_lookalike(self._work, DataDomainRepository, name, "data domain", *others)

    async def _say_changed(self, lineages: list[UUID], owner_before: UUID | None, owner: UUID | None) -> None:
        """To whoever has rights at one of these domains, or by owning: what they reach has changed."""
        for domain_id in dict.fromkeys(lineages):
            self._work.forget("domain", domain_id)
        if owner is not None and owner != owner_before:
            await self._roles.make_owners([owner])
        for role_id in {owner_before, owner} - {None}:
            assert role_id is not None
            self._work.forget("role", role_id)

    async def _shown(self, domain_id: UUID) -> DataDomainOut:
        return await self._domains.read(DataDomainOut, id=domain_id, tenant_id=self._work.tenant_id)


def _refuse_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        fault = Fault("parent_id", "domain_too_deep", f"would lead to more than {MAX_DEPTH} domains one in another")
        raise Conflict(code="domain_too_deep", errors=[fault])


def _moved_or_owned(domain: DataDomain, changes: dict[str, Any]) -> Change:
    """For those who have rights there now, and those who will."""
    parent_id, owner_role_id = changes.get("parent_id"), changes.get("owner_role_id")
    return Change(
        kind="data_domain",
        row_id=domain.id,
        domain_ids=(domain.id, *([parent_id] if parent_id else [])),
        role_ids=(owner_role_id,) if owner_role_id else (),
    )
