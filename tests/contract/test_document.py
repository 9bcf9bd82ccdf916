"""The OpenAPI document as a document: valid, complete, and closed where the hub is."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.cli import main
from app.connectors import registry
from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub, running_hub
from tests.declared import document

DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
every_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_operation_ids_tell_operations_apart() -> None:
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert sorted(set(ids)) == sorted(ids)
    assert {"list_roles", "list_user_roles", "create_role", "get_me", "cancel_job"} <= set(ids)


@every_operation
def test_an_operation_says_what_it_is(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]


@every_operation
def test_an_operation_declares_how_it_can_fail(path: str, method: str, operation: dict[str, Any]) -> None:
    wanted = {"400", "429", "500", "503"}
    wanted |= {"401", "403"} if operation["security"] else set()
    wanted |= {"404"} if "{" in path else set()
    wanted |= {"413", "415"} if "requestBody" in operation else set()
    assert wanted <= set(operation["responses"])


@every_operation
def test_examples_fit_their_schemas(path: str, method: str, operation: dict[str, Any]) -> None:
    media = list(_described_bodies(operation))
    assert media or set(operation["responses"]) & {"204"}
    for media_type, described in media:
        if media_type.endswith("msgpack"):
            continue  # its form cannot be written down in JSON; the schema is the same
        if media_type in BINARY:
            assert described == {}
            continue
        shown = [each["value"] for each in described["examples"].values()] if "examples" in described else []
        for example in shown or [described["example"]]:
            assert example not in (None, ""), media_type
            assert _faults(example, described["schema"]) == []


@every_operation
def test_a_request_body_is_closed(path: str, method: str, operation: dict[str, Any]) -> None:
    for media_type, described in operation.get("requestBody", {}).get("content", {}).items():
        if media_type == "application/x-www-form-urlencoded":
            continue  # OAuth's: parameters that are not recognised are ignored (RFC 6749 section 3.2)
        open_objects = [schema.get("title") for schema in _objects(described["schema"], set()) if _is_open(schema)]
        assert open_objects == [], media_type


@every_operation
def test_whatever_creates_can_be_sent_again_safely(path: str, method: str, operation: dict[str, Any]) -> None:
    is_anonymous = operation["security"] == []  # who is nobody's caller has no keys of their own
    if {"201", "202"} & set(operation["responses"]) and not is_anonymous:
        names = [parameter.get("$ref", "").rpartition("/")[2] for parameter in operation["parameters"]]
        assert "IdempotencyKey" in names


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/api/v1/users", "/api/v1/roles"])
async def test_an_example_can_be_sent_as_it_is(hub: Hub, path: str) -> None:
    example = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = await hub.admin.post(path, json=example)
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
async def referring(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    """A hub whose operator keeps secrets in files."""
    folder, secrets = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("secrets")
    async with running_hub(cluster, migrated, folder, HUB_SECRET_FILES_ROOT=str(secrets)) as hub:
        yield hub


@pytest.mark.anyio
@pytest.mark.found("U8")
@pytest.mark.parametrize("name", [connector.type for connector in registry.all()])
async def test_every_type_of_source_has_an_example_that_can_be_sent_as_it_is(referring: Hub, name: str) -> None:
    body = DOCUMENT["paths"]["/api/v1/data-sources"]["post"]["requestBody"]["content"]["application/json"]
    answer = await referring.admin.post("/api/v1/data-sources", json=body["examples"][name]["value"])
    assert answer.status_code == 201, answer.text
    unsaved = DOCUMENT["paths"]["/api/v1/data-sources/test"]["post"]["requestBody"]["content"]["application/json"]
    assert unsaved["examples"][name]["value"]["config"] == body["examples"][name]["value"]["config"]


@every_operation
def test_an_end_in_the_example_of_a_body_is_still_to_come(path: str, method: str, operation: dict[str, Any]) -> None:
    """Who tries the example would be told that it must be in the future."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example", {})
    ends = [body.get(field) for field in ("expires_at", "ends_at", "due_at") if isinstance(body, dict)]
    assert [end for end in ends if end is not None and datetime.fromisoformat(end).year < 2030] == []


def test_the_example_of_a_test_tells_one_story() -> None:
    content = DOCUMENT["paths"]["/api/v1/data-sources/test"]["post"]["responses"]["200"]["content"]
    example = content["application/json"]["example"]
    assert [step["name"] for step in example["steps"]] == ["resolve", "connect", "tls", "authenticate", "list"]
    assert example["status"] == "failed"
    assert [step["status"] for step in example["steps"]].count("failed") == 1


