"""What the OpenAPI document declares of errors, held against every answer that any test is given."""

import re
from functools import cache
from typing import Any, NamedTuple

import httpx
from litestar import Litestar

from app.api.openapi import openapi_document
from app.commands.openapi import routes_alone


@cache
def application() -> Litestar:
    """The hub's routes, as they are described, put together once in each process of a test run. Nobody changes them."""
    return routes_alone()


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, made once in each process of a test run. Nobody changes it."""
    return openapi_document(application())


class Declared(NamedTuple):
    path: "re.Pattern[str]"
    operations: dict[str, dict[str, Any]]


@cache
def declared_paths() -> list[Declared]:
    """Fixed segments before parameters: `/data-sources/test` is no id."""
    paths = document()["paths"]
    ordered = sorted(paths, key=lambda path: [part.startswith("{") for part in path.split("/")])
    return [Declared(re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)), paths[path]) for path in ordered]


def operation_of(request: httpx.Request) -> dict[str, Any] | None:
    """The operation that the document has for a request; None where it has none."""
    method = "get" if request.method == "HEAD" else request.method.lower()
    found = next((each for each in declared_paths() if each.path.fullmatch(request.url.path)), None)
    return None if found is None else found.operations.get(method)


async def hold_against_the_document(answer: httpx.Response) -> None:
    """For httpx's event hooks. Fails the test whose request was answered with a code that nobody declared."""
    if answer.status_code < 400 or (operation := operation_of(answer.request)) is None:
        return
    await answer.aread()
    if answer.request.method == "HEAD" or not answer.headers.get("content-type", "").startswith("application/json"):
        return
    body = answer.json()
    if "code" not in body:
        return  # the health probes answer in a form of their own
    known = operation["x-error-codes"].get(str(answer.status_code), ())
    name = operation["operationId"]
    assert body["code"] in known, f"{name} does not declare {answer.status_code} {body['code']}: outcomes(...)"
