"""Discovery of a large PostgreSQL, in a connector process as the hub starts them, against the bare catalog query."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from app.connectors.contract.failures import ConnectorError
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core import embedded
from app.core.egress import EgressPolicy
from bench.footprint import data_folder
from bench.report import Bound, round_ratios
from bench.rounds import Bench

FIELDS = 20
_TABLES_AT_ONCE = 500
_TYPES = ("bigint", "text", "numeric(12,2)", "timestamptz", "varchar(40)", "boolean", "jsonb", "text[]", "uuid", "date")

_BARE = """
SELECT n.nspname, c.relname, c.relkind, a.attname, a.attnum, a.attnotnull, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY n.nspname, c.relname, a.attnum
"""


def discover(bench: Bench, tables: int) -> list[Bound]:
    with data_folder() as data_dir, embedded.running(data_dir) as database:
        try:
            return asyncio.run(_compare(bench, database.superuser_url, tables))
        except (ConnectorError, asyncpg.PostgresError) as error:
            bench.problem(f"discover: {type(error).__name__}: {error}")
            return []


async def _compare(bench: Bench, url: str, tables: int) -> list[Bound]:
    """Both in turn; a connector process is started anew for each round, as for each job."""
    await _create(url, tables)
    bare, ours, peaks_mb = [], [], []
    sandbox = ConnectorSandbox(template_idle_s=0)
    try:
        for number in range(-1, bench.pace.rounds):
            bare_s, rows = await _fetch(url)
            ours_s, fields, peak_mb = await _discover(sandbox, url)
            if fields != rows or rows != tables * FIELDS:
                bench.problem(f"discover: {fields:,} fields found, {rows:,} in the catalog")
                return []
            bench.tell(f"discover: {ours_s:.2f} s, the bare query {bare_s:.2f} s")
            if number >= 0:  # The first round warms the server's caches.
                bare.append(bare_s)
                ours.append(ours_s)
                peaks_mb.append(peak_mb)
    finally:
        await sandbox.close()
    ratio = median(round_ratios(ours, bare))
    name = f"discover {tables:,} tables x {FIELDS} fields"
    note = f"{median(ours):.2f} s against {median(bare):.2f} s, highest {max(round_ratios(ours, bare)):.2f}"
    return [
        Bound(name, ratio, 1.3, "x the bare catalog query", note),
        Bound(f"{name}, peak of the connector process", max(peaks_mb), 300, "MB"),
    ]


async def _create(url: str, tables: int) -> None:
    columns = ", ".join(f"column_{number} {_TYPES[number % len(_TYPES)]}" for number in range(FIELDS))
    connection = await asyncpg.connect(url)
    try:
        for start in range(0, tables, _TABLES_AT_ONCE):
            numbers = range(start, min(start + _TABLES_AT_ONCE, tables))
            await connection.execute("; ".join(f"CREATE TABLE table_{number:05} ({columns})" for number in numbers))
        await connection.execute("VACUUM ANALYZE pg_catalog.pg_class, pg_catalog.pg_attribute")
    finally:
        await connection.close()


async def _fetch(url: str) -> tuple[float, int]:
    """Seconds and rows of the query alone, on a connection that is there already."""
    connection = await asyncpg.connect(url)
    try:
        began = time.perf_counter()
        rows = await connection.fetch(_BARE)
        return time.perf_counter() - began, len(rows)
    finally:
        await connection.close()


async def _discover(sandbox: ConnectorSandbox, url: str) -> tuple[float, int, float]:
    """Seconds with the start of the process, fields found, and the process' peak of resident memory in MB."""
    fields, peak_mb = 0, 0.0
    config, secrets = _source(url)
    policy = EgressPolicy(loopback_allowed=True)
    began = time.perf_counter()
    async for batch in sandbox.discover("postgresql", config, secrets, policy):
        fields += sum(len(found.fields) for found in batch)
        for pid in sandbox.pids:
            with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # It may have ended after its last words.
                peak_mb = max(peak_mb, _peak_mb(pid))
    return time.perf_counter() - began, fields, peak_mb


def _source(url: str) -> tuple[dict[str, Any], dict[str, str]]:
    parts = urlsplit(url)
    place = {"host": parts.hostname, "port": parts.port, "database": parts.path.strip("/")}
    return place | {"username": unquote(parts.username or "")}, {"password": unquote(parts.password or "")}


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
