"""The rules about data sources: registered with what their type takes, tested unsaved, dialled only when asked."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import insert, select
from uuid_utils.compat import uuid7

from app.connectors import registry
from app.connectors.contract.base import (
    PreviewRequest,
    PreviewResult,
    StepName,
    Steps,
    TestResult,
    unqualify,
)
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.processes.sandbox import SandboxError, TooManyConnectorRuns
from app.core.bodies import convert
from app.core.errors import BadRequest, Conflict, Fault, HubError, NotFound, TooManyRequests, Unavailable
from app.core.listing import parse_uuid
from app.core.schemas import canonical_name, changes_of
from app.core.security import Principal
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import JobService
from app.domain.parts import Parts
from app.domain.roles.services import RoleService
from app.domain.sources import duplicates, references
from app.domain.sources import secrets as source_secrets
from app.domain.sources.echoes import failure_without_secrets, without_secrets
from app.domain.sources.models import DataSource, DataSourceTest, SourceObject
from app.domain.sources.registration import distinct, first_test, plain, saved
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import (
    ConnectionPatch,
    DataSourceOut,
    DataSourcePatch,
    DataSourceSaved,
    NewDataSource,
    PreviewAsk,
    SourceWarning,
    Value,
    Values,
)
from app.domain.sources.types import offered
from app.domain.work import UnitOfWork

DISCOVER = "data_source.discover"
UNDIALLED: tuple[StepName, ...] = ("resolve", "connect", "tls")


class Reach(Struct):
    """All that connector work needs of a source, saved or not."""

    type: str
    config: Mapping[str, Any]
    secrets: Mapping[str, Value]
    secret_versions: Mapping[str, int] = {}
    """Of the stored ones among them."""
    fingerprint: bytes | None = None


class DataSourceService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._sources = DataSourceRepository(work.session)

    async def update(self, source_id: UUID, patch: DataSourcePatch) -> DataSourceSaved:
        """Raises Conflict (`secret_reentry_required`) where a stored secret would go where it was not given for."""
        changes = changes_of(patch)
        self._judge_references(changes)
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        given = await self._secrets_to_change(source, changes)
        reach = await self._merged(source, changes.get("config", {}), given) if "config" in changes or given else None
        is_reconfigured = reach is not None and reach.config != source.config
        if reach is not None:
            changes["config"] = reach.config
        if "name" in changes:
            changes["name"] = changes["name"].strip()
            changes["name_key"] = canonical_name(changes["name"])
        if "tags" in changes:
            changes["tags"] = distinct(changes["tags"] or [])
        if changes.get("test_interval_s", source.test_interval_s) != source.test_interval_s:
            source.next_test_at = first_test(self._work.now, changes["test_interval_s"])
        if changes.get("is_paused", False) is None:
            changes["is_paused"] = False
        await RoleService(self._work).check_reference(changes.get("owner_role_id"), "owner_role_id")
        removed_only = all(value is None and name not in before.secrets for name, value in given.items())
        if not self._work.apply(source, changes) and removed_only:
            return saved(before, [])
        self._work.touch(source)
        if reach is not None:
            source.fingerprint = reach.fingerprint
        await self._work.session.flush()
        await source_secrets.store(self._work, source, given)
        after = await self._shown(source_id)
        self._work.audit("data_source.update", "data_source", source_id, before=before, after=after)
        self._work.announce("data_source.updated", f"data-sources/{source_id}", after)
        return saved(after, await self._warnings(source) if is_reconfigured else [])

    async def delete(self, source_id: UUID) -> None:
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        await self._work.session.delete(source)
        await self._work.session.flush()
        self._work.audit("data_source.delete", "data_source", source_id, before=before)
        self._work.announce("data_source.deleted", f"data-sources/{source_id}", {"id": str(source_id)})

    async def record_test(self, source_id: UUID, result: TestResult, secret_versions: Mapping[str, int]) -> None:
        """Keep the result in the history and on the source; an event where the status changed.

        No version is counted.
        """
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        row = {
            "id": uuid7(),
            "tenant_id": source.tenant_id,
            "data_source_id": source_id,
            "status": result.status,
            "steps": msgspec.to_builtins(result.steps),
            "server": result.server,
            "duration_ms": result.duration_ms,
            "secret_versions": dict(secret_versions),
            "created_at": self._work.now,
            "created_by": self._work.actor_id,
        }
        await self._work.session.execute(insert(DataSourceTest), row)
        await self._set_status(source, result.status)
        summary = {"status": result.status, "test_id": str(row["id"])}
        self._work.audit("data_source.test", "data_source", source_id, after=summary)

    async def discover(self, source_id: UUID) -> JobOut:
        """The job that looks inside; the one already under way, where there is one."""
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        jobs = JobService(self._work)
        if (running := await jobs.unfinished(DISCOVER, source_id)) is not None:
            return running
        if not registry.get(source.type).capabilities.discover:
            raise Conflict("Sources of this type cannot be discovered.", code="unsupported")
        job = await jobs.enqueue(DISCOVER, subject_id=source_id)
        self._work.audit("data_source.discover", "data_source", source_id, after={"job_id": str(job.id)})
        return job

    async def connection_of(self, source_id: UUID) -> tuple[DataSource, dict[str, str]]:
        """The source and its secrets, opened and read, for connector work. Raises Conflict where one cannot be."""
        source = await self._held(source_id)
        if source.type not in offered(self._work.parts.settings):
            raise Conflict("This is a rehearsal, which only a hub in development plays.", code="unsupported")
        kept = await source_secrets.stored(self._work, source)
        return source, await references.resolved(self._work.parts.settings, source.type, kept.values)

    async def reach_of(self, source_id: UUID, changes: ConnectionPatch | None = None) -> Reach:
        """What a test needs; with changes, as an update with them would save it. Raises as `update` does."""
        named = changes_of(changes) if changes is not None else {}
        self._judge_references(named)
        source = await self._held(source_id)
        if not named:
            kept = await source_secrets.stored(self._work, source)
            return Reach(source.type, source.config, kept.values, kept.versions, source.fingerprint)
        given = await self._secrets_to_change(source, named)
        return await self._merged(source, named.get("config", {}), given)

    async def _held(self, source_id: UUID) -> DataSource:
        """A source that moves while its secrets are read would have the new ones sent to the old place."""
        return await self._sources.load(source_id, self._work.tenant_id, hold=True)

    async def path_of(self, source_id: UUID, name: str) -> tuple[str, ...]:
        """The path of an object by its id or qualified name, whether it was discovered or not. Raises NotFound."""
        wanted = SourceObject.qualified_name == name
        if len(name) == 36 and name.count("-") == 4:
            wanted = (SourceObject.id == _uuid_or_none(name)) | wanted
        statement = select(SourceObject.path).where(SourceObject.data_source_id == source_id, wanted)
        found = await self._work.session.scalar(statement)
        try:
            return tuple(found) if found is not None else unqualify(name)
        except ValueError:
            raise NotFound from None

    async def _set_status(self, source: DataSource, status: str) -> None:
        """By a statement of its own: the ORM would count the version."""
        changed = source.status != status
        values = {"status": status, "last_tested_at": self._work.now}
        values |= {"status_since": self._work.now} if changed else {}
        await self._work.session.execute(
            DataSource.__table__.update().where(DataSource.id == source.id).values(values)  # type: ignore[attr-defined]
        )
        if changed:
            data = {"id": str(source.id), "status": status, "before": source.status}
            self._work.announce("data_source.status_changed", f"data-sources/{source.id}", data)

    def _judge_references(self, changes: Mapping[str, Any]) -> None:
        """Raises Forbidden and BadRequest for references that are wrong whatever is stored."""
        given = changes.get("secrets") or {}
        references.require_permission(self._work.principal, given)
        references.refuse_foreign(self._work.parts.settings, given)

    async def _secrets_to_change(self, source: DataSource, changes: dict[str, Any]) -> dict[str, Value | None]:
        """The secrets of a patch; null in their place clears all of them."""
        given: dict[str, Value | None] | None = changes.pop("secrets", {})
        return dict.fromkeys(await source_secrets.names(self._work, source)) if given is None else given

    async def _merged(self, source: DataSource, patch: Mapping[str, Any], given: Values) -> Reach:
        """Config and secrets after a merge patch, held against the type and against where the secrets may go."""
        connector = registry.get(source.type)
        config = convert(merge_patch(source.config, patch), connector.config_type, path="config")
        names, before = await source_secrets.names(self._work, source), as_read_today(connector, source.config)
        source_secrets.require_reentry(connector, before, plain(config), names, given)
        kept = await source_secrets.stored(self._work, source, but=given)
        values = kept.values | {name: value for name, value in given.items() if value is not None}
        source_secrets.check_together(connector, config, values)
        return Reach(source.type, plain(config), values, kept.versions, duplicates.fingerprint(connector, config))

    async def _warnings(self, source: DataSource) -> list[SourceWarning]:
        found = await duplicates.others(self._work, [source.fingerprint or b""], but=source.id)
        return [duplicates.warning(other) for others in found.values() for other in others]

    async def _shown(self, source_id: UUID) -> DataSourceOut:
        return await self._sources.read(DataSourceOut, id=source_id, tenant_id=self._work.tenant_id)


def as_read_today(connector: registry.AnyConnector, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored config with defaults for settings that its type has got since; unchanged where its type refuses it."""
    try:
        return plain(msgspec.convert(stored, connector.config_type))
    except msgspec.ValidationError:
        return stored


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def values_to_test(
    parts: Parts, principal: Principal, connector: registry.AnyConnector, given: NewDataSource
) -> dict[str, Value]:
    """The secrets of a source that is not saved, judged as they would be if it were. Raises BadRequest, Forbidden."""
    values = source_secrets.given_values(given.secrets)
    references.require_permission(principal, values)
    references.refuse_foreign(parts.settings, values)
    source_secrets.check_together(connector, given.config, values)
    return values


