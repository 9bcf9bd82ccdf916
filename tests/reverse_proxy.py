"""A small reverse proxy, as one stands before a hub: it hands on what comes in below a path, and nothing else."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class ReverseProxy(ThreadingHTTPServer):
    """Strips the path (`proxy_pass http://hub/;`) or leaves it on (`proxy_pass http://hub;`)."""

    daemon_threads = True

    def __init__(self, path: str, *, strips: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path = path
        self.strips = strips
        self.target = ""
        self.refused: list[str] = []
        """Paths that were asked for outside of the one that is handed on."""

    @property
    def url(self) -> str:
        """What clients call the hub."""
        return f"http://127.0.0.1:{self.server_port}{self.path}"


class _Handler(BaseHTTPRequestHandler):
    server: ReverseProxy
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        below = self.path == self.server.path or self.path.startswith((f"{self.server.path}/", f"{self.server.path}?"))
        if not below:
            self.server.refused.append(self.path)
            self._answer(404, [("content-type", "text/plain")], b"nothing of the hub's is here")
            return
        path = (self.path.removeprefix(self.server.path) or "/") if self.server.strips else self.path
        hub = http.client.HTTPConnection(urlsplit(self.server.target).netloc, timeout=30)
        hub.request(self.command, path, body, dict(self.headers))
        answer = hub.getresponse()
        self._answer(answer.status, answer.getheaders(), answer.read())
        hub.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)


@contextmanager
def reverse_proxy(path: str, *, strips: bool) -> Iterator[ReverseProxy]:
    """One that runs; `target` is to be set before it is asked."""
    proxy = ReverseProxy(path, strips=strips)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(5)
