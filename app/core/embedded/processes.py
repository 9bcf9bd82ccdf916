"""Processes of this machine: which there are, whether one lives, and ending one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

STOP_TIMEOUT_S = 10.0

POLL_S = 0.005
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


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


def stop_process(process: "subprocess.Popen[bytes]", *, at_once: bool = False) -> None:
    """A fast shutdown; an immediate one, which the next start recovers from, if that takes too long or is asked for."""
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)[at_once:]:
        if process.poll() is not None:
            return
        process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)


def all_commands() -> Iterator[tuple[int, list[str]]]:
    if sys.platform == "linux":
        for name in os.listdir("/proc"):
            if name.isdigit():
                yield int(name), command_of(int(name))
        return
    listed = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.split()


def command_of(pid: int) -> list[str]:
    """The words of a process's command line, empty where there is no such process."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).rstrip("\0").split("\0")
        return []
    listed = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.split()
