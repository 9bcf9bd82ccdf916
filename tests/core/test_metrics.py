"""What a scrape holds: few series, whatever is asked of the hub."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest

from app.connectors.processes.sandbox import Run
from app.core import metrics, metrics_port
from app.core.connector_runs import watched_run
from app.core.exchange import Exchange
from app.core.metrics import BUCKETS, ProcessCounter, _Counted, count_request, exposition
from app.core.metrics_port import MetricsPort, listen


def counted(method: str, status: int = 405) -> None:
    exchange = Exchange({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": []})
    exchange.status = status
    count_request(exchange)


def test_made_up_methods_share_one_series_and_leave_nothing_behind() -> None:
    counted("MADE-UP")
    before = len(metrics._series)
    for number in range(100):
        counted(f"MADE-UP-{number}")
    assert len(metrics._series) == before
    assert 'method="other"' in exposition().decode()
    assert "MADE-UP" not in exposition().decode()


def test_what_is_counted_some_at_a_time_is_what_the_library_counts_one_by_one() -> None:
    registry = CollectorRegistry()
    ours, theirs = (Histogram(name, "-", buckets=BUCKETS, registry=registry) for name in ("ours", "theirs"))
    counted_here = _Counted(ours)
    for seconds in (0.0, 0.0009, 0.001, 0.0011, 0.3, 10.0, 10.1, 30.0, 31.0, 1e9):
        theirs.observe(seconds)
        counted_here.add(seconds)
        if seconds in (0.001, 30.0):
            counted_here.write()
    counted_here.write()
    counted_here.write()
    lines = generate_latest(registry).decode().splitlines()
    shown = {
        name: [line.removeprefix(name) for line in lines if line.startswith(name) and "_created" not in line]
        for name in ("ours", "theirs")
    }
    assert len(shown["ours"]) == len(BUCKETS) + 3
    assert shown["ours"] == shown["theirs"]


def test_a_scrape_holds_what_was_counted_right_before_it() -> None:
    def seen() -> int:
        name = 'hub_http_request_duration_seconds_count{method="GET",route="unmatched",status="418"} '
        lines = exposition().decode().splitlines()
        return sum(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))

    before = seen()
    for _ in range(3):
        counted("GET", status=418)
    assert seen() == before + 3
    assert seen() == before + 3


def test_a_series_has_no_second_one_that_says_when_it_began() -> None:
    counted("GET")
    assert "_created" not in exposition().decode()


def test_a_count_that_something_else_keeps_is_brought_up_to_date() -> None:
    counter = ProcessCounter("hub_tests_of_counters_total", "-", ("role",))
    for value in (3.0, 3.0, 7.5):
        counter.bring_to(value, "server")
    assert REGISTRY.get_sample_value("hub_tests_of_counters_total", {"role": "server"}) == 7.5


@pytest.mark.parametrize(
    ("code", "outcome", "is_timed"),
    [
        ("ok", "success", True),
        ("connection_refused", "failure", True),
        ("busy", "refused", False),
        ("closed", "refused", False),
        ("cancelled", "cancelled", False),
    ],
)
def test_a_connector_run_is_counted_by_how_it_ended(code: str, outcome: str, is_timed: bool) -> None:
    of_run = {"action": "check", "type": f"type_{code}"}
    with watched_run(Run("check", f"type_{code}", code)):
        pass
    runs = REGISTRY.get_sample_value("hub_connector_runs_total", {**of_run, "outcome": outcome, "code": code})
    timed = REGISTRY.get_sample_value("hub_connector_run_duration_seconds_count", of_run)
    assert (runs, timed) == (1, 1 if is_timed else None)


# --- the port ---


@asynccontextmanager
async def answering(body: bytes = b"hub_x 1\n") -> AsyncIterator[int]:
    async def scrape() -> bytes:
        if body == b"broken":
            raise ZeroDivisionError
        return body

    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    task = asyncio.create_task(MetricsPort(scrape, b"text/plain").serve(listening))
    yield port
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def said(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:  # closed before all of the request was read
        return b""
    finally:
        writer.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0", b"200 OK"),
        (b"HEAD /metrics HTTP/1.1", b"200 OK"),
        (b"POST /metrics HTTP/1.1", b"405 Method Not Allowed"),
        (b"GET / HTTP/1.1", b"404 Not Found"),
        (b"GET /metrics/ HTTP/1.1", b"404 Not Found"),
        (b"GET /api/v1/roles HTTP/1.1", b"404 Not Found"),
        (b"nonsense", b"404 Not Found"),
    ],
)
async def test_the_port_answers_metrics_and_nothing_else(request_line: bytes, status: bytes) -> None:
    async with answering() as port:
        head, _, body = (await said(port, request_line + b"\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert (body == b"hub_x 1\n") == (status == b"200 OK" and request_line.startswith(b"GET"))
    if request_line.startswith(b"HEAD"):
        assert (b"content-length: 8" in head, body) == (True, b"")


@pytest.mark.anyio
async def test_who_sends_no_head_keeps_nobody_from_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_port, "HEAD_WITHIN_S", 0.2)
    async with answering() as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(metrics_port.MOST_CONNECTIONS)]
        assert await said(port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        assert [await reader.read() for reader, _ in silent] == [b""] * len(silent)
        assert b"hub_x 1" in await said(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert await said(port, b"x" * 100_000 + b"\r\n\r\n") == b""


@pytest.mark.anyio
async def test_a_scrape_that_fails_closes_the_connection_and_the_next_one_is_asked() -> None:
    async with answering(b"broken") as port:
        for _ in range(2):
            assert await said(port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""


def test_a_port_that_is_taken_is_not_shared() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", other.getsockname()[1])
