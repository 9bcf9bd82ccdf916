"""Which database a command works on, and `hub migrate`."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import asyncpg
from msgspec import Struct

from app.core import migrations
from app.core.invocation import HUB
from app.settings import Settings


class CommandFailed(Exception):
    """Ends a command with one sentence that says what to do."""


class Database(Struct, frozen=True):
    app_url: str
    owner_url: str
    server: str
    """For people: what it is and where."""


@contextmanager
def database(settings: Settings, *, exclusive: bool = False) -> Iterator[Database]:
    """The given database, or the embedded one for as long as the block lasts. Raises CommandFailed.

    An embedded one that ends by itself is started again; where that fails for good, the command is interrupted.
    """
    if settings.database_url is not None:
        owner_url = settings.owner_database_url or settings.database_url
        yield Database(settings.database_url, owner_url, _without_password(settings.database_url))
        return
    from app.core import embedded

    losses: list[embedded.EmbeddedError] = []

    def give_up(loss: embedded.EmbeddedError) -> None:
        losses.append(loss)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    try:
        running = embedded.start(settings.data_dir, exclusive=exclusive)
    except embedded.EmbeddedError as error:
        raise CommandFailed(str(error)) from None
    try:
        running.watch(tell=_tell, lost=give_up, restarted=_count_restart)
        where = f"embedded PostgreSQL on {running.host}:{running.port}, data in {settings.data_dir}"
        yield Database(running.app_url, running.owner_url, where)
    finally:
        running.stop()
        if losses:
            raise CommandFailed(str(losses[0])) from None


def _take_down(target: Database, *, is_confirmed: bool) -> None:
    """One revision. Raises CommandFailed where nothing is to be taken down, somebody works on it, or nobody has said
    that what goes may go."""
    with explained(target, given_by="HUB_OWNER_DATABASE_URL"):
        found, connections = asyncio.run(migrations.state_before_down(target.owner_url))
    if found is None:
        raise CommandFailed("The database is empty: there is no revision to go back from.")
    if found > migrations.head():
        raise CommandFailed(
            f"The database is at {found}, which this release does not know: take it down with the release that made it."
        )
    if connections:
        raise CommandFailed(
            f"Hubs or workers hold {connections} connections to {target.server}: stop them first. On an older schema "
            f"they could answer nothing."
        )
    lost = migrations.losses_of(found)
    said = "nothing but indexes and copies is lost" if not lost else f"this goes for good: {'; '.join(lost)}"
    if not is_confirmed:
        raise CommandFailed(f"From {found} one revision down {said}. Say `--yes` to do it.")
    print(f"From {found} one revision down {said}.", file=sys.stderr)
    with explained(target, given_by="HUB_OWNER_DATABASE_URL"):
        asyncio.run(migrations.migrate(target.owner_url, "down"))


def _tell(sentence: str) -> None:
    with suppress(OSError, ValueError):  # whoever read it may be gone, and that is no reason to give up
        print(sentence, file=sys.stderr, flush=True)


def _count_restart() -> None:
    from app.core.metrics import embedded_restarts

    embedded_restarts.inc()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def is_up_to_date(target: Database) -> bool:
    """Raises CommandFailed where the database cannot be asked."""
    with explained(target):
        return asyncio.run(_problem_of(target)) is None


def bring_up_to_date(target: Database) -> bool:
    """Migrate where the database is behind. True where something was done.

    Raises CommandFailed, also where a newer release has declared that this one cannot work with its schema.
    """
    with explained(target):
        problem = asyncio.run(_problem_of(target))
    if problem is None:
        return False
    if problem.code == "schema_too_new":
        raise CommandFailed(problem.sentence)
    with explained(target, given_by="HUB_OWNER_DATABASE_URL"):
        asyncio.run(migrations.migrate(target.owner_url))
    return True


def refuse_mighty_role(settings: Settings, target: Database) -> None:
    """In production a hub works behind row-level security or not at all. Raises CommandFailed."""
    if settings.is_development:
        return
    with explained(target):
        role = asyncio.run(_mighty_role(target))
    if role is not None:
        raise CommandFailed(f"{migrations.MIGHTY.format(role=role)}.")


async def _mighty_role(target: Database) -> str | None:
    connection = await asyncpg.connect(target.app_url, timeout=5)
    try:
        return await migrations.mighty_role(connection)
    finally:
        await connection.close()


async def _problem_of(target: Database) -> migrations.SchemaProblem | None:
    connection = await asyncpg.connect(target.app_url, timeout=5)
    try:
        return await migrations.schema_problem(connection)
    finally:
        await connection.close()


@contextmanager
def explained(target: Database, *, given_by: str = "HUB_DATABASE_URL") -> Iterator[None]:
    """Turns what keeps a command from its database into CommandFailed. `given_by` is where the address comes from."""
    try:
        yield
    except socket.gaierror:
        raise CommandFailed(f"The name of the database's server does not resolve: {target.server}.") from None
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError) as error:
        raise CommandFailed(
            f"The database {target.server} cannot be reached ({type(error).__name__}). Is it running?"
        ) from None
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        raise CommandFailed(f"The database {target.server} refuses the user or password of {given_by}.") from None
    except asyncpg.InvalidCatalogNameError:
        raise CommandFailed(f"The database of {given_by} does not exist on the server: {target.server}.") from None
    except (migrations.ExtensionMissing, migrations.TablesBusy) as error:
        raise CommandFailed(str(error)) from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise CommandFailed(
            f"The database needs a migration that this role may not run ({error}). "
            f"Run `{HUB} migrate` with HUB_OWNER_DATABASE_URL set to a role that may."
        ) from None


def migrate(settings: Settings, direction: Literal["up", "down", "status"], *, is_confirmed: bool = False) -> int:
    try:
        with database(settings) as target:
            if direction == "up":
                bring_up_to_date(target)
            if direction == "down":
                _take_down(target, is_confirmed=is_confirmed)
            with explained(target):
                found, problem = asyncio.run(migrations.current(target.app_url)), asyncio.run(_problem_of(target))
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{found or 'empty'} (this version of the hub wants {migrations.head()})")
    return 0 if direction != "status" or problem is None else 1
