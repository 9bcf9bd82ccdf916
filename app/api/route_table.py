"""The routes of the application, as the OpenAPI document and the tests read them."""

import inspect
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from types import UnionType
from typing import Union, get_args, get_origin

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from app.core.answers import Answer, Stream, Tagged
from app.core.limits.prices import Price, price_of
from app.core.outcomes import NONE, Outcomes
from app.core.security import Access
from app.domain.dry_runs.schemas import RightsChange

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Route(Struct, frozen=True):
    """One method of one path."""

    path: str
    method: str
    handler: HTTPRouteHandler
    path_parameters: Mapping[str, type]

    @property
    def access(self) -> Access:
        access: Access = self.handler.opt["access"]
        return access

    @property
    def outcomes(self) -> Outcomes:
        found: Outcomes = self.handler.opt.get("outcomes", NONE)
        return found

    @property
    def price(self) -> Price:
        return price_of(self.handler.opt, (self.method,), is_open=self.access.is_open, codes=self.outcomes.codes)

    @property
    def body_type(self) -> object:
        """`opt["body_as"]` where a handler reads the parts of its body by itself, one by one.

        A body that may be left out is of the type that it has where it is there.
        """
        field = self.handler.parsed_data_field
        return None if field is None else _present(self.handler.opt.get("body_as", field.annotation))

    @property
    def answer_type(self) -> object:
        """What the answer's body holds: the parameter of `Answer[...]` and its siblings."""
        annotation = self._annotation
        return get_args(annotation)[0] if get_origin(annotation) in (Answer, Tagged, Stream) else annotation

    @property
    def answer_types(self) -> tuple[object, ...]:
        """Of every body that goes out, but for errors in the hub's own shape."""
        to_others = () if self.outcomes.to_others is None else (self.outcomes.to_others,)
        dry = (RightsChange,) if self.is_rehearsed else ()
        errors = () if self.outcomes.errors_as is None else (self.outcomes.errors_as,)
        return (self.answer_type, *to_others, *self.outcomes.by_status.values(), *dry, *errors)

    @property
    def sends_entity_tag(self) -> bool:
        return get_origin(self._annotation) is Tagged

    @property
    def _annotation(self) -> object:
        """Of a handler that streams where it is asked to, what it answers otherwise."""
        annotation = self.handler.parsed_return_field.annotation
        return get_args(annotation)[0] if get_origin(annotation) in (Union, UnionType) else annotation

    @property
    def is_idempotent(self) -> bool:
        return bool(getattr(self.handler.fn, "is_idempotent", False))

    @property
    def is_rehearsed(self) -> bool:
        """Whether it takes `?dry_run=true`."""
        return bool(getattr(self.handler.fn, "is_rehearsed", False))

    @property
    def name(self) -> str:
        """The handler's own, which nobody else has: the operation id."""
        return str(self.handler.handler_name)

    @property
    def tag(self) -> str:
        """A handler has one."""
        (tag,) = self.handler.resolve_tags()
        return str(tag)

    @property
    def module(self) -> str:
        return str(inspect.unwrap(self.handler.fn).__module__)

    @property
    def line(self) -> int:
        """Where its module declares it: what one needs first stands first, as in any reference that is read."""
        return int(inspect.unwrap(self.handler.fn).__code__.co_firstlineno)


def _present(annotation: object) -> object:
    """`Logout` for `Logout | None`."""
    members = get_args(annotation) if isinstance(annotation, UnionType) else ()
    present = [member for member in members if member is not type(None)]
    return reduce(or_, present) if present else annotation


def all_routes(app: Litestar) -> list[Route]:
    """Every method of every path, but for OPTIONS."""
    found = []
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler):
                parameters = {name: what.type for name, what in route.path_parameters.items()}
                methods = sorted(str(method) for method in handler.http_methods if method != "OPTIONS")
                found += [Route(route.path_format, method, handler, parameters) for method in methods]
    return found


def documented_routes(app: Litestar, tags: Sequence[str]) -> list[Route]:
    """Every operation that belongs into the document, tag by tag, in the order in which the controllers tell it."""
    found = [route for route in all_routes(app) if route.handler.resolve_include_in_schema()]
    modules = list(dict.fromkeys(route.module for route in found))  # as the route table names them
    return sorted(
        found,
        key=lambda route: (tags.index(route.tag), modules.index(route.module), route.line, METHODS.index(route.method)),
    )
