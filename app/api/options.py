"""OPTIONS: every path says all of its methods.

Litestar makes the handler when a path's first method is registered, and its `Allow` lists what was known by then.
"""

from collections.abc import Awaitable, Callable, Iterable

from litestar import Response, Router
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Scope


def complete_options(router: Router) -> None:
    """Let the OPTIONS answer of each path list the methods that the path takes now; HEAD is taken wherever GET is.

    Before an application gets the router: it would read the signature of each handler, and they are half of all.
    """
    alike = HTTPRouteHandler(http_method="OPTIONS")(_answering(()))
    signature, model = alike.parsed_fn_signature, alike.signature_model
    for route in router.routes:
        if isinstance(route, HTTPRoute):
            handler = next(each for each in route.route_handlers if "OPTIONS" in each.http_methods)
            # Litestar has no public way to replace them
            handler._fn, handler._parsed_fn_signature, handler._signature_model = (
                _answering(route.methods),
                signature,
                model,
            )


def _answering(methods: Iterable[str]) -> Callable[[Scope], Awaitable[Response[None]]]:
    found = set(methods)
    allow = ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))

    async def options(scope: Scope) -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allow})

    return options
