"""How the `hub` command is typed where this process runs, for sentences that tell somebody to type it."""

import os
import shutil
import sys
from pathlib import Path


def typed_hub() -> str:
    """`uv run hub` under uv, `hub` where a shell finds it, else the path or module by which it was started."""
    started_as = Path(sys.argv[0])
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        return "uv run hub"
    if started_as.name == "__main__.py":
        return "python -m app"
    if started_as.name == "hub" and shutil.which("hub") != str(started_as):
        return sys.argv[0]
    return "hub"


HUB = typed_hub()
