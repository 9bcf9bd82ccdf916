"""What is typed where this process runs, for sentences that tell somebody to type it."""

import os
import shutil
import sys
from importlib.metadata import requires
from pathlib import Path

CLONE = Path(__file__).parents[2]
"""The hub's own repository, unless it was installed from a wheel."""


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


def typed_install(extra: str) -> str:
    """The command that installs what an extra of the hub's package needs. No index has the package: outside of a clone
    the requirements are named themselves."""
    if (CLONE / "pyproject.toml").is_file():
        return f"uv sync --extra {extra}" if _is_made_by_uv(Path(sys.prefix)) else f"pip install '.[{extra}]'"
    wanted = f"extra == '{extra.replace('_', '-')}'"
    needed = [line.partition(";")[0].strip() for line in requires("data-fusion-hub") or () if line.endswith(wanted)]
    return " ".join(["pip install", *(f"'{requirement}'" for requirement in needed)])


def _is_made_by_uv(environment: Path) -> bool:
    try:
        return "\nuv = " in (environment / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False


HUB = typed_hub()
