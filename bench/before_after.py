"""Two checkouts of the hub, by the CPU that they take for the same requests, in rounds in turn.

Requests per second spread by a fifth from round to round on a machine that others use; CPU per request does so by a few
per cent, and the median of ten ratios of neighbours in time by one or two.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import contestants, seeding
from bench.contestants import Server, StartFailed
from bench.footprint import data_folder
from bench.load import Request
from bench.page import Findings
from bench.probe import expect
from bench.report import Goal, Work
from bench.rounds import Bench, Entry
from bench.seeding import HubClient, Rows, sign_in
from bench.works import introspection

ROUNDS, SECONDS = 10, 2.0
LEAST = 0.95
"""Of what the earlier one had, in requests per CPU second."""
_HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Side:
    """A running hub of one of the checkouts, with rows of its own."""

    server: Server
    rows: Rows


Asked = Callable[[HubClient, Rows], tuple[Request, int]]
"""The request, and the status of its answer."""


def _get(path: str) -> Asked:
    return lambda client, rows: (client.request("GET", path.format(role=rows.role_id, source=rows.source_id)), 200)


def _unchanged(path: str) -> Asked:
    def asked(client: HubClient, rows: Rows) -> tuple[Request, int]:
        plain, _ = _get(path)(client, rows)
        tag = {name.lower(): value for name, value in expect(plain, 200).headers.items()}["etag"]
        return replace(plain, headers=plain.headers | {"If-None-Match": tag}), 304

    return asked


ASKED: Mapping[str, Mapping[str, Asked]] = {
    "read": {
        "GET /roles/{id}": _get("/roles/{role}"),
        "GET /data-sources/{id}": _get("/data-sources/{source}"),
        "GET /roles?limit=20": _get("/roles?limit=20"),
        "GET /data-sources?limit=20": _get("/data-sources?limit=20"),
        "GET /roles/{id}, If-None-Match": _unchanged("/roles/{role}"),
        "GET /data-sources/{id}, If-None-Match": _unchanged("/data-sources/{source}"),
    },
    "identity": {
        "GET /auth/me": _get("/auth/me"),
        "POST /auth/introspect": lambda client, _: (introspection(client), 200),
    },
    "write": {
        "POST /roles": lambda client, _: (client.request("POST", "/roles", seeding.new_role("bench {n}")), 201),
    },
}
"""By part of the bench."""


def compare(bench: Bench, checkout: Path, parts: Sequence[str]) -> Findings:
    program = checkout / ".venv" / "bin" / "hub"
    if not program.exists():
        raise StartFailed(f"{program} is missing: run `uv sync` in the checkout")
    with ExitStack() as stack:
        before, now = started(stack, program=program), started(stack)
        works = list(_works(bench, {"before": before, "now": now}, parts))
    return Findings(works, text=f"before: {_described(checkout)}; now: {_described(_HERE)}.")


def started(stack: ExitStack, settings: Mapping[str, str] | None = None, **given: Path) -> Side:
    """`given`: as `contestants.hub` takes it."""
    data_dir = stack.enter_context(data_folder())
    command = contestants.hub(data_dir, {"HUB_POOL_SIZE": "10", **(settings or {})}, **given)
    server = stack.enter_context(Server(command, data_dir.parent / "hub.log"))
    server.postgres_pid = _postgres_of(data_dir)
    return Side(server, seeding.fill(sign_in(server.url)))


def _postgres_of(data_dir: Path) -> int | None:
    """Whatever way a version keeps its database below the folder."""
    for found in data_dir.rglob("postmaster.pid"):
        return int(found.read_text().split()[0])
    return None


def _works(bench: Bench, sides: Mapping[str, Side], parts: Sequence[str]) -> Iterator[Work]:
    for part in parts:
        for name, asked in ASKED[part].items():
            work = Work(name, [Goal("now", "before", LEAST, "cpu")])
            entries = {}
            for who, side in sides.items():
                request, status = asked(sign_in(side.server.url), side.rows)
                entries[who] = Entry(side.server, request, status)
            bench.run(work, entries)
            yield work


def _described(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs, %s"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "no commit"
