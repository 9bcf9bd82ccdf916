"""The document of the events: complete, served, and valid to AsyncAPI's own parser."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.api.asyncapi import asyncapi_document
from app.cli import main
from app.core.event_names import SENTENCES, EventName, type_of
from app.domain.event_types import DATA, TYPES
from tests.conftest import Hub

ROOT = Path(__file__).parents[2]
NPM = ROOT / ".servers/npm/node_modules"
PARSE = """
const { Parser } = require(process.argv[1] + "/@asyncapi/parser");
new Parser().parse(require("fs").readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const found = diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path }));
  const messages = document ? document.allMessages().all().map((each) => each.name()) : [];
  console.log(JSON.stringify({ found, messages }));
});
"""
INFORMATION = 2
"""Of the parser's severities: errors and warnings are below."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi_document()


def test_every_event_has_a_topic_a_message_and_an_operation(document: dict[str, Any]) -> None:
    assert len(DATA) > 50
    for name in get_args(EventName):
        channel = document["channels"][name]
        assert channel["address"] == f"hub.{{tenant}}.org.datafusionhub.{name}"
        assert document["operations"][f"publish.{name}"]["channel"] == {"$ref": f"#/channels/{name}"}
        assert document["components"]["messages"][name]["summary"] == SENTENCES[name]
    for channel in ("feed", "webhook"):
        assert set(document["channels"][channel]["messages"]) == set(DATA)


def test_every_reference_leads_somewhere_and_nothing_is_there_for_nothing(document: dict[str, Any]) -> None:
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named == set(document["components"]["schemas"])
    assert "ErrorBody" not in named


def test_every_example_is_valid_to_the_schema_beside_it(document: dict[str, Any]) -> None:
    for name, message in document["components"]["messages"].items():
        validator = Draft202012Validator(message["payload"] | {"components": document["components"]})
        (example,) = message["examples"]
        assert not list(validator.iter_errors(example["payload"])), name
        assert example["payload"]["type"] == type_of(name)
        other = example["payload"] | {"type": next(each for each in TYPES if each != type_of(name))}
        assert list(validator.iter_errors(other)), f"{name} takes what is another event's"


@pytest.mark.anyio
async def test_the_document_is_served_to_all_and_asked_for_once(hub: Hub) -> None:
    answer = await hub.client().get("/asyncapi.json")
    assert (answer.status_code, answer.json()) == (200, asyncapi_document())
    assert answer.headers["content-type"] == "application/json"
    known = await hub.client().get("/asyncapi.json", headers={"if-none-match": answer.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.anyio
async def test_below_a_path_the_server_is_said_to_be_there(hub: Hub) -> None:
    transport = httpx.ASGITransport(hub.app, root_path="/hub")
    async with httpx.AsyncClient(transport=transport, base_url="http://hub.test") as client:
        answer = await client.get("/asyncapi.json")
    assert answer.json()["servers"]["hub"]["pathname"] == "/hub"


def test_the_command_writes_it(tmp_path: Path, document: dict[str, Any]) -> None:
    out = tmp_path / "asyncapi.json"
    with pytest.raises(SystemExit) as ended:
        main(["asyncapi", "--out", str(out)])
    assert ended.value.code == 0
    assert json.loads(out.read_text(encoding="utf-8")) == document


@pytest.mark.services
def test_asyncapis_own_parser_finds_nothing_wrong(document: dict[str, Any]) -> None:
    if not (shutil.which("node") and (NPM / "@asyncapi/parser").exists()):
        assert os.environ.get("CI") != "true", "`.ci/services` installs @asyncapi/parser"
        pytest.skip("@asyncapi/parser is not installed: run `just services`")
    done = subprocess.run(
        ["node", "-e", PARSE, str(NPM)],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    parsed = json.loads(done.stdout)
    assert [each for each in parsed["found"] if each["severity"] < INFORMATION] == []
    assert {each["code"] for each in parsed["found"]} <= {"asyncapi-latest-version"}, "3.0 is what clients know"
    assert set(parsed["messages"]) == set(TYPES)
