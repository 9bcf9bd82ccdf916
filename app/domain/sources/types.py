"""The types of data sources, as the API shows them: read off the connector classes once."""

from collections.abc import Mapping

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


_TYPES = {connector.type: _shown(connector) for connector in registry.all()}
_REAL_TYPES = {name: shown for name, shown in _TYPES.items() if not registry.get(name).is_rehearsal}


def offered(settings: Settings) -> Mapping[str, TypeOut]:
    """By name; rehearsals in development only."""
    return _TYPES if settings.is_development else _REAL_TYPES


def require_offered(settings: Settings, type_name: str, below: str = "") -> None:
    """Raises BadRequest for a rehearsal outside of development."""
    if type_name not in offered(settings):
        fault = Fault(f"{below}type", "type_unavailable", "is a rehearsal, which only a hub in development offers")
        raise BadRequest(code="type_unavailable", errors=[fault])
