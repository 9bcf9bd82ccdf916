"""The rules about data sources: registered with what their type takes, changed where their secrets may stay."""

from uuid import UUID

from app.core.schemas import canonical_name, changes_of
from app.domain.roles.services import RoleService
from app.domain.sources import duplicates
from app.domain.sources.bulk import distinct, first_test, saved
from app.domain.sources.models import DataSource
from app.domain.sources.reach import changed_reach, secrets_to_change
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import DataSourceOut, DataSourcePatch, DataSourceSaved, SourceWarning
from app.domain.sources.secrets import references, stored
from app.domain.work import UnitOfWork


class DataSourceService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._sources = DataSourceRepository(work.session)

    async def update(self, source_id: UUID, patch: DataSourcePatch) -> DataSourceSaved:
        """Raises Conflict (`secret_reentry_required`) where a stored secret would go where it was not given for."""
        changes = changes_of(patch)
        references.judge_given(self._work, changes.get("secrets") or {})
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        given = await secrets_to_change(self._work, source, changes)
        reach = None
        if "config" in changes or given:
            reach = await changed_reach(self._work, source, changes.get("config", {}), given)
        is_reconfigured = reach is not None and reach.config != source.config
        if reach is not None:
            changes["config"] = reach.config
        if "name" in changes:
            changes["name"] = changes["name"].strip()
            changes["name_key"] = canonical_name(changes["name"])
        if "tags" in changes:
            changes["tags"] = distinct(changes["tags"] or [])
        if changes.get("test_interval_s", source.test_interval_s) != source.test_interval_s:
            source.next_test_at = first_test(self._work.now, changes["test_interval_s"])
        if changes.get("is_paused", False) is None:
            changes["is_paused"] = False
        await RoleService(self._work).check_reference(changes.get("owner_role_id"), "owner_role_id")
        removed_only = all(value is None and name not in before.secrets for name, value in given.items())
        if not self._work.apply(source, changes) and removed_only:
            return saved(before, [])
        self._work.touch(source)
        if reach is not None:
            source.fingerprint = reach.fingerprint
        await self._work.session.flush()
        await stored.change_secrets(self._work, source, given)
        after = await self._shown(source_id)
        self._work.audit("data_source.update", "data_source", source_id, before=before, after=after)
        self._work.announce("data_source.updated", f"data-sources/{source_id}", after)
        return saved(after, await self._warnings(source) if is_reconfigured else [])

    async def delete(self, source_id: UUID) -> None:
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        await self._work.session.delete(source)
        await self._work.session.flush()
        self._work.audit("data_source.delete", "data_source", source_id, before=before)
        self._work.announce("data_source.deleted", f"data-sources/{source_id}", {"id": str(source_id)})

    async def _warnings(self, source: DataSource) -> list[SourceWarning]:
        found = await duplicates.others(self._work, [source.fingerprint or b""], but=source.id)
        return [duplicates.warning(other) for others in found.values() for other in others]

    async def _shown(self, source_id: UUID) -> DataSourceOut:
        return await self._sources.read(DataSourceOut, id=source_id, tenant_id=self._work.tenant_id)
