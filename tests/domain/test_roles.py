"""Roles: openspec/specs/roles/spec.md."""

import pytest

from tests.conftest import Hub

pytestmark = pytest.mark.anyio


async def test_a_created_role_is_read_back_alike(hub: Hub) -> None:
    made = await hub.admin.post("/api/v1/roles", json={"name": "Analysts", "permissions": ["roles:read"]})
    read = await hub.admin.get(made.headers["location"])
    assert made.status_code == 201
    assert made.content == read.content
    assert read.headers["etag"] == '"v1"'


async def test_names_are_unique_whatever_their_case(hub: Hub) -> None:
    await hub.admin.post("/api/v1/roles", json={"name": "Straße"})
    twice = await hub.admin.post("/api/v1/roles", json={"name": "STRASSE"})
    assert (twice.status_code, twice.json()["code"]) == (409, "name_taken")
