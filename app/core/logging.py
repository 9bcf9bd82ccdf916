"""Structured logs: one line per event, as JSON or for a terminal. Never bodies, never headers, never secrets.

Request lines are written on a path of their own (an allow-list of fields, encoded by msgspec), because there is one per
request; everything else goes through the standard library's logging. Text from outside is encoded as JSON strings, so
that a line break in it cannot begin a line of its own.
"""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from typing import IO, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from app.core.exchange import Exchange
from app.core.log_context import LogContext, current

Format = Literal["console", "json"]
WRITE_EVERY_S = 0.05
MAX_LINES = 1000
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class RequestLine(Struct, frozen=True):
    """Stands behind the fields of its `LogContext`: made and encoded apart, the two take a fifth less time."""

    time: float
    level: str
    event: str
    method: str
    path: str
    status: int
    duration_ms: float


class Line(LogContext, frozen=True, omit_defaults=True, kw_only=True):
    time: float
    level: str
    logger: str
    event: str
    error: str | None = None


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        error = self.formatException(record.exc_info) if record.exc_info else None
        line = Line(
            time=record.created,
            level=record.levelname.lower(),
            logger=record.name,
            event=record.getMessage(),
            error=error,
            **asdict(current()),
        )
        return msgspec.json.encode(line).decode()


class ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        message = " ".join(record.getMessage().splitlines())
        text = f"{moment} {record.levelname.lower():7} {message}{_whose(current())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(form: Format, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for noisy in ("_granian", "granian", "httpx", "sqlalchemy", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, LEVELS[level]))


class RequestLog:
    """Writes a line for each finished exchange; above `info`, for server errors only.

    Lines are encoded and written some at a time: a write lets go of the interpreter's lock, and one for each request
    makes the server's own thread and this one take turns at it, which costs more than a plain request itself; and what
    encodes a line is out of the processor's caches each time when a whole request comes in between.
    """

    def __init__(self, form: Format, level: str, stream: IO[bytes] | None = None) -> None:
        self._stream = stream or sys.stderr.buffer
        self._threshold = 0 if LEVELS[level] <= logging.INFO else 500
        self._encode = _json_line if form == "json" else _console_line
        self._lines: list[tuple[RequestLine, LogContext]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, exchange: Exchange, seconds: float) -> None:
        """Within an event loop. What has failed at the server is written at once, the rest within `WRITE_EVERY_S`."""
        if exchange.status < self._threshold:
            return
        self._lines.append((_request_line(exchange, seconds), exchange.log_context()))
        if exchange.status >= 500 or len(self._lines) >= MAX_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._stream.write(b"".join([self._encoded(*each) + b"\n" for each in lines]))
            self._stream.flush()

    def _encoded(self, line: RequestLine, context: LogContext) -> bytes:
        try:
            return self._encode(line, context)
        except UnicodeEncodeError:  # bytes in the path that are no text
            return self._encode(replace(line, path=ascii(line.path)), context)


def _request_line(exchange: Exchange, seconds: float) -> RequestLine:
    return RequestLine(
        time.time(),
        "error" if exchange.status >= 500 else "info",
        "request",
        exchange.method,
        exchange.scope["path"][:500],
        exchange.status,
        round(seconds * 1000, 3),
    )


_as_json = msgspec.json.Encoder().encode


def _json_line(line: RequestLine, context: LogContext) -> bytes:
    """One object of both. A request's context is never empty."""
    return _as_json(context)[:-1] + b"," + _as_json(line)[1:]


def _console_line(line: RequestLine, context: LogContext) -> bytes:
    moment = datetime.fromtimestamp(line.time, UTC).strftime("%H:%M:%S")
    path = msgspec.json.encode(line.path)[1:-1].decode()
    text = f"{moment} {line.level:7} {line.method} {path} {line.status} in {line.duration_ms:.1f} ms"
    return f"{text}{_whose(context)}".encode()


def _whose(context: LogContext) -> str:
    """For the end of a line: what is known of the context."""
    known = [f"{name}={value}" for name, value in asdict(context).items() if value is not None]
    return f"  ({', '.join(known)})" if known else ""
