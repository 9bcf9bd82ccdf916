"""How PostgreSQL's programs are started: as whom, with which environment, and never longer than their hub."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.embedded.diagnosis import failure_of
from app.core.embedded.processes import ENVIRONMENT
from app.core.embedded.site import Account, Site


def run(site: Site, program: str, *arguments: str | Path, script: str = "") -> str:
    """What the program said on stderr; raises EmbeddedFailed when it does not succeed."""
    ended = subprocess.run(
        [site.binaries / program, *arguments],
        input=script.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        check=False, **child_options(site.account, signal.SIGTERM),
    )  # fmt: skip
    said: str = ended.stderr.decode(errors="replace")
    if ended.returncode != 0:
        raise failure_of(said.splitlines(), site)
    return said


def child_options(account: Account | None, on_parent_death: signal.Signals) -> dict[str, Any]:
    """A session of its own keeps the terminal's Ctrl-C from the child; nothing of our environment reaches it."""
    options: dict[str, Any] = {
        "env": ENVIRONMENT,
        "cwd": "/",
        "start_new_session": True,
        "umask": 0o077,
        "preexec_fn": _die_with_parent(on_parent_death),
    }
    if account:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def _die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """Runs in the child after it changed its user, because that would clear the request again (prctl(2))."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()
    pr_set_pdeathsig = 1

    def ask() -> None:
        prctl(pr_set_pdeathsig, int(signum), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
