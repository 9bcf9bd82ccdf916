"""What a process tree costs, read from /proc: CPU seconds and resident memory."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Process:
    pid: int
    parent_pid: int
    command: str
    cpu_s: float
    """User and system time, with that of children already waited for, so that a tree's sum never falls."""


@dataclass(frozen=True)
class Memory:
    command: str
    rss_mb: float
    private_mb: float
    """Without the pages shared with other processes, such as those of a forking parent."""


def cpu_seconds(root_pid: int) -> tuple[float, float]:
    """CPU of the tree under `root_pid`: (the server's own, PostgreSQL's)."""
    tree = list(_tree(root_pid))
    postgres = sum(process.cpu_s for process in tree if process.command == "postgres")
    return sum(process.cpu_s for process in tree) - postgres, postgres


def busiest(root_pid: int, before: dict[int, float]) -> int:
    """The pid that gained most CPU since `before`: under load, the worker that answers."""
    gains = {p.pid: p.cpu_s - before.get(p.pid, 0.0) for p in _tree(root_pid) if p.command != "postgres"}
    return max(gains, key=lambda pid: gains[pid])


def cpu_by_process(root_pid: int) -> dict[int, float]:
    return {process.pid: process.cpu_s for process in _tree(root_pid)}


def memory_of(pid: int) -> Memory:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name.rstrip(":")] = int(value) * 1024 / _MEGABYTE
    return Memory(_read(pid).command, fields["Rss"], fields["Private_Clean"] + fields["Private_Dirty"])


def _tree(root_pid: int) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in _all_processes():
        children.setdefault(process.parent_pid, []).append(process)
    found, waiting = [_read(root_pid)], [root_pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child.pid)
    return found


def _all_processes() -> list[Process]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            found.append(_read(int(entry)))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the read
    return found


def _read(pid: int) -> Process:
    stat = Path(f"/proc/{pid}/stat").read_text()
    # The command stands in parentheses and may hold spaces and parentheses of its own.
    command = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])
    return Process(pid, int(fields[1]), command, ticks / _TICKS_PER_SECOND)
