"""The rules about data sources: registered with what their type takes, changed where their secrets may stay."""

from uuid import UUID

from app.core.schemas import changes_of
from app.domain.roles.services import RoleService
from app.domain.sources import duplicates
from app.domain.sources.columns import COLUMNS, first_test
from app.domain.sources.drafts import draft_of
from app.domain.sources.models import DataSource
from app.domain.sources.reach import changed_reach, secrets_to_change
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import DataSourceOut, DataSourcePatch, DataSourceSaved, NewDataSource, SourceWarning
from app.domain.sources.secrets import references, stored
from app.domain.work import UnitOfWork


class DataSourceService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._sources = DataSourceRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: NewDataSource) -> DataSourceSaved:
        """Raises BadRequest where config and secrets do not go together, Conflict for a taken name."""
        draft = draft_of(self._work, new)
        await RoleService(self._work).check_reference(new.owner_role_id, "owner_role_id")
        await self._sources.add(draft.source)
        await stored.change_secrets(self._work, draft.source, draft.secrets)
        shown = await self._shown(draft.id)
        self._work.audit("data_source.create", "data_source", draft.id, after=shown)
        self._work.announce("data_source.created", f"data-sources/{draft.id}", shown)
        return _saved(shown, await self._warnings(draft.source))

    async def update(self, source_id: UUID, patch: DataSourcePatch) -> DataSourceSaved:
        """Raises Conflict (`secret_reentry_required`) where a stored secret would go where it was not given for."""
        named = changes_of(patch)
        references.judge_given(self._work, named.get("secrets") or {})
        source = await self._sources.get_one(id=source_id, with_for_update=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        changes, given = COLUMNS.columns_of_changes(patch), await secrets_to_change(self._work, source, named)
        if "config" in named or given:
            reach = await changed_reach(self._work, source, named.get("config", {}), given)
            changes |= {"config": reach.config, "fingerprint": reach.fingerprint}
        if changes.get("test_interval_s", source.test_interval_s) != source.test_interval_s:
            changes["next_test_at"] = first_test(self._work.now, changes["test_interval_s"])
        await RoleService(self._work).check_reference(changes.get("owner_role_id"), "owner_role_id")
        is_reconfigured = changes.get("config", source.config) != source.config
        removed_only = all(value is None and name not in before.secrets for name, value in given.items())
        if not self._work.apply(source, changes) and removed_only:
            return _saved(before, [])
        self._work.touch(source)
        await self._sources.update(source)
        await stored.change_secrets(self._work, source, given)
        after = await self._shown(source_id)
        self._work.audit("data_source.update", "data_source", source_id, before=before, after=after)
        self._work.announce("data_source.updated", f"data-sources/{source_id}", after)
        return _saved(after, await self._warnings(source) if is_reconfigured else [])

    async def delete(self, source_id: UUID) -> None:
        source = await self._sources.get_one(id=source_id, with_for_update=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        await self._sources.delete(source_id)
        self._work.audit("data_source.delete", "data_source", source_id, before=before)
        self._work.announce("data_source.deleted", f"data-sources/{source_id}", {"id": str(source_id)})

    async def _warnings(self, source: DataSource) -> list[SourceWarning]:
        found = await duplicates.others(self._work, [source.fingerprint or b""], but=source.id)
        return [duplicates.warning(other) for others in found.values() for other in others]

    async def _shown(self, source_id: UUID) -> DataSourceOut:
        return await self._sources.read(DataSourceOut, id=source_id, tenant_id=self._work.tenant_id)


def _saved(shown: DataSourceOut, warnings: list[SourceWarning]) -> DataSourceSaved:
    """As it is read, and what there is to warn of."""
    made = DataSourceSaved(*(getattr(shown, name) for name in shown.__struct_fields__))
    if warnings:
        made.warnings = warnings
    return made