async def run_test(parts: Parts, tenant_id: UUID, reach: Reach) -> TestResult:
    """The staged test, in a process of its own, within ten seconds. Raises for a cap only: a failure is a result."""
    if reach.type not in offered(parts.settings):
        return _ended_at_once("unsupported", "This is a rehearsal, which only a hub in development plays.")
    try:
        secrets = await references.resolved(parts.settings, reach.type, reach.secrets)
        result = await parts.sandbox.check(reach.type, reach.config, secrets, parts.egress, tenant=str(tenant_id))
    except references.UnresolvedReference as error:
        return undialled(error.detail)
    except SandboxError as error:
        raise as_refusal(error) from None
    return without_secrets(result, secrets)


def _ended_at_once(code: Code, why: str) -> TestResult:
    steps = Steps()
    with suppress(ConnectorError), steps.step("resolve", ""):
        raise ConnectorError(code, why)
    return steps.result(0.0)


def undialled(why: str) -> TestResult:
    """A test that ended before anything was dialled, for want of a secret."""
    steps = Steps()
    for name in UNDIALLED:
        steps.skip(name, "Nothing was dialled: a secret is missing.")
    with suppress(ConnectorError), steps.step("authenticate", ""):
        raise ConnectorError("invalid_configuration", why)
    return steps.result(0.0)


