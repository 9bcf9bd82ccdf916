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

from app.core.tenancy import TENANT_SETTING

CURRENT_TENANT = f"nullif(current_setting('{TENANT_SETTING}', true), '')::uuid"
"""Null where a connection is in none: no row is equal to it."""

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


def create_indexes(indexes: Mapping[str, str], *, unique: bool = False) -> None:
    """By name what they are on, as in `users (tenant_id, email)`. Where the table is empty, as on a first start, at
    once: a concurrent build waits three times for whoever is connected."""
    tables = {definition.split()[0] for definition in indexes.values()}
    empty = {table for table in sorted(tables) if _is_empty(table)}
    at_once = {name: definition for name, definition in indexes.items() if definition.split()[0] in empty}
    if at_once:
        created = "; ".join(
            f"CREATE {_kind(unique)} IF NOT EXISTS {name} ON {definition}" for name, definition in at_once.items()
        )
        op.execute(f"DO $indexes$ BEGIN {created}; END $indexes$")  # in one round trip: a first start is waited for
    for name, definition in indexes.items():
        if name not in at_once:
            _create_concurrently(name, definition, unique=unique)


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


STOPPED_WITHIN_S = 12
"""In which a hub has looked at the schema (`schema_state`), and ended what it was asked before: a second, and the time
that a request may take."""


def wait_for_hubs_to_stop() -> None:
    """After an earlier migration has declared a break: hubs of before see it within a second, answer what they are at,
    and are gone. What is still connected then is of another kind, and not waited for any longer."""
    connected = "datname = current_database() AND application_name LIKE 'hub%' AND application_name <> 'hub migrate'"
    op.execute(f"""
        DO $wait$ BEGIN
          FOR turn IN 1 .. {STOPPED_WITHIN_S} * 10 LOOP
            PERFORM pg_stat_clear_snapshot();
            EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE {connected});
            PERFORM pg_sleep(0.1);
          END LOOP;
        END $wait$
    """)


# --- the wall between tenants ---


def tables_of_tenants() -> list[str]:
    """Every table that says of its rows whose they are."""
    found = op.get_bind().execute(
        text(
            """SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
               WHERE attname = 'tenant_id' AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
                 AND NOT attisdropped ORDER BY 1"""
        )
    )
    return list(found.scalars())


def wall_off(table: str, is_visible: str = f"tenant_id = {CURRENT_TENANT}") -> None:
    """The application sees and writes the rows of its connection's tenant. Under FORCE the owner would see nothing by
    itself; its own policy is for migrations, `pg_dump` and the owner's functions."""
    at_once(
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY of_tenant ON {table} TO hub_app USING ({is_visible})",
        f"CREATE POLICY of_owner ON {table} TO hub_owner USING (true)",
    )


def take_wall_down(table: str) -> None:
    at_once(
        f"DROP POLICY of_tenant ON {table}",
        f"DROP POLICY of_owner ON {table}",
        f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
    )


def create_owners_function(signature: str, answers: str, body: str, *, settings: str = "") -> None:
    """A function that runs with the rights of the owner, who sees every tenant, and that only the application may call.
    `answers` says what it returns; a body that begins with BEGIN or DECLARE is PL/pgSQL."""
    language = "plpgsql" if body.lstrip().startswith(("BEGIN", "DECLARE")) else "sql"
    at_once(
        f"""CREATE OR REPLACE FUNCTION public.{signature} {answers} LANGUAGE {language} SECURITY DEFINER
              SET search_path = pg_catalog, pg_temp {settings} AS $body$ {body} $body$""",
        f"REVOKE ALL ON FUNCTION public.{signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION public.{signature} TO hub_app",
    )


def make_removable(table: str, since: str) -> None:
    """`remove_outdated_{table}`: whatever is over since some moment, in every tenant, the oldest rows first."""
    create_owners_function(
        f"remove_outdated_{table}(before timestamptz, most integer)",
        "RETURNS integer",
        f"""WITH removed AS (
              DELETE FROM public.{table} WHERE id = ANY (ARRAY(
                SELECT id FROM public.{table} WHERE {since} < before ORDER BY {since} LIMIT most
                FOR UPDATE SKIP LOCKED)) RETURNING id)
            SELECT count(*)::integer FROM removed""",  # noqa: S608 - names of ours
    )


SAMPLED = 300
"""Rows by which the share of a text is told."""
_SYMBOLS = "string_to_array(regexp_replace({text}, '[[:alnum:][:space:]]+', '', 'g'), NULL)"
_PATTERN = r"regexp_replace(lower(asked), '([%_\\])', '\\\1', 'g')"


