"""Processes that belong together: what they hand over, and that none outlives the one that started it."""

import ctypes
import importlib._bootstrap
import os
import signal
import sys
import threading
import time
from typing import Any

PR_SET_PDEATHSIG = 1
HANDED_OVER = "DATA_FUSION_HUB_DATABASE_URL"
"""The variable by which `hub serve` tells its own processes which database it prepared."""
STARTED_BY = "DATA_FUSION_HUB_PID"
"""The variable by which it tells them who it is."""


ORPHAN_CHECK_S = 1.0
ORPHAN_GRACE_S = 5.0
"""For the stop of a process whose parent is gone: nobody else is left to end one that hangs."""


def end_with_parent() -> None:
    """SIGTERM to this process when its parent is gone, however it went, and its end soon after in any case.

    On Linux the kernel sends the signal at once (prctl(2)); elsewhere it is a second later.
    """
    # A parent that is gone already would not be told from the one that takes its orphans in, had it not said its id.
    parent = int(os.environ.get(STARTED_BY, os.getppid()))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=_outlive_no_parent, args=(parent,), name="parent", daemon=True).start()


IMPORTED_WITHIN_S = 5.0
"""What takes longer to import is not waited for."""


def fork_between_imports() -> None:
    """From here on a fork of this process waits for what its other threads import.

    The lock of a module that a thread is just importing would be copied as it is, and in the child nobody lets go of
    it: whoever imports that module there, or looks a name up with it, waits without end.
    """
    os.register_at_fork(before=_await_imports)


def _await_imports() -> None:
    deadline = time.monotonic() + IMPORTED_WITHIN_S
    while _are_others_importing() and time.monotonic() < deadline:
        time.sleep(0.001)


def _are_others_importing() -> bool:
    bootstrap: Any = importlib._bootstrap
    locks = [known() for known in list(bootstrap._module_locks.values())]
    return any(lock is not None and lock.owner not in (None, threading.get_ident()) for lock in locks)


def _outlive_no_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)