@every_operation
def test_no_header_is_filled_in_by_a_page(path: str, method: str, operation: dict[str, Any]) -> None:
    """Swagger UI sends the examples of parameters: `If-None-Match: "v1"` would answer 304, an old key an old answer."""
    for parameter in operation.get("parameters", ()):
        name = parameter.get("$ref", "").rpartition("/")[2]
        assert "example" not in DOCUMENT["components"]["parameters"].get(name, {})


def test_operations_stand_in_the_order_in_which_they_are_needed() -> None:
    tags = [operation["tags"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert list(dict.fromkeys(tag for (tag,) in tags)) == [tag["name"] for tag in DOCUMENT["tags"]]
    paths = list(DOCUMENT["paths"])
    first = [paths.index(f"/api/v1/auth/{name}") for name in ("login", "mfa", "register", "refresh", "logout")]
    assert first == sorted(first)
    assert paths.index("/api/v1/data-sources") < paths.index("/api/v1/data-sources/{source_id}/test")


def test_variants_by_type_name_their_discriminator() -> None:
    schema = DOCUMENT["paths"]["/api/v1/data-sources"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/AnyDataSource"}
    schema = SCHEMAS["AnyDataSource"]
    assert schema["discriminator"]["propertyName"] == "type"
    assert {"postgresql", "rest", "s3"} <= set(schema["discriminator"]["mapping"])


def test_a_single_entity_has_a_version_to_hold_changes_against() -> None:
    role = DOCUMENT["paths"]["/api/v1/roles/{role_id}"]
    assert "ETag" in role["get"]["responses"]["200"]["headers"]
    assert {"$ref": "#/components/parameters/IfMatch"} in role["patch"]["parameters"]
    assert {"304"} <= set(role["get"]["responses"])
    assert {"412", "428"} <= set(role["delete"]["responses"])


def test_open_operations_are_marked_and_all_others_name_what_they_need() -> None:
    assert DOCUMENT["paths"]["/api/v1/auth/login"]["post"]["security"] == []
    assert DOCUMENT["paths"]["/api/v1/roles"]["post"]["x-permission"] == "roles:write"
    assert DOCUMENT["paths"]["/api/v1/roles"]["post"]["security"] == [{"bearer": []}]


@pytest.mark.anyio
async def test_options_names_every_method_of_a_path(hub: Hub) -> None:
    answer = await hub.admin.request("OPTIONS", "/api/v1/roles")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_fields_are_described_by_the_sentences_beside_them() -> None:
    assert SCHEMAS["RoleOut"]["properties"]["is_system"]["description"].startswith("Built in")


def test_times_have_a_form() -> None:
    assert SCHEMAS["RoleOut"]["properties"]["created_at"]["format"] == "date-time"
    assert {"type": "string", "format": "date-time"} in SCHEMAS["JobOut"]["properties"]["finished_at"]["anyOf"]


def test_the_command_writes_the_same_document(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["openapi", "--out", str(tmp_path / "openapi.json")])
    assert ended.value.code == 0
    assert json.loads((tmp_path / "openapi.json").read_bytes()) == DOCUMENT


@pytest.mark.anyio
async def test_the_hub_serves_the_same_document_with_an_entity_tag(hub: Hub) -> None:
    first = await hub.client().get("/openapi.json")
    again = await hub.client().get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert first.json() == DOCUMENT
    assert (again.status_code, again.content) == (304, b"")


def _described_bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from operation.get("requestBody", {}).get("content", {}).items()
    for answer in operation["responses"].values():
        described = (
            DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        )
        yield from described.get("content", {}).items()


BINARY = ("application/vnd.apache.arrow.stream",)
"""Nothing that a person would want to read as an example."""


def _faults(example: Any, schema: dict[str, Any]) -> list[str]:
    whole = schema | {"components": {"schemas": SCHEMAS}}
    return [fault.message for fault in Draft202012Validator(whole).iter_errors(example)]


def _objects(schema: dict[str, Any], seen: set[str]) -> Iterator[dict[str, Any]]:
    """Every object schema that a body can hold."""
    if "$ref" in schema:
        if schema["$ref"] not in seen:
            seen.add(schema["$ref"])
            yield from _objects(SCHEMAS[schema["$ref"].rpartition("/")[2]], seen)
        return
    if schema.get("type") == "object":
        yield schema
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("properties", {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for each in inner:
        yield from _objects(each, seen)


def _is_open(schema: dict[str, Any]) -> bool:
    """An object with named fields that takes others too. Maps (`config` of a patch) have no named fields."""
    return bool(schema.get("properties")) and schema.get("additionalProperties") is not False