async def run_preview(
    parts: Parts, source: DataSource, secrets: Mapping[str, Any], path: tuple[str, ...], ask: PreviewAsk
) -> PreviewResult:
    """Raises NotFound for an object that the source does not have, and what `as_error` says for other failures."""
    request = PreviewRequest(path=path, columns=tuple(ask.columns) if ask.columns else None, limit=ask.limit)
    try:
        found = await parts.sandbox.preview(
            source.type, source.config, secrets, parts.egress, request, tenant=str(source.tenant_id)
        )
        return without_secrets(found, secrets)
    except SandboxError as error:
        raise as_refusal(error) from None
    except ConnectorError as error:
        if error.code == "not_found" and ask.columns is not None:
            refuse_unknown_columns(ask.columns, await _columns(parts, source, secrets, path))
        raise as_error(failure_without_secrets(error, secrets)) from None


async def _columns(parts: Parts, source: DataSource, secrets: Mapping[str, Any], path: tuple[str, ...]) -> set[str]:
    """The columns of the object, asked for without rows. Raises as `run_preview` does."""
    found = await run_preview(parts, source, secrets, path, PreviewAsk(object="", columns=None, limit=0))
    return {column.name for column in found.columns}


def refuse_unknown_columns(wanted: list[str], known: set[str]) -> None:
    """Raises BadRequest naming every column that the object does not have."""
    unknown = [place for place, name in enumerate(wanted) if name not in known]
    if unknown:
        faults = [Fault(f"columns[{place}]", "unknown_column", "is not a column of the object") for place in unknown]
        raise BadRequest(errors=faults)


def as_refusal(error: SandboxError) -> HubError:
    if isinstance(error, TooManyConnectorRuns) and error.scope == "tenant":
        return TooManyRequests("Too many connector runs at once. Wait for one to end.", code="too_many_connector_runs")
    return Unavailable("All places for connector work are taken. Try again in a moment.", code="connectors_busy")


def as_error(error: ConnectorError) -> HubError:
    """409 for a source that cannot be read as it is, not a 5xx: the hub is well. `Retry-After` where that may pass."""
    sentence = f"{error.message} {error.advice}"
    if error.code == "not_found":
        return NotFound(sentence, code="object_not_found")
    headers = {"Retry-After": "5"} if error.can_retry else {}
    return Conflict(sentence, code=f"source_{error.code}", headers=headers)


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return parse_uuid(text)
    except ValueError:
        return None
