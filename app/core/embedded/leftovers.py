"""What earlier servers left behind."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from app.core.embedded.failures import EmbeddedFailed
from app.core.embedded.lock import read_pid
from app.core.embedded.processes import POLL_S, STOP_TIMEOUT_S, all_commands, command_of, is_alive
from app.core.embedded.site import Site


def end_leftovers(site: Site) -> None:
    """Afterwards nobody runs in the cluster, and its pid file names nobody alive.

    Finds a postmaster whose hub was killed, backends whose postmaster was killed (they hold shared memory, and a busy
    one notices only when its query ends), and a pid file whose number now belongs to another program.
    """
    pid_file = site.cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    for signum, patience_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        found = _server_processes(site.marker)
        # Backends alone take no SIGINT for an end: it cancels their query.
        postmasters = [pid for pid, is_postmaster in found if is_postmaster]
        targets = postmasters if signum == signal.SIGINT else [pid for pid, _ in found]
        _signal_and_wait(targets, signum, patience_s)
    pid = read_pid(pid_file)
    if pid is None or not is_alive(pid):
        return
    if any(site.cluster == Path(word) for word in command_of(pid)):
        raise EmbeddedFailed(
            f"Process {pid} runs on the cluster {site.cluster} and was not started by a hub: stop it first."
        )
    pid_file.unlink()


def _signal_and_wait(pids: list[int], signum: signal.Signals, patience_s: float) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    deadline = time.monotonic() + patience_s
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _server_processes(marker: str) -> list[tuple[int, bool]]:
    """Process ids of a cluster's processes, each with whether it is the postmaster."""
    found = []
    for pid, command in all_commands():
        if command and Path(command[0]).name == "postgres" and f"cluster_name={marker}" in command:
            found.append((pid, True))
        elif command and " ".join(command).startswith(f"postgres: {marker}: "):
            found.append((pid, False))
    return found
