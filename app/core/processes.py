"""Processes that belong together: what they hand over, and that none outlives the one that started it."""

import ctypes
import os
import signal
import sys
import threading
import time

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


def _outlive_no_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)
