"""Programs of tests that need packages of npm: installed into a folder of the test, and thrown away with it."""

import shutil
import subprocess
from pathlib import Path

from tests.connectors.servers.starting import program

WITHIN_S = 300


def install(sources: Path, folder: Path) -> None:
    """A copy of the sources, with what their `package.json` asks for beside them."""
    shutil.copytree(sources, folder, dirs_exist_ok=True)
    command = [program("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
