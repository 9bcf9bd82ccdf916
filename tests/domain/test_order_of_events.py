"""Positions of events: the order of commits, whoever began first."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events.sequencing import give_positions
from tests.conftest import Hub
from tests.domain.conftest import Records, write_and_undo

pytestmark = pytest.mark.anyio

WRITE = """INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data)
           VALUES (gen_random_uuid(), $1, 'x', '/', $2, now(), '{}')"""


async def write(connection: "asyncpg.Connection[Any]", subject: str, tenant_id: UUID = DEFAULT_TENANT_ID) -> None:
    await connection.execute(WRITE, tenant_id, subject)


async def positions(records: Records, tenant_id: UUID = DEFAULT_TENANT_ID) -> dict[str, int | None]:
    rows = await records.run(
        "SELECT subject, position FROM outbox_events WHERE tenant_id = $1 AND type = 'x' ORDER BY position", tenant_id
    )
    return {row["subject"]: row["position"] for row in rows}


async def test_what_an_open_transaction_wrote_first_comes_after_what_was_committed_meanwhile(
    hub: Hub, records: Records
) -> None:
    """And nothing that comes after the open one's beginning has a position before that one is over."""
    while await give_positions(hub.parts):
        pass
    slow, quick = [await asyncpg.connect(hub.owner_url) for _ in range(2)]
    await write(quick, "before")
    transaction = slow.transaction()
    await transaction.start()
    await write(slow, "slow")
    await write(quick, "meanwhile")
    assert await give_positions(hub.parts) == 1
    assert await give_positions(hub.parts) == 0
    seen = await positions(records)
    assert seen["before"] is not None
    assert (seen["meanwhile"], "slow" in seen) == (None, False)
    await transaction.commit()
    assert await give_positions(hub.parts) == 2
    seen = await positions(records)
    first = seen["before"]
    assert first is not None
    assert seen == {"before": first, "slow": first + 1, "meanwhile": first + 2}
    await asyncio.gather(slow.close(), quick.close())


async def test_positions_have_no_gaps_in_any_tenant_however_many_write(hub: Hub, records: Records) -> None:
    """A transaction that is rolled back leaves none, though it took numbers of the sequence."""
    other = uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, 'x', 'X', true, now(), now())",
        other,
    )

    async def write_some(number: int) -> None:
        await write_and_undo(hub.owner_url, write, number, turns=20, tenant_ids=(DEFAULT_TENANT_ID, other))

    async def number_meanwhile() -> None:
        for _ in range(40):
            await asyncio.gather(give_positions(hub.parts, 7), give_positions(hub.parts, 7))

    await asyncio.gather(number_meanwhile(), *(write_some(number) for number in range(8)))
    while await give_positions(hub.parts):
        pass
    for tenant_id in (DEFAULT_TENANT_ID, other):
        given = await records.run(
            "SELECT position FROM outbox_events WHERE tenant_id = $1 ORDER BY position", tenant_id
        )
        assert [row["position"] for row in given] == list(range(1, len(given) + 1))
        assert len(given) >= 80
    for number in range(8):  # each writer's own are in its own order
        theirs = [subject for subject in await positions(records) if subject.startswith(f"{number} ")]
        assert theirs == [f"{number} {turn}" for turn in range(0, 20, 2)]


async def test_who_listens_is_told_whose_events_have_got_positions(hub: Hub, records: Records) -> None:
    told: list[str] = []
    listener = await asyncpg.connect(hub.url)
    await listener.add_listener("hub_positions", lambda _c, _p, _ch, payload: told.append(str(payload)))
    await write(records._connection, "told")
    await give_positions(hub.parts)
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.01)
    assert set(told) == {str(DEFAULT_TENANT_ID)}
    await listener.close()
