"""Data source types and data sources: registered, listed, changed, deleted."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, location_header, no_content
from app.core.bodies import media_type_of
from app.core.error_codes import Code
from app.core.errors import NotFound
from app.core.lists.keyed import IN_MEMORY_PARAMETERS, page_of_names
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.roles.confirming import CONFIRMING, confirmable
from app.domain.sources.bulk import BulkRegistration
from app.domain.sources.repositories import DATA_SOURCE, DATA_SOURCES
from app.domain.sources.schemas import (
    BulkOut,
    DataSourceBulk,
    DataSourceCreate,
    DataSourceOut,
    DataSourcePatch,
    DataSourceSaved,
    TypeOut,
    UnreadBulk,
)
from app.domain.sources.services import DataSourceService
from app.domain.sources.types import offered
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
PATH = "/api/v1/data-sources"


OF_NEW: tuple[Code, ...] = ("exceeds_own_permissions", "name_taken", "type_unavailable")
WRITING = requires("data-sources:write", on="data_source", parameters=CONFIRMING)
REGISTERING = outcomes("holders_unconfirmed", *OF_NEW)
CHANGING = outcomes(
    "holders_unconfirmed",
    "exceeds_own_permissions",
    "name_taken",
    "secret_reentry_required",
    "secret_unresolved",
)


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

    @get("/", opt=requires("data-sources:read", on="data_source", listing=DATA_SOURCES), summary="List data sources")
    async def list_sources(self, request: HubRequest) -> Answer[Page[DataSourceOut]]:
        """Every source of the tenant, a page at a time. Nothing is dialled."""
        query = DATA_SOURCES.parse(request.query_string).within(request.principal.extent("data-sources:read"))
        tenant_id = request.principal.tenant_id
        return answer(
            request.exchange, await request.parts.reads.page(DATA_SOURCES, query, DataSourceOut, tenant_id=tenant_id)
        )

    @get("/{source_id:uuid}", opt=requires("data-sources:read", on="data_source"), summary="Get a data source")
    async def get_source(self, request: HubRequest, source_id: FromPath[UUID]) -> Tagged[DataSourceOut]:
        """One source; of its secrets only that they are set."""
        source = await request.parts.reads.one(
            DATA_SOURCE, DataSourceOut, id=source_id, tenant_id=request.principal.tenant_id
        )
        return entity(request.exchange, source)

    @post("/", opt=WRITING | REGISTERING, summary="Register a data source")
    @confirmable
    @idempotent
    async def create_source(
        self, request: HubRequest, work: Work, data: RequestBody[DataSourceCreate]
    ) -> Tagged[DataSourceSaved]:
        """The type decides what `config` and `secrets` take. Nothing is dialled. In a data domain this takes the
        permission there, outside of all domains for the whole tenant.

        A secret is a text, or a reference such as `{"ref": "env:SHOP_PASSWORD"}` where the hub's operator allows it.
        """
        source = await DataSourceService(work).create(data)
        return created(request.exchange, source, f"{PATH}/{source.id}")

    @post(
        "/bulk",
        opt=WRITING
        | outcomes(*OF_NEW, "holders_unconfirmed", "secret_reentry_required", by_status={200: BulkOut})
        | {"body_as": DataSourceBulk},
        summary="Register many data sources",
    )
    @confirmable
    @idempotent
    async def create_sources(self, request: HubRequest, work: Work, data: RequestBody[UnreadBulk]) -> Answer[BulkOut]:
        """Up to 500 at once; all or none, unless `atomic` is false. Nothing is dialled.

        Where nothing can be saved the answer is a 400 that names every fault of every item, or a 409 where nothing is
        wrong but names that are taken. With `on_conflict` the same request can be sent again: sources that have the
        names are passed over, or changed as a PATCH with the item's fields would change them. 200 in place of 201 where
        nothing was created; a dry run ends as the real one would.
        """
        media_type = media_type_of(request.exchange.header(b"content-type"))
        report = await BulkRegistration(work).register(data, media_type)
        if not report.created:
            return answer(request.exchange, report)
        response = answer(request.exchange, report, status=201)
        response.wire_headers.append(location_header(request.exchange, PATH))
        return response

    @patch(
        "/{source_id:uuid}",
        opt=WRITING | CHANGING,
        summary="Change a data source",
    )
    @confirmable
    async def update_source(
        self, request: HubRequest, work: Work, source_id: FromPath[UUID], data: RequestBody[DataSourcePatch]
    ) -> Tagged[DataSourceSaved]:
        """JSON Merge Patch (RFC 7396). Where the stored secrets would go elsewhere, they have to be given again. For
        another `data_domain_id` one may write there, too."""
        return entity(request.exchange, await DataSourceService(work).update(source_id, data), changed=True)

    @delete("/{source_id:uuid}", opt=requires("data-sources:write", on="data_source"), summary="Delete a data source")
    async def delete_source(self, request: HubRequest, work: Work, source_id: FromPath[UUID]) -> Answer[None]:
        """With its secrets, tests and objects."""
        await DataSourceService(work).delete(source_id)
        return no_content()
