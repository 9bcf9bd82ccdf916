"""`python -m bench`: the hub against its floor, its ceiling and what one would build instead. See bench/README.md."""

import argparse
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.core import embedded
from bench import (
    before_after,
    bodies,
    bulk,
    contestants,
    discovery,
    footprint,
    growth,
    limits,
    load,
    page,
    record,
    rights,
    scheduler,
    seeding,
    works,
)
from bench import sessions as session_crowds
from bench.contestants import Server
from bench.page import Findings
from bench.report import Work
from bench.rounds import Bench, Pace
from bench.works import Field

_RESULTS = Path(__file__).with_name("RESULTS.md")
_POOL_SIZE = 10
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
Part = Callable[[Bench, argparse.Namespace], Findings]


def _beside_others(measure: Callable[[Bench, Field], Iterator[Work]]) -> Part:
    """A part in which all contestants are up at once: its own ones, so that none is broken by another part."""

    def part(bench: Bench, _: argparse.Namespace) -> Findings:
        with _field() as (field, postgres_pid):
            compared = Bench(bench.pace, postgres_pid, bench.tell)
            measured = list(measure(compared, field))
            bench.problems += compared.problems
            return Findings(measured)

    return part


PARTS: Mapping[str, Part] = {
    "read": _beside_others(works.reads),
    "identity": _beside_others(works.identity),
    "write": _beside_others(works.writes),
    "bulk": lambda bench, _: Findings(bulk.measure(bench)),
    "login": _beside_others(works.logins),
    "mixed": _beside_others(works.reads_beside_logins),
    "sessions": lambda bench, given: Findings(session_crowds.sessions(bench, given.sessions)),
    "start": lambda _, __: Findings(bounds=footprint.starts()),
    "memory": lambda bench, given: Findings(bounds=footprint.memory(bench, given.memory_requests)),
    "discover": lambda bench, given: Findings(bounds=discovery.discover(bench, given.tables)),
    "scheduler": lambda bench, given: scheduler.measure(bench, given.tests),
    "bodies": lambda bench, _: Findings(bounds=list(bodies.cost(bench.pace.rounds))),
    "rights": lambda bench, given: rights.measure(bench, rights.Crowd(*given.crowd)),
    "limits": lambda bench, _: limits.measure(bench),
    "record": lambda bench, given: record.measure(bench, given.records),
    "growth": lambda bench, given: growth.measure(bench, given.rows),
}
"""By the names of `page.TITLES`."""


def main() -> int:
    given = _arguments()
    target = None if given.quick and not given.out else Path(given.out or _RESULTS)
    is_broken = False
    for title, part in _chosen(given).items():
        text, files, problems = _measured(title, part, given)
        print(f"## {title}\n\n{text}\n", flush=True)
        is_broken |= bool(problems)
        if target is not None:
            _write(target, title, text, files)
    return 1 if is_broken else 0


def _chosen(given: argparse.Namespace) -> dict[str, Part]:
    """By title."""
    if given.against is None:
        return {page.TITLES[name]: part for name, part in PARTS.items() if name in (given.only or PARTS)}
    parts = given.only or list(before_after.ASKED)
    return {page.AGAINST: lambda bench, given: before_after.compare(bench, given.against, parts)}


def _measured(title: str, part: Part, given: argparse.Namespace) -> tuple[str, Mapping[str, str], Sequence[str]]:
    """The section of the page, files beside it, and what broke. One broken part must not cost those of the others."""
    pace = Pace(given.rounds, given.seconds, given.connections)
    bench, findings = Bench(pace, None, _progress), Findings()
    began, load_before = time.monotonic(), os.getloadavg()[0]
    bench.tell(f"--- {title}")
    try:
        findings = part(bench, given)
    except Exception as error:  # whatever it is, the page tells it, and the other parts go on
        bench.problem(f"{type(error).__name__}: {error} ({_place_of(error)})")
    circumstances = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_machine()}, load average before: {load_before:.1f}. "
        f"{pace.rounds} rounds of {pace.seconds:g} s, {pace.connections} connections, load from {load.generator()}. "
        f"Took {time.monotonic() - began:.0f} s."
    )
    return page.section(circumstances, findings, bench.problems), findings.files, bench.problems


def _place_of(error: Exception) -> str:
    """The line of the bench at which it came up."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _write(target: Path, title: str, text: str, files: Mapping[str, str]) -> None:
    """Part by part: what is measured is kept, whatever comes after it."""
    before = target.read_text(encoding="utf-8") if target.exists() else ""
    head = f"How to read it: README.md. Python {platform.python_version()}, {_versions()}."
    target.write_text(page.with_results(before, head, {title: text}), encoding="utf-8")
    for name, content in files.items():
        target.with_name(name).write_text(content, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*PARTS], help="may be given several times")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="of another version of the hub, by CPU")
    parser.add_argument("--rounds", type=int, help=f"3, or {before_after.ROUNDS} with --against")
    parser.add_argument("--seconds", type=float, help="of load per contestant and round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--memory-requests", type=int, default=1_000_000)
    parser.add_argument("--tables", type=int, default=10_000, help="of the database that is discovered")
    parser.add_argument(
        "--sessions", type=int, nargs="+", default=session_crowds.COUNTS, help="how many are signed in, few to many"
    )
    parser.add_argument("--tests", type=int, default=scheduler.TESTS, help="that are due at once on the schedule")
    parser.add_argument("--rows", type=int, nargs="+", default=growth.SIZES, help="of each list, from few to many")
    parser.add_argument(
        "--crowd", type=int, nargs=3, default=rights.CROWD, help="roles, data sources and holders of one role"
    )
    parser.add_argument("--records", type=int, default=record.ROWS, help="of the audit log, and events")
    parser.add_argument("--quick", action="store_true", help="one short round: does it run, not how fast")
    parser.add_argument("--out", help="the page to write instead of bench/RESULTS.md")
    given = parser.parse_args()
    if given.against is not None and (others := set(given.only or ()) - before_after.ASKED.keys()):
        parser.error(f"--against compares {', '.join(before_after.ASKED)}, not {', '.join(sorted(others))}")
    usual = (before_after.ROUNDS, before_after.SECONDS) if given.against else (3, 4.0)
    given.rounds, given.seconds = given.rounds or usual[0], given.seconds or usual[1]
    if given.quick:
        given.rounds, given.seconds, given.memory_requests, given.tables, given.tests = 1, 1.0, 5_000, 500, 100
        given.crowd, given.records = (100, 2_000, 500), 2_000
        given.sessions, given.rows = (100, 1_000), (1_000, 3_000)
    return given


@contextmanager
def _field() -> Iterator[tuple[Field, int]]:
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
        yield field, database.pid


def _machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return f"{os.cpu_count()} cores, {memory_gb:.0f} GB memory, {platform.machine()}"


def _versions() -> str:
    return ", ".join(filter(None, map(_version, _PACKAGES)))


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # the contestants that need it do not run then, and their parts say so
        return None


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
