"""The one way in which a row of the audit log is written down before it is hashed (openspec/specs/audit-log).

The database writes it when it hashes (migration 0025), and when rows are read to be verified or exported. What is here
is the same for whoever has the columns, and what tests hold the database's to.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

COLUMNS: Final = (
    "id", "tenant_id", "transaction_id", "sequence", "occurred_at", "actor_id", "actor_name", "api_key_id", "action",
    "resource_type", "resource_id", "outcome", "address", "request_id", "detail", "before", "after",
)  # fmt: skip
"""In this order, each one always."""
LATER_COLUMNS: Final = ("chain_hash",)
"""Behind the others, up to the last one that is not null: so that what is sealed stays as it is when a column comes."""

SQL: Final = """
    to_json(ARRAY[
      event.id::text, event.tenant_id::text, event.transaction_id::text, event.sequence::text,
      to_char(event.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
      event.actor_id::text, event.actor_name, event.api_key_id::text, event.action, event.resource_type,
      event.resource_id::text, event.outcome, event.address, event.request_id, event.detail, event.before::text,
      event.after::text]
      || CASE WHEN event.chain_hash IS NOT NULL THEN ARRAY[encode(event.chain_hash, 'hex')] END)::text
"""
"""Of a row of `audit_events AS event`."""


def encoded(texts: Sequence[str | None]) -> bytes:
    """A JSON array of texts and nulls by the rules of RFC 8785: nothing between its parts, and of the characters of a
    text only those escaped that have to be, in the shortest form."""
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()


def encoded_row(row: Mapping[str, object]) -> bytes:
    """From the columns, `before` and `after` as PostgreSQL's own text of a `jsonb`."""
    texts = [_text(row[name]) for name in COLUMNS]
    later = [_text(row.get(name)) for name in LATER_COLUMNS]
    while later and later[-1] is None:
        later.pop()
    return encoded([*texts, *later])


def _text(value: object) -> str | None:
    if isinstance(value, datetime):
        return written_time(value)
    if isinstance(value, bytes):
        return value.hex()
    return None if value is None else str(value)


def written_time(moment: datetime) -> str:
    """RFC 3339, in UTC and with all six digits."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
