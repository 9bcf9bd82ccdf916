"""Python runs this before all else in a hub that counts nobody's requests, and in the processes that it starts: what
such a hub does not spend is what rate limits cost. Else it is as the one of `as_installed/`.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "as_installed" / "sitecustomize.py"))

try:
    from app.core.limits.limiter import Limits
except ImportError:  # a process that runs without the hub's packages limits nobody either
    pass
else:

    async def _admit(*_: object) -> None:
        """Whoever comes."""

    def _admit_here(*_: object) -> None:
        """Whoever comes."""

    Limits.charge, Limits.charge_here = _admit, _admit_here  # type: ignore[method-assign,assignment]
