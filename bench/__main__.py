"""`python -m bench`: the hub against its floor, its ceiling and what one would build instead. See bench/README.md."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

from app.core import embedded
from bench import bodies, contestants, discovery, footprint, growth, load, report, scheduler, seeding, works
from bench import sessions as session_crowds
from bench.contestants import Server, StartFailed
from bench.load import LoadFailed
from bench.probe import WrongAnswer
from bench.report import Bound, Work
from bench.rounds import Bench, Pace
from bench.works import Field

_RESULTS = Path(__file__).with_name("RESULTS.md")
_POOL_SIZE = 10
_PARTS: dict[str, Callable[[Bench, Field], Iterator[Work]]] = {
    "read": works.reads,
    "identity": works.identity,
    "write": works.writes,
    "login": works.logins,
    "mixed": works.reads_beside_logins,
}
_FOOTPRINT = ("start", "memory", "discover", "bodies")
_SESSIONS = "sessions"
_SECTIONS = ("scheduler", "growth")
"""Parts with a section of their own on the page; run alone, they replace that section and nothing else."""
_PACKAGES = (
    "litestar",
    "granian",
    "msgspec",
    "asyncpg",
    "sqlalchemy",
    "advanced-alchemy",
    "fastapi",
    "sqlmodel",
    "uvicorn",
)


def main() -> int:
    chosen = _arguments()
    pace = Pace(chosen.rounds, chosen.seconds, chosen.connections)
    parts = chosen.only or [*_PARTS, _SESSIONS, *_FOOTPRINT, *_SECTIONS]
    load_before = os.getloadavg()[0]
    measured: list[Work] = []
    bounds: list[Bound] = []
    problems: list[str] = []
    if any(part in _PARTS for part in parts):
        measured, problems = _compare(pace, [part for part in _PARTS if part in parts])
    if _SESSIONS in parts:
        bench = Bench(pace, None, _progress)
        with _reported(bench, _SESSIONS):
            measured += session_crowds.sessions(bench, chosen.sessions or session_crowds.COUNTS)
        problems = [*problems, *bench.problems]
    if any(part in _FOOTPRINT for part in parts):
        found, broken = _footprint(pace, parts, chosen.memory_requests, chosen.tables)
        bounds, problems = found, [*problems, *broken]
    sections, broken = _own_sections(pace, parts, chosen.tests, chosen.rows)
    problems += broken
    if set(parts) <= set(_SECTIONS):
        return _replace_sections(sections, problems, None if chosen.quick else Path(chosen.out or _RESULTS))
    page = _page(pace, load_before, measured, bounds, sections, problems)
    print(page)
    if chosen.out or not (chosen.only or chosen.quick):
        Path(chosen.out or _RESULTS).write_text(page, encoding="utf-8")
    return 1 if problems else 0


def _own_sections(
    pace: Pace, parts: Sequence[str], tests: int, rows: Sequence[int]
) -> tuple[dict[str, str], list[str]]:
    bench = Bench(pace, None, _progress)
    sections: dict[str, str] = {}
    if "scheduler" in parts:
        load_before = os.getloadavg()[0]
        with _reported(bench, "scheduler"):
            measured = scheduler.measure(bench, tests)
            sections[scheduler.TITLE] = f"{_circumstances(load_before)}\n\n{measured}\n"
    if "growth" in parts:
        load_before = os.getloadavg()[0]
        with _reported(bench, "growth"):
            measured = growth.measure(bench, rows)
            sections[growth.TITLE] = f"{_circumstances(load_before)}\n\n{measured}\n"
    return sections, bench.problems


def _circumstances(load_before: float) -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_machine()}. Load average before: {load_before:.1f}."


def _replace_sections(sections: Mapping[str, str], problems: Sequence[str], page: Path | None) -> int:
    for title, section in sections.items():
        print(f"## {title}\n\n{section}")
        if page is not None and not problems:
            before = page.read_text(encoding="utf-8") if page.exists() else "# Results\n"
            page.write_text(report.with_section(before, title, section), encoding="utf-8")
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=[*_PARTS, _SESSIONS, *_FOOTPRINT, *_SECTIONS],
        help="may be given several times",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load per contestant and round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--memory-requests", type=int, default=100_000)
    parser.add_argument("--tables", type=int, default=10_000, help="of the database that is discovered")
    parser.add_argument("--sessions", type=int, nargs="+", help="how many people are signed in, from few to many")
    parser.add_argument("--tests", type=int, default=scheduler.TESTS, help="that are due at once on the schedule")
    parser.add_argument("--rows", type=int, nargs="+", default=growth.SIZES, help="of each list, from few to many")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run, not how fast")
    parser.add_argument("--out", help="where to write the table; a whole run writes bench/RESULTS.md by itself")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds, chosen.memory_requests, chosen.tables, chosen.tests = 1, 1.0, 5_000, 500, 100
        chosen.sessions, chosen.rows = [100, 1_000], (1_000, 3_000)
    return chosen


def _compare(pace: Pace, parts: Sequence[str]) -> tuple[list[Work], list[str]]:
    with ExitStack() as stack:
        data_dir = stack.enter_context(footprint.data_folder())
        logs = data_dir.parent
        hub = stack.enter_context(
            Server(contestants.hub(data_dir, {"HUB_POOL_SIZE": str(_POOL_SIZE)}), logs / "hub.log")
        )
        rows = seeding.fill(seeding.sign_in(hub.url))
        database = stack.enter_context(embedded.running(data_dir))
        environment = {
            "BENCH_DATABASE_URL": database.superuser_url,
            "BENCH_POOL_SIZE": str(_POOL_SIZE),
            "BENCH_TENANT_ID": rows.tenant_id,
            "BENCH_ACTOR_ID": rows.user_id,
            "BENCH_JWT_SECRET": works.JWT_SECRET,
        }
        field = Field(
            hub=hub,
            f0=stack.enter_context(Server(contestants.f0(), logs / "f0.log")),
            f1=stack.enter_context(Server(contestants.f1(environment), logs / "f1.log")),
            p1=stack.enter_context(Server(contestants.p1(environment), logs / "p1.log")),
            rows=rows,
        )
        bench = Bench(pace, database.pid, _progress)
        measured: list[Work] = []
        for part in parts:
            with _reported(bench, part):
                measured.extend(_PARTS[part](bench, field))
        return measured, bench.problems


@contextmanager
def _reported(bench: Bench, part: str) -> Iterator[None]:
    """One broken part must not cost the table of the others."""
    try:
        yield
    except (WrongAnswer, LoadFailed, StartFailed, OSError, HTTPException, LookupError, ValueError) as error:
        bench.problem(f"{part}: {type(error).__name__}: {error}")


def _footprint(pace: Pace, parts: Sequence[str], memory_requests: int, tables: int) -> tuple[list[Bound], list[str]]:
    bench = Bench(pace, None, _progress)
    bounds: list[Bound] = []
    if "start" in parts:
        with _reported(bench, "start"):
            bounds += footprint.starts()
    if "memory" in parts:
        with _reported(bench, "memory"):
            bounds += footprint.memory(bench, memory_requests)
    if "discover" in parts:
        with _reported(bench, "discover"):
            bounds += discovery.discover(bench, tables)
    if "bodies" in parts:
        with _reported(bench, "bodies"):
            bounds += bodies.cost(pace.rounds)
    return bounds, bench.problems


def _page(
    pace: Pace,
    load_before: float,
    measured: Sequence[Work],
    bounds: Sequence[Bound],
    own: Mapping[str, str],
    problems: Sequence[str],
) -> str:
    sections = [
        "# Results\n",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_machine()}, Python {platform.python_version()}, {_versions()}.\n",
        f"{pace.rounds} rounds of {pace.seconds:g} s, {pace.connections} connections, load from {load.generator()}. "
        f"Load average of the machine before the bench: {load_before:.1f}. How to read it: README.md.\n",
        "## Goals\n",
        report.goals(measured, bounds) + "\n",
        "## Measurements (medians)\n",
        report.measurements(measured) + "\n",
    ]
    sections += [f"## {title}\n\n{section}" for title, section in own.items()]
    if problems:
        sections += ["## Broken\n", "\n".join(f"- {problem}" for problem in problems) + "\n"]
    return "\n".join(sections)


def _machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return f"{os.cpu_count()} cores, {memory_gb:.0f} GB memory, {platform.machine()}"


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in _PACKAGES)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
