"""postgres.json: what the owner of a data folder tells the processes that attach."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.embedded.names import ROLES


def write_record(data_dir: Path, **changes: Any) -> None:
    """Change postgres.json in one step: a reader sees all of the old or all of the new."""
    record = read_record(data_dir) | changes
    path = data_dir / "postgres.json"
    new = path.with_suffix(".json.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
    new.replace(path)


def read_record(data_dir: Path) -> dict[str, Any]:
    """Empty where the file is missing or damaged: the passwords are then set anew."""
    with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
        record = json.loads((data_dir / "postgres.json").read_bytes())
        if set(record.get("passwords", ())) == set(ROLES) and isinstance(record.get("port", 0), int):
            return dict(record)
    return {}