def make_searchable(table: str, searched: str) -> None:
    """What is searched for, found by the index `{table}_search_idx` and by that index only.

    PostgreSQL looks at nothing of a row before row-level security has let it pass, not even in an index, unless an
    operator is known to tell nothing of what it is given; of `LIKE` it does not know that. For the owner it may. So
    `found_by_{table}_search_idx` answers the ids that match in the connection's tenant; and since the statistics of a
    table behind row-level security are not for such operators either, `share_by_...` looks at rows here and there, of
    all tenants, and tells which share of them matches.
    """
    index = f"{table}_search_idx"
    has_symbols = f"{_SYMBOLS.format(text=searched)} @> {_SYMBOLS.format(text='lower(asked)')}"
    forms = {
        "inside": f"{searched} LIKE '%' || pattern || '%'",
        "at_the_beginning": f"{searched} LIKE '% ' || pattern || '%'",
        # Of another collation than the index: without a trigram it would be looked for in all of it.
        "of_symbols": f"{has_symbols} AND {searched} COLLATE \"C\" LIKE '%' || pattern || '%'",
    }
    found = "".join(
        f"""WHEN '{form}' THEN RETURN QUERY
              SELECT id FROM public.{table} WHERE tenant_id = tenant AND {matches} ORDER BY id;
        """  # noqa: S608 - names of ours
        for form, matches in forms.items()
    )
    create_owners_function(
        f"found_by_{index}(asked text, form text)",
        "RETURNS SETOF uuid STABLE",
        f"""DECLARE
              tenant uuid := {CURRENT_TENANT};
              pattern text := {_PATTERN};
            BEGIN
              CASE form {found} END CASE;
            END""",
        settings="SET plan_cache_mode = force_custom_plan",
    )
    create_owners_function(
        f"share_by_{index}(asked text, form text)",
        "RETURNS float8 STABLE",
        f"""DECLARE
              pattern text := CASE form WHEN 'at_the_beginning' THEN '% ' ELSE '%' END || {_PATTERN} || '%';
              {_PAGES.format(table=table)}
            BEGIN
              {_share(table, f"{searched} LIKE pattern")}
            END""",
    )


def make_findable(table: str, index: str, argument: str, matches: str) -> None:
    """As `make_searchable` for an index of another kind; `matches` says in its words, and with the argument, which rows
    are meant."""
    create_owners_function(
        f"found_by_{index}({argument})",
        "RETURNS SETOF uuid STABLE",
        f"""DECLARE tenant uuid := {CURRENT_TENANT};
            BEGIN
              RETURN QUERY SELECT id FROM public.{table} WHERE tenant_id = tenant AND {matches} ORDER BY id;
            END""",  # noqa: S608 - names of ours
        settings="SET plan_cache_mode = force_custom_plan",
    )
    create_owners_function(
        f"share_by_{index}({argument})",
        "RETURNS float8 STABLE",
        f"DECLARE {_PAGES.format(table=table)} BEGIN {_share(table, matches)} END",
    )


_PAGES = """
    pages bigint := greatest(pg_relation_size('public.{table}') / current_setting('block_size')::int, 1);
    lines integer := (SELECT greatest(reltuples / greatest(relpages, 1), 1)::integer
                      FROM pg_class WHERE oid = 'public.{table}'::regclass);
"""


def _share(table: str, matches: str) -> str:
    """Of rows here and there, as many pages apart as there are."""
    return f"""
        RETURN (SELECT coalesce(avg(CASE WHEN {matches} THEN 1 ELSE 0 END), 0)
                FROM public.{table} WHERE ctid = ANY (ARRAY(
                  SELECT format('(%s,%s)', number * pages / {SAMPLED}, 1 + number * 7919 % lines)::tid
                  FROM generate_series(0, {SAMPLED - 1}) AS number)));
    """  # noqa: S608 - names of ours


def drop_owners_functions(*names: str) -> None:
    at_once(*(f"DROP FUNCTION public.{name}" for name in names))


def at_once(*statements: str) -> None:
    """In one round trip: a first start is waited for. As it stands: patterns are full of backslashes and colons."""
    op.get_bind().exec_driver_sql(f"DO $migration$ BEGIN {'; '.join(statements)}; END $migration$")


def _kind(unique: bool, how: str = "") -> str:
    return ("UNIQUE INDEX" if unique else "INDEX") + how


def _create_concurrently(name: str, definition: str, *, unique: bool) -> None:
    if _is_invalid(name):
        _alone(f"DROP INDEX CONCURRENTLY {name}")
    _alone(f"CREATE {_kind(unique, ' CONCURRENTLY')} IF NOT EXISTS {name} ON {definition}")


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
