"""One request looked at closely: nobody is counted as fast for answering something else."""

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.load import Outcome, Request

_SIZE_TOLERANCE = 0.10
_TIMEOUT_S = 60.0
"""Slow is measured, not broken."""


class WrongAnswer(Exception):
    """A contestant does not do the work it is measured at."""


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        status_line = len(f"HTTP/1.1 {self.status} {self.reason}\r\n")
        headers = sum(len(f"{name}: {value}\r\n") for name, value in self.headers.items())
        return status_line + headers + 2 + len(self.body)


def send(request: Request, number: str = "probe", timeout_s: float = _TIMEOUT_S) -> Answer:
    parts = urlsplit(request.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    try:
        body = request.body.replace("{n}", number).encode() or None
        connection.request(request.method, target, body, request.headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def expect(request: Request, status: int, number: str = "probe", timeout_s: float = _TIMEOUT_S) -> Answer:
    answer = send(request, number, timeout_s)
    if answer.status != status:
        said = answer.body[:300].decode(errors="replace")
        raise WrongAnswer(f"{request.method} {request.url}: {answer.status} instead of {status}: {said}")
    return answer


def same_entity(ours: Any, theirs: Any, *, values: bool) -> None:
    """Raises unless both have the same fields (and, with `values`, say the same)."""
    if isinstance(ours, dict) and "items" in ours:
        if [item["id"] for item in ours["items"]] != [item["id"] for item in theirs["items"]]:
            raise WrongAnswer("the lists hold other rows or another order")
        same_entity(ours["items"][0], theirs["items"][0], values=values)
    elif ours.keys() != theirs.keys():
        raise WrongAnswer(f"other fields: {sorted(ours.keys() ^ theirs.keys())}")
    elif values and ours != theirs:
        raise WrongAnswer(f"other values: {[name for name in ours if ours[name] != theirs[name]]}")


def expect_size(outcome: Outcome, answer: Answer, request: Request) -> None:
    """Load generators see 2xx and 3xx alike; the bytes per answer tell them apart."""
    if outcome.requests and abs(outcome.bytes_each - answer.size) > answer.size * _SIZE_TOLERANCE:
        raise WrongAnswer(
            f"{request.method} {request.url}: {outcome.bytes_each:.0f} bytes per answer under load, {answer.size} alone"
        )
