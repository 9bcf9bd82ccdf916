"""A client of server-sent events, at the application itself: what it was sent, and ways to leave or to be slow."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

from tests.conftest import Hub


class Streaming:
    def __init__(
        self,
        hub: Hub,
        client: httpx.AsyncClient,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.sent: list[Any] = []
        self.may_send = asyncio.Event()
        self.may_send.set()
        self._left = asyncio.Event()
        self._asked = False
        given = {"host": "hub.test", "authorization": client.headers["authorization"], **(headers or {})}
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            "server": ("hub.test", 80), "client": ("127.0.0.1", 5),
        }  # fmt: skip
        self.task = asyncio.create_task(hub.app(self.scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.append(message)

    def leave(self) -> None:
        self._left.set()

    async def until(self, is_so: Callable[[], bool], within_s: float = 20) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not is_so():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(self.text[-2000:]) from None

    async def count(self, wanted: int, *, at_least: bool = False) -> None:
        """Until so many events have been told."""
        await self.until(lambda: len(self.blocks) >= wanted)
        assert at_least or len(self.blocks) == wanted, self.text[-2000:]

    async def first(self) -> None:
        await self.until(lambda: len(self.sent) >= 2)

    async def left(self) -> None:
        self.leave()
        await asyncio.wait_for(self.task, 5)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def blocks(self) -> list[dict[str, str]]:
        """Of the events, by the name of the line; a block that is not all here is none."""
        whole = self.text.rpartition("\n\n")[0]
        parsed = [dict(line.split(": ", 1) for line in block.splitlines()) for block in whole.split("\n\n") if block]
        return [block for block in parsed if "data" in block]

    @property
    def data(self) -> list[Any]:
        return [json.loads(block["data"]) for block in self.blocks]

    @property
    def is_complete(self) -> bool:
        return bool(self.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False})
