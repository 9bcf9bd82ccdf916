"""Two sources of one server and database: not forbidden, but most often a mistake, so whoever may see both is told."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import ARRAY, LargeBinary, Uuid, bindparam, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.connectors import registry
from app.connectors.registry import AnyConnector
from app.core.across_tenants import by_tenant, locked_rows
from app.core.database import enter_tenant
from app.domain.parts import Parts
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import SourceWarning
from app.domain.work import UnitOfWork

SEE = "data-sources:read"
MAX_NAMED = 3
"""Others that a warning names; of the rest it says how many there are."""
MAX_COUNTED = 100
BATCH = 500

_OTHERS = text(
    """SELECT wanted.fingerprint, found.ids, found.count
       FROM (SELECT DISTINCT unnest(:fingerprints) AS fingerprint) AS wanted
       CROSS JOIN LATERAL (
         SELECT (array_agg(id ORDER BY id))[1 : :max_named] AS ids, count(*) AS count
         FROM (
           SELECT id FROM data_sources
           WHERE tenant_id = :tenant_id AND fingerprint = wanted.fingerprint AND id <> :but
           ORDER BY id LIMIT :max_counted
         ) AS first_ones
       ) AS found
       WHERE found.count > 0"""
).bindparams(bindparam("fingerprints", type_=ARRAY(LargeBinary)), bindparam("but", type_=Uuid))
_NOBODY = UUID(int=0)


def fingerprint(connector: AnyConnector, place: Mapping[str, object]) -> bytes:
    """A hash of the place that a config means (`Connector.identity`), for an index: a place can be long. Empty where
    the config does not tell."""
    return sha256(msgspec.json.encode([connector.type, place], order="sorted")).digest() if place else b""


class Others(Struct):
    """Sources of one place."""

    ids: list[UUID] = []
    """Of the first."""
    count: int = 0
    """At most MAX_COUNTED."""


async def others(work: UnitOfWork, fingerprints: Iterable[bytes], *, but: UUID = _NOBODY) -> dict[bytes, Others]:
    """The sources with one of these fingerprints that the caller may see."""
    wanted = [each for each in fingerprints if each]
    if not wanted or work.principal is None or not work.principal.may(SEE):
        return {}
    values = {"fingerprints": wanted, "tenant_id": work.tenant_id, "but": but}
    values |= {"max_named": MAX_NAMED, "max_counted": MAX_COUNTED}
    return {each: Others(list(ids), count) for each, ids, count in await work.session.execute(_OTHERS, values)}


def warnings(
    found: Others | None, siblings: Sequence[tuple[int, UUID | None]] = (), siblings_count: int = 0
) -> list[SourceWarning]:
    """One at most, however many others there are. `siblings` are places and ids of the first other items of the same
    request, which are `siblings_count` in all.
    """
    found = found or Others()
    if not (count := found.count + siblings_count):
        return []
    named = [*found.ids, *(each for _, each in siblings if each is not None)][:MAX_NAMED]
    told = [_counted(found.count)] if found.count else []
    told += [_places([index for index, _ in siblings], siblings_count)] if siblings else []
    message = f"{' and '.join(told)} of the same server and database."
    return [SourceWarning("duplicate_source", message, named[0] if named else None, named, count)]


def _counted(count: int) -> str:
    if count == 1:
        return "Another data source is"
    return f"{count}{' or more' if count == MAX_COUNTED else ''} other data sources are"


def _places(indexes: Sequence[int], count: int) -> str:
    named = ", ".join(f"data_sources[{index}]" for index in indexes[:MAX_NAMED])
    more = count - min(len(indexes), MAX_NAMED)
    return f"{named}{f' and {more} more' if more > 0 else ''} of this request {'is' if count == 1 else 'are'}"


async def fill_in(parts: Parts) -> int:
    """Give sources of before their fingerprint, a batch at a time; returns how many. A config that its type no longer
    takes gets an empty one, so that it is not looked at again."""
    async with parts.sessions.begin(None) as session:
        rows = await locked_rows(session, "sources_without_fingerprint(:most)", most=BATCH)
        for tenant_id, source_ids in by_tenant(rows).items():
            await enter_tenant(session, tenant_id)
            await _fill_in_those(session, source_ids)
    return len(rows)


async def _fill_in_those(session: AsyncSession, source_ids: list[UUID]) -> None:
    missing = select(DataSource.id, DataSource.type, DataSource.config).where(DataSource.id.in_(source_ids))
    for source_id, type_name, config in (await session.execute(missing)).all():
        found = _of_stored(type_name, config)
        statement = update(DataSource.__table__).where(DataSource.id == source_id)  # type: ignore[arg-type]
        await session.execute(statement.values(fingerprint=found))  # not by the ORM, which would count the version


def _of_stored(type_name: str, config: Mapping[str, object]) -> bytes:
    try:
        connector = registry.get(type_name)
        return fingerprint(connector, connector.identity(msgspec.convert(config, connector.config_type)))
    except (registry.UnknownConnectorType, msgspec.ValidationError):
        return b""
