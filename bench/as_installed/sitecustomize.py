"""Python runs this before all else in a hub that is measured, and in the processes that it starts: SQLAlchemy's and
Litestar's extensions import pydantic and SQLModel wherever they find them, which is here only because P1 needs them.
"""

import sys

for name in ("pydantic", "pydantic_core", "sqlmodel"):
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own word for what cannot be imported
