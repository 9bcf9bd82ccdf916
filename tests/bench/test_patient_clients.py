"""Clients of the bench that are told to come back later do so, and do not count as answered before."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.load import Request, start_patient


class Busy(http.server.BaseHTTPRequestHandler):
    """Every second answer sends the client away for a second."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        is_refused = self.asked % 2 == 1
        self.send_response(429 if is_refused else 200)
        if is_refused:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the server is asked thousands of times."""


@contextmanager
def busy_server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


def test_who_is_told_to_wait_waits_and_is_no_failure() -> None:
    with busy_server() as url:
        outcome = start_patient(Request(url), 1, 2.5).result(2.5)
    assert (outcome.bad_statuses, outcome.socket_errors) == (0, 0)
    assert 1 <= outcome.requests <= 3
    assert 1 <= outcome.told_to_wait <= 4
