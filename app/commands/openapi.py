"""`hub openapi`: the OpenAPI document, from the routes alone."""

import sys
from pathlib import Path

import msgspec
from litestar import Litestar
from litestar.di import Provide

from app.api.openapi import openapi_document
from app.api.v1 import ROUTES
from app.domain.requests import HubRequest
from app.domain.work import unit_of_work


def write_openapi(out: Path | None, base_path: str) -> int:
    """Print the document, or write it to a file."""
    document = msgspec.json.encode(openapi_document(routes_alone(), base_path))
    text = msgspec.json.format(document, indent=2) + b"\n"
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
        route_handlers=ROUTES,
        request_class=HubRequest,
        dependencies={"work": Provide(unit_of_work)},
        openapi_config=None,
    )
