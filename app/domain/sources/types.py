"""The types of data sources, as the API shows them: read off the connector classes once."""

from collections.abc import Mapping
from functools import cache

from app.connectors import registry
from app.connectors.contract.config import config_schema, secrets_schema
from app.core.errors import BadRequest, Fault
from app.core.invocation import typed_install
from app.domain.sources.schemas import TypeOut
from app.settings import Settings


def _shown(connector: registry.AnyConnector) -> TypeOut:
    return TypeOut(
        type=connector.type,
        label=connector.label,
        category=connector.category,
        description=connector.description,
        config_schema=config_schema(connector.config_type),
        secrets_schema=secrets_schema(connector.secrets_type),
        capabilities=connector.capabilities,
        driver_available=registry.is_driver_available(connector),
        install_hint=typed_install(connector.extra) if connector.extra else None,
        verified_with=list(connector.verified_with),
    )


@cache
def _all_shown() -> Mapping[str, TypeOut]:
    """Made when they are first asked for: their schemas are a tenth of what a start would take."""
    return {connector.type: _shown(connector) for connector in registry.all()}


def offered(settings: Settings) -> Mapping[str, TypeOut]:
    """By name; rehearsals in development only."""
    return {name: shown for name, shown in _all_shown().items() if is_offered(settings, name)}


def is_offered(settings: Settings, type_name: str) -> bool:
    return type_name in registry.find() and (settings.is_development or not registry.get(type_name).is_rehearsal)


def require_offered(settings: Settings, type_name: str, below: str = "") -> None:
    """Raises BadRequest for a rehearsal outside of development."""
    if not is_offered(settings, type_name):
        fault = Fault(f"{below}type", "type_unavailable", "is a rehearsal, which only a hub in development offers")
        raise BadRequest(code="type_unavailable", errors=[fault])
