"""Previews: sample rows of one object."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult, unqualify
from app.connectors.processes.sandbox import SandboxError
from app.core.errors import BadRequest, Fault, NotFound
from app.core.listing import parse_uuid
from app.domain.parts import Parts
from app.domain.source_work.echoes import failure_without_secrets, without_secrets
from app.domain.source_work.failures import as_error, as_refusal
from app.domain.source_work.models import SourceObject
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


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return parse_uuid(text)
    except ValueError:
        return None
