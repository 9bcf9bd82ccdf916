"""Discovery: what a source holds, batch by batch into the catalogue of its objects."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject
from app.connectors.processes.sandbox import SandboxError
from app.core.errors import Conflict
from app.domain.jobs.runner import JobRun
from app.domain.source_work.catalogued_names import MAX_FIELDS, catalogued
from app.domain.source_work.connections import actor_of_job, connection_of
from app.domain.source_work.echoes import failure_without_secrets, without_secrets
from app.domain.source_work.failures import as_refusal
from app.domain.source_work.models import SourceObject
from app.domain.source_work.own_database import policy_of
from app.domain.sources.reach import Reach
from app.domain.work import unit_of_work_of


class Found(msgspec.Struct):
    """A batch."""

    objects: list[DiscoveredObject]


UPSERT = text(
    """INSERT INTO source_objects
         (id, tenant_id, data_source_id, name, path, qualified_name, kind, is_active, fields, notes,
          discovered_at)
       SELECT id, :tenant_id, :data_source_id, name, path, qualified_name, kind, true, fields, notes, :discovered_at
       FROM jsonb_to_recordset(:found)
         AS f (id uuid, name text, path text[], qualified_name text, kind text, fields jsonb, notes text[])
       ON CONFLICT (data_source_id, qualified_name) DO UPDATE SET
         kind = EXCLUDED.kind, is_active = true, fields = EXCLUDED.fields, notes = EXCLUDED.notes,
         discovered_at = EXCLUDED.discovered_at"""
).bindparams(bindparam("found", type_=JSONB))


async def discover(run: JobRun) -> dict[str, object]:
    """The handler of `data_source.discover`. Objects that are no longer there stay, inactive; where the discovery
    stopped early, nobody knows which ones those are."""
    assert run.subject_id is not None
    started = datetime.now(UTC)
    source_id = run.subject_id
    reach, secrets = await _connection(run)
    total = 0
    stops: list[str] = []
    policy = await policy_of(run.parts, run.tenant_id)
    batches = run.parts.sandbox.discover(
        reach.type,
        reach.config,
        secrets,
        policy,
        tenant=str(run.tenant_id),
        on_stopped=stops.append,
    )
    try:
        async with contextlib.aclosing(batches) as found:  # type: ignore[type-var]
            async for batch in found:
                await _store(run, source_id, without_secrets(Found(batch), secrets).objects, started)
                total += len(batch)
                await run.report(total)
    except SandboxError as error:
        raise as_refusal(error) from None
    except ConnectorError as error:
        raise failure_without_secrets(error, secrets) from None
    return await _finish(run, source_id, started, total, without_secrets(stops[0], secrets) if stops else None)


async def _connection(run: JobRun) -> tuple[Reach, dict[str, str]]:
    assert run.subject_id is not None
    async with unit_of_work_of(run.parts, tenant_id=run.tenant_id) as work:
        who = await actor_of_job(work.session, run.created_by)
        reach = await connection_of(work, run.subject_id, "discovery", on_behalf_of=who)
    return reach, await reach.secrets.read(run.parts, reach.type)


async def _store(run: JobRun, source_id: UUID, batch: list[DiscoveredObject], started: datetime) -> None:
    """Raises LeaseLost, and Conflict where the source is gone. Of two objects with one name the last is kept."""
    kept = {item.qualified_name: item for item in map(catalogued, batch)}
    rows = [{**msgspec.to_builtins(item), "id": str(uuid7())} for item in kept.values()]
    values = {"tenant_id": run.tenant_id, "data_source_id": source_id, "discovered_at": started}
    try:
        async with run.parts.sessions.begin(run.tenant_id) as session:
            await run.hold(session)
            for some in _in_pieces(rows):
                await session.execute(UPSERT, values | {"found": some})
    except IntegrityError:
        raise Conflict(code="source_deleted") from None


def _in_pieces(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Objects of very many fields by themselves: a value of PostgreSQL has a largest size."""
    piece: list[dict[str, Any]] = []
    fields = 0
    for row in rows:
        if piece and fields + len(row["fields"]) > MAX_FIELDS:
            yield piece
            piece, fields = [], 0
        piece.append(row)
        fields += len(row["fields"])
    if piece:
        yield piece


async def _finish(
    run: JobRun, source_id: UUID, started: datetime, total: int, stopped_because: str | None
) -> dict[str, object]:
    async with unit_of_work_of(run.parts, tenant_id=run.tenant_id) as work:
        await run.hold(work.session)
        is_complete = stopped_because is None
        result: dict[str, object] = {
            "objects": total,
            "deactivated": await _deactivate(work.session, source_id, started) if is_complete else 0,
            "is_complete": is_complete,
            "stopped_because": stopped_because,
        }
        work.announce("data_source.discovered", f"data-sources/{source_id}", {"id": str(source_id), **result})
    return result


async def _deactivate(session: AsyncSession, source_id: UUID, started: datetime) -> int:
    """What this run did not see: of another time, not of an earlier one, since clocks of workers differ."""
    unseen = (SourceObject.data_source_id == source_id, SourceObject.is_active, SourceObject.discovered_at != started)
    gone = await session.scalar(select(func.count()).where(*unseen))
    await session.execute(
        update(SourceObject).where(*unseen).values(is_active=False), execution_options={"synchronize_session": False}
    )
    return int(gone or 0)
