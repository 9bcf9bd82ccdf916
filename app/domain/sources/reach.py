"""Reach: all that connector work needs of a source, as it is stored, or as a change of it would be."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from app.connectors import registry
from app.core.bodies import convert
from app.domain.sources.configs import as_read_today, columns_of_config, merge_patch
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import Value, Values
from app.domain.sources.secrets.destinations import require_reentry
from app.domain.sources.secrets.given import check_together
from app.domain.sources.secrets.uses import Actor, Purpose, SecretUse, use_of_stored
from app.domain.work import UnitOfWork


class Reach(Struct):
    """Of a source, saved or not."""

    type: str
    config: Mapping[str, Any]
    secrets: SecretUse


async def stored_reach(
    work: UnitOfWork, source: DataSource, purpose: Purpose, *, on_behalf_of: Actor | None = None
) -> Reach:
    """The secrets can be opened once the work is committed."""
    return Reach(source.type, source.config, await use_of_stored(work, source, purpose, on_behalf_of=on_behalf_of))


async def changed_reach(work: UnitOfWork, source: DataSource, patch: Mapping[str, object], given: Values) -> Reach:
    """As `stored_reach`, of a change that is tested before it is saved. Raises as `changed_columns`."""
    columns = changed_columns(source, patch, given)
    return Reach(source.type, columns["config"], await use_of_stored(work, source, "test", given=given))


def changed_columns(source: DataSource, patch: Mapping[str, object], given: Values) -> Mapping[str, Any]:
    """Of the row, after a merge patch: config and secrets held against the type and against where the secrets may go.
    What is stored was judged when it was given, and is not opened for this."""
    connector = registry.get(source.type)
    config = convert(merge_patch(source.config, patch), connector.config_type, path="config")
    columns, before = columns_of_config(connector, config), as_read_today(connector, source.config)
    require_reentry(connector, before, columns["config"], source.secret_states, given)
    check_together(connector, config, given, closed=source.secret_states.keys() - given.keys())
    return columns


def secrets_to_change(source: DataSource, changes: Mapping[str, Any]) -> dict[str, Value | None]:
    """The secrets of a patch; null in their place clears all of them."""
    given: dict[str, Value | None] | None = changes.get("secrets", {})
    return dict.fromkeys(source.secret_states) if given is None else given
