"""Processes that belong together: what they hand over, and that none outlives the one that started it."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
HANDED_OVER = "DATA_FUSION_HUB_DATABASE_URL"
"""The variable by which `hub serve` tells its own processes which database it prepared."""
STARTED_BY = "DATA_FUSION_HUB_PID"
"""The variable by which it tells them who it is."""


def end_with_parent() -> None:
    """SIGTERM to this process when its parent is gone, however it went (prctl(2); on Linux only)."""
    if sys.platform != "linux":
        return
    # A parent that is gone already would not be told from the one that takes its orphans in, had it not said its id.
    parent = int(os.environ.get(STARTED_BY, os.getppid()))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
