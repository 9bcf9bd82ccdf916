"""How answers are written: one body in JSON or MessagePack, entity tags, and the conditional requests of RFC 9110."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

import msgspec
from litestar import Response
from litestar.types import ASGIApp, Receive, Scope

from app.core.errors import ErrorBody, HubError, PreconditionFailed, PreconditionRequired
from app.core.exchange import JSON, MSGPACK, Exchange
from app.core.stopping import STOPPING

T = TypeVar("T")
Headers = list[tuple[bytes, bytes]]
AnySend = Callable[[Any], Awaitable[None]]
"""Litestar's own type of a message is a union that no dictionary display fits unambiguously."""

TAKEN_WITHIN_S = 30.0
"""A part of a stream: a client that takes nothing for so long is let go, with the place that it holds."""

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_JSON_TYPE = (b"content-type", JSON.encode())
_MSGPACK_TYPE = (b"content-type", MSGPACK.encode())


class Encoded(Response[T], Generic[T]):
    """An answer that is already encoded; Litestar hands it to the server as it is.

    The type parameter is what the body holds, for the OpenAPI document. A handler is annotated with one of the classes
    below, which stand side by side so that the type checker tells one from the other.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status_code = status
        self.wire_headers = headers
        self.body = body
        self.content = cast(T, None)

    def to_asgi_response(self, *args: object, **kwargs: object) -> ASGIApp:  # type: ignore[override]
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: AnySend) -> None:
        if self.status_code not in (204, 304):
            self.wire_headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.wire_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class Answer(Encoded[T], Generic[T]):
    """Without an entity tag."""


class Tagged(Encoded[T], Generic[T]):
    """With an entity tag: the annotation of a handler declares it, and the OpenAPI document says so."""


class Stream(Response[T], Generic[T]):
    """An answer that goes on: parts are sent as they come, until they end, the client leaves or the hub stops."""

    def __init__(self, headers: Headers, parts: AsyncGenerator[bytes, None]) -> None:
        self.status_code = 200
        self.wire_headers = headers
        self.parts = parts
        self.content = cast(T, None)

    def to_asgi_response(self, *args: object, **kwargs: object) -> ASGIApp:  # type: ignore[override]
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: AnySend) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.wire_headers})
        sending = asyncio.create_task(self._send_parts(send))
        leaving = asyncio.create_task(wait_until_gone(receive))
        stopping = asyncio.create_task(STOPPING.wait())
        tasks = (sending, leaving, stopping)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        if leaving not in done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_parts(self, send: AnySend) -> None:
        async with aclosing(self.parts):  # whoever leaves while something is sent leaves nothing open
            async for part in self.parts:
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    await send({"type": "http.response.body", "body": part, "more_body": True})


async def wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def answer(exchange: Exchange, content: T, *, status: int = 200) -> Answer[T]:
    """The content in the form that the client asked for."""
    media_type, body = _encode(exchange, content)
    return Answer(status, [media_type], body)


def _encode(exchange: Exchange, content: object) -> tuple[tuple[bytes, bytes], bytes]:
    if exchange.wants_msgpack:
        # times are text, as in JSON: the one form that is documented
        plain = msgspec.to_builtins(content, enc_hook=msgspec.json.decode)  # of a stored document, which is `Raw`
        return _MSGPACK_TYPE, _msgpack.encode(plain)
    return _JSON_TYPE, _json.encode(content)


def entity(
    exchange: Exchange, content: T, *, version: int | None = None, status: int = 200, changed: bool = False
) -> Tagged[T]:
    """A single entity with its entity tag, or 304 where a client that only reads already has this version."""
    tag = b'"%s"' % (_tag_of(content) if version is None else f"v{version}").encode()
    known = exchange.headers.get(b"if-none-match")
    if known is not None and not changed and _matches(known, tag):
        return Tagged(304, [(b"etag", tag)], b"")
    media_type, body = _encode(exchange, content)
    return Tagged(status, [media_type, (b"etag", tag)], body)


def _tag_of(content: Any) -> str:
    tag: str = content.entity_tag()
    return tag


def created(exchange: Exchange, content: T, location: str) -> Tagged[T]:
    """201 with the path of the new entity."""
    response = entity(exchange, content, status=201, changed=True)
    response.wire_headers.append(location_header(exchange, location))
    return response


def accepted(exchange: Exchange, content: T, location: str) -> Answer[T]:
    """202 with the path of the job that goes on."""
    response = answer(exchange, content, status=202)
    response.wire_headers.append(location_header(exchange, location))
    return response


def location_header(exchange: Exchange, path: str) -> tuple[bytes, bytes]:
    """The path as the client sees it."""
    return b"location", (exchange.base_path + path).encode()


def no_content() -> Answer[None]:
    return Answer(204, [], b"")


def error_answer(exchange: Exchange, error: HubError) -> Answer[ErrorBody]:
    """In the hub's own shape."""
    response = answer(exchange, error.body(exchange.request_id), status=error.status)
    response.wire_headers += headers_of(error)
    return response


def headers_of(error: HubError) -> Headers:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()]


ErrorShape = Callable[[Exchange, HubError], Answer[Any]]
SHAPES: dict[str, ErrorShape] = {}
"""By the beginning of the path, of standards that have a shape of their own for whatever layer an error comes from."""


def tells_errors_by(show: ErrorShape) -> dict[str, object]:
    """For `opt`: of a route whose callers are no clients of the API, and are told of errors in another shape."""
    return {"show_error": show}


def shown_error(exchange: Exchange, error: HubError) -> Answer[Any]:
    """In the shape of the route that was found, or of the standard that the path is of, or else in the hub's own."""
    handler = exchange.scope.get("route_handler")
    of_route: ErrorShape | None = None if handler is None else handler.opt.get("show_error")
    show = of_route or _shape_of_standard(exchange.scope["path"]) or error_answer
    return show(exchange, error)


def _shape_of_standard(path: str) -> ErrorShape | None:
    return next((shape for place, shape in SHAPES.items() if path == place or path.startswith(f"{place}/")), None)


def found_there(location: str, *headers: tuple[bytes, bytes]) -> Answer[None]:
    """302 (RFC 9110 section 15.4.3)."""
    return Answer(302, [(b"location", location.encode()), *headers], b"")


def require_match(exchange: Exchange, entity_tag: str, *, always: bool = False) -> None:
    """Hold a change against `If-Match`.

    Raises PreconditionFailed (with the current tag) where the client's copy is stale, and PreconditionRequired where
    the deployment asks for the header (`always`) and it is absent.
    """
    wanted = exchange.headers.get(b"if-match")
    if wanted is None:
        if always:
            raise PreconditionRequired
        return
    tag = f'"{entity_tag}"'.encode()
    if not _matches(wanted, tag, weak=False):
        raise PreconditionFailed(
            f"Your copy is stale: the current version is {entity_tag}. Read it again, then repeat your change.",
            headers={"ETag": tag.decode()},
        )


def _matches(given: bytes, tag: bytes, *, weak: bool = True) -> bool:
    if given == tag or given.strip() == b"*":
        return True
    candidates = (part.strip() for part in given.split(b","))
    return any(part == tag or (weak and part.removeprefix(b"W/") == tag) for part in candidates)
