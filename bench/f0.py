"""F0: a constant JSON answer from Litestar and granian, the ceiling of the framework."""

from litestar import Litestar, get

_ANSWER = {"status": "ok"}


@get("/constant")
async def constant() -> dict[str, str]:
    return _ANSWER


app = Litestar([constant], openapi_config=None)
