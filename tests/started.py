"""What is in memory when the hub has started and nobody has asked it for anything."""

import subprocess
import sys
from functools import cache


@cache
def imported_at_a_start() -> frozenset[str]:
    """The modules that a server, a worker and the command line import, told by a process that does nothing else: it is
    asked once, and answers for every library that is to wait until it is needed."""
    program = "import sys, app.asgi, app.worker, app.cli; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = frozenset(ended.stdout.split())
    assert {"app.asgi", "app.worker", "app.cli"} <= found
    return found


def packages_of_a_start() -> set[str]:
    return {name.split(".")[0] for name in imported_at_a_start()}
