"""Secrets as somebody gives them: which fields have a value, and whether they go together with the config."""

from collections.abc import Iterable

import msgspec

from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets, InvalidField
from app.connectors.registry import AnyConnector
from app.core.bodies import convert
from app.core.errors import BadRequest, Fault
from app.domain.sources.schemas import GivenSecrets, Value, Values, given_secrets_type

UNKNOWN_TEXT = "a secret that is read when it is used"
"""Stands for a secret of which only the presence can be judged."""


def given_values(secrets: GivenSecrets) -> dict[str, Value]:
    """The fields that have a value."""
    values = ((name, getattr(secrets, name)) for name in secrets.__struct_fields__)
    return {name: value for name, value in values if value is not None}


def check_together(
    connector: AnyConnector, config: ConnectorConfig, values: Values, below: str = "", *, closed: Iterable[str] = ()
) -> None:
    """Raises BadRequest where a secret does not fit its type, or config and secrets ask something of each other that is
    missing. What a reference refers to is not read here, nor are the stored secrets opened that are to stay as they are
    (`closed`): all that is known of them is that they are there.
    """
    present = {name: value for name, value in values.items() if value is not None}
    path = f"{below}secrets"
    convert(msgspec.to_builtins(present), given_secrets_type(connector.secrets_type), path=path)
    texts = {name: value for name, value in present.items() if isinstance(value, str)}
    secrets: ConnectorSecrets = convert(texts, connector.secrets_type, path=path)
    unknown = (present.keys() - texts.keys()) | (set(closed) & set(connector.secrets_type.__struct_fields__))
    for name in unknown:
        msgspec.structs.force_setattr(secrets, name, UNKNOWN_TEXT)
    try:
        connector.validate(config, secrets)
    except InvalidField as error:
        if error.path[:1] != ("secrets",) or not unknown.intersection(error.path[1:]):
            raise BadRequest(errors=[Fault(below + ".".join(error.path), "invalid", error.message)]) from None
