"""What every type has to do, asked of each through the sandbox and against its real server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.connectors import registry
from app.connectors.contract.config import config_schema, secrets_schema
from app.connectors.contract.failures import EXPLANATIONS, ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, qualify, unqualify
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.types import KINDS, all_kinds

pytestmark = pytest.mark.anyio

DEADLINE_S = 60.0
"""Far beyond what any step needs on a busy machine. A connector ends by itself, at its own time-outs: that it was stopped
from outside is a complaint, however long that took."""


@pytest.fixture(params=all_kinds())
def kind(request: pytest.FixtureRequest, start: Start, ports: Ports) -> Kind:
    built: Kind = KINDS[request.param].kind(start, ports)
    return built


@pytest.fixture
def loopback(kind: Kind) -> EgressPolicy:
    return EgressPolicy(**kind.policy)


def test_every_type_is_in_the_contract() -> None:
    assert {connector.type for connector in registry.all()} == {name.partition("__")[0] for name in KINDS}


async def test_a_good_source_passes_with_every_step_told(
    kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await sandbox.check(kind.type, kind.config, kind.secrets, loopback)
    assert result.status == "passed", result
    assert [step.name for step in result.steps] == ["resolve", "connect", "tls", "authenticate", "list"]
    assert tuple(step.status for step in result.steps) == kind.statuses
    assert all(step.duration_ms > 0 for step in result.steps if step.status == "passed")
    assert sum(step.duration_ms for step in result.steps) <= result.duration_ms < DEADLINE_S * 1000
    assert kind.server.items() <= result.server.items()
    assert_silent_about_secrets(result, kind.secrets)


async def test_each_bad_source_fails_at_its_step(kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy) -> None:
    """All cases of a type in turn, on processes that are ready: one fixture instead of fifty."""
    wrong = []
    for case in kind.cases:
        config, secrets = changed(kind.config, case.config), changed(kind.secrets, case.secrets)
        result = await sandbox.check(kind.type, config, secrets, loopback, deadline_s=DEADLINE_S)
        wrong += [f"{case.name}: {why}" for why in complaints(case, result)]
        assert_silent_about_secrets(result, {**kind.secrets, **secrets})
    assert not wrong, "\n".join(wrong)


def complaints(case: Case, result: Any) -> list[str]:
    failed = [step for step in result.steps if step.status == "failed"]
    if result.status != "failed" or [(step.name, step.code) for step in failed] != [(case.step, case.code)]:
        return [
            f"expected {case.step}/{case.code}, got {[(s.name, s.status, s.code, s.message) for s in result.steps]}"
        ]
    later = list(result.steps)[result.steps.index(failed[0]) + 1 :]
    found = [f"{step.name} is {step.code} after the failure" for step in later if step.code != "not_reached"]
    if failed[0].fault != EXPLANATIONS[failed[0].code].fault:
        found.append("names the wrong one to act")
    if "the connector was stopped" in failed[0].message:
        found.append("did not end by itself")
    return found


async def test_discovery_finds_exactly_what_is_there(
    kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    found = await discovered(sandbox, kind, loopback)
    facts = {
        item.path: (item.kind, tuple((f.name, f.type, f.native_type, f.is_nullable) for f in item.fields))
        for item in found
    }
    assert len(facts) == len(found)
    assert facts == kind.objects
    for item in found:
        assert item.name == item.path[-1]
        assert unqualify(item.qualified_name) == item.path
        assert [field.position for field in item.fields] == list(range(1, len(item.fields) + 1))
    assert_silent_about_secrets(found, kind.secrets)


async def test_previews_show_exactly_the_rows(kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy) -> None:
    for path, rows in kind.previews.items():
        shown = await sandbox.preview(kind.type, kind.config, kind.secrets, loopback, PreviewRequest(path=path))
        assert shown.rows == rows, path
        columns = [(column.name, column.type) for column in shown.columns]
        assert columns == [(name, portable) for name, portable, *_ in kind.objects[path][1]]
        msgspec.json.encode(shown)


async def test_a_preview_keeps_to_its_limit_and_columns(
    kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    path, rows = next((path, rows) for path, rows in kind.previews.items() if len(rows) > 1)
    names = [name for name, *_ in kind.objects[path][1]]
    request = PreviewRequest(path=path, columns=(names[1], names[0]), limit=1)
    shown = await sandbox.preview(kind.type, kind.config, kind.secrets, loopback, request)
    assert [column.name for column in shown.columns] == [names[1], names[0]]
    assert shown.rows == [[rows[0][1], rows[0][0]]]
    assert shown.truncated


async def test_a_preview_of_what_is_not_there_is_not_found(
    kind: Kind, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    known = next(iter(kind.previews))
    for request in (PreviewRequest(path=("no", "where")), PreviewRequest(path=known, columns=("no such",))):
        with pytest.raises(ConnectorError) as caught:
            await sandbox.preview(kind.type, kind.config, kind.secrets, loopback, request)
        assert caught.value.code == "not_found"


async def test_without_leave_for_loopback_nothing_is_dialled(kind: Kind, sandbox: ConnectorSandbox) -> None:
    if not kind.dials:
        assert registry.get(kind.type).category == "file" or registry.get(kind.type).is_rehearsal
        return
    for policy in (EgressPolicy(), EgressPolicy(loopback_allowed=True, deny=("127.0.0.0/8", "::1"))):
        result = await sandbox.check(kind.type, kind.config, kind.secrets, policy)
        assert [step.code for step in result.steps] == ["egress_refused", *["not_reached"] * 4]


async def test_unknown_fields_and_wrong_types_are_refused(kind: Kind) -> None:
    connector = registry.get(kind.type)
    wrong_type = {name: [None] for name in list(kind.config)[:1]}
    for broken in ({**kind.config, "surprise": 1}, {**kind.config, **wrong_type}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(broken, connector.config_type)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**kind.secrets, "surprise": "x"}, connector.secrets_type)


def test_schemas_are_closed_and_secrets_are_write_only(kind: Kind) -> None:
    connector = registry.get(kind.type)
    config, secrets = config_schema(connector.config_type), secrets_schema(connector.secrets_type)
    assert config["additionalProperties"] is False
    assert secrets["additionalProperties"] is False
    assert all("description" in field for field in config["properties"].values())
    assert connector.destination_fields <= set(config["properties"])
    for field in secrets["properties"].values():
        assert field["writeOnly"] is True, field


def test_secrets_are_not_in_the_representation_of_their_struct(kind: Kind) -> None:
    secrets = msgspec.convert(kind.secrets, registry.get(kind.type).secrets_type)
    assert all(str(value) not in repr(secrets) for value in kind.secrets.values())


# ----------------------------------------------------------------------------------------------------------------------


def changed(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = {**values, **change}
    return {name: value for name, value in merged.items() if value is not None}


async def discovered(sandbox: ConnectorSandbox, kind: Kind, policy: EgressPolicy) -> list[DiscoveredObject]:
    return [item async for batch in sandbox.discover(kind.type, kind.config, kind.secrets, policy) for item in batch]


def assert_silent_about_secrets(value: Any, secrets: dict[str, Any]) -> None:
    text = msgspec.json.encode(value).decode()
    assert CANARY not in text
    assert all(str(secret) not in text for secret in secrets.values() if secret)


@pytest.mark.parametrize("path", [("a",), ("a", "b"), ("a.b", "c"), ('"', ""), ('a".b', "c."), ("", ""), ("x y", "ü")])
def test_qualified_names_lead_back_to_their_path(path: tuple[str, ...]) -> None:
    assert unqualify(qualify(path)) == path
