"""Previews: sample rows of one object."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult, unqualify
from app.connectors.processes.sandbox import SandboxError
from app.core.errors import BadRequest, Fault, NotFound
from app.core.listing import parse_uuid
from app.domain.parts import Parts
from app.domain.source_work.catalogued_names import name_at_source, preview_with_catalogued_names
from app.domain.source_work.echoes import failure_without_secrets, without_secrets
from app.domain.source_work.failures import as_error, as_refusal
from app.domain.source_work.models import SourceObject
from app.domain.source_work.own_database import policy_of
from app.domain.source_work.schemas import PreviewAsk
from app.domain.sources.models import DataSource
from app.domain.work import UnitOfWork


async def path_of(work: UnitOfWork, source_id: UUID, name: str) -> tuple[str, ...]:
    """The path of an object by its id or qualified name, whether it was discovered or not. Raises NotFound."""
    wanted = SourceObject.qualified_name == name
    if len(name) == 36 and name.count("-") == 4:
        wanted = (SourceObject.id == _uuid_or_none(name)) | wanted
    statement = select(SourceObject.path).where(SourceObject.data_source_id == source_id, wanted)
    found = await work.session.scalar(statement)
    try:
        return tuple(found) if found is not None else unqualify(name)
    except ValueError:
        raise NotFound from None


async def run_preview(
    parts: Parts, source: DataSource, secrets: Mapping[str, Any], path: tuple[str, ...], ask: PreviewAsk
) -> PreviewResult:
    """Raises NotFound for an object that the source does not have, BadRequest for columns that the object has not,
    and what `as_error` says for other failures."""
    columns = tuple(map(name_at_source, ask.columns)) if ask.columns else None
    request = PreviewRequest(path=tuple(map(name_at_source, path)), columns=columns, limit=ask.limit)
    try:
        found = await parts.sandbox.preview(
            source.type, source.config, secrets, await policy_of(parts), request, tenant=str(source.tenant_id)
        )
        return without_secrets(preview_with_catalogued_names(found), secrets)
    except SandboxError as error:
        raise as_refusal(error) from None
    except ConnectorError as error:
        if error.unknown_columns:
            raise _unknown_columns(ask, error.unknown_columns) from None
        raise as_error(failure_without_secrets(error, secrets)) from None


def _unknown_columns(ask: PreviewAsk, unknown: Collection[str]) -> BadRequest:
    """Names every one of them in its place."""
    places = [place for place, name in enumerate(ask.columns or ()) if name_at_source(name) in unknown]
    faults = [Fault(f"columns[{place}]", "unknown_column", "is not a column of the object") for place in places]
    return BadRequest(errors=faults)


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return parse_uuid(text)
    except ValueError:
        return None
