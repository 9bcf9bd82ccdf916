"""Drafts: sources that could be registered as they are, but for what other rows say."""

from uuid import UUID

from msgspec import Struct

from app.connectors import registry
from app.domain.sources.columns import new_row
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import NewDataSource, Value, type_of
from app.domain.sources.secrets import references
from app.domain.sources.secrets.given import check_together, given_values
from app.domain.sources.types import require_offered
from app.domain.work import UnitOfWork


class Draft(Struct):
    source: DataSource
    secrets: dict[str, Value]

    @property
    def id(self) -> UUID:
        return self.source.id

    @property
    def fingerprint(self) -> bytes:
        assert self.source.fingerprint is not None, "a new row has one"
        return self.source.fingerprint


def draft_of(work: UnitOfWork, new: NewDataSource, below: str = "") -> Draft:
    """Raises BadRequest where config and secrets do not go together, its paths below this one. Raises Forbidden for a
    reference without the permission, which is about the caller and not about the source.
    """
    values = given_values(new.secrets)
    references.require_permission(work.principal, values)
    connector = registry.get(type_of(new))
    require_offered(work.parts.settings, connector.type, below)
    references.refuse_foreign(work.parts.settings, values, below)
    check_together(connector, new.config, values, below)
    return Draft(new_row(work, connector, new, values), values)
