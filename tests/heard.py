"""What is logged, as the lines of a hub in production."""

import json
import logging
from typing import Any

from app.core.logging import JsonFormatter


class Heard(logging.Handler):
    def __init__(self, *beginnings: str) -> None:
        """Of the loggers whose names begin so, or of all."""
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._beginnings = beginnings or ("",)
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(self._beginnings):
            self.lines.append(json.loads(self.format(record)))
