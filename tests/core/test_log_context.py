"""Every line that is logged on behalf of a request or a job says whose it is, wherever it is written."""

import asyncio
import json
import logging
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from msgspec.structs import astuple

from app.core.exchange import Exchange
from app.core.frame import Frame, FrameConfig
from app.core.log_context import LogContext, bound_to, current
from app.core.logging import (
    ConsoleFormatter,
    Line,
    RequestLine,
    RequestLog,
    _console_line,
    _json_line,
)
from tests.factories import PrincipalFactory
from tests.heard import Heard

pytestmark = pytest.mark.anyio

log = logging.getLogger("hub.tests")


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    handler = Heard()
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


async def ask(app: Any, request_id: str, stream: BytesIO | None = None) -> None:
    write = RequestLog("json", "info", stream or BytesIO())
    frame = Frame(app, FrameConfig(timeout_s=5), observe=lambda exchange: write(exchange, 0.001), close=write.flush)
    transport = httpx.ASGITransport(frame)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub.test") as client:
        await client.get("/", headers={"X-Request-ID": request_id})
    write.flush()


async def test_lines_of_a_request_name_it_and_who_asks_once_that_is_known(heard: list[dict[str, Any]]) -> None:
    who = PrincipalFactory.build()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        log.warning("before")
        Exchange.of(scope).principal = who
        log.warning("after")
        await asyncio.to_thread(log.warning, "in a thread")
        await asyncio.create_task(_log("in a task"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    stream = BytesIO()
    await ask(app, "request-1", stream)
    lines = [*heard, json.loads(stream.getvalue())]
    assert [line["request_id"] for line in lines] == ["request-1"] * 5
    assert "principal_id" not in lines[0]
    assert {line["principal_id"] for line in lines[1:]} == {str(who.id)}
    assert {line["tenant_id"] for line in lines[1:]} == {str(who.tenant_id)}


async def _log(text: str) -> None:
    log.warning(text)


async def test_requests_side_by_side_keep_apart(heard: list[dict[str, Any]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        mine = Exchange.of(scope).request_id
        for _ in range(3):
            await asyncio.sleep(0)
            log.warning(mine)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    await asyncio.gather(*(ask(app, f"request-{number}") for number in range(5)))
    assert len(heard) == 15
    assert all(line["event"] == line["request_id"] for line in heard)


def test_lines_of_a_job_name_it(heard: list[dict[str, Any]]) -> None:
    job_id = UUID(int=7)
    with bound_to(LogContext(job_id=job_id)):
        log.warning("inside")
    log.warning("outside")
    assert [line.get("job_id") for line in heard] == [str(job_id), None]
    assert current() == LogContext()


def test_lines_for_a_terminal_end_with_their_context() -> None:
    made = logging.LogRecord("hub", logging.WARNING, "", 1, "it broke", None, None)
    with bound_to(LogContext(job_id=UUID(int=7), trace_id="1f")):
        assert ConsoleFormatter().format(made).endswith(f" warning it broke  (job_id={UUID(int=7)}, trace_id=1f)")
    assert ConsoleFormatter().format(made).endswith(" warning it broke")
    line = _console_line(RequestLine(1.5, "info", "request", "GET", "/x", 200, 0.25), LogContext("r-1"))
    assert line.endswith(b" info    GET /x 200 in 0.2 ms  (request_id=r-1)")


def test_both_kinds_of_lines_carry_every_field_of_the_context() -> None:
    assert set(LogContext.__struct_fields__) <= set(Line.__struct_fields__)
    filled = LogContext("r-1", UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4), "scheduled test", "1f")
    assert None not in astuple(filled)
    line = _json_line(RequestLine(1.5, "info", "request", "GET", "/x", 200, 0.25), filled)
    assert line.count(b"\n") == 0
    assert json.loads(line) == json.loads(msgspec.json.encode(filled)) | {
        "time": 1.5,
        "level": "info",
        "event": "request",
        "method": "GET",
        "path": "/x",
        "status": 200,
        "duration_ms": 0.25,
    }
