"""PostgreSQL's programs: started as whom, with which environment, never longer than their hub; and ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.embedded.failures import EmbeddedFailed, failure_of
from app.core.embedded.lock import read_pid
from app.core.embedded.site import ENVIRONMENT, Account, Site

STOP_TIMEOUT_S = 10.0
POLL_S = 0.005


def run(site: Site, program: str, *arguments: str | Path, script: str = "") -> str:
    """What the program said on stderr; raises EmbeddedFailed when it does not succeed."""
    ended = subprocess.run(
        [site.binaries / program, *arguments],
        input=script.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        check=False, **child_options(site.account, signal.SIGTERM),
    )  # fmt: skip
    said: str = ended.stderr.decode(errors="replace")
    if ended.returncode != 0:
        raise failure_of(said.splitlines(), site.cluster, site.log)
    return said


def child_options(account: Account | None, on_parent_death: signal.Signals) -> dict[str, Any]:
    """A session of its own keeps the terminal's Ctrl-C from the child; nothing of our environment reaches it."""
    options: dict[str, Any] = {
        "env": ENVIRONMENT,
        "cwd": "/",
        "start_new_session": True,
        "umask": 0o077,
        "preexec_fn": _die_with_parent(on_parent_death),
    }
    if account:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def _die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """Runs in the child after it changed its user, because that would clear the request again (prctl(2))."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()
    pr_set_pdeathsig = 1

    def ask() -> None:
        prctl(pr_set_pdeathsig, int(signum), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def stop_process(process: "subprocess.Popen[bytes]", *, at_once: bool = False) -> None:
    """A fast shutdown; an immediate one, which the next start recovers from, if that takes too long or is asked for."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)[at_once:]:
        if process.poll() is not None:
            return
        process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)


def end_leftovers(site: Site) -> None:
    """Afterwards nobody runs in the cluster, and its pid file names nobody alive.

    Finds a postmaster whose hub was killed, backends whose postmaster was killed (they hold shared memory, and a busy
    one notices only when its query ends), and a pid file whose number now belongs to another program.
    """
    pid_file = site.cluster / "postmaster.pid"
    if not pid_file.exists():
        return
    named = read_pid(pid_file)
    for signum, patience_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        found = [pid for pid, command in commands().items() if _is_of(site, command)]
        # SIGINT ends a postmaster, and everything with it; for others it means other things.
        _signal_and_wait([pid for pid in found if pid == named or signum != signal.SIGINT], signum, patience_s)
    if named is None or not is_alive(named):
        return
    if any(site.cluster == Path(word) for word in commands().get(named, ())):
        raise EmbeddedFailed(
            f"Process {named} runs on the cluster {site.cluster} and was not started by a hub: stop it first."
        )
    pid_file.unlink()


def _is_of(site: Site, command: list[str]) -> bool:
    return f"cluster_name={site.marker}" in command or " ".join(command).startswith(f"postgres: {site.marker}: ")


def _signal_and_wait(pids: list[int], signum: signal.Signals, patience_s: float) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    deadline = time.monotonic() + patience_s
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """A zombie is not: it holds nothing any more, but answers signals until its parent looks."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if sys.platform == "linux":
        with suppress(OSError, IndexError):
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return True


def commands() -> dict[int, list[str]]:
    """The words of the command line of each process of this machine."""
    found = {}
    if sys.platform == "linux":
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes()
                found[int(name)] = os.fsdecode(line).rstrip("\0").split("\0")
        return found
    listed = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        pid, *words = line.split()
        found[int(pid)] = words
    return found
