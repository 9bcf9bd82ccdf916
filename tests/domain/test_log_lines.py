"""On whose behalf each line is logged: through a whole hub, for requests, jobs, scheduled tests and upkeep."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from app.core.errors import Conflict
from app.core.log_context import LogContext, bound_to
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.parts import Parts
from app.domain.source_work import schedule
from app.domain.upkeep import services as upkeep
from tests.beside import beside
from tests.conftest import Hub
from tests.core.imports import ROOT
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, ended, registered, working
from tests.heard import Heard

pytestmark = pytest.mark.anyio

ON_BEHALF = {
    "api/errors.py": "request",
    "connectors/processes/children.py": "request, job or scheduled test",
    "core/exports.py": "request",
    "core/frame.py": "request",
    "domain/factors/passkeys.py": "request",
    "domain/following.py": "request",
    "domain/jobs/runner.py": "job",
    "domain/letters/sending.py": "letter",
    "domain/oidc/discovery.py": "request",
    "domain/oidc/logout.py": "request",
    "domain/oidc/services.py": "request",
    "domain/saml/their_side.py": "request",
    "domain/source_work/history.py": "request or scheduled test",
    "domain/source_work/schedule.py": "scheduled test",
    "domain/upkeep/services.py": "upkeep",
    "domain/webhooks/disabling.py": "delivery to a webhook",
    "domain/webhooks/sending.py": "delivery to a webhook",
}
"""Files that log, and on whose behalf: each is held to it below."""
ON_NOBODYS = {
    "core/connections.py",
    "core/metrics_port.py",
    "core/notifications.py",
    "core/redis_link.py",
    "core/schema_state.py",
    "core/security.py",
    "core/signing_keys.py",
    "core/telemetry.py",
    "domain/api_keys/uses.py",
    "domain/events/relay.py",
    "domain/events/sequencing.py",
    "domain/recovery/forgotten.py",
    "domain/seals/anchors.py",
    "domain/seals/sealing.py",
    "domain/source_work/discovery_schedule.py",
    "domain/tenants/suspension.py",
    "domain/webhooks/dispatching.py",
}
"""Loops of the process itself."""


def test_every_file_that_logs_is_known() -> None:
    logging_ones = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if "getLogger(" in path.read_text(encoding="utf-8") and path.name != "logging.py"
    }
    assert logging_ones == {*ON_BEHALF, *ON_NOBODYS}


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    handler, root = Heard("hub.", "app."), logging.getLogger()
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.INFO)
    yield handler.lines
    root.setLevel(before)
    root.removeHandler(handler)


async def _breaks(*_: object, **__: object) -> Any:
    logging.getLogger("hub.tests").warning("something of a service")
    await asyncio.to_thread(logging.getLogger("hub.tests").warning, "something of a thread")
    raise ZeroDivisionError


async def test_every_line_of_a_request_has_its_id_tenant_principal_and_key(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, heard: list[dict[str, Any]]
) -> None:
    made = await hub.admin.post("/api/v1/api-keys", json={"name": "a", "permissions": ["roles:read"]})
    key = made.json()
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    monkeypatch.setattr(hub.parts.reads, "page", _breaks)
    heard.clear()
    answer = await hub.client(key["key"]).get("/api/v1/roles")
    assert answer.status_code == 500
    assert [line["event"] for line in heard] == ["something of a service", "something of a thread", "unhandled error"]
    whose = {"request_id": answer.headers["x-request-id"], "tenant_id": str(DEFAULT_TENANT_ID), "principal_id": me}
    assert [{name: line.get(name) for name in (*whose, "api_key_id")} for line in heard] == [
        {**whose, "api_key_id": key["id"]}
    ] * 3


async def test_every_line_of_a_job_has_its_id_tenant_and_maker(hub: Hub, heard: list[dict[str, Any]]) -> None:
    source = await registered(hub)
    asked = (await hub.admin.post(f"{SOURCES}/{source['id']}/discover")).json()
    heard.clear()
    async with working(hub.parts, {"data_source.discover": _breaks}):
        await ended(hub.admin, asked["id"])
    assert {line["event"] for line in heard} == {
        "something of a service",
        "something of a thread",
        f"job {asked['id']} failed",
    }
    whose = {"job_id": asked["id"], "tenant_id": str(DEFAULT_TENANT_ID), "principal_id": asked["created_by"]}
    assert all({name: line.get(name) for name in whose} == whose for line in heard)


async def _until(heard: list[dict[str, Any]], logger: str, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while len(lines := [line for line in heard if line["logger"] == logger]) < count:
            await asyncio.sleep(0.02)
    return lines


async def test_lines_about_a_scheduled_test_say_so_and_whose_source_it_was(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch, heard: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.02)
    answers = iter([ZeroDivisionError(), Conflict(code="job_ended")])

    async def break_in_turn(*_: object, **__: object) -> Any:
        raise next(answers)

    monkeypatch.setattr(schedule, "run_test", break_in_turn)
    sources = [await registered(hub, test_interval_s=60) for _ in range(2)]
    ids = [UUID(source["id"]) for source in sources]
    heard.clear()
    async with beside(schedule.test_on_schedule(hub.parts)):
        await records.run("UPDATE data_sources SET next_test_at = now() WHERE id = ANY($1)", ids)
        lines = await _until(heard, "hub.schedule", 2)
    assert {(line["activity"], line["tenant_id"]) for line in lines} == {("scheduled test", str(DEFAULT_TENANT_ID))}


async def test_results_that_are_lost_and_sources_that_go_down_are_told_of_with_their_tenant(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch, heard: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.02)
    source = await registered(hub, test_interval_s=60)
    heard.clear()
    async with beside(schedule.test_on_schedule(hub.parts)):
        await records.run("UPDATE data_sources SET next_test_at = now() WHERE id = $1", UUID(source["id"]))
        lines = await _until(heard, "hub.sources", 1)
    assert lines[0]["tenant_id"] == str(DEFAULT_TENANT_ID)
    assert lines[0]["activity"] == schedule.RECORDING


async def test_lines_of_upkeep_say_which(hub: Hub, heard: list[dict[str, Any]]) -> None:
    async def fail(_parts: Parts, _now: object, _most: int) -> int:
        raise OSError

    assert not await upkeep._do(hub.parts, upkeep.Kind("rehearsals", fail), 10)
    (line,) = heard
    assert line["activity"] == "upkeep of rehearsals"


async def test_a_line_about_a_connector_process_is_on_behalf_of_who_asked_for_it(heard: list[dict[str, Any]]) -> None:
    """The first one that asks starts what the others' processes are forked from, too."""
    sandbox = ConnectorSandbox(packages=("tests.connectors.faulty",))
    policy = EgressPolicy(loopback_allowed=True)

    async def break_one(number: int) -> None:
        with bound_to(LogContext(request_id=f"request-{number}")):
            await sandbox.check("misbehaving", {"way": "exit", "target": ""}, {"password": "x"}, policy)

    await asyncio.gather(*(break_one(number) for number in range(3)))
    await sandbox.close()
    lines = [line for line in heard if line["logger"] == "app.connectors.processes.children"]
    assert sorted(line["request_id"] for line in lines) == ["request-0", "request-1", "request-2"]
