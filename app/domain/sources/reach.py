"""Reach: all that connector work needs of a source, as it is stored, or as a change of it would be."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from app.connectors import registry
from app.connectors.contract.config import ConnectorConfig
from app.core.bodies import convert
from app.domain.sources import duplicates
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
    fingerprint: bytes | None = None


async def stored_reach(work: UnitOfWork, source: DataSource) -> Reach:
    """Raises Conflict where a stored secret cannot be opened."""
    kept = await stored.open_secrets(work, source)
    return Reach(source.type, source.config, kept.values, kept.versions, source.fingerprint)


async def changed_reach(work: UnitOfWork, source: DataSource, patch: Mapping[str, Any], given: Values) -> Reach:
    """Config and secrets after a merge patch, held against the type and against where the secrets may go."""
    connector = registry.get(source.type)
    config = convert(merge_patch(source.config, patch), connector.config_type, path="config")
    names, before = await stored.names_of_secrets(work, source), as_read_today(connector, source.config)
    require_reentry(connector, before, plain(config), names, given)
    kept = await stored.open_secrets(work, source, but=given)
    values = kept.values | {name: value for name, value in given.items() if value is not None}
    check_together(connector, config, values)
    return Reach(source.type, plain(config), values, kept.versions, duplicates.fingerprint(connector, config))


async def secrets_to_change(work: UnitOfWork, source: DataSource, changes: dict[str, Any]) -> dict[str, Value | None]:
    """The secrets of a patch, taken out of it; null in their place clears all of them."""
    given: dict[str, Value | None] | None = changes.pop("secrets", {})
    return dict.fromkeys(await stored.names_of_secrets(work, source)) if given is None else given


def as_read_today(connector: registry.AnyConnector, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored config with defaults for settings that its type has got since; unchanged where its type refuses it."""
    try:
        return plain(msgspec.convert(config, connector.config_type))
    except msgspec.ValidationError:
        return config


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def plain(config: ConnectorConfig) -> dict[str, Any]:
    """As it is stored and read back: through JSON, which has no tuples."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return values
