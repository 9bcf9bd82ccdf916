"""A command whose output somebody stops to read, as in `hub openapi | head`."""

import os
import subprocess
import sys


def test_whoever_reads_no_further_is_told_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "app", "openapi"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
