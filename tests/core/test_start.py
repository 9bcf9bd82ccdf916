"""What a start waits for, and what can be done once the hub is ready."""

import subprocess
import sys
from pathlib import Path

BEFORE = """
import sys
import app.asgi, app.commands.admin, app.domain.models, app.worker
print([table.__name__ for table in app.domain.models.TABLES if table.__mapper__.configured])
print([name for name in sys.modules if name.startswith("email_validator")])
"""
AFTER = """
import asyncio, sys
from pathlib import Path
from app.asgi import create_app
from app.domain.models import TABLES
from app.runtime import prepare_parts
from app.settings import load

async def main():
    parts = prepare_parts(load({"HUB_DATA_DIR": sys.argv[1]}, env_file=None), "postgresql://nobody@127.0.0.1:1/x")
    app = create_app(parts)
    async with app.lifespan(), asyncio.timeout(20):
        while not (all(table.__mapper__.configured for table in TABLES) and "email_validator" in sys.modules):
            await asyncio.sleep(0.02)

asyncio.run(main())
"""


def ran(script: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True).stdout


def test_what_can_wait_until_the_hub_is_ready_waits() -> None:
    assert ran(BEFORE).split("\n") == ["[]", "[]", ""]


def test_a_hub_that_is_ready_prepares_it_before_somebody_waits_for_it(tmp_path: Path) -> None:
    assert ran(AFTER, str(tmp_path)) == ""
