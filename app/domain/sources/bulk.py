"""Many data sources at once: the rules of one, and a few statements for each hundred new ones."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, get_args
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import Text, any_, bindparam, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.core.bodies import convert, decode_part
from app.core.error_codes import RightCode
from app.core.errors import BadRequest, Conflict, Fault, Forbidden, HubError, NotFound
from app.core.extent import Place
from app.core.rows import in_json, insertion
from app.core.slices import in_parts, in_slices
from app.domain.domains.places import fault_of_room, rooms_of
from app.domain.roles.confirming import confirm_owning
from app.domain.roles.models import Role
from app.domain.roles.services import OWNER, RoleService, fault_of_owner
from app.domain.sources import duplicates
from app.domain.sources.drafts import Draft, draft_of
from app.domain.sources.duplicates import SEE
from app.domain.sources.models import DataSource
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import (
    BulkItem,
    BulkOut,
    BulkStatus,
    DataSourceCreate,
    DataSourceOut,
    DataSourcePatch,
    NewDataSource,
    OnConflict,
    SourceWarning,
    UnreadBulk,
)
from app.domain.sources.secrets.destinations import REENTRY
from app.domain.sources.secrets.stored import new_secret, store_secrets
from app.domain.sources.services import DOMAIN, WRITE, DataSourceService, place_of_source
from app.domain.work import UnitOfWork

MAX_FAULTS_OF_AN_ITEM = 20
MAX_FAULTS = 2000
"""Of one request. Behind them each item at fault still has one, so that the answer tells all that are."""
RIGHTS: Final[tuple[RightCode, ...]] = get_args(RightCode)
NAME_TAKEN = "A data source of this name exists already."

_INSERT = text(insertion(DataSource, ":rows")).bindparams(bindparam("rows", type_=JSONB))
_AS_IT_IS_NOW = {"populate_existing": True}
"""Somebody may have changed it since it was found."""
_DECODE: Final[Mapping[str, Callable[[bytes], Any]]] = {"json": msgspec.json.decode, "msgpack": msgspec.msgpack.decode}


class Item(Struct):
    """One place of a bulk request."""

    index: int
    raw: bytes
    draft: Draft | None = None
    existing: DataSource | None = None
    """The source that has its name already, where that is no fault."""
    shown: DataSourceOut | msgspec.Raw | None = None
    status: BulkStatus = "failed"
    faults: list[Fault] = []
    warnings: list[SourceWarning] = []

    @property
    def below(self) -> str:
        return f"data_sources[{self.index}]."


class BulkRegistration:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def register(self, bulk: UnreadBulk, media_type: str) -> BulkOut:
        """Raises BadRequest or Conflict with every fault of every item where nothing can be saved: in an atomic request
        for one faulty item, in another where all are. A dry run goes the same way and saves nothing.
        """
        items = await self._items(bulk, media_type)
        await self._find_unknown_roles(items)
        await self._find_taken_names(items, bulk.on_conflict)
        await self._judge_places(items)
        if not bulk.atomic or not any(item.faults for item in items):
            await self._deal_with_existing(items, bulk, media_type)
        if any(item.faults for item in items) and (bulk.atomic or not _good(items)):
            raise _refusal([fault for item in items for fault in item.faults])
        await self._find_duplicates(items, dry_run=bulk.dry_run)
        await self._save(_new(items), dry_run=bulk.dry_run)
        return await _report(items, dry_run=bulk.dry_run)

    async def _items(self, bulk: UnreadBulk, media_type: str) -> list[Item]:
        items, left = [], MAX_FAULTS
        async for index, raw in in_slices(enumerate(bulk.data_sources)):
            item = self._item(Item(index, bytes(raw)), media_type, most=max(1, min(left, MAX_FAULTS_OF_AN_ITEM)))
            left -= len(item.faults)
            items.append(item)
        return items

    def _item(self, item: Item, media_type: str, *, most: int) -> Item:
        """Raises Forbidden for a reference without the permission: that is about the caller, not about the item."""
        try:
            path = item.below.removesuffix(".")
            new: NewDataSource = decode_part(item.raw, DataSourceCreate, media_type, path=path, most=most)
            item.draft = draft_of(self._work, new, item.below)
        except BadRequest as error:
            item.faults = error.errors[:most]
        return item

    async def _find_unknown_roles(self, items: Sequence[Item]) -> None:
        wanted = {draft.owner_role_id for _, draft in _good(items)} - {None}
        if not wanted:
            return
        ours = select(Role.id).where(Role.tenant_id == self._work.tenant_id, Role.id.in_(wanted))
        unknown = wanted - set(await self._work.session.scalars(ours))
        for item, draft in _good(items):
            if draft.owner_role_id in unknown:
                item.faults = [Fault(f"{item.below}owner_role_id", "unknown_role", "is not a role")]

    async def _find_taken_names(self, items: Sequence[Item], on_conflict: OnConflict) -> None:
        """Taken by another source, or by an item before this one."""
        keys = [draft.name_key for _, draft in _good(items)]
        sources = DataSourceRepository(self._work.session, tenant_id=self._work.tenant_id)
        # One parameter, and one statement for any number of names: of an IN with five hundred each is bound by itself.
        found = await sources.get_many(DataSource.name_key == any_(literal(keys, ARRAY(Text))))
        taken, seen = {source.name_key: source for source in found}, set()
        async for item, draft in in_slices(_good(items)):
            key = draft.name_key
            item.existing = self._seen(taken.get(key)) if on_conflict != "fail" else None
            if key in seen or (key in taken and item.existing is None):
                item.faults = [Fault(f"{item.below}name", "name_taken", "is the name of another data source")]
            seen.add(key)

    def _seen(self, source: DataSource | None) -> DataSource | None:
        """None where the actor may know no more of it than that the name is taken."""
        if source is None or not any(self._work.actor.may_at(name, place_of_source(source)) for name in (SEE, WRITE)):
            return None
        return source

    async def _judge_places(self, items: Sequence[Item]) -> None:
        """Of new sources: one statement for however many domains they are to be in."""
        new, actor = _new(items), self._work.actor
        rooms = await rooms_of(self._work, (draft.domain_id for _, draft in new))
        async for item, draft in in_slices(new):
            domain_id, owner = draft.domain_id, draft.owner_role_id
            fault = fault_of_room(actor, WRITE, rooms, domain_id, f"{item.below}{DOMAIN}")
            if fault is None and owner is not None:
                fault = fault_of_owner(actor, Place(domain_id=domain_id), f"{item.below}{OWNER}")
            if fault is not None:
                item.faults = [fault]
        await self._confirm_owners(new)

    async def _confirm_owners(self, new: Sequence[tuple[Item, Draft]]) -> None:
        """Once for each owner and place; owners are locked in the order of their ids."""
        known: dict[tuple[UUID, UUID | None], list[Fault]] = {}
        owned = [
            (draft.owner_role_id, draft.domain_id, item)
            for item, draft in new
            if draft.owner_role_id is not None and not item.faults
        ]
        for owner, domain_id, item in sorted(owned, key=lambda each: str(each[0])):
            if (owner, domain_id) not in known:
                known[owner, domain_id] = await self._faults_of_holders(owner, Place(domain_id=domain_id))
            found = known[owner, domain_id]
            item.faults = [Fault(f"{item.below}{fault.path}", fault.code, fault.message) for fault in found]

    async def _faults_of_holders(self, owner: UUID, place: Place) -> list[Fault]:
        try:
            await confirm_owning(self._work, owner, place)
        except Conflict as error:
            return error.errors
        return []

    async def _deal_with_existing(self, items: Sequence[Item], bulk: UnreadBulk, media_type: str) -> None:
        """Locked in the order of their ids, so that two of the same file do not wait for each other for ever."""
        existing = [(item, item.existing) for item, _ in _good(items) if item.existing is not None]
        sources = DataSourceRepository(self._work.session, tenant_id=self._work.tenant_id)
        for item, source in sorted(existing, key=lambda each: each[1].id):
            if bulk.on_conflict == "skip":
                item.status, item.shown = "skipped", DataSourceRepository.shown(source, DataSourceOut)
                continue
            try:
                locked = await sources.get_one(id=source.id, with_for_update=True, execution_options=_AS_IT_IS_NOW)
                await self._change(item, locked, media_type, dry_run=bulk.dry_run)
            except (BadRequest, Conflict, Forbidden, NotFound) as error:
                faults = error.errors or [Fault("name", "invalid", error.detail)]
                item.faults = [
                    Fault((item.below + fault.path).removesuffix("."), fault.code, fault.message) for fault in faults
                ]

    async def _change(self, item: Item, source: DataSource, media_type: str, *, dry_run: bool) -> None:
        """As a PATCH with the item's fields. Raises as that does."""
        assert item.draft is not None
        if source.type != item.draft.columns["type"]:
            raise BadRequest(errors=[Fault("type", "type_differs", f"is not {source.type}, as the data source has it")])
        named: dict[str, object] = _DECODE[media_type](item.raw)
        named.pop("type")
        service = DataSourceService(self._work)
        plan = await service.plan(source, convert(named, DataSourcePatch))
        item.status = "valid"
        if not dry_run:
            done = await service.carry_out(plan)
            item.status = "updated" if done.is_changed else "unchanged"
            item.shown = DataSourceRepository.shown(source, DataSourceOut)
            item.warnings = list(done.saved.warnings) if done.saved.warnings else []

    async def _find_duplicates(self, items: Sequence[Item], *, dry_run: bool) -> None:
        """Among the sources that are there, and among the items themselves."""
        new = _new(items)
        found = await duplicates.others(self._work, {draft.fingerprint for _, draft in new})
        alike: dict[bytes, list[tuple[int, UUID | None]]] = {}
        async for item, draft in in_slices(new):
            alike.setdefault(draft.fingerprint, []).append((item.index, None if dry_run else draft.id))
        async for item, draft in in_slices(new):
            if draft.fingerprint:
                together = alike[draft.fingerprint]
                first = [each for each in together[: duplicates.MAX_NAMED + 1] if each[0] != item.index]
                item.warnings = duplicates.warnings(found.get(draft.fingerprint), first, len(together) - 1)

    async def _save(self, drafts: Sequence[tuple[Item, Draft]], *, dry_run: bool) -> None:
        """Some at a time; one row on record for each."""
        for item, _ in drafts:
            item.status = "valid" if dry_run else "created"
        if dry_run or not drafts:
            return
        for part in in_parts(drafts):
            await self._save_part([draft for _, draft in part])
        if owners := {draft.owner_role_id for _, draft in drafts} - {None}:
            await RoleService(self._work).make_owners(owner for owner in owners if owner is not None)
        async for item, draft in in_slices(drafts):
            # Encoded once for the answer, the audit log and the outbox.
            shown = _encoded(DataSourceRepository.shown_as_inserted(draft.columns, DataSourceOut))
            item.shown = shown
            self._work.audit("data_source.create", "data_source", draft.id, after=shown)
            self._work.announce("data_source.created", f"data-sources/{draft.id}", shown)

    async def _save_part(self, drafts: Sequence[Draft]) -> None:
        """One statement for the sources and one for their secrets."""
        rows = [_encoded(in_json(draft.columns)) async for draft in in_slices(drafts)]
        await self._work.session.execute(_INSERT, {"rows": rows})
        secrets = [(draft.id, name, value) for draft in drafts for name, value in draft.secrets.items()]
        await store_secrets(self._work, [new_secret(self._work, *secret) async for secret in in_slices(secrets)])


