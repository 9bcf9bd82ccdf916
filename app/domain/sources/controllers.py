"""Data source types, data sources, their tests, objects and previews."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.connectors import registry
from app.connectors.contract.base import PreviewResult, TestResult
from app.core.answers import Answer, accepted, answer, created, entity, no_content
from app.core.bodies import media_type_of
from app.core.errors import Forbidden, NotFound
from app.core.listing import IN_MEMORY_PARAMETERS, Page, page_of_names
from app.core.security import requires
from app.domain.idempotency.services import idempotent
from app.domain.jobs.schemas import JobOut
from app.domain.requests import HubRequest
from app.domain.sources.registration import Registration, plain
from app.domain.sources.repositories import DATA_SOURCE, DATA_SOURCES, OBJECT, OBJECTS, TESTS
from app.domain.sources.schemas import (
    BulkOut,
    Connection,
    ConnectionPatch,
    DataSourceBulk,
    DataSourceCreate,
    DataSourceOut,
    DataSourcePatch,
    DataSourceSaved,
    ObjectOut,
    PreviewAsk,
    TestOut,
    TypeOut,
    UnreadBulk,
    type_of,
)
from app.domain.sources.services import DataSourceService, Reach, run_preview, run_test, values_to_test
from app.domain.sources.tables import as_arrow, as_csv
from app.domain.sources.types import offered, require_offered
from app.domain.work import UnitOfWork, record_refusal, work_of_its_own

Work = NamedDependency[UnitOfWork]
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PATH = "/api/v1/data-sources"


class DataSourceTypeController(Controller):
    path = "/data-source-types"
    tags = ["data sources"]

    @get("/", opt=requires("data-source-types:read", parameters=IN_MEMORY_PARAMETERS), summary="List data source types")
    async def list_types(self, request: HubRequest) -> Answer[Page[TypeOut]]:
        """What can be registered, with the JSON Schema of what each type takes."""
        return answer(request.exchange, page_of_names(offered(request.parts.settings), request.query_string))

    @get("/{type_name:str}", opt=requires("data-source-types:read"), summary="Get a data source type")
    async def get_type(self, request: HubRequest, type_name: FromPath[str]) -> Answer[TypeOut]:
        """One type."""
        types = offered(request.parts.settings)
        if type_name not in types:
            raise NotFound
        return answer(request.exchange, types[type_name])


class DataSourceController(Controller):
    path = "/data-sources"
    tags = ["data sources"]

    @get("/", opt=requires("data-sources:read", listing=DATA_SOURCES), summary="List data sources")
    async def list_sources(self, request: HubRequest) -> Answer[Page[DataSourceOut]]:
        """Every source of the tenant, a page at a time. Nothing is dialled."""
        query, tenant_id = DATA_SOURCES.parse(request.query_string), request.principal.tenant_id
        return answer(
            request.exchange, await request.parts.reads.page(DATA_SOURCES, query, DataSourceOut, tenant_id=tenant_id)
        )

    @get("/{source_id:uuid}", opt=requires("data-sources:read"), summary="Get a data source")
    async def get_source(self, request: HubRequest, source_id: FromPath[UUID]) -> Answer[DataSourceOut]:
        """One source; of its secrets only that they are set."""
        source = await request.parts.reads.one(
            DATA_SOURCE, DataSourceOut, id=source_id, tenant_id=request.principal.tenant_id
        )
        return entity(request.exchange, source)

    @post("/", opt=requires("data-sources:write"), summary="Register a data source")
    @idempotent
    async def create_source(
        self, request: HubRequest, work: Work, data: RequestBody[DataSourceCreate]
    ) -> Answer[DataSourceSaved]:
        """The type decides what `config` and `secrets` take. Nothing is dialled.

        A secret is a text, or a reference such as `{"ref": "env:SHOP_PASSWORD"}` where the hub's operator allows it.
        """
        source = await Registration(work).one(data)
        return created(request.exchange, source, f"{PATH}/{source.id}")

    @post(
        "/bulk",
        opt=requires("data-sources:write") | {"body_as": DataSourceBulk, "other_answers": {200: BulkOut}},
        summary="Register many data sources",
    )
    @idempotent
    async def create_sources(self, request: HubRequest, work: Work, data: RequestBody[UnreadBulk]) -> Answer[BulkOut]:
        """Up to 500 at once; all or none, unless `atomic` is false. Nothing is dialled.

        Where nothing can be saved the answer is a 400 that names every fault of every item, or a 409 where nothing is
        wrong but names that are taken. A dry run ends as the real one would, with 200 in place of 201.
        """
        media_type = media_type_of(request.exchange.header(b"content-type"))
        report = await Registration(work).many(data, media_type)
        if data.dry_run:
            return answer(request.exchange, report)
        response = answer(request.exchange, report, status=201)
        response.wire_headers.append((b"location", PATH.encode()))
        return response

    @patch("/{source_id:uuid}", opt=requires("data-sources:write"), summary="Change a data source")
    async def update_source(
        self, request: HubRequest, work: Work, source_id: FromPath[UUID], data: RequestBody[DataSourcePatch]
    ) -> Answer[DataSourceSaved]:
        """JSON Merge Patch (RFC 7396). Where the stored secrets would go elsewhere, they have to be given again."""
        return entity(request.exchange, await DataSourceService(work).update(source_id, data), changed=True)

    @delete("/{source_id:uuid}", opt=requires("data-sources:write"), summary="Delete a data source")
    async def delete_source(self, request: HubRequest, work: Work, source_id: FromPath[UUID]) -> Answer[None]:
        """With its secrets, tests and objects."""
        await DataSourceService(work).delete(source_id)
        return no_content()

    @post("/test", opt=requires("data-sources:test"), status_code=200, summary="Test a connection without saving")
    async def test_connection(self, request: HubRequest, data: RequestBody[Connection]) -> Answer[TestResult]:
        """Step by step, within ten seconds.

        A failure at the source is a 200 that says what broke, and whose fault it is.
        """
        result = await _test_unsaved(request, data)
        return answer(request.exchange, result)

    @post("/{source_id:uuid}/test", opt=requires("data-sources:test"), status_code=200, summary="Test a data source")
    async def test_source(
        self, request: HubRequest, source_id: FromPath[UUID], data: RequestBody[ConnectionPatch | None] = None
    ) -> Answer[TestResult]:
        """As it is saved; the result goes into its history.

        With a body it is a change that is tested before it is saved, and no history is written. Where the change would
        send the stored secrets elsewhere, they have to be given with it.
        """
        async with refusals_recorded(request), work_of_its_own(request) as work:
            reach = await DataSourceService(work).reach_of(source_id, data)
        result = await run_test(request.parts, request.principal.tenant_id, reach)
        async with work_of_its_own(request) as work:
            if data is None:
                await DataSourceService(work).record_test(source_id, result, reach.secret_versions)
            else:
                work.audit("data_source.test_unsaved", "data_source", source_id, after={"status": result.status})
        return answer(request.exchange, result)

    @get(
        "/{source_id:uuid}/tests",
        opt=requires("data-sources:read", listing=TESTS),
        summary="List a data source's tests",
    )
    async def list_tests(self, request: HubRequest, source_id: FromPath[UUID]) -> Answer[Page[TestOut]]:
        """The history, newest first."""
        query, parent = TESTS.parse(request.query_string), await _parent(request, source_id)
        return answer(request.exchange, await request.parts.reads.page(TESTS, query, TestOut, **parent))

    @post(
        "/{source_id:uuid}/discover",
        opt=requires("data-sources:discover"),
        status_code=202,
        summary="Discover a data source",
    )
    @idempotent
    async def discover(self, request: HubRequest, work: Work, source_id: FromPath[UUID]) -> Answer[JobOut]:
        """Start a job that looks for objects and their fields; the job already under way, where there is one."""
        job = await DataSourceService(work).discover(source_id)
        return accepted(request.exchange, job, f"/api/v1/jobs/{job.id}")

    @get(
        "/{source_id:uuid}/objects",
        opt=requires("data-sources:read", listing=OBJECTS),
        summary="List a data source's objects",
    )
    async def list_objects(self, request: HubRequest, source_id: FromPath[UUID]) -> Answer[Page[ObjectOut]]:
        """What discovery found."""
        query, parent = OBJECTS.parse(request.query_string), await _parent(request, source_id)
        return answer(request.exchange, await request.parts.reads.page(OBJECTS, query, ObjectOut, **parent))

    @get("/{source_id:uuid}/objects/{object_id:uuid}", opt=requires("data-sources:read"), summary="Get an object")
    async def get_object(
        self, request: HubRequest, source_id: FromPath[UUID], object_id: FromPath[UUID]
    ) -> Answer[ObjectOut]:
        """One object with its fields."""
        parent = {"data_source_id": source_id, "tenant_id": request.principal.tenant_id}
        return answer(request.exchange, await request.parts.reads.one(OBJECT, ObjectOut, id=object_id, **parent))

    @post(
        "/{source_id:uuid}/preview",
        opt=requires("data-sources:preview") | {"also_as": (CSV, ARROW)},
        status_code=200,
        summary="Preview an object",
    )
    async def preview(
        self, request: HubRequest, source_id: FromPath[UUID], data: RequestBody[PreviewAsk]
    ) -> Answer[PreviewResult]:
        """Sample rows: JSON, CSV (`Accept: text/csv`) or an Arrow stream. Never more than 1,000 rows or one mebibyte.

        In CSV a text that a spreadsheet would run as a formula has an apostrophe before it.
        """
        async with work_of_its_own(request) as work:
            service = DataSourceService(work)
            source, secrets = await service.connection_of(source_id)
            path = await service.path_of(source_id, data.object)
            work.audit("data_source.preview", "data_source", source_id, after={"object": data.object})
        found = await run_preview(request.parts, source, secrets, path, data)
        if request.exchange.accepts(CSV):
            return Answer(200, [(b"content-type", b"text/csv; charset=utf-8")], as_csv(found))
        if request.exchange.accepts(ARROW):
            return Answer(200, [(b"content-type", ARROW.encode())], as_arrow(found))
        return answer(request.exchange, found)


async def _test_unsaved(request: HubRequest, data: Any) -> TestResult:
    connector = registry.get(type_of(data))
    require_offered(request.parts.settings, connector.type)
    async with refusals_recorded(request):
        secrets = values_to_test(request.parts, request.principal, connector, data)
    result = await run_test(
        request.parts, request.principal.tenant_id, Reach(connector.type, plain(data.config), secrets)
    )
    async with work_of_its_own(request) as work:
        work.audit(
            "data_source.test_unsaved", "data_source", None, after={"type": connector.type, "status": result.status}
        )
    return result


@asynccontextmanager
async def refusals_recorded(request: HubRequest) -> AsyncIterator[None]:
    """What a handler without a transaction of its own refuses is on record before its 403 is sent."""
    try:
        yield
    except Forbidden as error:
        await record_refusal(request.parts, request.exchange, error)
        raise


async def _parent(request: HubRequest, source_id: UUID) -> dict[str, UUID]:
    """Raises NotFound where the source is not one that the caller may see."""
    tenant_id = request.principal.tenant_id
    await request.parts.reads.one(DATA_SOURCE, DataSourceOut, id=source_id, tenant_id=tenant_id)
    return {"data_source_id": source_id, "tenant_id": tenant_id}
