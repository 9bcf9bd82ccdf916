"""The one way to the value of a source's secret: what is opened, for what and on whose behalf, is on record before.

A row of the audit log, `secret.use`, is committed first; where it cannot be, nothing is opened. References count as
stored secrets do: what they refer to is the operator's. A test holds the code against this: nobody else opens what is
sealed, or reads what is referred to (`tests/domain/test_secret_uses.py`).
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Row, select

from app.core.errors import Conflict, Fault
from app.core.sealing import KeyRing, SealingError
from app.domain.audit.schemas import Outcome
from app.domain.audit.services import AuditRow, audit_row
from app.domain.parts import Parts
from app.domain.sources.models import DataSource, DataSourceSecret
from app.domain.sources.schemas import SecretReference, Value, Values
from app.domain.sources.secrets import references
from app.domain.sources.secrets.sealed import sealed_field
from app.domain.work import UnitOfWork

ACTION: Final = "secret.use"
Purpose = Literal["test", "scheduled test", "discovery", "preview"]

LOST = (
    "A stored secret cannot be opened: the key that it was sealed with is gone. Give it again, or bring back the key."
)
GIVE_IT_AGAIN = "give it again: it cannot be opened"
KEPT = (
    DataSourceSecret.data_source_id,
    DataSourceSecret.name,
    DataSourceSecret.sealed,
    DataSourceSecret.key_id,
    DataSourceSecret.reference,
    DataSourceSecret.version,
)
Kept = Row[Any]
"""Of the columns of `KEPT`."""


class Unopened(Conflict):
    """With the code `secret_unreadable`: no key of the ring opens it."""


class Actor(NamedTuple):
    """On whose behalf a worker acts."""

    id: UUID | None
    name: str | None


SYSTEM: Final = Actor(None, "system")


class SecretUse:
    """All secrets of one source, saved or not, for one purpose: closed until the row about them is committed."""

    def __init__(
        self, purpose: Purpose, tenant_id: UUID, source_id: UUID | None, kept: Sequence[Kept], given: Values
    ) -> None:
        self.tenant_id = tenant_id
        self.source_id = source_id
        self._purpose = purpose
        self._kept = kept
        self._given = {name: value for name, value in given.items() if value is not None}
        self._is_on_record = not self._used()
        """There is nothing to put there where nothing is opened."""

    @property
    def versions(self) -> dict[str, int]:
        """Of the stored ones."""
        return {row.name: row.version for row in self._kept}

    @property
    def is_on_record(self) -> bool:
        return self._is_on_record

    @property
    def detail(self) -> str:
        """What for, and which version of which secret."""
        return f"{self._purpose}: {', '.join(self._used())}"

    def outcome(self, ring: KeyRing) -> Outcome:
        """What is known to have no key is not opened."""
        return "failure" if any(_is_lost(ring, row) for row in self._kept) else "success"

    def note_record(self) -> None:
        """The row is committed."""
        self._is_on_record = True

    async def read(self, parts: Parts, type_name: str) -> dict[str, str]:
        """The values, for connector work and nothing else. Raises Unopened naming those that no key opens,
        UnresolvedReference, and RuntimeError where nothing is on record."""
        if not self._is_on_record:
            raise RuntimeError("a secret is not opened before its use is on record")
        return await references.resolved(parts.settings, type_name, self._opened(parts.key_ring) | self._given)

    def _opened(self, ring: KeyRing) -> dict[str, Value]:
        """Those that are stored; references as they are."""
        found = {row.name: _value_of(ring, self.tenant_id, row) for row in self._kept}
        if lost := sorted(name for name, value in found.items() if value is None):
            faults = [Fault(f"secrets.{name}", "secret_unreadable", GIVE_IT_AGAIN) for name in lost]
            raise Unopened(LOST, code="secret_unreadable", errors=faults)
        return {name: value for name, value in found.items() if value is not None}

    def _used(self) -> list[str]:
        """In words. Those that the request itself brings are none, but for what it refers to."""
        return [f"{row.name} v{row.version}" for row in self._kept] + list(references.referred(self._given))


def _is_lost(ring: KeyRing, row: Kept) -> bool:
    return row.sealed is not None and row.key_id not in ring.ids


def _value_of(ring: KeyRing, tenant_id: UUID, row: Kept) -> Value | None:
    """None where no key of the ring opens it, or it belongs elsewhere."""
    if row.reference is not None:
        return SecretReference(ref=row.reference)
    place = {"tenant_id": tenant_id, "row_id": row.data_source_id, "field": sealed_field(row.name)}
    try:
        return ring.open(row.sealed, **place).decode()
    except SealingError:
        return None


# On record ------------------------------------------------------------------------------------------------------------


async def use_of_stored(
    work: UnitOfWork,
    source: DataSource,
    purpose: Purpose,
    *,
    given: Values | None = None,
    on_behalf_of: Actor | None = None,
) -> SecretUse:
    """Of what is stored, but for what is given or taken away instead: to be opened once the work is committed, with
    whose rows its own comes."""
    of_source = (DataSourceSecret.data_source_id == source.id, DataSourceSecret.name.not_in(list(given or ())))
    kept = (await work.session.execute(select(*KEPT).where(*of_source).order_by(DataSourceSecret.name))).all()
    use = SecretUse(purpose, work.tenant_id, source.id, kept, given or {})
    _record(work, use, on_behalf_of)
    return use


def use_of_given(work: UnitOfWork, given: Values, purpose: Purpose) -> SecretUse:
    """Of a source that is not saved, after the work is committed: its references are the operator's secrets."""
    use = SecretUse(purpose, work.tenant_id, None, [], given)
    _record(work, use, None)
    return use


def _record(work: UnitOfWork, use: SecretUse, on_behalf_of: Actor | None) -> None:
    if use.is_on_record:
        return
    outcome, who = use.outcome(work.parts.key_ring), on_behalf_of or Actor(None, None)
    work.audit(
        *(ACTION, "data_source", use.source_id),
        outcome=outcome,
        detail=use.detail,
        actor_id=who.id,
        actor_name=who.name,
    )
    work.once_committed(use.note_record)


def row_of_schedule(ring: KeyRing, use: SecretUse) -> AuditRow | None:
    """For who writes many of them at once, and notes it then; None where nothing is opened."""
    if use.is_on_record:
        return None
    return audit_row(
        *(ACTION, "data_source", use.source_id),
        tenant_id=use.tenant_id,
        principal=None,
        exchange=None,
        address=None,
        outcome=use.outcome(ring),
        actor_name=SYSTEM.name,
        detail=use.detail,
    )
