"""Traces: what comes of a request, a job or a scheduled test, as a collector gets it by OTLP."""

import asyncio
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from app.core import telemetry
from app.core.database import Connection
from app.core.embedded import EmbeddedPostgres
from app.core.log_context import LogContext, current
from app.core.reads import written
from app.core.telemetry import described, start_sending
from app.core.tenancy import DEFAULT_TENANT_ID
from app.core.tracing import OFF, background_work, traceparent, use
from app.domain.source_work import schedule
from tests.beside import beside
from tests.conftest import Hub, running_hub
from tests.domain.sources import SOURCES, ended, registered, working
from tests.otlp import Collector, Sent, collecting

pytestmark = pytest.mark.anyio

ROLES = "/api/v1/roles"
CANARY = "zebra-in-the-library"


@contextmanager
def sending(url: str) -> Iterator[None]:
    start_sending(url, role="server")
    try:
        yield
    finally:
        use(OFF)
        Connection.query_logger = None


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with pytest.MonkeyPatch.context() as patch, collecting() as found:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with sending(found.url):
            yield found


@pytest.fixture(scope="module")
async def hub(
    collector: Collector, cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub")) as found:
        yield found


def made_up() -> tuple[str, str, dict[str, str]]:
    """Ids of a trace and a span of somebody else's, and the headers that tell of them."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-01"}


async def spans_of(collector: Collector, trace_id: str, name: str) -> list[Sent]:
    return await collector.wait_for(lambda span: span.trace_id == trace_id and span.name == name)


async def test_a_request_goes_on_with_the_trace_that_it_names(hub: Hub, collector: Collector) -> None:
    role = await hub.new_role()
    trace_id, span_id, headers = made_up()
    answer = await hub.admin.get(f"{ROLES}/{role['id']}", headers=headers)
    assert answer.status_code == 200
    (request,) = await spans_of(collector, trace_id, "GET /api/v1/roles/{role_id}")
    assert (request.parent_id, request.kind, request.is_error) == (span_id, Span.SPAN_KIND_SERVER, False)
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/api/v1/roles/{role_id}",
        "http.response.status_code": 200,
        "hub.request_id": answer.headers["x-request-id"],
        "hub.tenant_id": str(DEFAULT_TENANT_ID),
        "hub.principal_id": role["created_by"],
    }
    (statement,) = await spans_of(collector, trace_id, "SELECT roles")
    assert (statement.parent_id, statement.kind) == (request.span_id, Span.SPAN_KIND_CLIENT)
    assert collector.paths == {"/v1/traces"}


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-é-1-01"])
async def test_a_request_without_a_proper_trace_begins_one(hub: Hub, collector: Collector, given: str) -> None:
    answer = await hub.admin.get(ROLES, headers=[(b"traceparent", given.encode())] if given else [])
    asked = answer.headers["x-request-id"]
    (request,) = await collector.wait_for(lambda span: span.attributes.get("hub.request_id") == asked)
    assert request.parent_id == ""


async def test_of_a_request_that_is_not_to_be_traced_nothing_is_sent(hub: Hub, collector: Collector) -> None:
    trace_id, span_id, _ = made_up()
    await hub.admin.get(ROLES, headers={"traceparent": f"00-{trace_id}-{span_id}-00"})
    other, _, headers = made_up()
    await hub.admin.get(ROLES, headers=headers)
    await spans_of(collector, other, "GET /api/v1/roles")
    assert not [span for span in collector.spans if span.trace_id == trace_id]


async def test_a_change_has_its_statements_and_its_event_the_trace(hub: Hub, collector: Collector) -> None:
    trace_id, _, headers = made_up()
    made = await hub.admin.post("/api/v1/data-domains", json={"name": uuid4().hex}, headers=headers)
    assert made.status_code == 201, made.text
    (request,) = await spans_of(collector, trace_id, "POST /api/v1/data-domains")
    owner = await asyncpg.connect(hub.owner_url)
    subject = f"data-domains/{made.json()['id']}"
    sent_on = await owner.fetchval("SELECT traceparent FROM outbox_events WHERE subject = $1", subject)
    await owner.close()
    assert sent_on == f"00-{trace_id}-{request.span_id}-01"
    (statement, *_) = await collector.wait_for(
        lambda span: span.parent_id == request.span_id and span.attributes["db.operation.name"] == "INSERT"
    )
    assert statement.attributes["db.system.name"] == "postgresql"


async def test_a_statement_that_fails_says_its_state_and_no_more(hub: Hub, collector: Collector) -> None:
    role = await hub.new_role()
    trace_id, _, headers = made_up()
    taken = await hub.admin.post(ROLES, json={"name": role["name"]}, headers=headers)
    assert taken.status_code == 409
    (request,) = await spans_of(collector, trace_id, "POST /api/v1/roles")
    (failed,) = await collector.wait_for(lambda span: span.parent_id == request.span_id and span.is_error)
    assert failed.attributes["error.type"] == "23505"
    assert not request.is_error, "a 409 is the caller's error"


async def test_nothing_that_somebody_said_is_sent(hub: Hub, collector: Collector) -> None:
    name = f"{CANARY}-{uuid4().hex}"
    trace_id, _, headers = made_up()
    made = await hub.admin.post(ROLES, json={"name": name, "description": CANARY}, headers=headers)
    assert made.status_code == 201, made.text
    for query in (f"?q={CANARY}", f"?name={name}", f"?sort={CANARY}"):
        await hub.admin.get(ROLES + query, headers=headers)
    await hub.client().post("/api/v1/auth/login", json={"email": f"{CANARY}@example.org", "password": CANARY})
    await hub.client().get(f"/{CANARY}", headers=headers | {"host": f"{CANARY}.example"})
    await spans_of(collector, trace_id, "GET")
    assert not [body for body in collector.bodies if CANARY.encode() in body]


async def test_a_test_of_a_source_is_a_span_of_its_request(hub: Hub, collector: Collector) -> None:
    source = await registered(hub)
    trace_id, _, headers = made_up()
    tested = await hub.admin.post(f"{SOURCES}/{source['id']}/test", headers=headers)
    assert tested.json()["status"] == "failed"
    (request,) = await spans_of(collector, trace_id, "POST /api/v1/data-sources/{source_id}/test")
    (run,) = await spans_of(collector, trace_id, "connector check postgresql")
    assert run.parent_id == request.span_id
    failed = next(step["code"] for step in tested.json()["steps"] if step["status"] == "failed")
    assert run.attributes["hub.connector.code"] == failed
    assert run.is_error


async def test_a_job_has_a_trace_of_its_own_with_a_link_to_the_request_that_made_it(
    hub: Hub, collector: Collector
) -> None:
    source = await registered(hub)
    trace_id, _, headers = made_up()
    asked = await hub.admin.post(f"{SOURCES}/{source['id']}/discover", headers=headers)
    async with working(hub.parts):
        job = await ended(hub.admin, asked.json()["id"])
    assert job["status"] == "failed", "nothing listens where the source is said to be"
    (request,) = await spans_of(collector, trace_id, "POST /api/v1/data-sources/{source_id}/discover")
    of_job = {"hub.job_id": job["id"], "hub.job.status": "failed"}  # of its last attempt
    (done,) = await collector.wait_for(lambda span: of_job.items() <= span.attributes.items())
    assert done.name == "job data_source.discover"
    assert done.links == [(trace_id, request.span_id)]
    assert (done.trace_id != trace_id, done.parent_id, done.is_error) == (True, "", True)
    (run,) = await spans_of(collector, done.trace_id, "connector discover postgresql")
    assert run.parent_id == done.span_id
    owner = await asyncpg.connect(hub.owner_url)
    of_end = await owner.fetchval(
        "SELECT traceparent FROM outbox_events WHERE subject = $1 AND type LIKE '%failed'", f"jobs/{job['id']}"
    )
    await owner.close()
    assert of_end[:-2] == f"00-{done.trace_id}-{done.span_id}-"


async def test_what_nobody_asked_for_begins_a_trace_and_lines_name_it(hub: Hub, collector: Collector) -> None:
    with background_work("a rehearsal", LogContext(activity="a rehearsal")):
        bound = current()
        assert bound.trace_id is not None
        assert bound.activity == "a rehearsal"
        assert bound.trace_id in str(traceparent())
        await hub.parts.reads.rows(written("SELECT count(*) FROM permissions", table="permissions"), {})
    (span,) = await collector.wait_for(lambda span: span.name == "a rehearsal")
    assert span.trace_id == bound.trace_id
    (statement,) = await spans_of(collector, span.trace_id, "SELECT permissions")
    assert statement.parent_id == span.span_id
    assert current() == LogContext()
    assert traceparent() is None


async def test_statements_on_nobodys_behalf_are_not_sent(hub: Hub, collector: Collector) -> None:
    seen = len(collector.spans)
    async with hub.parts.sessions.begin(None) as session:
        await session.connection()
    await hub.parts.reads.rows(written("SELECT count(*) FROM permissions", table="permissions"), {})
    trace_id, _, headers = made_up()
    await hub.admin.get(ROLES, headers=headers)
    await spans_of(collector, trace_id, "GET /api/v1/roles")
    assert {span.trace_id for span in collector.spans[seen:]} == {trace_id}


async def test_a_scheduled_test_is_a_trace_of_its_own(
    hub: Hub, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "POLL_S", 0.02)
    source = await registered(hub, test_interval_s=60)
    owner = await asyncpg.connect(hub.owner_url)
    await owner.execute("UPDATE data_sources SET next_test_at = now() WHERE id = $1", source["id"])
    await owner.close()
    async with beside(schedule.test_on_schedule(hub.parts)):
        (test,) = await collector.wait_for(lambda span: span.attributes.get("hub.data_source_id") == source["id"])
        (run,) = await spans_of(collector, test.trace_id, "connector check postgresql")
        (record,) = await collector.wait_for(lambda span: span.name == schedule.RECORDING)
    assert (test.name, test.parent_id, run.parent_id) == ("scheduled test", "", test.span_id)
    await collector.wait_for(lambda span: span.parent_id == record.span_id and span.name == "INSERT data_source_tests")


async def test_the_health_of_the_hub_is_not_traced(hub: Hub, collector: Collector) -> None:
    trace_id, _, headers = made_up()
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert (await hub.admin.get(path, headers=headers)).status_code == 200
    other, _, headers = made_up()
    await hub.admin.get(ROLES, headers=headers)
    await spans_of(collector, other, "GET /api/v1/roles")
    assert not [span for span in collector.spans if span.trace_id == trace_id]


# --- a collector that is away ---


async def test_a_collector_that_is_away_is_told_of_once_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "EXPORT_TIMEOUT_S", 0.2)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        tracer = telemetry.SendingTracer(f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces", "server")
        lost = telemetry._spans.labels("lost")
        before = lost._value.get()
        while lost._value.get() < before + 3:
            with tracer.root_span("in vain", {}, None):
                await asyncio.sleep(0.01)
        await tracer.close()
    told = [record for record in caplog.records if record.name.startswith(("hub.tracing", "opentelemetry"))]
    assert [record.levelname for record in told if record.levelname != "INFO"] == ["WARNING"]
    assert "takes no traces" in told[0].getMessage()


async def test_a_collector_that_is_back_gets_what_comes_then(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hub.tracing")
    exporter = telemetry._ToldOnce(_Wavering([False, False, True, True]), "collector:4318")
    for _ in range(4):
        exporter.export([])
    told = [record.getMessage() for record in caplog.records if record.name == "hub.tracing"]
    assert told == ["collector:4318 takes no traces; they are lost until it does", "collector:4318 takes traces again"]


class _Wavering(SpanExporter):
    def __init__(self, answers: list[bool]) -> None:
        self._answers = answers

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self._answers.pop(0) else SpanExportResult.FAILURE


# --- what a statement is called ---


@pytest.mark.parametrize(
    ("statement", "operation", "place"),
    [
        ("SELECT roles.id, roles.name FROM roles WHERE roles.tenant_id = $1", "SELECT", "roles"),
        ("UPDATE data_sources AS source SET status = 'x'", "UPDATE", "data_sources"),
        ("INSERT INTO public.jobs (id) VALUES ($1)", "INSERT", "jobs"),
        ("DELETE FROM sessions WHERE id = 'select from users'", "DELETE", "sessions"),
        ("WITH added AS (INSERT INTO roles (id) SELECT id FROM x), audited AS (INSERT INTO audit_events ...)", "INSERT", "roles"),
        ("WITH held AS (SELECT 1 FROM role_assignments) SELECT * FROM held", "SELECT", "role_assignments"),
        ("SELECT * FROM public.unfinished_jobs(10000)", "SELECT", "unfinished_jobs"),
        ("SELECT public.give_positions_to_events($1)", "SELECT", "give_positions_to_events"),
        ("BEGIN;SET LOCAL hub.tenant_id = 'zebra'", "BEGIN", ""),
        ("SET hub.tenant_id = 'zebra'", "SET", ""),
        ("COMMIT;", "COMMIT", ""),
        ("SELECT * FROM zebras", "SELECT", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_a_statement_is_called_by_its_kind_and_the_table_of_ours(statement: str, operation: str, place: str) -> None:
    assert described(statement) == (operation, place)


# --- off ---


@pytest.mark.slow
def test_without_a_collector_nothing_that_sends_is_imported_and_nothing_stands_in_the_way() -> None:
    look = """
import sys
from app import asgi, worker
from app.core.database import Connection
from app.core.exchange import Exchange
from app.runtime import start_tracing
from app.settings import load

settings = load({"HUB_DATA_DIR": sys.argv[1]}, env_file=None)
start_tracing(settings, role="server")
parts = asgi.prepare_parts(settings, "postgresql://hub@127.0.0.1:9/hub")
frame = asgi.framed(asgi.create_app(parts), settings)
assert frame._begin is Exchange
assert Connection.query_logger is None
assert not parts.engine.sync_engine.dispatch.before_cursor_execute
# Litestar looks for the API of what may be installed beside it; what sends is another package.
assert not [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
"""
    with TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", look, folder], check=True, timeout=120)
