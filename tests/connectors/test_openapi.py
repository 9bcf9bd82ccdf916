"""Which lists an OpenAPI document describes, in the ways in which generators write it."""

from __future__ import annotations

from typing import Any

import pytest

from app.connectors.types.rest.openapi import DescribedList, described_lists

BASE = "https://api.example.com/v1"
LISTED: dict[str, Any] = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}}


def described(paths: dict[str, Any], **more: Any) -> list[DescribedList]:
    return list(described_lists({"openapi": "3.1.0", "paths": paths, **more}, BASE))


def answers(media_type: str = "application/json", status: str = "200") -> dict[str, Any]:
    return {"get": {"responses": {status: {"description": "ok", "content": {media_type: {"schema": LISTED}}}}}}


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        "application/hal+json",
        "application/vnd.api+json",
        "*/*",
    ],
)
def test_json_has_many_names(media_type: str) -> None:
    (found,) = described({"/orders": answers(media_type)})
    assert (found.path, found.url, found.pointer) == (("orders",), f"{BASE}/orders", "")
    assert [field.name for field in found.fields or ()] == ["id"]


@pytest.mark.parametrize("media_type", ["text/csv", "application/xml", "text/html"])
def test_what_is_no_json_is_no_list(media_type: str) -> None:
    assert described({"/orders": answers(media_type)}) == []


def test_a_range_of_statuses_says_the_same() -> None:
    assert [found.path for found in described({"/orders": answers(status="2XX")})] == [("orders",)]
    assert described({"/orders": answers(status="default")}) == []


def test_a_path_keeps_the_slash_at_its_end() -> None:
    assert [found.url for found in described({"/shop/orders/": answers()})] == [f"{BASE}/shop/orders/"]


def test_a_path_may_stand_elsewhere_in_the_document() -> None:
    elsewhere = {"components": {"pathItems": {"Orders": answers()}}}
    (found,) = described({"/orders": {"$ref": "#/components/pathItems/Orders"}}, **elsewhere)
    assert found.path == ("orders",)


@pytest.mark.parametrize("item", [None, [], "x", {"$ref": "#/paths/~1orders"}, {"$ref": "https://elsewhere.example/x"}])
def test_what_is_not_as_the_specification_has_it_is_passed_over(item: Any) -> None:
    assert described({"/orders": item}) == []
