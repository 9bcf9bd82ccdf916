"""A server of the tests' own in front of an emulator: it gives out tokens, asks for them, and passes on what is left."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl
from urllib.request import Request, urlopen

Refusal = tuple[int, Mapping[str, Any]]
"""A status, and what is sent as JSON."""
Judge = Callable[[str, Mapping[str, str]], Refusal | None]
"""Path and headers (names in lower case) of a GET to why it is refused, if it is."""
SignIn = Callable[[str, dict[str, str]], str | None]
"""Path and form of a POST to the access token it earns, if it does."""
_PASSED_ON = ("range", "accept-encoding")
_HANDED_BACK = ("content-type", "content-range", "content-encoding")


@contextmanager
def http_front(sign_in: SignIn, judge: Judge | None = None, behind: int | None = None) -> Iterator[int]:
    """Yields the port. `behind` is the port that reads go to."""

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
            token = sign_in(self.path, form)
            if token is None:
                self._answer(400, json.dumps({"error": "invalid_grant", "error_description": str(form)}).encode())
            else:
                answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3599}
                self._answer(200, json.dumps(answer).encode())

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            if judge is not None and (refusal := judge(self.path, headers)):
                self._answer(refusal[0], json.dumps(refusal[1]).encode())
                return
            kept = {name: value for name, value in headers.items() if name in _PASSED_ON}
            try:
                with urlopen(Request(f"http://127.0.0.1:{behind}{self.path}", headers=kept)) as answer:
                    self._answer(answer.status, answer.read(), answer.headers)
            except HTTPError as error:
                self._answer(error.code, error.read(), error.headers)

        def do_HEAD(self) -> None:
            self._answer(404, b"")

        def _answer(self, status: int, body: bytes, headers: Any = None) -> None:
            self.send_response(status)
            for name in _HANDED_BACK:
                if headers is not None and name in headers:
                    self.send_header(name, headers[name])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
