"""The tenant that every hub has from its first migration on, whose members are the hub's operators, and the one that a
connection is in."""

from typing import Final
from uuid import UUID

DEFAULT_TENANT_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
DEFAULT_SLUG: Final = "default"
TENANT_SETTING: Final = "hub.tenant_id"
"""Of a connection: row-level security lets it see and write rows of this tenant alone, of none where it is empty."""
