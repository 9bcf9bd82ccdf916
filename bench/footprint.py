"""What a hub costs by being there: time to ready, and memory of its worker before and after many requests."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench import contestants, load, processes
from bench.contestants import Server
from bench.report import Bound
from bench.rounds import Bench
from bench.seeding import new_role, sign_in

_STARTS = 3
_CONNECTIONS = 16
_STEP_S = 5.0


@contextmanager
def data_folder() -> Iterator[Path]:
    """An empty folder that PostgreSQL's user can reach where the bench runs as root; the cluster goes with it."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


def starts() -> list[Bound]:
    first, second = [], []
    for _ in range(_STARTS):
        with data_folder() as data_dir:
            first.append(_ready_s(data_dir))
            second.append(_ready_s(data_dir))
    note = f"median of {_STARTS}, highest "
    return [
        Bound("hub serve, empty folder, to ready", median(first), 2.0, "s", f"{note}{max(first):.2f}"),
        Bound("hub serve, second start, to ready", median(second), 1.0, "s", f"{note}{max(second):.2f}"),
    ]


def memory(bench: Bench, requests: int) -> list[Bound]:
    """Of the worker, told from its helpers by the CPU that it gains under load."""
    with data_folder() as data_dir, _hub(data_dir) as hub:
        idle = {pid: processes.memory_of(pid) for pid in processes.cpu_by_process(hub.pid)}
        before = processes.cpu_by_process(hub.pid)
        role = sign_in(hub.url).create("/roles", new_role("readers"))
        done = 0
        while done < requests:
            request = sign_in(hub.url).request("GET", f"/roles/{role['id']}")
            outcome = load.run(request, _CONNECTIONS, _STEP_S)
            done += outcome.requests
            bench.tell(f"memory: {done:,} of {requests:,} requests")
            if outcome.bad_statuses or not outcome.requests:
                bench.problem(f"memory: {outcome.bad_statuses} errors in {outcome.requests} requests")
                return []
        worker = processes.busiest(hub.pid, before)
        start, after = idle[worker], processes.memory_of(worker)
    return [
        Bound("idle worker, resident", start.rss_mb, 120, "MB", f"{start.private_mb:.0f} MB of it its own"),
        Bound(f"worker after {done:,} requests", after.rss_mb, start.rss_mb * 1.1, "MB", "bound: 1.1 x idle"),
    ]


def _ready_s(data_dir: Path) -> float:
    with _hub(data_dir) as hub:
        return hub.ready_s


def _hub(data_dir: Path) -> Server:
    return Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log")
