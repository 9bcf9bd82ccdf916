"""`hub demo`: from somebody else's database to real flights on the screen, as a newcomer would do it."""

import asyncio
import sys
import time
from pathlib import Path

import asyncpg
import httpx

from app.commands.database import CommandFailed
from app.commands.demo import flights, hub, tour
from app.commands.demo.telling import DemoFailed, Teller
from app.core import embedded
from app.core.errors import HubError
from app.core.invocation import HUB
from app.settings import Settings

EMBEDDED_ONLY = (
    "The demo plays somebody else's database on the embedded PostgreSQL: "
    "run it without HUB_DATABASE_URL (and with HUB_DATA_DIR set to a new folder, to keep it apart)."
)


def demo(settings: Settings) -> int:
    """0 only where everything was as expected."""
    tell = Teller()
    started = time.monotonic()
    try:
        if not settings.is_embedded or not settings.is_development:
            raise DemoFailed(EMBEDDED_ONLY)
        _play(settings, tell, flights.data_folder(), started)
    except (DemoFailed, CommandFailed, embedded.EmbeddedError) as error:
        print(error, file=sys.stderr)
        return 1
    except (httpx.HTTPError, asyncpg.PostgresError, HubError, OSError) as error:
        print(f"The demo was cut off: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _play(settings: Settings, tell: Teller, folder: Path, started: float) -> None:
    kept = hub.kept(settings)
    tell.heading("A hub, and somebody else's database")
    with hub.running_hub(settings, kept) as running:
        tell.timings.append(("hub ready", time.monotonic() - started))
        hub.keep(settings, kept)
        tell.done(f"the hub {'runs' if running.was_running else 'is started'} at {running.url}")
        server = embedded.start(settings.data_dir)
        kept = _tour(settings, tell, folder, running, server, kept)
    _summary(tell, settings, running, kept, time.monotonic() - started)


def _tour(
    settings: Settings,
    tell: Teller,
    folder: Path,
    running: hub.RunningHub,
    server: embedded.EmbeddedPostgres,
    kept: hub.Kept,
) -> hub.Kept:
    with tell.timed("flights loaded"):
        url = _flights(tell, folder, server, kept.database_password)
    connection = tour.connection_to(url)
    admin, user = tour.Caller(running.url, "the admin"), tour.Caller(running.url, "the user")
    guest = tour.Caller(running.url, "the guest")
    with tell.timed("tour through the API"):
        kept = _sign_in(settings, admin, server, kept)
        _, source = tour.set_up(admin, tell, connection, kept.user_password)
        tour.test(admin, tell, source)
        tour.discover(admin, tell, source, {f"public.{table.name}" for table in flights.TABLES})
        tell.heading("Real flights")
        tour.preview(admin, tell, source, 10)
        if not user.sign_in(tour.USER, kept.user_password):
            raise DemoFailed(f"{tour.USER} cannot sign in with the password that was just set.")
        tour.show_limits(user, tell, source, connection)
        tour.show_one_source(admin, guest, tell, source, kept.user_password)
        tour.show_wrong_password(admin, tell, connection)
    admin.close()
    user.close()
    guest.close()
    return kept


def _flights(tell: Teller, folder: Path, server: embedded.EmbeddedPostgres, password: str) -> str:
    """The URL of the flights' database, as its owner knows it."""
    asyncio.run(flights.ensure_database(server.superuser_url, password))
    url = f"postgresql://{flights.ROLE}:{password}@{server.host}:{server.port}/{flights.DATABASE}"
    if not asyncio.run(flights.load(url, folder, tell)):
        tell.done(f"database `{flights.DATABASE}` is loaded already")
    return url


def _sign_in(settings: Settings, admin: tour.Caller, server: embedded.EmbeddedPostgres, kept: hub.Kept) -> hub.Kept:
    if admin.sign_in(kept.admin_email, kept.admin_password):
        return kept
    kept = hub.make_admin(settings, server.app_url, kept)
    hub.keep(settings, kept)
    if not admin.sign_in(kept.admin_email, kept.admin_password):
        raise DemoFailed(f"The hub at {admin.url} works on another data folder than {settings.data_dir}.")
    return kept


def _summary(tell: Teller, settings: Settings, running: hub.RunningHub, kept: hub.Kept, seconds: float) -> None:
    tell.heading("All of it was as expected")
    for what, took in [*tell.timings, ("in all", seconds)]:
        tell.line(f"{what:24} {took:5.1f} s")
    tell.line()
    if not running.was_running:
        tell.line(f"The hub of the demo is stopped. Start it again:  HUB_DATA_DIR={settings.data_dir} {HUB} serve")
    tell.line(f"Docs      {running.public_url}/docs")
    tell.line(f"Admin     {kept.admin_email}  {kept.admin_password}")
    tell.line(f"User      {tour.USER}  {kept.user_password}")
    tell.line(f"Source    `{tour.SOURCE}` in GET {running.public_url}/api/v1/data-sources")
