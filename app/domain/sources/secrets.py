"""Secrets of data sources: sealed when given, opened for connector work, and sent only where they were given for."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from app.connectors.registry import AnyConnector
from app.core.errors import BadRequest, Conflict, Fault
from app.core.sealing import SealingError
from app.domain.sources.models import DataSource, DataSourceSecret
from app.domain.work import UnitOfWork

MASKS = re.compile(
    r"(?P<mark>[*\u00b7\u2022\u2219\u25cf\u26ab.x_-])(?P=mark){2,}"
    r"|[*_]*[<\[({]+(hidden|redacted|masked|secret|encrypted)[>\])}]+[*_]*|[*_]{2,}(hidden|redacted|masked|secret)[*_]{2,}",
    re.IGNORECASE,
)
"""What forms and other services show in place of a secret: sent back, it would replace the real one. One sign over and
over, or a word in brackets; a secret that only holds such signs is a secret."""

LOST = (
    "A stored secret cannot be opened: the key that it was sealed with is gone. Give it again, or bring back the key."
)


def refuse_masks(secrets: Mapping[str, str | None]) -> None:
    """Raises BadRequest where a mask was given as a secret."""
    masked = [name for name, value in secrets.items() if value is not None and MASKS.fullmatch(value)]
    if masked:
        faults = [
            Fault(f"secrets.{name}", "masked_secret", "is a mask, not a secret; leave it out to keep the stored one")
            for name in masked
        ]
        raise BadRequest(errors=faults)


async def store(work: UnitOfWork, source: DataSource, secrets: Mapping[str, str | None]) -> None:
    """Seal what is given, remove what is null. Each time a secret is given its version counts up."""
    for name, value in secrets.items():
        if value is None:
            key = (DataSourceSecret.data_source_id == source.id, DataSourceSecret.name == name)
            await work.session.execute(delete(DataSourceSecret).where(*key))
        else:
            await _store_one(work, source, name, value)


async def _store_one(work: UnitOfWork, source: DataSource, name: str, value: str) -> None:
    ring = work.parts.key_ring
    sealed = ring.seal(value.encode(), tenant_id=source.tenant_id, row_id=source.id, field=sealed_field(name))
    given = {"sealed": sealed, "key_id": ring.current_id, "updated_at": work.now}
    statement = insert(DataSourceSecret).values(
        data_source_id=source.id, name=name, tenant_id=source.tenant_id, version=1, **given
    )
    again = given | {"version": DataSourceSecret.version + 1}
    await work.session.execute(statement.on_conflict_do_update(index_elements=["data_source_id", "name"], set_=again))


async def names(work: UnitOfWork, source: DataSource) -> set[str]:
    statement = select(DataSourceSecret.name).where(DataSourceSecret.data_source_id == source.id)
    return set(await work.session.scalars(statement))


async def opened(work: UnitOfWork, source: DataSource, *, but: Iterable[str] = ()) -> dict[str, str]:
    """The values, for connector work and nothing else. Raises Conflict naming those that no key of the ring opens."""
    rows = await work.session.execute(
        select(DataSourceSecret.name, DataSourceSecret.sealed).where(
            DataSourceSecret.data_source_id == source.id, DataSourceSecret.name.not_in(list(but))
        )
    )
    values = {name: _open_one(work, source, name, sealed) for name, sealed in rows}
    lost = sorted(name for name, value in values.items() if value is None)
    if lost:
        faults = [Fault(f"secrets.{name}", "secret_unreadable", "give it again: it cannot be opened") for name in lost]
        raise Conflict(LOST, code="secret_unreadable", errors=faults)
    return {name: value for name, value in values.items() if value is not None}


def _open_one(work: UnitOfWork, source: DataSource, name: str, sealed: bytes) -> str | None:
    """None where no key of the ring opens it, or it belongs elsewhere."""
    ring, field = work.parts.key_ring, sealed_field(name)
    try:
        return ring.open(sealed, tenant_id=source.tenant_id, row_id=source.id, field=field).decode()
    except SealingError:
        return None


def require_reentry(
    connector: AnyConnector,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    stored: Iterable[str],
    given: Iterable[str],
) -> None:
    """A stored secret goes only where it was given for: raises Conflict naming the secrets to give again."""
    moved = sorted(field for field in connector.destination_fields if before.get(field) != after.get(field))
    kept = sorted(set(stored) - set(given))
    if moved and kept:
        faults = [
            Fault(f"secrets.{name}", "secret_reentry_required", f"give it again: {', '.join(moved)} changed")
            for name in kept
        ]
        raise Conflict(
            "Where the stored secrets would be sent has changed. Give them again with the change.",
            code="secret_reentry_required",
            errors=faults,
        )


def sealed_field(name: str) -> str:
    """The field part of the place that a secret of that name is sealed to."""
    return f"data_sources.secrets.{name}"
