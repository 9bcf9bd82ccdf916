"""Schema changes beside hubs that go on working: what migrations use so that nobody waits for them for long.

A statement that needs a whole table for itself (`ALTER TABLE`, a trigger) gets its lock within `LOCK_TIMEOUT_MS` or
gives up, and the migration is begun again a little later: while it waits, everybody else would wait behind it. What
takes long needs no such lock: indexes are built concurrently, rows are filled in some at a time. No rollback undoes it,
so all of it may be done again: what an interrupted migration left is taken up or replaced.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from alembic import op
from sqlalchemy import text

LOCK_TIMEOUT_MS = 500
"""Below the promised second, with room for what the statement does once it has the lock."""
PAGES_AT_ONCE = 16
"""Of 8 kB: some thousand rows, whose locks are held for a fraction of a second."""


def in_steps(table: str, *statements: str) -> None:
    """Each in a transaction of its own, so that no lock waits for what the next one does. Every statement has to bear
    being repeated."""
    if _is_empty(table):
        for statement in statements:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        for statement in statements:
            op.execute(statement)


def create_indexes(indexes: Mapping[str, str]) -> None:
    """By name what they are on, as in `users (tenant_id, email)`. Where the table is empty, as on a first start, at
    once: a concurrent build waits three times for whoever is connected."""
    tables = {definition.split()[0] for definition in indexes.values()}
    empty = {table for table in sorted(tables) if _is_empty(table)}
    at_once = {name: definition for name, definition in indexes.items() if definition.split()[0] in empty}
    if at_once:
        created = "; ".join(
            f"CREATE INDEX IF NOT EXISTS {name} ON {definition}" for name, definition in at_once.items()
        )
        op.execute(f"DO $indexes$ BEGIN {created}; END $indexes$")  # in one round trip: a first start is waited for
    for name, definition in indexes.items():
        if name not in at_once:
            _create_concurrently(name, definition)


def drop_indexes(names: Iterable[str]) -> None:
    for name in names:
        _alone(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def fill_in(table: str, assignments: str, where: str, *, source: str = "") -> None:
    """Set what rows of before lack, some pages of the table at a time, each time in a transaction of its own. `source`
    is a table that `assignments` and `where` may use. Rows that come meanwhile must not need it."""
    joined = f" FROM {source}" if source else ""
    page_by_page(table, f"UPDATE {table} SET {assignments}{joined} WHERE {{these}} AND {where}")  # noqa: S608


def page_by_page(table: str, statement: str) -> None:
    """For the rows that are there now, some pages of them at a time, each time in a transaction of its own. `{these}`
    in the statement stands for the condition that names them."""
    pages = _scalar(f"SELECT pg_relation_size('{table}') / current_setting('block_size')::int")
    with op.get_context().autocommit_block():
        for page in range(0, pages, PAGES_AT_ONCE):
            these = f"{table}.ctid >= '({page},0)' AND {table}.ctid < '({page + PAGES_AT_ONCE},0)'"
            op.execute(statement.replace("{these}", these))


def set_not_null(table: str, *columns: str) -> None:
    """A check that is validated beside everybody's work spares `SET NOT NULL` the walk through the table under a lock
    that keeps everybody out (PostgreSQL manual, ALTER TABLE)."""
    check = f"{table}_filled_check"
    is_filled = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    in_steps(
        table,
        f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}, ADD CONSTRAINT {check} CHECK ({is_filled}) NOT VALID",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}",
        f"ALTER TABLE {table} {', '.join(f'ALTER COLUMN {column} SET NOT NULL' for column in columns)}",
        f"ALTER TABLE {table} DROP CONSTRAINT {check}",
    )


def analyze(tables: Iterable[str]) -> None:
    """A new index on an expression has no statistics before this, and the planner guesses."""
    for table in tables:
        if not _is_empty(table):
            _alone(f"ANALYZE {table}")


def _create_concurrently(name: str, definition: str) -> None:
    if _is_invalid(name):
        _alone(f"DROP INDEX CONCURRENTLY {name}")
    _alone(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {definition}")


def _alone(statement: str) -> None:
    """Outside of a transaction and however long it waits: none of these locks keeps readers or writers out."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(statement)
        op.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")


def _is_empty(table: str) -> bool:
    return not _scalar(f"SELECT EXISTS (SELECT FROM {table})")  # noqa: S608 - names of ours


def _is_invalid(index: str) -> bool:
    """What an interrupted concurrent build leaves behind: it is kept up to date, and never used."""
    return bool(_scalar(f"SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{index}')"))  # noqa: S608


def _scalar(statement: str) -> Any:
    return op.get_bind().execute(text(statement)).scalar()
