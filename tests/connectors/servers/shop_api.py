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
    given = request.headers.get("authorization", "")
    if given in {basic, f"Bearer {SECRET}", "Bearer token-of-the-client"} or _uses_up(given):
        return True
    return SECRET in {request.headers.get("x-shop-key"), request.query_params.get("key")}


SHORT_TOKENS: dict[str, int] = {}
"""Tokens that were given out, and how many requests each is still good for."""


def _uses_up(given: str) -> bool:
    left = SHORT_TOKENS.get(given, 0)
    SHORT_TOKENS[given] = left - 1
    return left > 0


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


async def body_token(request: Request) -> Response:
    """A token server that looks for the client in the body, and wants to know the audience."""
    form = await request.body()
    wanted = {"client_id=client", f"client_secret={SECRET}", "audience=shop", "scope=read"}
    if not wanted <= set(form.decode().split("&")) or "authorization" in request.headers:
        return JSONResponse({"error": "invalid_client"}, 400)
    return JSONResponse({"access_token": "token-of-the-client", "token_type": "Bearer"})


async def short_token(request: Request) -> Response:
    fresh = f"short-{len(SHORT_TOKENS)}"
    SHORT_TOKENS[f"Bearer {fresh}"] = 2
    return JSONResponse({"access_token": fresh, "expires_in": 1})


async def other_token(request: Request) -> Response:
    return JSONResponse({"access_token": "x", "token_type": "mac"})


NUMBERS: list[dict[str, Any]] = [{"n": number, "half": number / 2} for number in range(25)]


def _refused(request: Request) -> Response | None:
    return None if _is_signed_in(request) else Response(status_code=401)


async def by_page(request: Request) -> Response:
    """Pages are counted from 1 (with `?from=0` from 0); one behind the last is not there."""
    size = min(int(request.query_params.get("size", 10)), 10)
    start = (int(request.query_params["page"]) - int(request.query_params.get("from", 1))) * size
    if start >= len(NUMBERS):
        return JSONResponse({"detail": "Invalid page."}, 404)
    return _refused(request) or JSONResponse({"results": NUMBERS[start : start + size]})


async def by_offset(request: Request) -> Response:
    start = int(request.query_params["offset"])
    return _refused(request) or JSONResponse(NUMBERS[start : start + int(request.query_params["limit"])])


async def by_cursor(request: Request) -> Response:
    start = int(request.query_params.get("after", "c0")[1:])
    following = start + 10
    cursor = f"c{following}" if following < len(NUMBERS) else None
    return _refused(request) or JSONResponse({"data": NUMBERS[start:following], "meta": {"next": cursor}})


async def by_url(request: Request) -> Response:
    start = int(request.query_params.get("start", 0))
    following = f"{request.url.path}?start={start + 10}" if start + 10 < len(NUMBERS) else ""
    if "to" in request.query_params:
        following = request.query_params["to"]
    return _refused(request) or JSONResponse({"data": NUMBERS[start : start + 10], "next": following})


async def by_link(request: Request) -> Response:
    start = int(request.query_params.get("start", 0))
    links = [f'<{request.url.path}?start=0>; rel="first"; title="a, <b>"']
    if start + 10 < len(NUMBERS):
        links.append(f"<?start={start + 10}>;rel=next")
    return _refused(request) or JSONResponse(NUMBERS[start : start + 10], headers={"link": ", ".join(links)})


async def endless(request: Request) -> Response:
    start = int(request.query_params.get("page", 0))
    return JSONResponse([{"n": start}], headers={"link": f'<?page={start + 1}>; rel="next"'})


async def circular(request: Request) -> Response:
    return JSONResponse([{"n": 1}], headers={"link": f'<{request.url.path}>; rel="next"'})


async def limited(request: Request) -> Response:
    return Response(status_code=int(request.query_params.get("status", 429)), headers={"retry-after": "30"})


async def forbidden(request: Request) -> Response:
    return JSONResponse({"detail": SECRET}, 403)


async def swagger(request: Request) -> Response:
    listed = {
        "allOf": [
            {"$ref": "#/definitions/Page"},
            {"properties": {"results": {"type": "array", "items": {"$ref": "#/definitions/Number"}}}},
        ]
    }
    paged = {"responses": {"200": {"description": "ok", "schema": listed}}}
    number = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    half = {"allOf": [{"$ref": "#/definitions/Base"}, {"properties": {"half": {"type": "number", "format": "double"}}}]}
    document = {
        "swagger": "2.0",
        "basePath": "/base/v1",
        "paths": {"/deep": {"get": paged}, "/outside": {"get": _answers({"$ref": "http://169.254.169.254/x"})}},
    }
    document["definitions"] = {"Page": {"properties": {"count": {"type": "integer"}}}, "Base": number, "Number": half}
    return JSONResponse(document)


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
        Route("/body-token", body_token, methods=["POST"]),
        Route("/short-token", short_token, methods=["POST"]),
        Route("/other-token", other_token, methods=["POST"]),
        Route("/moved-token", redirect, methods=["POST"]),
        Route("/pages", by_page),
        Route("/base/v1/pages", by_page),
        Route("/base/v1/deep", by_page),
        Route("/offsets", by_offset),
        Route("/cursors", by_cursor),
        Route("/urls", by_url),
        Route("/links", by_link),
        Route("/endless", endless),
        Route("/circular", circular),
        Route("/limited", limited),
        Route("/forbidden", forbidden),
        Route("/swagger.json", swagger),
        Route("/redirect", redirect),
        Route("/bomb", bomb),
        Route("/large", large),
        Route("/slow", slow),
        Route("/nested", nested),
        Route("/broken", broken),
        Route("/seen", seen),
    ]
)
