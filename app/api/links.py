"""OpenAPI's `links`: what an operation has made, and the operations that take it by its id.

Read off the routes: the route that shows one thing says of which Struct it is and which path parameter names it.
"""

from collections.abc import Mapping

from app.api.route_table import Route

CREATING = (201, 202)


class Links:
    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes
        self._parameters = dict(_parameters_by_struct(routes))

    def of(self, route: Route) -> dict[str, object]:
        """By the name of the operation that they lead to; empty where nothing is made."""
        made = self._parameter_for(route.answer_type)
        if route.handler.status_code not in CREATING or made is None:
            return {}
        known = {name: f"$request.path.{name}" for name in route.path_parameters} | {made: "$response.body#/id"}
        return {
            other.name: _link(other, known)
            for other in self._routes
            if made in other.path_parameters or _shows_what_was_made(other, route)
        }

    def _parameter_for(self, struct: object) -> str | None:
        """That of the Struct or of what it is a longer form of (`DataSourceSaved` of `DataSourceOut`)."""
        bases = getattr(struct, "__mro__", ())
        return next((self._parameters[base] for base in bases if base in self._parameters), None)


def _parameters_by_struct(routes: list[Route]) -> list[tuple[object, str]]:
    return [
        (route.answer_type, list(route.path_parameters)[-1])
        for route in routes
        if route.method == "GET" and route.path.endswith("}") and "id" in _fields(route.answer_type)
    ]


def _fields(struct: object) -> tuple[str, ...]:
    return getattr(struct, "__struct_fields__", ())


def _shows_what_was_made(other: Route, route: Route) -> bool:
    """A job that was begun below something fills the lists below it."""
    parent = route.path.rpartition("/")[0]
    is_list = other.access.listing is not None and other.path.startswith(f"{parent}/")
    return bool(route.path_parameters) and is_list


def _link(other: Route, known: Mapping[str, str]) -> dict[str, object]:
    parameters = {name: known[name] for name in other.path_parameters if name in known}
    return {"operationId": other.name, "parameters": parameters}
