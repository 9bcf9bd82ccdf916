"""Previews: sample rows of one object."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import func, select

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult, qualify, unqualify
from app.connectors.processes.sandbox import SandboxError
from app.core.errors import BadRequest, Fault, NotFound
from app.core.lists.parameters import parse_uuid
from app.domain.parts import Parts
from app.domain.source_work.catalogued_names import name_at_source, preview_with_catalogued_names
from app.domain.source_work.echoes import failure_without_secrets, without_secrets
from app.domain.source_work.failures import as_error, as_refusal
from app.domain.source_work.models import SourceObject
from app.domain.source_work.own_database import policy_of
from app.domain.source_work.schemas import PreviewAsk
from app.domain.sources.reach import Reach
from app.domain.work import UnitOfWork

MAX_LOOKED_AT = 200
MAX_CANDIDATES = 10
MAX_DOTS = 20


async def paths_of(work: UnitOfWork, source_id: UUID, name: str) -> list[tuple[str, ...]]:
    """The path of an object by its id or qualified name, whether it was discovered or not; of one that was, by the end
    of its path, too, quoted or not, where no other ends so. Behind what nobody has discovered stand those that are
    called so in other letters, small for large: for a source that does not have the first one. Raises NotFound, or
    BadRequest with the candidates.
    """
    wanted = SourceObject.qualified_name == name
    if len(name) == 36 and name.count("-") == 4:
        wanted = (SourceObject.id == _uuid_or_none(name)) | wanted
    of_source = select(SourceObject.path).where(SourceObject.data_source_id == source_id)
    found = await work.session.scalar(of_source.where(wanted))
    if found is not None:
        return [tuple(found)]
    parts = _parts_of(name)
    of_source = of_source.where(SourceObject.is_active).order_by(SourceObject.qualified_name).limit(MAX_LOOKED_AT)
    paths = await work.session.scalars(
        of_source.where(SourceObject.name.in_({name, *parts[-1:], *_after_each_dot(name)}))
    )
    candidates = [tuple(path) for path in paths if _is_meant(tuple(path), name, parts)]
    if candidates:
        return [only_one(candidates)]
    folded, folded_parts = name.strip().casefold(), tuple(part.casefold() for part in _parts_of(name.strip()))
    last_names = {folded, folded.rpartition("/")[2], *folded_parts[-1:], *_after_each_dot(folded)}
    paths = await work.session.scalars(of_source.where(func.lower(SourceObject.name).in_(last_names)))
    alike = [tuple(path) for path in paths if _is_meant(_folded(path), folded, folded_parts)]
    if not alike and not parts:
        raise NotFound
    return [parts, *alike] if parts else [only_one(alike)]


def _folded(path: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.casefold() for part in path)


def only_one(candidates: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Raises BadRequest with the candidates where there are several."""
    if len(candidates) > 1:
        raise _ambiguous(candidates)
    return candidates[0]


def _parts_of(name: str) -> tuple[str, ...]:
    """Empty where it is no qualified name."""
    try:
        return unqualify(name)
    except ValueError:
        return ()


def _after_each_dot(name: str) -> list[str]:
    """What may be the last name, should dots belong to names."""
    pieces = name.split(".")
    return [".".join(pieces[place:]) for place in range(1, min(len(pieces), MAX_DOTS))]


def _is_meant(path: tuple[str, ...], name: str, parts: tuple[str, ...]) -> bool:
    """By the end of the path, whole names only: one by one, or written without quotes, or as paths of files."""
    is_named = bool(parts) and path[-len(parts) :] == parts
    ends = [path[place:] for place in range(len(path))]
    return is_named or any(name in {".".join(end), "/".join(end)} for end in ends)


def _ambiguous(candidates: Sequence[tuple[str, ...]]) -> BadRequest:
    shown = [qualify(path) for path in candidates[:MAX_CANDIDATES]]
    faults = [Fault("object", "ambiguous_name", f"could be {each}") for each in shown]
    return BadRequest("Several objects have this name: give the qualified name of one.", errors=faults)


async def run_preview(
    parts: Parts, reach: Reach, secrets: Mapping[str, str], path: tuple[str, ...], ask: PreviewAsk
) -> PreviewResult:
    """`secrets` are those of the reach, as they were read. Raises NotFound for an object that the source does not have,
    BadRequest for columns that the object has not, and what `as_error` says for other failures."""
    columns = tuple(map(name_at_source, ask.columns)) if ask.columns else None
    tenant_id = reach.secrets.tenant_id
    request = PreviewRequest(path=tuple(map(name_at_source, path)), columns=columns, limit=ask.limit)
    try:
        found = await parts.sandbox.preview(
            reach.type,
            reach.config,
            secrets,
            await policy_of(parts, tenant_id),
            request,
            tenant=str(tenant_id),
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
