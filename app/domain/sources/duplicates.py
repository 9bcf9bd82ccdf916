"""Two sources of one server and database: not forbidden, but most often a mistake, so whoever may see both is told."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ARRAY, LargeBinary, Uuid, bindparam, select, text, update

from app.connectors import registry
from app.connectors.contract.config import ConnectorConfig
from app.connectors.registry import AnyConnector
from app.domain.parts import Parts
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import SourceWarning
from app.domain.work import UnitOfWork

SEE = "data-sources:read"
MAX_NAMED = 10
"""Others that one answer names for each source."""
BATCH = 500

_OTHERS = text(
    """SELECT wanted.fingerprint, found.id
       FROM (SELECT DISTINCT unnest(:fingerprints) AS fingerprint) AS wanted
       CROSS JOIN LATERAL (
         SELECT id FROM data_sources
         WHERE tenant_id = :tenant_id AND fingerprint = wanted.fingerprint AND id <> :but
         ORDER BY id LIMIT :max_named
       ) AS found"""
).bindparams(bindparam("fingerprints", type_=ARRAY(LargeBinary)), bindparam("but", type_=Uuid))
_NOBODY = UUID(int=0)


def fingerprint(connector: AnyConnector, config: ConnectorConfig) -> bytes:
    """A hash of the place, for an index: a place can be long. Empty where the config does not tell."""
    place = connector.identity(config)
    return sha256(msgspec.json.encode([connector.type, place], order="sorted")).digest() if place else b""


async def others(work: UnitOfWork, fingerprints: Iterable[bytes], *, but: UUID = _NOBODY) -> dict[bytes, list[UUID]]:
    """The sources with one of these fingerprints that the caller may see."""
    wanted = [each for each in fingerprints if each]
    if not wanted or work.principal is None or not work.principal.may(SEE):
        return {}
    values = {"fingerprints": wanted, "tenant_id": work.tenant_id, "but": but, "max_named": MAX_NAMED}
    found: dict[bytes, list[UUID]] = {}
    for each, source_id in await work.session.execute(_OTHERS, values):
        found.setdefault(each, []).append(source_id)
    return found


def warning(source_id: UUID | None, message: str = "Another data source is of the same server and database.") -> Any:
    return SourceWarning("duplicate_source", message, source_id)


async def fill_in(parts: Parts) -> int:
    """Give sources of before their fingerprint, a batch at a time; returns how many. A config that its type no longer
    takes gets an empty one, so that it is not looked at again."""
    async with parts.sessions.begin() as session:
        missing = select(DataSource.id, DataSource.type, DataSource.config).where(DataSource.fingerprint.is_(None))
        rows = (await session.execute(missing.order_by(DataSource.id).limit(BATCH).with_for_update())).all()
        for source_id, type_name, config in rows:
            found = _of_stored(type_name, config)
            statement = update(DataSource.__table__).where(DataSource.id == source_id)  # type: ignore[arg-type]
            await session.execute(statement.values(fingerprint=found))  # not by the ORM, which would count the version
    return len(rows)


def _of_stored(type_name: str, config: Mapping[str, Any]) -> bytes:
    try:
        connector = registry.get(type_name)
        return fingerprint(connector, msgspec.convert(config, connector.config_type))
    except (registry.UnknownConnectorType, msgspec.ValidationError):
        return b""
