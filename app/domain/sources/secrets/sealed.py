"""What a stored secret is sealed to, and whether the keys are still the ones that sealed: those of webhooks and
identity providers, too. It imports little, for the hub asks at its start."""

from typing import TYPE_CHECKING
from uuid import UUID

from app.core.sealing import KeyRing, SealingError
from app.domain.identity_providers.sealed import FIELD as SECRET_OF_PROVIDER
from app.domain.identity_providers.sealed import OLDEST_OF_EACH_KEY as OLDEST_OF_PROVIDERS
from app.domain.saml.sealed import FIELD as OWN_SAML_KEY
from app.domain.saml.sealed import OLDEST_OF_EACH_KEY as OLDEST_OF_SAML_KEYS
from app.domain.webhooks.sealed import FIELD as SECRET_OF_WEBHOOK
from app.domain.webhooks.sealed import OLDEST_OF_EACH_KEY as OLDEST_OF_WEBHOOKS

if TYPE_CHECKING:
    import asyncpg

OLDEST_OF_EACH_KEY = "SELECT * FROM public.oldest_secret_of_each_key()"


def sealed_field(name: str) -> str:
    """The field in which the secret of that name is sealed."""
    return f"data_sources.secrets.{name}"


async def replaced_keys(connection: "asyncpg.Connection", ring: KeyRing | None) -> list[str]:
    """Ids under which secrets were sealed with another key than the ring has by that id; without a ring, all of them.

    The oldest secret of each stands for the others. An id that the ring has not got at all is no mistake: keys may be
    lost for good, and then only the work that needs their secrets fails.
    """
    of_sources, of_webhooks = await connection.fetch(OLDEST_OF_EACH_KEY), await connection.fetch(OLDEST_OF_WEBHOOKS)
    of_providers, of_saml = await connection.fetch(OLDEST_OF_PROVIDERS), await connection.fetch(OLDEST_OF_SAML_KEYS)
    found = [
        *((row, row["data_source_id"], sealed_field(row["name"])) for row in of_sources),
        *((row, row["id"], SECRET_OF_WEBHOOK) for row in of_webhooks),
        *((row, row["id"], SECRET_OF_PROVIDER) for row in of_providers),
        *((row, row["id"], OWN_SAML_KEY) for row in of_saml),
    ]
    ids = (row["key_id"] for row, *place in found if ring is None or _is_replaced(ring, row, *place))
    return list(dict.fromkeys(ids))


def _is_replaced(ring: KeyRing, row: "asyncpg.Record", row_id: UUID, field: str) -> bool:
    return row["key_id"] in ring.ids and not _opens(ring, row, row_id, field)


def _opens(ring: KeyRing, row: "asyncpg.Record", row_id: UUID, field: str) -> bool:
    try:
        ring.open(row["sealed"], tenant_id=row["tenant_id"], row_id=row_id, field=field)
    except SealingError:
        return False
    return True
