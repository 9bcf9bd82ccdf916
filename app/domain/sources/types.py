"""The types of data sources, as the API shows them: read off the connector classes once."""

from app.connectors import registry
from app.connectors.base import config_schema, secrets_schema
from app.domain.sources.schemas import TypeOut


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
        install_hint=registry.install_hint(connector),
        verified_with=list(connector.verified_with),
    )


TYPES = {connector.type: _shown(connector) for connector in registry.all()}
