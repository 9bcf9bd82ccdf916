"""Work at sources as requests ask for it. No transaction is open while a source is dialled: what is needed is read in
one, what came of it is written in the next."""

from uuid import UUID

from app.connectors import registry
from app.connectors.contract.objects import PreviewResult
from app.connectors.contract.steps import TestResult
from app.core.errors import Conflict, Forbidden, NotFound
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import JobService
from app.domain.requests import HubRequest
from app.domain.source_work.connection_tests import run_test, values_to_test
from app.domain.source_work.connections import connection_of, reach_of
from app.domain.source_work.history import FinishedTest, finished_test, outcome_of, record_tests, summary_of
from app.domain.source_work.previews import only_one, paths_of, run_preview
from app.domain.source_work.schemas import ConnectionPatch, PreviewAsk
from app.domain.sources.configs import plain
from app.domain.sources.reach import Reach
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import NewDataSource, type_of
from app.domain.sources.secrets.uses import use_of_given
from app.domain.sources.services import WRITE
from app.domain.sources.types import require_offered
from app.domain.work import UnitOfWork, work_of_its_own

DISCOVER = "data_source.discover"
TEST = "data-sources:test"


class SourceWorkService:
    def __init__(self, request: HubRequest) -> None:
        self._request = request
        self._parts = request.parts

    async def test_unsaved(self, given: NewDataSource) -> TestResult:
        """Raises BadRequest as registering it would, Forbidden where the caller could not register it anywhere and test
        it then: they would have the hub dial for them."""
        if not self._request.principal.may(TEST) and not self._request.principal.may_together(TEST, WRITE):
            raise Forbidden(f"Where you hold `{TEST}` this needs `{WRITE}`, too.", code="permission_missing")
        connector = registry.get(type_of(given))
        require_offered(self._parts.settings, connector.type)
        secrets = values_to_test(self._parts, self._request.principal, connector, given)
        async with work_of_its_own(self._request) as work:
            reach = Reach(connector.type, plain(given.config), use_of_given(work, secrets, "test"))
        result = await run_test(self._parts, self._request.principal.tenant_id, reach)
        async with work_of_its_own(self._request) as work:
            after = {"type": connector.type} | summary_of(result)
            work.audit("data_source.test_unsaved", "data_source", None, outcome=outcome_of(result), after=after)
        return result

    async def test(self, source_id: UUID, changes: ConnectionPatch | None) -> TestResult:
        """With changes nothing is kept in the history: they are not saved. Raises as an update with them would."""
        async with work_of_its_own(self._request) as work:
            reach = await reach_of(work, source_id, changes)
        result = await run_test(self._parts, self._request.principal.tenant_id, reach)
        async with work_of_its_own(self._request) as work:
            if changes is None:
                await self._record(work, finished_test(source_id, reach, result))
            else:
                outcome, after = outcome_of(result), summary_of(result)
                work.audit("data_source.test_unsaved", "data_source", source_id, outcome=outcome, after=after)
        return result

    async def _record(self, work: UnitOfWork, test: FinishedTest) -> None:
        """Raises NotFound where the source was deleted while it was tested."""
        if not await record_tests(work, [test]):
            raise NotFound

    async def preview(self, source_id: UUID, ask: PreviewAsk) -> PreviewResult:
        """Raises NotFound for an object that the source does not have, Conflict where the source cannot be read."""
        async with work_of_its_own(self._request) as work:
            reach = await connection_of(work, source_id, "preview")
            path, *alike = await paths_of(work, source_id, ask.object)
            work.audit("data_source.preview", "data_source", source_id, after={"object": ask.object})
        secrets = await reach.secrets.read(self._parts, reach.type)
        try:
            return await run_preview(self._parts, reach, secrets, path, ask)
        except NotFound:
            if not alike:
                raise
        return await run_preview(self._parts, reach, secrets, only_one(alike), ask)


class DiscoveryService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def start(self, source_id: UUID) -> JobOut:
        """The job that looks inside; the one already under way, where there is one."""
        sources = DataSourceRepository(self._work.session, tenant_id=self._work.tenant_id)
        source = await sources.get_one(id=source_id, with_for_update=True)
        jobs = JobService(self._work)
        if (running := await jobs.unfinished(DISCOVER, source_id)) is not None:
            return running
        if not registry.get(source.type).capabilities.discover:
            raise Conflict("Sources of this type cannot be discovered.", code="unsupported")
        job = await jobs.enqueue(DISCOVER, subject_id=source_id)
        self._work.audit("data_source.discover", "data_source", source_id, after={"job_id": str(job.id)})
        return job
