"""`hub openapi` and `hub asyncapi`: the documents of the API and of the events, from the code alone."""

import sys
from pathlib import Path

import msgspec
from litestar import Litestar
from litestar.di import Provide

from app.api.asyncapi import asyncapi_document
from app.api.openapi import Document, openapi_document
from app.api.v1 import routes
from app.domain.requests import HubRequest
from app.domain.work import unit_of_work


def write_openapi(out: Path | None, base_path: str) -> int:
    return _write(openapi_document(routes_alone(), base_path), out)


def write_asyncapi(out: Path | None, base_path: str) -> int:
    return _write(asyncapi_document(base_path), out)


def _write(document: Document, out: Path | None) -> int:
    """Print the document, or write it to a file."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    if out is None:
        sys.stdout.buffer.write(text)
        return 0
    try:
        out.write_bytes(text)
    except OSError as error:
        print(f"Cannot write {out}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def routes_alone() -> Litestar:
    """An application with the routes of the hub and none of its parts: enough to be described, not to serve."""
    return Litestar(
        route_handlers=routes(),
        request_class=HubRequest,
        dependencies={"work": Provide(unit_of_work)},
        openapi_config=None,
    )
