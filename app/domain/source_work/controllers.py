"""Work at data sources: their tests, what discovery found in them, previews."""

from uuid import UUID

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.connectors.contract.objects import PreviewResult
from app.connectors.contract.steps import TestResult
from app.core.answers import Answer, accepted, answer
from app.core.error_codes import Code
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.idempotency.services import idempotent
from app.domain.jobs.schemas import JobOut
from app.domain.requests import HubRequest
from app.domain.source_work.failures import SOURCE_CODES
from app.domain.source_work.repositories import OBJECT, OBJECTS, TESTS
from app.domain.source_work.schemas import Connection, ConnectionPatch, ObjectOut, PreviewAsk, TestOut
from app.domain.source_work.services import DiscoveryService, SourceWorkService
from app.domain.source_work.tables import as_arrow, as_csv
from app.domain.sources.repositories import DATA_SOURCE
from app.domain.sources.schemas import DataSourceOut
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"


OF_CONNECTORS: tuple[Code, ...] = ("connectors_busy", "too_many_connector_runs")
OF_STORED_SECRETS: tuple[Code, ...] = ("secret_unreadable", "secret_unresolved")
RUN = costs("connector run")
TESTING_UNSAVED = outcomes("type_unavailable", *OF_CONNECTORS)
TESTING = outcomes("secret_reentry_required", *OF_STORED_SECRETS, *OF_CONNECTORS)
PREVIEWING = outcomes(
    *OF_CONNECTORS,
    *OF_STORED_SECRETS,
    *SOURCE_CODES.values(),
    "arrow_unavailable",
    "object_not_found",
    "unsupported",
    also_as=(CSV, ARROW),
)


class SourceWorkController(Controller):
    path = "/data-sources"
    tags = ["data sources"]

    @post(
        "/test",
        opt=requires("data-sources:test", on="data_source") | TESTING_UNSAVED | RUN,
        status_code=200,
        summary="Test a connection without saving",
    )
    async def test_connection(self, request: HubRequest, data: RequestBody[Connection]) -> Answer[TestResult]:
        """Step by step, within ten seconds. For those who could register it somewhere and test it there.

        A failure at the source is a 200 that says what broke, and whose fault it is.
        """
        return answer(request.exchange, await SourceWorkService(request).test_unsaved(data))

    @post(
        "/{source_id:uuid}/test",
        opt=requires("data-sources:test", on="data_source") | TESTING | RUN,
        status_code=200,
        summary="Test a data source",
    )
    async def test_source(
        self, request: HubRequest, source_id: FromPath[UUID], data: RequestBody[ConnectionPatch | None] = None
    ) -> Answer[TestResult]:
        """As it is saved; the result goes into its history.

        With a body it is a change that is tested before it is saved, and no history is written. Where the change would
        send the stored secrets elsewhere, they have to be given with it.
        """
        return answer(request.exchange, await SourceWorkService(request).test(source_id, data))

    @get(
        "/{source_id:uuid}/tests",
        opt=requires("data-sources:read", on="data_source", listing=TESTS),
        summary="List a data source's tests",
    )
    async def list_tests(self, request: HubRequest, source_id: FromPath[UUID]) -> Answer[Page[TestOut]]:
        """The history, newest first."""
        query, parent = TESTS.parse(request.query_string), await _parent(request, source_id)
        return answer(request.exchange, await request.parts.reads.page(TESTS, query, TestOut, **parent))

    @post(
        "/{source_id:uuid}/discover",
        opt=requires("data-sources:discover", on="data_source") | outcomes("unsupported") | RUN,
        status_code=202,
        summary="Discover a data source",
    )
    @idempotent
    async def discover_data_source(self, request: HubRequest, work: Work, source_id: FromPath[UUID]) -> Answer[JobOut]:
        """Start a job that looks for objects and their fields; the job already under way, where there is one."""
        job = await DiscoveryService(work).start(source_id)
        return accepted(request.exchange, job, f"/api/v1/jobs/{job.id}")

    @get(
        "/{source_id:uuid}/objects",
        opt=requires("data-sources:read", on="data_source", listing=OBJECTS),
        summary="List a data source's objects",
    )
    async def list_objects(self, request: HubRequest, source_id: FromPath[UUID]) -> Answer[Page[ObjectOut]]:
        """What discovery found."""
        query, parent = OBJECTS.parse(request.query_string), await _parent(request, source_id)
        return answer(request.exchange, await request.parts.reads.page(OBJECTS, query, ObjectOut, **parent))

    @get(
        "/{source_id:uuid}/objects/{object_id:uuid}",
        opt=requires("data-sources:read", on="data_source"),
        summary="Get an object",
    )
    async def get_object(
        self, request: HubRequest, source_id: FromPath[UUID], object_id: FromPath[UUID]
    ) -> Answer[ObjectOut]:
        """One object with its fields."""
        parent = {"data_source_id": source_id, "tenant_id": request.principal.tenant_id}
        return answer(request.exchange, await request.parts.reads.one(OBJECT, ObjectOut, id=object_id, **parent))

    @post(
        "/{source_id:uuid}/preview",
        opt=requires("data-sources:preview", on="data_source") | PREVIEWING | RUN,
        status_code=200,
        summary="Preview an object",
    )
    async def preview_data_source(
        self, request: HubRequest, source_id: FromPath[UUID], data: RequestBody[PreviewAsk]
    ) -> Answer[PreviewResult]:
        """Sample rows: JSON, CSV (`Accept: text/csv`) or an Arrow stream. Never more than 1,000 rows or one mebibyte.

        In CSV a text that a spreadsheet would run as a formula has an apostrophe before it.
        """
        return _in_wanted_form(request, await SourceWorkService(request).preview(source_id, data))


def _in_wanted_form(request: HubRequest, found: PreviewResult) -> Answer[PreviewResult]:
    """JSON and MessagePack unless the caller would rather have rows in a form for tables."""
    if request.exchange.accepts(CSV):
        return Answer(200, [(b"content-type", b"text/csv; charset=utf-8")], as_csv(found))
    if request.exchange.accepts(ARROW):
        return Answer(200, [(b"content-type", ARROW.encode())], as_arrow(found))
    return answer(request.exchange, found)


async def _parent(request: HubRequest, source_id: UUID) -> dict[str, UUID]:
    """Raises NotFound where the source is not one that the caller may see."""
    tenant_id = request.principal.tenant_id
    await request.parts.reads.one(DATA_SOURCE, DataSourceOut, id=source_id, tenant_id=tenant_id)
    return {"data_source_id": source_id, "tenant_id": tenant_id}
