"""Drafts: sources that could be registered as they are, but for what other rows say."""

from uuid import UUID

from msgspec import Struct

from app.connectors import registry
from app.core.rows import Columns
from app.domain.sources.columns import columns_of_new_source
from app.domain.sources.schemas import NewDataSource, Value, type_of
from app.domain.sources.secrets import references
from app.domain.sources.secrets.given import check_together, given_values
from app.domain.sources.types import require_offered
from app.domain.work import UnitOfWork


class Draft(Struct):
    columns: Columns
    """Of its row, every one: five hundred rows of the ORM's would take a third of all that a bulk request takes."""
    secrets: dict[str, Value]

    @property
    def id(self) -> UUID:
        return self.columns["id"]  # type: ignore[no-any-return]

    @property
    def name_key(self) -> str:
        return self.columns["name_key"]  # type: ignore[no-any-return]

    @property
    def owner_role_id(self) -> UUID | None:
        return self.columns["owner_role_id"]  # type: ignore[no-any-return]

    @property
    def domain_id(self) -> UUID | None:
        return self.columns["data_domain_id"]  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> bytes:
        return self.columns["fingerprint"]  # type: ignore[no-any-return]


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
    return Draft(columns_of_new_source(work, connector, new, values), values)