def _encoded(content: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(content))


def _good(items: Sequence[Item]) -> list[tuple[Item, Draft]]:
    return [(item, item.draft) for item in items if item.draft is not None and not item.faults]


def _new(items: Sequence[Item]) -> list[tuple[Item, Draft]]:
    return [(item, draft) for item, draft in _good(items) if item.existing is None]


def _refusal(faults: list[Fault]) -> HubError:
    if all(fault.code == "name_taken" for fault in faults):
        return Conflict(NAME_TAKEN, code="name_taken", errors=faults)
    if all(fault.code == "secret_reentry_required" for fault in faults):
        return Conflict(REENTRY, code="secret_reentry_required", errors=faults)
    for code in RIGHTS:
        if all(fault.code == code for fault in faults):
            return Forbidden(code=code, errors=faults)
    return BadRequest("Some data sources are not valid.", errors=faults)


async def _report(items: Sequence[Item], *, dry_run: bool) -> BulkOut:
    report = [_reported(item) async for item in in_slices(items)]
    counts = Counter(item.status for item in report)
    return BulkOut(
        counts["created"], counts["updated"], counts["unchanged"], counts["skipped"], counts["failed"], dry_run, report
    )


def _reported(item: Item) -> BulkItem:
    if item.draft is None or item.faults:
        return BulkItem(item.index, "failed", None, item.faults, [])
    return BulkItem(item.index, item.status, cast(DataSourceOut | None, item.shown), [], item.warnings)
