"""A collector of traces: what the hub sends to it is decoded with the protocol's own package."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WITHIN_S = 20.0


class Sent(Struct):
    """A span, in hex and plain values."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    links: list[tuple[str, str]]
    attributes: dict[str, str | int]
    is_error: bool
    role: str


class Collector:
    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.spans: list[Sent] = []

    def take(self, path: str, body: bytes) -> None:
        self.paths.add(path)
        self.bodies.append(body)
        asked = ExportTraceServiceRequest.FromString(body)
        for of_resource in asked.resource_spans:
            resource = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [_sent(span, resource["hub.role"]) for span in of_scope.spans]

    async def wait_for(self, wanted: Callable[[Sent], bool], count: int = 1) -> list[Sent]:
        """The spans that are wanted, once there are so many."""
        deadline = monotonic() + WITHIN_S
        while len(found := [span for span in list(self.spans) if wanted(span)]) < count:
            assert monotonic() < deadline, [span.name for span in self.spans]
            await asyncio.sleep(0.02)
        return found


def _sent(span: "object", role: str) -> Sent:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    assert isinstance(span, Span)
    attributes = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
    links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
    is_error = span.status.code == Status.STATUS_CODE_ERROR
    assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
    return Sent(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        links,
        attributes,
        is_error,
        role,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """On a free port of this machine, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.headers["content-type"] == "application/x-protobuf"
            is_zipped = self.headers.get("content-encoding") == "gzip"
            collector.take(self.path, decompress(body) if is_zipped else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield collector
        finally:
            server.shutdown()
