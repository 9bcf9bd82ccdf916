"""A plugin of pytest: bytecode is kept, also where the environment forbids it, and garbage is looked for less often.

The tests start hundreds of processes, each of which would compile again all that it imports. A plugin, because that is
loaded before anything that is worth compiling.
"""

import gc
import os
import sys

import pytest

gc.disable()

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

THRESHOLDS = (10_000, 20, 50)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What thousands of tests and their modules are made of stays until the end: nobody need walk through it again."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
