"""Patterns mean the same to us and to clients: nothing may stand behind the end of a text, not even a line feed."""

import re
from typing import Any

import pytest

from app.connectors import registry
from app.connectors.contract.config import config_schema, portable
from tests import declared
from tests.conftest import Hub
from tests.core.imports import ROOT

pytestmark = pytest.mark.anyio

IN_SCHEMA = re.compile(r'pattern=r?"((?:[^"\\]|\\.)*)"')


def patterns(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [each for one in schema for each in patterns(one)]
    if not isinstance(schema, dict):
        return []
    own = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    return own + [each for one in schema.values() for each in patterns(one)]


def test_ours_end_where_the_text_does() -> None:
    found = [each for path in ROOT.rglob("*.py") for each in IN_SCHEMA.findall(path.read_text(encoding="utf-8"))]
    assert len(found) > 30
    assert [each for each in found if each.endswith("$")] == []


def test_clients_are_told_them_in_their_own_words() -> None:
    told = patterns(declared.document())
    told += [each for kind in registry.all() for each in patterns(config_schema(kind.config_type))]
    assert len(told) > 30
    assert [each for each in told if r"\Z" in each] == []


def test_a_pattern_is_made_portable_wherever_it_stands() -> None:
    ours = {"anyOf": [{"pattern": r"^a\Z"}, {"items": {"pattern": "b"}}]}
    assert portable(ours) == {"anyOf": [{"pattern": "^a$"}, {"items": {"pattern": "b"}}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("roles", {"name": "analysts\n"}),
        ("groups", {"name": "analysts\n"}),
        ("users", {"email": "a@example.org", "first_name": "Ada\n"}),
        ("service-accounts", {"name": "robot\n"}),
        ("tenants", {"slug": "acme\n", "name": "Acme", "admin": {"email": "a@acme.example"}}),
        ("data-sources", {"name": "s", "type": "rest", "config": {"base_url": "https://a.example"}, "tags": ["a\n"]}),
        ("oauth-clients", {"name": "app\n", "redirect_uris": ["https://a.example/"], "is_confidential": False}),
        (
            "identity-providers",
            {
                "kind": "oidc",
                "name": "corp",
                "label": "Corp\n",
                "issuer": "https://idp.example.org",
                "client_id": "hub",
                "client_secret": "s",
            },
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_a_line_feed_at_the_end_is_refused(hub: Hub, path: str, body: dict[str, Any]) -> None:
    answer = await hub.admin.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 400, answer.text
