"""Starts and ends the servers that are compared, one process each, on loopback and on free ports."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import processes

_BIN = Path(sys.executable).parent
_REPOSITORY = Path(__file__).resolve().parent.parent
_READY_WITHIN_S = 120
_STOPPED_WITHIN_S = 15
_POLL_S = 0.005

ADMIN_EMAIL = "bench@example.com"
ADMIN_PASSWORD = "a long sentence for the bench alone"
_NO_LIMIT = "999999999/second"


class StartFailed(Exception):
    """A contestant ended or kept silent instead of answering; carries the end of its log."""


@dataclass(frozen=True)
class Command:
    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    ready_path: str
    folder: Path
    """Working directory. The hub runs elsewhere than the others, so that a developer's own `.env` stays out of it."""


class Server:
    """A running contestant; a context manager that leaves no process behind."""

    def __init__(self, command: Command, log: Path) -> None:
        self.name, self.command, self._log = command.name, command, log
        self.port = _free_port()
        arguments = [each.replace("{port}", str(self.port)) for each in command.arguments]
        # Not in a session of its own: Linux shares the processor out by session where autogroups are on.
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments, env=command.environment, cwd=command.folder, stdout=output, stderr=output
            )
        self.pid = self._process.pid
        self.postgres_pid: int | None = None
        """Of a database that is this server's alone, where somebody has looked."""
        self.ready_s = self._wait_until_ready()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server; one that does not end in time is killed with all that it started."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            for pid in processes.cpu_by_process(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def _wait_until_ready(self) -> float:
        """Seconds from the start of the process to the first 2xx."""
        began = time.perf_counter()
        while (passed := time.perf_counter() - began) < _READY_WITHIN_S:
            if self._process.poll() is not None:
                raise StartFailed(f"{self.name} ended with {self._process.returncode}:\n{self._end_of_log()}")
            if _answers(self.port, self.command.ready_path):
                return passed
            time.sleep(_POLL_S)
        self.stop()
        raise StartFailed(f"{self.name} did not answer within {_READY_WITHIN_S} s:\n{self._end_of_log()}")

    def _end_of_log(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


def hub(data_dir: Path, settings: Mapping[str, str], *options: str, program: Path = _BIN / "hub") -> Command:
    """The product as shipped: rate limits count, but do not refuse. `options` are further ones of `hub serve`."""
    environment = {name: value for name, value in _as_installed().items() if not name.startswith("HUB_")}
    environment |= {
        "HUB_DATA_DIR": str(data_dir),
        "HUB_ADMIN_EMAIL": ADMIN_EMAIL,
        "HUB_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "HUB_RATE_LIMIT": _NO_LIMIT,
        "HUB_LOGIN_RATE_LIMIT": _NO_LIMIT,
        **settings,
    }
    arguments = [str(program), "serve", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1", *options]
    return Command("hub", arguments, environment, "/health/ready", data_dir.parent)


def f0() -> Command:
    return Command("F0", _granian("bench.f0:app"), _as_installed(), "/constant", _REPOSITORY)


def f1(environment: Mapping[str, str]) -> Command:
    return Command("F1", _granian("bench.f1:app"), {**_as_installed(), **environment}, "/roles?limit=1", _REPOSITORY)


def p1(environment: Mapping[str, str]) -> Command:
    uvicorn = [str(_BIN / "uvicorn"), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    arguments = [*uvicorn, "--host", "127.0.0.1", "--port", "{port}", "bench.p1:app"]
    return Command("P1", arguments, {**_surroundings(), **environment}, "/openapi.json", _REPOSITORY)


def _surroundings() -> dict[str, str]:
    """Without what would make each start compile every package anew: nobody runs a service like that."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _as_installed() -> dict[str, str]:
    """Without what is here for P1's sake alone, and would be imported: see `as_installed/sitecustomize.py`."""
    return _surroundings() | {"PYTHONPATH": str(_REPOSITORY / "bench" / "as_installed")}


def _granian(target: str) -> list[str]:
    granian = [str(_BIN / "granian"), "--interface", "asgi", "--loop", "uvloop", "--workers", "1", "--no-access-log"]
    return [*granian, "--host", "127.0.0.1", "--port", "{port}", target]


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 300
    except OSError:
        return False
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
