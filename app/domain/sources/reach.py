"""Reach: all that connector work needs of a source, as it is stored, or as a change of it would be."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from app.connectors import registry
from app.core.bodies import convert
from app.domain.sources.configs import as_read_today, columns_of_config, merge_patch
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import Value, Values
from app.domain.sources.secrets import stored
from app.domain.sources.secrets.destinations import require_reentry
from app.domain.sources.secrets.given import check_together
from app.domain.work import UnitOfWork


class Reach(Struct):
    """Of a source, saved or not."""

    type: str
    config: Mapping[str, Any]
    secrets: Mapping[str, Value]
    secret_versions: Mapping[str, int] = {}
    """Of the stored ones among them."""


class ChangedReach(Reach):
    columns: Mapping[str, Any] = {}
    """Of the row, should the change be saved."""


async def stored_reach(work: UnitOfWork, source: DataSource) -> Reach:
    """Raises Conflict where a stored secret cannot be opened."""
    kept = await stored.open_secrets(work, source)
    return Reach(source.type, source.config, kept.values, kept.versions)


async def changed_reach(
    work: UnitOfWork, source: DataSource, patch: Mapping[str, object], given: Values
) -> ChangedReach:
    """Config and secrets after a merge patch, held against the type and against where the secrets may go."""
    connector = registry.get(source.type)
    config = convert(merge_patch(source.config, patch), connector.config_type, path="config")
    columns, before = columns_of_config(connector, config), as_read_today(connector, source.config)
    require_reentry(connector, before, columns["config"], source.secret_states, given)
    kept = await stored.open_secrets(work, source, but=given)
    values = kept.values | {name: value for name, value in given.items() if value is not None}
    check_together(connector, config, values)
    return ChangedReach(source.type, columns["config"], values, kept.versions, columns)


def secrets_to_change(source: DataSource, changes: Mapping[str, Any]) -> dict[str, Value | None]:
    """The secrets of a patch; null in their place clears all of them."""
    given: dict[str, Value | None] | None = changes.get("secrets", {})
    return dict.fromkeys(source.secret_states) if given is None else given
