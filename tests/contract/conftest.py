"""What the contract's tests share: raw ASGI exchanges, for what no well-behaved client would send."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import Hub

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class RawAnswer:
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    bodies_read: int = 0
    """How many parts of the request's body the application asked for."""

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


Exchange = Callable[..., Awaitable[RawAnswer]]


@pytest.fixture
def exchange(hub: Hub) -> Exchange:
    """Send what no client library would: any bytes in headers and query, bodies that never end, any path."""

    async def send_raw(
        method: str,
        path: str,
        *,
        headers: Headers = (),
        query: bytes = b"",
        body: Callable[[], Awaitable[dict[str, Any]]] | bytes = b"",
        app: Any = None,
    ) -> RawAnswer:
        answer = RawAnswer()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(errors="surrogateescape"),
            "query_string": query,
            "root_path": "",
            "headers": list(headers),
            "client": ("127.0.0.1", 5000),
            "server": ("hub.test", 80),
            "state": {},
            "extensions": {},
        }

        async def receive() -> dict[str, Any]:
            answer.bodies_read += 1
            if callable(body):
                return await body()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], list(message["headers"])
            else:
                answer.body += message.get("body", b"")

        await (app or hub.app)(scope, receive, send)
        return answer

    return send_raw
