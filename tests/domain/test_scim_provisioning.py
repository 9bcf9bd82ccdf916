"""Whole cycles of provisioning, in the requests that Entra ID and Okta document of themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Hub
from tests.domain.scim import connected

pytestmark = pytest.mark.anyio
REQUESTS = Path(__file__).parents[1] / "scim_requests"


def filled(value: Any, known: dict[str, str]) -> Any:
    """With the ids that were given before in the place of `{user}` and its like."""
    text = json.dumps(value)
    for name, row_id in known.items():
        text = text.replace("{" + name + "}", row_id)
    return json.loads(text)


@pytest.mark.parametrize("name", ["entra_id", "okta"])
async def test_a_directory_goes_through_its_whole_cycle(hub: Hub, name: str) -> None:
    tenant = await hub.new_tenant()
    directory = await connected(tenant, name)
    directory.client.headers["content-type"] = "application/scim+json; charset=utf-8"
    known: dict[str, str] = {}
    for step in json.loads((REQUESTS / f"{name}.json").read_text(encoding="utf-8")):
        step = filled(step, known)
        answer = await directory.call(step["method"], step["path"], step.get("body"))
        assert answer.status_code == step["status"], (step["what"], answer.text)
        if "keep" in step:
            known[step["keep"]] = answer.json()["id"]
        wanted = step.get("answer", {})
        assert {field: answer.json().get(field) for field in wanted} == wanted, step["what"]
