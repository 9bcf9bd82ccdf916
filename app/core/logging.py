"""Structured logs: one line per event, as JSON or for a terminal. Never bodies, never headers, never secrets.

Request lines are written on a path of their own (an allow-list of fields, encoded by msgspec), because there is one per
request; everything else goes through the standard library's logging. Text from outside is encoded as JSON strings, so
that a line break in it cannot begin a line of its own.
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Literal

import msgspec
from msgspec import Struct

from app.core.exchange import Exchange

Format = Literal["console", "json"]
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class RequestLine(Struct, omit_defaults=True):
    time: float
    level: str
    event: str
    method: str
    path: str
    status: int
    duration_ms: float
    request_id: str
    principal_id: str | None = None


class Line(Struct, omit_defaults=True):
    time: float
    level: str
    logger: str
    event: str
    request_id: str | None = None
    error: str | None = None


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        error = self.formatException(record.exc_info) if record.exc_info else None
        request_id = getattr(record, "request_id", None)
        line = Line(record.created, record.levelname.lower(), record.name, record.getMessage(), request_id, error)
        return msgspec.json.encode(line).decode()


class ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        message = " ".join(record.getMessage().splitlines())
        text = f"{moment} {record.levelname.lower():7} {message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(form: Format, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for noisy in ("_granian", "granian", "httpx", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, LEVELS[level]))


def request_logger(form: Format, level: str, stream: IO[bytes] | None = None) -> Callable[[Exchange, float], None]:
    """What writes a line for each finished exchange; a quiet no-op above `info`, where only server errors are shown."""
    write = (stream or sys.stderr.buffer).write
    flush = (stream or sys.stderr.buffer).flush
    threshold = 0 if LEVELS[level] <= logging.INFO else 500
    encode = msgspec.json.Encoder().encode if form == "json" else _console_line

    def log(exchange: Exchange, seconds: float) -> None:
        if exchange.status < threshold:
            return
        scope, principal = exchange.scope, exchange.principal
        line = RequestLine(
            time.time(),
            "error" if exchange.status >= 500 else "info",
            "request",
            exchange.method,
            scope["path"][:500],
            exchange.status,
            round(seconds * 1000, 3),
            exchange.request_id,
            str(principal.id) if principal else None,
        )
        try:
            encoded = encode(line)
        except UnicodeEncodeError:  # bytes in the path that are no text
            line.path = ascii(line.path)
            encoded = encode(line)
        write(encoded + b"\n")
        flush()

    return log


def _console_line(line: RequestLine) -> bytes:
    moment = datetime.fromtimestamp(line.time, UTC).strftime("%H:%M:%S")
    path = msgspec.json.encode(line.path)[1:-1].decode()
    return f"{moment} {line.level:7} {line.method} {path} {line.status} in {line.duration_ms:.1f} ms".encode()
