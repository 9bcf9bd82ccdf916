"""States of secrets: all that is ever shown of them, kept on the source's own row so that a list reads one table.

The hub writes them together with the secrets. The database holds them against the secrets after each change of those
(migration `states of secrets`), and puts right what a hub of another release, or a person, left untrue.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from app.core.rows import as_jsonb
from app.domain.sources.schemas import SecretReference, Value, Values
from app.domain.work import UnitOfWork

States = Mapping[str, Mapping[str, Any]]


def states_after(work: UnitOfWork, before: States, given: Values) -> dict[str, object]:
    """As `SecretState` has them, in JSON. Each time a secret is given its version counts up."""
    after: dict[str, object] = {name: state for name, state in before.items() if name not in given}
    for name, value in given.items():
        if value is not None:
            after[name] = _state(work, value, before.get(name, {}).get("version", 0) + 1)
    return dict(as_jsonb(after))


def _state(work: UnitOfWork, value: Value, version: int) -> dict[str, object]:
    reference = value.ref if isinstance(value, SecretReference) else None
    return {
        "set": True,
        "version": version,
        "updated_at": _written(work.now),
        "updated_by": str(work.actor_id) if work.actor_id else None,
        "source": "stored" if reference is None else "reference",
        "ref": reference,
    }


@lru_cache(8)
def _written(moment: datetime) -> str:
    """As the database writes it, with all six places."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
