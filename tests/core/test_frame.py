"""The frame around an application that misbehaves: an answer in the error shape whatever happens below, once and in time."""

import asyncio
import gc
from typing import Any

import msgspec
import pytest

from app.core import frame as frame_module
from app.core.errors import Conflict
from app.core.exchange import Exchange
from app.core.frame import Frame, FrameConfig
from tests.cpu_growth import without_what_is_there

pytestmark = pytest.mark.anyio


class Told:
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.observed: list[Exchange] = []

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        (start,) = [message for message in self.messages if message["type"] == "http.response.start"]
        return int(start["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def scope_of(path: str, method: str = "GET") -> Any:
    return {"type": "http", "method": method, "path": path, "headers": [], "client": None, "query_string": b""}


async def ask(app: Any, *, timeout_s: float = 5, method: str = "GET", **config: Any) -> Told:
    told = Told()
    frame = Frame(app, FrameConfig(timeout_s=timeout_s, **config), observe=told.observed.append)
    scope = scope_of("/x", method)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await frame(scope, receive, told.send)
    assert len(told.observed) == 1, "every exchange is logged and counted once"
    return told


async def start(send: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def test_an_error_that_nobody_expected_tells_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("the secret is zebra")

    told = await ask(app)
    assert told.status == 500
    assert b"zebra" not in told.body
    assert msgspec.json.decode(told.body)["code"] == "internal_error"


async def test_an_error_that_was_meant_is_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Conflict(code="job_ended")

    told = await ask(app)
    assert (told.status, msgspec.json.decode(told.body)["code"]) == (409, "job_ended")


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        raise ZeroDivisionError

    assert (await ask(app)).status == 200


async def test_an_answer_that_does_not_come_is_a_503() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    told = await ask(app, timeout_s=0.02)
    assert (told.status, msgspec.json.decode(told.body)["code"]) == (503, "deadline_exceeded")


async def test_a_stream_may_outlive_the_deadline() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Exchange.of(scope).run_without_deadline(at_end=lambda: ended.append(True))
        await start(send)
        await asyncio.sleep(0.05)
        assert ended == []
        await send({"type": "http.response.body", "body": b"end", "more_body": False})

    ended: list[bool] = []
    assert (await ask(app, timeout_s=0.02)).body == b"end"
    assert ended == [True]


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_stream_that_breaks_off_is_over_too(error: type[BaseException]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Exchange.of(scope).run_without_deadline(at_end=lambda: ended.append(True))
        raise error

    ended: list[bool] = []
    await asyncio.gather(ask(app), return_exceptions=True)
    assert ended == [True]


@pytest.mark.found("L2", "A3")
async def test_of_requests_under_way_the_surplus_is_refused_at_once_but_for_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_module, "MOST_UNDER_WAY", 3)
    may_go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] not in frame_module.PROBES:
            await may_go_on.wait()
        await start(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    frame = Frame(app, FrameConfig(timeout_s=5), observe=lambda _: None)

    async def asked(path: str) -> Told:
        told = Told()
        await frame(scope_of(path), None, told.send)
        return told

    waiting = [asyncio.create_task(asked("/x")) for _ in range(3)]
    await asyncio.sleep(0)
    surplus = await asked("/x")
    assert (surplus.status, msgspec.json.decode(surplus.body)["code"]) == (503, "server_busy")
    headers = dict(surplus.messages[0]["headers"])
    assert (headers[b"retry-after"], headers[b"connection"]) == (b"1", b"close")
    assert [(await asked(path)).status for path in sorted(frame_module.PROBES)] == [200, 200]
    may_go_on.set()
    assert {told.status for told in await asyncio.gather(*waiting)} == {200}
    assert (await asked("/x")).status == 200


async def test_a_client_that_leaves_ends_the_work() -> None:
    is_cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            is_cancelled.set()
            raise

    task = asyncio.create_task(ask(app))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert is_cancelled.is_set()


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["method"] == "GET"
        await start(send, 200, (b"content-length", b"4"))
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"cd", "more_body": False})

    told = await ask(app, method="HEAD")
    assert (told.body, told.observed[0].method) == (b"", "HEAD")
    assert (b"content-length", b"4") in told.messages[0]["headers"]
    assert told.messages[-1]["more_body"] is False


async def test_an_answer_keeps_its_own_caching() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, (b"cache-control", b"public"))

    headers = (await ask(app)).messages[0]["headers"]
    assert [value for name, value in headers if name == b"cache-control"] == [b"public"]


async def test_what_is_not_http_passes() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    frame = Frame(app, FrameConfig(timeout_s=1), observe=lambda _: None)
    await frame({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


async def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        Exchange.of(scope)
        await start(send)
        await send({"type": "http.response.body", "body": b"{}", "more_body": False})

    frame = Frame(app, FrameConfig(timeout_s=5), observe=lambda exchange: None)

    async def discard(message: Any) -> None:
        pass

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    gc.disable()
    try:
        with without_what_is_there():  # what other tests left may become garbage in the meantime
            for _ in range(100):
                await asyncio.create_task(frame(scope_of("/x"), receive, discard))
            assert gc.collect() < 100
    finally:
        gc.enable()
