"""Configs of sources: as they are stored, changed and read, and what of a row follows from them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.connectors import registry
from app.connectors.contract.config import ConnectorConfig
from app.connectors.contract.identity import host_of
from app.connectors.registry import AnyConnector
from app.core.rows import as_jsonb
from app.domain.sources import duplicates


def columns_of_config(connector: AnyConnector, config: ConnectorConfig) -> dict[str, Any]:
    """The config, and what follows from it."""
    place = connector.identity(config)
    return {"config": plain(config), "fingerprint": duplicates.fingerprint(connector, place), "host": host_of(place)}


def host_of_stored(type_name: str, config: Mapping[str, object]) -> str | None:
    """Of a config that may be of an earlier release; None where its type takes it no longer."""
    try:
        connector = registry.get(type_name)
        return host_of(connector.identity(msgspec.convert(config, connector.config_type)))
    except (registry.UnknownConnectorType, msgspec.ValidationError):
        return None


def plain(config: ConnectorConfig) -> dict[str, object]:
    """As it is stored and read back: through JSON, which has no tuples."""
    values: dict[str, object] = as_jsonb(msgspec.json.decode(msgspec.json.encode(config)))
    return values


def as_read_today(connector: AnyConnector, config: Mapping[str, object]) -> Mapping[str, object]:
    """A stored config with defaults for settings that its type has got since; unchanged where its type refuses it."""
    try:
        return plain(msgspec.convert(config, connector.config_type))
    except msgspec.ValidationError:
        return config


def merge_patch(target: object, patch: object) -> object:
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
