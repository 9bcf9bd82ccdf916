"""An audit log as a stream of items: out of a database, tenant by tenant, and in and out of a file.

The database is read as the application's role, inside of one transaction that sees one moment, with cursors: neither
side holds more than some hundred rows.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

import asyncpg
import msgspec

from app.core.tenancy import TENANT_SETTING
from app.domain.seals import canonical
from app.domain.seals.signing import Seal
from app.domain.seals.verifying import NO_ROW, Beginning, Chain, End, Item, Key, Row

AT_ONCE: Final = 500
SEALS: Final = f"SELECT {', '.join(Seal.__struct_fields__)} FROM audit_seals WHERE tenant_id = $1 ORDER BY number"  # noqa: S608
ROWS: Final = f"""
    SELECT leaf.event_id, leaf.position, leaf.leaf_hash, leaf.seal_number,
      CASE WHEN event.id IS NOT NULL THEN {canonical.SQL} END AS row
    FROM audit_leaves AS leaf
    LEFT JOIN audit_events AS event ON event.tenant_id = leaf.tenant_id AND event.id = leaf.event_id
    WHERE leaf.tenant_id = $1 ORDER BY leaf.position"""  # noqa: S608
UNSEALED: Final = f"""
    SELECT event.id, {canonical.SQL} AS row FROM audit_events AS event
    WHERE event.tenant_id = $1 AND NOT EXISTS (
      SELECT FROM audit_leaves AS leaf WHERE leaf.tenant_id = event.tenant_id AND leaf.event_id = event.id)
    ORDER BY event.transaction_id, event.sequence"""  # noqa: S608
_ENTER: Final = "SELECT set_config($1, $2, true)"
_ITEMS: Final = msgspec.json.Decoder(Item)


async def items_in_database(connection: asyncpg.Connection) -> AsyncIterator[Item]:
    """Of all tenants, the deleted ones too, and as of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        mark = await connection.fetchrow("SELECT * FROM public.audit_sealed_until()")
        yield Beginning(
            exported_at=datetime.now(UTC),
            sealed_until=mark["event_id"],
            sealed_transaction=int(mark["transaction_id"]),
            sealed_sequence=mark["sequence"],
        )
        for key in await connection.fetch("SELECT kid, public_key FROM sealing_keys ORDER BY kid"):
            yield Key(**key)
        end = End(rows=0, seals=0, chains=0)
        for (tenant_id,) in await connection.fetch("SELECT public.tenant_ids()"):
            yield Chain(tenant_id=tenant_id)
            end.chains += 1
            async for item in _chain(connection, tenant_id):
                end.rows += isinstance(item, Row) and item.row != NO_ROW
                end.seals += isinstance(item, Seal)
                yield item
        yield end


async def _chain(connection: asyncpg.Connection, tenant_id: UUID) -> AsyncIterator[Seal | Row]:
    """Each seal before its rows; then what is under none."""
    await connection.execute(_ENTER, TENANT_SETTING, str(tenant_id))
    rows = aiter(connection.cursor(ROWS, tenant_id, prefetch=AT_ONCE))
    row = await anext(rows, None)
    async for seal in connection.cursor(SEALS, tenant_id, prefetch=AT_ONCE):
        yield Seal(**seal)
        while row is not None and row["seal_number"] <= seal["number"]:
            yield _sealed(row)
            row = await anext(rows, None)
    while row is not None:
        yield _sealed(row)
        row = await anext(rows, None)
    async for unsealed in connection.cursor(UNSEALED, tenant_id, prefetch=AT_ONCE):
        yield Row(id=unsealed["id"], row=msgspec.Raw(unsealed["row"].encode()))


def _sealed(row: Any) -> Row:
    return Row(
        id=row["event_id"],
        position=row["position"],
        leaf_hash=row["leaf_hash"].hex(),
        seal_number=row["seal_number"],
        row=NO_ROW if row["row"] is None else msgspec.Raw(row["row"].encode()),
    )


# Files: a line of JSON for each item ----------------------------------------------------------------------------------


async def write_items(file: BinaryIO, items: AsyncIterator[Item]) -> End:
    """Raises OSError. Returns what was written, as the last line says it."""
    encoder, end = msgspec.json.Encoder(), End(rows=0, seals=0, chains=0)
    async for item in items:
        file.write(encoder.encode(item))
        file.write(b"\n")
        if isinstance(item, End):
            end = item
    return end


def items_in_file(path: Path) -> Iterator[Item]:
    """Raises OSError, and ValueError with the number of a line that is none."""
    with path.open("rb") as file:
        yield from _items_of(file)


def _items_of(lines: Iterable[bytes]) -> Iterator[Item]:
    for number, line in enumerate(lines, 1):
        try:
            yield _ITEMS.decode(line)
        except (msgspec.MsgspecError, RecursionError, OverflowError):  # the last of a time beyond the year 9999 in UTC
            raise ValueError(f"line {number} is none of an export") from None
