"""A whole hub, server and worker, on a schema that it cannot follow (operations: upgrades)."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from app.core import embedded
from tests.commands.hubs import Serve

pytestmark = [pytest.mark.slow, pytest.mark.found("U2")]

REASON = "every row belongs to a tenant now."


def test_a_hub_on_a_declared_break_says_so_and_ends(serve: Serve, data_dir: Path) -> None:
    hub = serve(data_dir, HUB_LOG_LEVEL="warning")
    with embedded.running(data_dir) as database:
        asyncio.run(declare_break(database.owner_url))
        assert hub.process.wait(30) == 0
    assert REASON in hub.said
    assert "Traceback" not in hub.said


async def declare_break(owner_url: str) -> None:
    connection = await asyncpg.connect(owner_url)
    await connection.execute("INSERT INTO schema_breaks (revision, reason) VALUES ('9000', $1)", REASON)
    await connection.execute("UPDATE alembic_version SET version_num = '9998'")
    await connection.close()
