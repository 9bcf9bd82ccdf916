"""The load generator for machines without wrk: keep-alive HTTP/1.1 over asyncio streams, told and telling as wrk is.

Run by load.py as `python -m bench.asyncio_load URL CONNECTIONS SECONDS`. It costs more CPU than wrk, so on a
small machine it takes throughput from the server that it measures: figures are lower and ratios nearer to 1.
"""

import asyncio
import itertools
import os
import random
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from bench.load import Outcome
from bench.report import percentile

_NO_BODY = {204, 304}
_TRY_AGAIN = {429, 503}
IS_PATIENT = bool(os.environ.get("BENCH_PATIENT"))
"""Whether clients that are told to come back later do so, and are not counted before; as every good client does."""
EACH_S = float(os.environ.get("BENCH_EACH_S", "0"))
"""From one request of a connection to the next; 0: until the answer is there. A request that cannot be sent when it is
due is timed from then: whoever asks at a steady pace waits for that long."""


@dataclass
class Tally:
    latencies_ms: list[float] = field(default_factory=list)
    bytes: int = 0
    bad_statuses: int = 0
    socket_errors: int = 0
    told_to_wait: int = 0


class Sender:
    """Renders the request as bytes, numbering its body."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._head = f"{os.environ['BENCH_METHOD']} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        for line in os.environ["BENCH_HEADERS"].splitlines():
            self._head += f"{line}\r\n"
        self._body = os.environ["BENCH_BODY"]
        self._numbers = itertools.count(1)

    def next(self) -> bytes:
        if not self._body:
            return f"{self._head}\r\n".encode()
        body = self._body.replace("{n}", str(next(self._numbers))).encode()
        return f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True)
class Answer:
    status: int
    size: int
    retry_after_s: float | None


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    fields = dict(line.partition(b":")[::2] for line in head.lower().split(b"\r\n"))
    length = 0
    if status not in _NO_BODY:
        length = int(fields[b"content-length"])
        await reader.readexactly(length)
    retry_after = fields.get(b"retry-after")
    return Answer(status, len(head) + length, None if retry_after is None else float(retry_after))


async def _connection(sender: Sender, ends_at: float, tally: Tally) -> None:
    while time.perf_counter() < ends_at:
        try:
            reader, writer = await asyncio.open_connection(sender.host, sender.port)
            try:
                await _conversation(reader, writer, sender, ends_at, tally)
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError):
            tally.socket_errors += 1


async def _conversation(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sender: Sender, ends_at: float, tally: Tally
) -> None:
    began = time.perf_counter() + EACH_S * random.random()
    while (began := await _next_time(began)) < ends_at:
        writer.write(sender.next())
        answer = await _answer(reader)
        if IS_PATIENT and answer.status in _TRY_AGAIN and answer.retry_after_s is not None:
            tally.told_to_wait += 1
            await asyncio.sleep(max(0, min(answer.retry_after_s, ends_at - time.perf_counter())))
            continue
        tally.latencies_ms.append((time.perf_counter() - began) * 1000)
        tally.bytes += answer.size
        tally.bad_statuses += answer.status >= 400


async def _next_time(before: float) -> float:
    """When the next request is due."""
    if not EACH_S:
        return time.perf_counter()
    await asyncio.sleep(max(0.0, before + EACH_S - time.perf_counter()))
    return before + EACH_S


async def _measure(url: str, connections: int, seconds: float) -> Outcome:
    sender, tally, began = Sender(url), Tally(), time.perf_counter()
    await asyncio.gather(*(_connection(sender, began + seconds, tally) for _ in range(connections)))
    latencies = tally.latencies_ms
    return Outcome(
        requests=len(latencies),
        seconds=time.perf_counter() - began,
        bytes=tally.bytes,
        bad_statuses=tally.bad_statuses,
        socket_errors=tally.socket_errors,
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        told_to_wait=tally.told_to_wait,
    )


if __name__ == "__main__":
    outcome = asyncio.run(_measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    print("BENCH " + msgspec.json.encode(outcome).decode())
