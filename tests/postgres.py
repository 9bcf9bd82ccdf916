"""PostgreSQL for the tests: one embedded cluster for the whole run, a fresh database for whoever asks."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import asyncpg

from app.core import embedded

MEMORY_BYTES = 4 * 1024**3
"""Free in memory, before the cluster is put there: it grows to a tenth of that."""


@contextmanager
def start_test_cluster(durable: bool = False) -> Iterator[embedded.EmbeddedPostgres]:
    """A cluster that lasts as long as the block, its data folder included; not safe against power loss unless told.

    It has a folder of its own rather than pytest's: those are 0700, which root's PostgreSQL cannot enter.
    """
    folder = reachable_folder(None if durable else _memory())
    try:
        with embedded.running(folder, exclusive=True, durable=durable) as server:
            yield server
    finally:
        discard(folder)


async def create_database(server: embedded.EmbeddedPostgres, template: str = "template1", name: str = "") -> str:
    """A fresh database of the owner role, copied from a template to which nobody is connected; answers its name."""
    name = name or f"test_{token_hex(8)}"
    connection = await asyncpg.connect(server.url(embedded.SUPERUSER, "postgres"))
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER {embedded.OWNER_ROLE}')
    finally:
        await connection.close()
    return name


async def drop_database(server: embedded.EmbeddedPostgres, name: str) -> None:
    """Whoever is connected to it is cut off."""
    connection = await asyncpg.connect(server.url(embedded.SUPERUSER, "postgres"))
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


def reachable_folder(parent: Path | None = None) -> Path:
    """A new folder, its name neither short nor plain, that any user can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="hub tëst ", dir=parent))
    folder.chmod(0o711)
    return folder


def _memory() -> Path | None:
    """A file system in memory, where this machine has one with room for the cluster."""
    path = Path("/dev/shm")
    return path if path.is_dir() and shutil.disk_usage(path).free > MEMORY_BYTES else None


def discard(data_dir: Path) -> None:
    """Delete a data folder whose server is stopped, and the cluster outside it that root's hub may have made."""
    cluster = data_dir / "postgres"
    if cluster.is_symlink():
        home = Path(os.readlink(cluster)).parent
        if home.parent == embedded.SYSTEM_HOME:
            shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)
