"""F0: a constant JSON answer from Litestar and granian, the ceiling of the framework; or after reading a body."""

from typing import Any

from litestar import Litestar, Request, get, post

_ANSWER = {"status": "ok"}


@get("/constant")
async def constant() -> dict[str, str]:
    return _ANSWER


@post("/constant-after-body", status_code=200)
async def constant_after_body(request: Request[Any, Any, Any]) -> dict[str, str]:
    await request.body()
    return _ANSWER


app = Litestar([constant, constant_after_body], openapi_config=None)
