"""The rules about data sources: registered with what their type takes, changed where their secrets may stay."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy import select

from app.core.errors import Fault, Forbidden
from app.core.extent import Place
from app.core.schemas import changes_of
from app.domain.assignments.endings import end_assignments
from app.domain.assignments.models import RoleAssignment
from app.domain.assignments.repositories import IS_OPEN
from app.domain.domains.places import refuse_gain, require_room, rooms_of
from app.domain.role_requests.endings import cancel_requests
from app.domain.role_requests.models import RoleRequest
from app.domain.roles.services import RoleService
from app.domain.sources import duplicates
from app.domain.sources.columns import COLUMNS, first_test
from app.domain.sources.drafts import draft_of
from app.domain.sources.models import DataSource
from app.domain.sources.reach import changed_columns, secrets_to_change
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import (
    DataSourceOut,
    DataSourcePatch,
    DataSourceSaved,
    NewDataSource,
    SourceWarning,
    Value,
)
from app.domain.sources.secrets import references, stored
from app.domain.sources.secrets.states import states_after
from app.domain.work import UnitOfWork

WRITE = "data-sources:write"
DOMAIN = "data_domain_id"


class Plan(Struct):
    """A change of one source, judged and not yet made."""

    source: DataSource
    changes: dict[str, Any]
    """Of columns."""
    given: dict[str, Value | None]
    is_reconfigured: bool


class CarriedOut(Struct):
    saved: DataSourceSaved
    is_changed: bool


class DataSourceService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._sources = DataSourceRepository(work.session, tenant_id=work.tenant_id)
        self._roles = RoleService(work)

    async def create(self, new: NewDataSource) -> DataSourceSaved:
        """Raises BadRequest where config and secrets do not go together, Conflict for a taken name, Forbidden where the
        actor may not register in that domain or choose that owner."""
        draft = draft_of(self._work, new)
        await require_room(self._work, WRITE, new.data_domain_id, DOMAIN)
        await self._roles.judge_owner(None, new.owner_role_id, Place(domain_id=new.data_domain_id))
        source = await self._sources.add(DataSource(**draft.columns))
        await self._note_owner(new.owner_role_id)
        await stored.change_secrets(self._work, source, draft.secrets)
        shown = shown_source(source)
        self._work.audit("data_source.create", "data_source", draft.id, after=shown)
        self._work.announce("data_source.created", f"data-sources/{draft.id}", shown)
        return _saved(shown, await self._warnings(source))

    async def update(self, source_id: UUID, patch: DataSourcePatch) -> DataSourceSaved:
        """Raises Conflict (`secret_reentry_required`) where a stored secret would go where it was not given for, and
        Forbidden as `create` does, or where who has rights in another domain would gain what the actor lacks."""
        references.judge_given(self._work, changes_of(patch).get("secrets") or {})
        source = await self._sources.get_one(id=source_id, with_for_update=True)
        self._work.require_match(source.version)
        return (await self.carry_out(await self.plan(source, patch))).saved

    async def plan(self, source: DataSource, patch: DataSourcePatch) -> Plan:
        """What the patch makes of a source that is locked; nothing is changed yet. Raises as `update` does."""
        require_right(self._work, WRITE, source)
        named = changes_of(patch)
        changes, given = COLUMNS.columns_of_changes(patch), secrets_to_change(source, named)
        if "config" in named or given:
            changes |= changed_columns(source, named.get("config", {}), given)
        if given:
            changes["secret_states"] = states_after(self._work, source.secret_states, given)
        await self._judge_place(source, changes)
        is_reconfigured = changes.get("config", source.config) != source.config
        changes |= _tested_soon(self._work.now, source, changes, is_reconfigured=is_reconfigured)
        return Plan(source, changes, given, is_reconfigured)

    async def carry_out(self, plan: Plan) -> CarriedOut:
        source = plan.source
        before = shown_source(source)
        if not self._work.apply(source, plan.changes):
            return CarriedOut(_saved(before, []), is_changed=False)
        await self._sources.update(source)
        await self._note_owner(plan.changes.get("owner_role_id"))
        await stored.change_secrets(self._work, source, plan.given)
        after = shown_source(source)
        self._work.audit("data_source.update", "data_source", source.id, before=before, after=after)
        self._work.announce("data_source.updated", f"data-sources/{source.id}", after)
        warnings = await self._warnings(source) if plan.is_reconfigured else []
        return CarriedOut(_saved(after, warnings), is_changed=True)

    async def _judge_place(self, source: DataSource, changes: Mapping[str, Any]) -> None:
        """Whether the actor may move the source, or have it looked after by others."""
        here, domain_id = place_of_source(source), changes.get(DOMAIN, source.data_domain_id)
        if domain_id != source.data_domain_id:
            entered = await require_room(self._work, WRITE, domain_id, DOMAIN)
            left = (await rooms_of(self._work, [source.data_domain_id]))[source.data_domain_id]
            await refuse_gain(self._work, set(entered) - set(left), here, DOMAIN)
        owner = changes.get("owner_role_id", source.owner_role_id)
        await self._roles.judge_owner(source.owner_role_id, owner, here)

    async def _note_owner(self, role_id: UUID | None) -> None:
        if role_id is not None:
            await self._roles.make_owners([role_id])

    async def delete(self, source_id: UUID) -> None:
        """What was given to somebody for this source ends with it."""
        source = await self._sources.get_one(id=source_id, with_for_update=True)
        require_right(self._work, WRITE, source)
        self._work.require_match(source.version)
        before = shown_source(source)
        await self._end_what_was_given_for(source_id)
        await cancel_requests(self._work, RoleRequest.scope_id == source_id, because="The data source was deleted.")
        await self._sources.delete(source_id)
        self._work.audit("data_source.delete", "data_source", source_id, before=before)
        self._work.announce("data_source.deleted", f"data-sources/{source_id}", {"id": str(source_id)})

    async def _end_what_was_given_for(self, source_id: UUID) -> None:
        given = RoleAssignment.scope_id == source_id
        subjects = select(RoleAssignment.subject_type, RoleAssignment.subject_id).where(given, IS_OPEN)
        for subject_type, subject_id in await self._work.session.execute(subjects):
            self._work.forget(subject_type, subject_id)
        await end_assignments(self._work, given)

    async def _warnings(self, source: DataSource) -> list[SourceWarning]:
        fingerprint = source.fingerprint or b""
        found = await duplicates.others(self._work, [fingerprint], but=source.id)
        return duplicates.warnings(found.get(fingerprint))


def place_of_source(source: DataSource) -> Place:
    return Place(source.id, source.data_domain_id, source.owner_role_id)


def require_right(work: UnitOfWork, permission: str, source: DataSource) -> None:
    """Of a source that is locked: it may have been moved since the request was let in. Raises Forbidden."""
    if not work.actor.may_at(permission, place_of_source(source)):
        fault = Fault("", "permission_missing", f"is a data source for which you need `{permission}`")
        raise Forbidden(f"This needs the permission `{permission}`.", code="permission_missing", errors=[fault])


def shown_source(source: DataSource) -> DataSourceOut:
    return DataSourceRepository.shown(source, DataSourceOut)


def _tested_soon(
    now: datetime, source: DataSource, changes: Mapping[str, Any], *, is_reconfigured: bool
) -> dict[str, object]:
    """The next test, where the interval is another one; soon, too, where a change may have mended what failed."""
    interval_s = changes.get("test_interval_s", source.test_interval_s)
    is_mended = source.test_failures > 0 and (is_reconfigured or "secret_states" in changes)
    if interval_s == source.test_interval_s and not is_mended:
        return {}
    return {"next_test_at": first_test(now, interval_s), "test_failures": 0}


def _saved(shown: DataSourceOut, warnings: list[SourceWarning]) -> DataSourceSaved:
    """As it is read, and what there is to warn of."""
    made = DataSourceSaved(*(getattr(shown, name) for name in shown.__struct_fields__))
    if warnings:
        made.warnings = warnings
    return made
