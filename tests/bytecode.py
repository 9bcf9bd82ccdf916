"""A plugin of pytest: bytecode is kept, also where the environment forbids it.

The tests start hundreds of processes, each of which would compile again all that it imports. A plugin, because that is
loaded before anything that is worth compiling.
"""

import os
import sys

sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
