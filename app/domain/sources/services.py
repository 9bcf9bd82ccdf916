"""The rules about data sources: registered with what their type takes, tested unsaved, dialled only when asked."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import insert, select
from uuid_utils.compat import uuid7

from app.connectors import registry
from app.connectors.base import (
    ConnectorConfig,
    ConnectorSecrets,
    InvalidField,
    PreviewRequest,
    PreviewResult,
    TestResult,
    unqualify,
)
from app.connectors.failures import ConnectorError
from app.connectors.sandbox import SandboxError, TooManyConnectorRuns
from app.core.bodies import convert
from app.core.errors import BadRequest, Conflict, Fault, HubError, NotFound, TooManyRequests, Unavailable
from app.core.listing import parse_uuid
from app.core.schemas import canonical_name, changes_of, required_text
from app.domain.jobs.schemas import JobOut
from app.domain.jobs.services import JobService
from app.domain.parts import Parts
from app.domain.roles.services import RoleService
from app.domain.sources import secrets as source_secrets
from app.domain.sources.echoes import without_secrets
from app.domain.sources.models import DataSource, DataSourceTest, SourceObject
from app.domain.sources.repositories import DataSourceRepository
from app.domain.sources.schemas import DataSourceOut, DataSourcePatch, NewDataSource, PreviewAsk, type_of
from app.domain.work import UnitOfWork

DISCOVER = "data_source.discover"


class DataSourceService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._sources = DataSourceRepository(work.session)

    async def create(self, new: NewDataSource) -> DataSourceOut:
        """Raises BadRequest where config and secrets do not go together, Conflict for a taken name."""
        connector = registry.get(type_of(new))
        given = given_secrets(new.secrets)
        source_secrets.refuse_masks(given)
        check_together(connector, new.config, new.secrets)
        await RoleService(self._work).check_reference(new.owner_role_id, "owner_role_id")
        name = required_text(new.name, "name")
        source = DataSource(
            **self._work.stamp(),
            name=name,
            name_key=canonical_name(name),
            description=new.description,
            type=connector.type,
            category=connector.category,
            config=plain(new.config),
            tags=distinct(new.tags),
            owner_role_id=new.owner_role_id,
            is_paused=new.is_paused,
            status="untested",
        )
        await self._sources.add(source)
        await source_secrets.store(self._work, source, given)
        shown = await self._shown(source.id)
        self._work.audit("data_source.create", "data_source", source.id, after=shown)
        self._work.announce("data_source.created", f"data-sources/{source.id}", shown)
        return shown

    async def update(self, source_id: UUID, patch: DataSourcePatch) -> DataSourceOut:
        """Raises Conflict (`secret_reentry_required`) where a stored secret would go where it was not given for."""
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        changes = changes_of(patch)
        given = await self._secrets_to_change(source, changes)
        source_secrets.refuse_masks(given)
        if "config" in changes or given:
            changes["config"] = await self._merged_config(source, changes.get("config", {}), given)
        if "name" in changes:
            changes["name"] = required_text(changes["name"], "name")
            changes["name_key"] = canonical_name(changes["name"])
        if "tags" in changes:
            changes["tags"] = distinct(changes["tags"] or [])
        if changes.get("is_paused", False) is None:
            changes["is_paused"] = False
        await RoleService(self._work).check_reference(changes.get("owner_role_id"), "owner_role_id")
        removed_only = all(value is None and name not in before.secrets for name, value in given.items())
        if not self._work.apply(source, changes) and removed_only:
            return before
        self._work.touch(source)
        await self._work.session.flush()
        await source_secrets.store(self._work, source, given)
        after = await self._shown(source_id)
        self._work.audit("data_source.update", "data_source", source_id, before=before, after=after)
        self._work.announce("data_source.updated", f"data-sources/{source_id}", after)
        return after

    async def delete(self, source_id: UUID) -> None:
        source = await self._sources.load(source_id, self._work.tenant_id, lock=True)
        self._work.require_match(source.version)
        before = await self._shown(source_id)
        await self._work.session.delete(source)
        await self._work.session.flush()
        self._work.audit("data_source.delete", "data_source", source_id, before=before)
        self._work.announce("data_source.deleted", f"data-sources/{source_id}", {"id": str(source_id)})

    async def record_test(self, source_id: UUID, result: TestResult) -> None:
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
        """The source and its opened secrets, for connector work."""
        source = await self._sources.load(source_id, self._work.tenant_id)
        return source, await source_secrets.opened(self._work, source)

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

    async def _secrets_to_change(self, source: DataSource, changes: dict[str, Any]) -> dict[str, str | None]:
        """The secrets of a patch; null in their place clears all of them."""
        given: dict[str, str | None] | None = changes.pop("secrets", {})
        if given is None:
            return dict.fromkeys(await source_secrets.names(self._work, source))
        return given

    async def _merged_config(
        self, source: DataSource, patch: Mapping[str, Any], given: Mapping[str, str | None]
    ) -> dict[str, Any]:
        """The config after a merge patch, validated with the secrets that it will have."""
        connector = registry.get(source.type)
        merged = merge_patch(source.config, patch)
        config = convert(merged, connector.config_type, path="config")
        stored, before = await source_secrets.names(self._work, source), as_read_today(connector, source.config)
        source_secrets.require_reentry(connector, before, plain(config), stored, given)
        kept = await source_secrets.opened(self._work, source, but=given)
        values = {name: value for name, value in (kept | dict(given)).items() if value is not None}
        check_together(connector, config, convert(values, connector.secrets_type, path="secrets"))
        return plain(config)

    async def _shown(self, source_id: UUID) -> DataSourceOut:
        return await self._sources.read(DataSourceOut, id=source_id, tenant_id=self._work.tenant_id)


def given_secrets(secrets: ConnectorSecrets) -> dict[str, str | None]:
    """The fields that have a value."""
    values = ((name, getattr(secrets, name)) for name in secrets.__struct_fields__)
    return {name: value for name, value in values if value is not None}


def check_together(connector: registry.AnyConnector, config: ConnectorConfig, secrets: ConnectorSecrets) -> None:
    """Raises BadRequest where config and secrets ask something of each other that is missing."""
    try:
        connector.validate(config, secrets)
    except InvalidField as error:
        raise BadRequest(errors=[Fault(".".join(error.path), "invalid", error.message)]) from None


def plain(config: ConnectorConfig) -> dict[str, Any]:
    """As it is stored and read back: through JSON, which has no tuples."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return values


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


def distinct(tags: list[str]) -> list[str]:
    """In the order given, each once, without outer white space."""
    return list(dict.fromkeys(stripped for tag in tags if (stripped := tag.strip())))


async def run_test(
    parts: Parts, tenant_id: UUID, type_name: str, config: Mapping[str, Any], secrets: Mapping[str, Any]
) -> TestResult:
    """The staged test, in a process of its own, within ten seconds. Raises for a cap only: a failure is a result."""
    try:
        result = await parts.sandbox.check(type_name, config, secrets, parts.egress, tenant=str(tenant_id))
    except SandboxError as error:
        raise as_refusal(error) from None
    return without_secrets(result, secrets)


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
        raise as_error(error) from None


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
