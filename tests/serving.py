"""A whole hub as a user starts it: `hub serve` in a process and a data folder of its own, on a loopback port."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.ports import free_port
from tests.postgres import discard, reachable_folder

PASSWORD = "lanterns drift over quiet water"
ADMIN_EMAIL = "admin@example.org"
READY_WITHIN_S = 60
NO_LIMIT = {"HUB_RATE_LIMIT": "999999999/second", "HUB_LOGIN_RATE_LIMIT": "999999999/second"}
"""Limits that count and never refuse: tests ask for more in a minute than anybody else."""


@dataclass
class Served:
    url: str
    log: Path
    pid: int
    """Of the process that was started; the server's own are its children."""

    def sign_in(self) -> str:
        """An access token of the admin."""
        asked = {"email": ADMIN_EMAIL, "password": PASSWORD}
        answer = httpx.post(f"{self.url}/api/v1/auth/login", json=asked, trust_env=False)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token


@contextmanager
def serving(**variables: str) -> Iterator[Served]:
    """Lasts as long as the block. `variables` are HUB_* settings, in which `{port}` stands for where it listens."""
    folder = reachable_folder()
    log, port = folder / "serve.log", free_port()
    admin = {"HUB_ADMIN_EMAIL": ADMIN_EMAIL, "HUB_ADMIN_PASSWORD": PASSWORD}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    environment |= {"HUB_DATA_DIR": str(folder), "HUB_LOG_LEVEL": "warning", **NO_LIMIT, **admin}
    environment |= {name: value.replace("{port}", str(port)) for name, value in variables.items()}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "app", "serve", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        served = Served(f"http://127.0.0.1:{port}", log, process.pid)
        _wait_until_ready(served, process)
        yield served
    finally:
        process.terminate()
        process.wait(30)
        discard(folder)


def _wait_until_ready(served: Served, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{served.url}/health/ready", trust_env=False, timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, served.log.read_text(encoding="utf-8")
        time.sleep(0.1)
    raise AssertionError(f"not ready within {READY_WITHIN_S} s: {served.log.read_text(encoding='utf-8')}")
