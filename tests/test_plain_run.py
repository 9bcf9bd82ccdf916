"""The plain run, which newcomers start: all that is quick, side by side, and of everything at least something."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import PLAIN, PROCESSES

ROOT = Path(__file__).parents[1]


@pytest.mark.found("U16")
def test_the_plain_run_leaves_out_what_waits_and_goes_on_side_by_side(pytestconfig: pytest.Config) -> None:
    assert PROCESSES == 3
    assert f'"{PLAIN}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert pytestconfig.pluginmanager.hasplugin("xdist")


@pytest.mark.slow
@pytest.mark.found("U16")
def test_the_plain_run_still_proves_something_of_every_room() -> None:
    """A folder whose tests were all marked as slow would be proven in CI only."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-n", "0"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False).stdout
    found = Counter(re.findall(r"^tests/([a-z]+)/", listed, re.MULTILINE))
    assert {"commands", "connectors", "contract", "core", "domain", "faults"} <= found.keys()
    assert sum(found.values()) > 3_000
