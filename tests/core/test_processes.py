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


FORKS_BESIDE_AN_IMPORT = """
import os, signal, sys, threading, time
from app.core.processes import fork_between_imports

if sys.argv[1] == "waits":
    fork_between_imports()
sys.path.insert(0, sys.argv[2])
threading.Thread(target=__import__, args=("imported_slowly",), daemon=True).start()
while not os.path.exists(os.path.join(sys.argv[2], "begun")):
    time.sleep(0.01)
child = os.fork()
if child == 0:
    signal.alarm(5)
    import imported_slowly
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("how", "ending"), [("waits", 0), ("at once", -signal.SIGALRM)])
def test_a_fork_beside_an_import_leaves_no_locked_module(tmp_path: Path, how: str, ending: int) -> None:
    """Without waiting the child would wait for the module without end: what was seen of a server that looked a name up
    while the thread that asks whether it answers looked up its first."""
    begun = f"open({str(tmp_path / 'begun')!r}, 'w').close()"
    (tmp_path / "imported_slowly.py").write_text(f"import time\n{begun}\ntime.sleep(1)\n")
    command = [sys.executable, "-c", FORKS_BESIDE_AN_IMPORT, how, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == ending
