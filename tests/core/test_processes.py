"""No process outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LINGERING = """
import os, signal, subprocess, sys, time
from app.core.processes import STARTED_BY, end_with_parent
if len(sys.argv) == 1:
    environment = {**os.environ, STARTED_BY: str(os.getpid())}
    child = subprocess.Popen([sys.executable, __file__, "child"], env=environment)
    child.wait()
else:
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a stop that hangs
    print(os.getpid(), flush=True)
    time.sleep(120)
"""


@pytest.mark.slow
def test_an_orphan_ends_even_where_its_stop_hangs(tmp_path: Path) -> None:
    script = tmp_path / "lingering.py"
    script.write_text(LINGERING, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    deadline = time.monotonic() + 60
    while _is_alive(child):
        assert time.monotonic() < deadline, "the orphan goes on"
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
