"""A small shop as a JSON API on Starlette, with its OpenAPI document and some bad manners to test against."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

SECRET = "canary-7f3a9c-rest"
ORDERS: list[dict[str, Any]] = [
    {"id": 9007199254740993, "name": "Zoë 李雷", "total": "10.50", "at": "2024-01-02T03:04:05+02:00", "lines": [1, 2]},
    {"id": 2, "name": None, "total": "0", "at": "2024-01-03T00:00:00Z", "lines": []},
]
SEEN: list[dict[str, Any]] = []
"""Every request, for `/seen`."""


def _document() -> dict[str, Any]:
    order = {
        "type": "object",
        "required": ["id", "total"],
        "properties": {
            "id": {"type": "integer", "format": "int64"},
            "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "total": {"type": "string", "format": "decimal"},
            "at": {"type": "string", "format": "date-time", "nullable": True},
            "lines": {"type": "array", "items": {"type": "integer"}},
        },
    }
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/Order"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shop", "version": "1"},
        "paths": {
            "/orders": {"get": _answers(listed)},
            "/orders/{id}": {"get": _answers({"$ref": "#/components/schemas/Order"})},
            "/shop/wrapped": {"get": _answers({"type": "object", "properties": {"items": listed}})},
            "/empty": {"get": _answers(listed)},
        },
        "components": {"schemas": {"Order": order}},
    }


def _answers(schema: dict[str, Any]) -> dict[str, Any]:
    return {"responses": {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}}


def _is_signed_in(request: Request) -> bool:
    basic = "Basic " + base64.b64encode(f"reader:{SECRET}".encode()).decode()
    given = request.headers.get("authorization")
    if given in {basic, f"Bearer {SECRET}", "Bearer token-of-the-client"}:
        return True
    return SECRET in {request.headers.get("x-shop-key"), request.query_params.get("key")}


async def openapi(request: Request) -> Response:
    return JSONResponse(_document())


async def orders(request: Request) -> Response:
    SEEN.append({"path": request.url.path, "headers": dict(request.headers)})
    if not _is_signed_in(request):
        return JSONResponse({"detail": SECRET}, 401)
    return JSONResponse(ORDERS, headers={"link": '</orders?page=2>; rel="next"'})


async def wrapped(request: Request) -> Response:
    return JSONResponse({"items": ORDERS}) if _is_signed_in(request) else Response(status_code=403)


async def empty(request: Request) -> Response:
    return JSONResponse([])


async def unsigned(request: Request) -> Response:
    return JSONResponse([{"signed": _is_signed_in(request)}])


async def token(request: Request) -> Response:
    form = (await request.body()).decode()
    basic = "Basic " + base64.b64encode(f"client:{SECRET}".encode()).decode()
    if request.headers.get("authorization") != basic or "grant_type=client_credentials" not in form:
        return JSONResponse({"error": "invalid_client"}, 401)
    return JSONResponse({"access_token": "token-of-the-client", "token_type": "bearer"})


async def redirect(request: Request) -> Response:
    return RedirectResponse(request.query_params["to"], 302)


async def bomb(request: Request) -> Response:
    """200 MB of blanks in 200 KB."""
    return Response(gzip.compress(b"[" + b" " * 200_000_000 + b"]", 1), headers={"content-encoding": "gzip"})


async def large(request: Request) -> Response:
    return JSONResponse([{"text": "x" * 1000}] * 2000)


async def slow(request: Request) -> Response:
    import asyncio

    await asyncio.sleep(30)
    return JSONResponse([])


async def nested(request: Request) -> Response:
    return Response("[" * 5000 + "]" * 5000, media_type="application/json")


async def broken(request: Request) -> Response:
    return Response(json.dumps({"detail": SECRET}), 500)


async def seen(request: Request) -> Response:
    return JSONResponse(SEEN)


app = Starlette(
    routes=[
        Route("/openapi.json", openapi),
        Route("/orders", orders),
        Route("/shop/wrapped", wrapped),
        Route("/empty", empty),
        Route("/unsigned", unsigned),
        Route("/token", token, methods=["POST"]),
        Route("/redirect", redirect),
        Route("/bomb", bomb),
        Route("/large", large),
        Route("/slow", slow),
        Route("/nested", nested),
        Route("/broken", broken),
        Route("/seen", seen),
    ]
)
