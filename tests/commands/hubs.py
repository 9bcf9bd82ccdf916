"""The `hub` command as a person runs it: real processes on data folders of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.ports import free_port
from tests.postgres import discard, reachable_folder
from tests.serving import NO_LIMIT

READY_TIMEOUT_S = 60
ENDED_TIMEOUT_S = 60
ADMIN = re.compile(r"email +(\S+)\n +password +(\S+)")


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    return {**inherited, "HUB_DATA_DIR": str(data_dir), "HUB_LOG_LEVEL": "error", **variables}


def run(data_dir: Path, *arguments: str, text: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """One command until it ends."""
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(data_dir, **variables),
        check=False,
    )


def longer_now() -> float:
    """How many times as long anything may take just now, because others have work for the same processors."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


HUB = "import sys; sys.argv[0] = 'hub'; from app.core import stopping; stopping.KILLED_AFTER_S = {}; from app.cli import main; main()"
"""The hub as it is, but for how long it is given to end."""


class Served:
    """A `hub serve` that is ready. `killed_after_s` is for tests of how it ends: on a busy machine, what it sends at the
    end of its time takes longer than the little that is left of it."""

    def __init__(self, data_dir: Path, killed_after_s: float | None = None, /, **variables: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = data_dir.parent / f"serve-{self.port}.log"
        how = ["-m", "app"] if killed_after_s is None else ["-c", HUB.format(round(killed_after_s))]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *how, "serve", "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(data_dir, **(NO_LIMIT | variables)),
                start_new_session=True,
            )
        self._wait_until_announced()

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def admin(self) -> tuple[str, str] | None:
        """Email and password, where they were shown."""
        found = ADMIN.search(self.said)
        return (found[1], found[2]) if found else None

    def client(self) -> httpx.Client:
        """Signed in as the admin that was shown."""
        assert self.admin, self.said
        email, password = self.admin
        login = httpx.post(f"{self.url}/api/v1/auth/login", json={"email": email, "password": password})
        assert login.status_code == 200, login.text
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30)

    def wait_for(self, name: str) -> int:
        """The process id of the descendant whose command line has `name`, once there is one."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            for pid, command in family(self.process.pid).items():
                if name in command:
                    return pid
            time.sleep(0.05)
        raise AssertionError(f"no {name} among {family(self.process.pid)}")

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(ENDED_TIMEOUT_S)

    def _wait_until_announced(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while "Stop with Ctrl-C" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)


def family(pid: int) -> dict[int, str]:
    """Every living descendant with its command line, whatever session it is in."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents[int(folder.name)], commands[int(folder.name)] = int(parent), command
    found: dict[int, str] = {}
    wanted = {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        found |= {child: commands[child] for child in wanted}
    return found


def alive(processes: dict[int, str]) -> dict[int, str]:
    """Those of them that still run: a number that went to another program since does not count."""
    left = {}
    for pid, command in processes.items():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            now = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and now.split(" ")[0] == command.split(" ")[0]:
            left[pid] = now
    return left


def survivors(processes: dict[int, str]) -> dict[int, str]:
    """What a kill leaves to the kernel may take a moment."""
    deadline = time.monotonic() + 10
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive(processes)


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A data folder that does not exist yet."""
    parent = reachable_folder()
    try:
        yield parent / "data"
    finally:
        discard(parent / "data")
        discard(parent)


Serve = Callable[..., Served]
