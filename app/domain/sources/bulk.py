"""Many new data sources at once: the rules of one, and as few statements for five hundred as for two."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from msgspec import Struct
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB

from app.core.bodies import decode_part
from app.core.errors import BadRequest, Conflict, Fault, HubError
from app.core.rows import insertion, values_of_row
from app.core.slices import in_slices
from app.domain.roles.models import Role
from app.domain.sources import duplicates
from app.domain.sources.drafts import Draft, draft_of
from app.domain.sources.models import DataSource
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import (
    BulkItem,
    BulkOut,
    DataSourceCreate,
    DataSourceOut,
    NewDataSource,
    SourceWarning,
    UnreadBulk,
)
from app.domain.sources.secrets.stored import new_secret, store_secrets
from app.domain.work import UnitOfWork

MAX_FAULTS_OF_AN_ITEM = 20
MAX_FAULTS = 2000
"""Of one request. Behind them each item at fault still has one, so that the answer tells all that are."""
NAME_TAKEN = "A data source of this name exists already."

_INSERT = text(insertion(DataSource, ":rows")).bindparams(bindparam("rows", type_=JSONB))


class Item(Struct):
    """One place of a bulk request."""

    index: int
    draft: Draft | None = None
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
        await self._find_taken_names(items)
        good, faults = _good(items), [fault for item in items for fault in item.faults]
        if faults and (bulk.atomic or not good):
            raise _refusal(faults)
        await self._find_duplicates(items, dry_run=bulk.dry_run)
        shown = {} if bulk.dry_run else {each.id: each for each in await self._save(draft for _, draft in good)}
        return await _report(items, shown, dry_run=bulk.dry_run)

    async def _items(self, bulk: UnreadBulk, media_type: str) -> list[Item]:
        items, left = [], MAX_FAULTS
        async for index, raw in in_slices(enumerate(bulk.data_sources)):
            item = self._item(index, bytes(raw), media_type, most=max(1, min(left, MAX_FAULTS_OF_AN_ITEM)))
            left -= len(item.faults)
            items.append(item)
        return items

    def _item(self, index: int, raw: bytes, media_type: str, *, most: int) -> Item:
        """Raises Forbidden for a reference without the permission: that is about the caller, not about the item."""
        item = Item(index)
        try:
            path = item.below.removesuffix(".")
            new: NewDataSource = decode_part(raw, DataSourceCreate, media_type, path=path, most=most)
            item.draft = draft_of(self._work, new, item.below)
        except BadRequest as error:
            item.faults = error.errors[:most]
        return item

    async def _find_unknown_roles(self, items: Sequence[Item]) -> None:
        wanted = {draft.source.owner_role_id for _, draft in _good(items)} - {None}
        if not wanted:
            return
        ours = select(Role.id).where(Role.tenant_id == self._work.tenant_id, Role.id.in_(wanted))
        unknown = wanted - set(await self._work.session.scalars(ours))
        for item, draft in _good(items):
            if draft.source.owner_role_id in unknown:
                item.faults = [Fault(f"{item.below}owner_role_id", "unknown_role", "is not a role")]

    async def _find_taken_names(self, items: Sequence[Item]) -> None:
        """Taken by another source, or by an item before this one."""
        keys = [draft.source.name_key for _, draft in _good(items)]
        ours = (DataSource.tenant_id == self._work.tenant_id, DataSource.name_key.in_(keys))
        taken = set(await self._work.session.scalars(select(DataSource.name_key).where(*ours)))
        for item, draft in _good(items):
            if draft.source.name_key in taken:
                item.faults = [Fault(f"{item.below}name", "name_taken", "is the name of another data source")]
            taken.add(draft.source.name_key)

    async def _find_duplicates(self, items: Sequence[Item], *, dry_run: bool) -> None:
        """Among the sources that are there, and among the items themselves."""
        good = _good(items)
        found = await duplicates.others(self._work, {draft.fingerprint for _, draft in good})
        alike: dict[bytes, list[Item]] = {}
        for item, draft in good:
            alike.setdefault(draft.fingerprint, []).append(item)
        async for item, draft in in_slices(good):
            if draft.fingerprint:
                siblings = [
                    other for other in alike[draft.fingerprint][: duplicates.MAX_NAMED + 1] if other is not item
                ]
                item.warnings = [duplicates.warning(source_id) for source_id in found.get(draft.fingerprint, ())]
                item.warnings += [_of_sibling(other, dry_run=dry_run) for other in siblings]

    async def _save(self, drafts: Iterable[Draft]) -> list[DataSourceOut]:
        """One statement for the sources and one for their secrets; one row on record for each."""
        session, made = self._work.session, list(drafts)
        rows = [values_of_row(draft.source) async for draft in in_slices(made)]
        await session.execute(_INSERT, {"rows": rows})
        secrets = [(draft.id, name, value) for draft in made for name, value in draft.secrets.items()]
        new = [new_secret(self._work, *secret) async for secret in in_slices(secrets)]
        await store_secrets(self._work, new)
        shown = [DataSourceRepository.shown(draft.source, DataSourceOut) for draft in made]
        async for each in in_slices(shown):
            self._work.audit("data_source.create", "data_source", each.id, after=each)
            self._work.announce("data_source.created", f"data-sources/{each.id}", each)
        return shown


def _good(items: Sequence[Item]) -> list[tuple[Item, Draft]]:
    return [(item, item.draft) for item in items if item.draft is not None and not item.faults]


def _refusal(faults: list[Fault]) -> HubError:
    if all(fault.code == "name_taken" for fault in faults):
        return Conflict(NAME_TAKEN, code="name_taken", errors=faults)
    return BadRequest("Some data sources are not valid.", errors=faults)


def _of_sibling(other: Item, *, dry_run: bool) -> SourceWarning:
    message = f"data_sources[{other.index}] of this request is of the same server and database."
    assert other.draft is not None
    warned: SourceWarning = duplicates.warning(None if dry_run else other.draft.id, message)
    return warned


async def _report(items: Sequence[Item], shown: dict[UUID, DataSourceOut], *, dry_run: bool) -> BulkOut:
    report = [_reported(item, shown) async for item in in_slices(items)]
    failed = sum(item.status == "failed" for item in report)
    return BulkOut(len(shown), failed, dry_run, report)


def _reported(item: Item, shown: dict[UUID, DataSourceOut]) -> BulkItem:
    if item.draft is None or item.faults:
        return BulkItem(item.index, "failed", None, item.faults, [])
    made = shown.get(item.draft.id)
    return BulkItem(item.index, "created" if made else "valid", made, [], item.warnings)
