"""No process outlives the one that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.hubs import alive, survivors

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
    child = {int(parent.stdout.readline()): sys.executable}
    assert alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    assert survivors(child) == {}
