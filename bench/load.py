"""One request sent as often as a server can answer it: by `wrk`, or by a small asyncio client where wrk is absent."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

_SCRIPT = Path(__file__).with_name("request.lua")
_TIMEOUT_S = 60
"""Slow is measured, not broken: on a busy machine the last of 32 logins waits for long."""
_GRACE_S = 30


class LoadFailed(Exception):
    """The load generator itself ended badly; its output is the message."""


@dataclass(frozen=True)
class Request:
    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    """`{n}` becomes a number of its own in every request of a run."""


class Outcome(msgspec.Struct, frozen=True):
    """One run as the generator saw it."""

    requests: int
    seconds: float
    bytes: int
    bad_statuses: int
    """Answers of 400 and above; whether a run's other answers were the right ones is checked before and after it."""
    socket_errors: int
    p50_ms: float
    p99_ms: float
    cpu_s: float | None = None
    """Named by contestants that count for themselves."""
    told_to_wait: int = 0
    """Answers that told a patient client to come back later; they are no requests of the others' kind."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def bytes_each(self) -> float:
        return self.bytes / self.requests if self.requests else 0.0


class Running:
    """A load under way in a process of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], *, grace_s: float = _GRACE_S) -> None:
        self._grace_s = grace_s
        self._process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def result(self, seconds: float) -> Outcome:
        try:
            out, err = self._process.communicate(timeout=seconds + self._grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise LoadFailed(f"the load generator did not end within {seconds + self._grace_s:.0f} s") from None
        for line in out.splitlines():
            if line.startswith("BENCH "):
                return msgspec.json.decode(line[6:], type=Outcome)
        raise LoadFailed(f"{out}\n{err}".strip())


def generator() -> str:
    """The name that the table shows."""
    return "wrk" if shutil.which("wrk") else "asyncio client (wrk is not installed: figures are lower)"


def start(request: Request, connections: int, seconds: float) -> Running:
    environment = _environment(request)
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={_TIMEOUT_S}s", "--latency"]
        return Running([*command, "-s", str(_SCRIPT), request.url], environment)
    return Running(_asyncio_load(request, connections, seconds), environment)


def start_patient(request: Request, connections: int, seconds: float) -> Running:
    """Clients that wait as they are told to, which wrk cannot. For requests of which there are few a second."""
    environment = _environment(request) | {"BENCH_PATIENT": "yes"}
    return Running(_asyncio_load(request, connections, seconds), environment, grace_s=_TIMEOUT_S)


def start_steady(request: Request, connections: int, seconds: float, *, per_second: float) -> Running:
    """So many requests a second, however quickly they are answered, which wrk cannot."""
    environment = _environment(request) | {"BENCH_EACH_S": str(connections / per_second)}
    return Running(_asyncio_load(request, connections, seconds), environment)


def _environment(request: Request) -> dict[str, str]:
    return {
        "BENCH_METHOD": request.method,
        "BENCH_HEADERS": "\n".join(f"{name}: {value}" for name, value in request.headers.items()),
        "BENCH_BODY": request.body,
    }


def _asyncio_load(request: Request, connections: int, seconds: float) -> list[str]:
    return [sys.executable, "-m", "bench.asyncio_load", request.url, str(connections), str(seconds)]


def start_argon2_pool(callers: int, seconds: float) -> Running:
    return Running([sys.executable, "-m", "bench.argon2_pool", str(callers), str(seconds)], {})


def run(request: Request, connections: int, seconds: float) -> Outcome:
    return start(request, connections, seconds).result(seconds)
