"""OPTIONS: every path says all of its methods.

Litestar makes the handler when a path's first method is registered, and its `Allow` lists what was known by then.
"""

from collections.abc import Awaitable, Callable, Iterable

from litestar import Litestar, Response
from litestar.routes import HTTPRoute
from litestar.types import Scope


def complete_options(app: Litestar) -> None:
    """Let the OPTIONS answer of each path list the methods that the path takes now; HEAD is taken wherever GET is."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            handler, _ = route.route_handler_map["OPTIONS"]
            handler.has_sync_callable = False
            handler._fn = _answering(route.methods)  # Litestar has no public way to replace it


def _answering(methods: Iterable[str]) -> Callable[[Scope], Awaitable[Response[None]]]:
    found = set(methods)
    allow = ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))

    async def options(scope: Scope) -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allow})

    return options
