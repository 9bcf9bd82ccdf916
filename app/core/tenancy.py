"""The tenant that every hub has from its first migration on. Its members are the hub's operators."""

from typing import Final
from uuid import UUID

DEFAULT_TENANT_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
DEFAULT_SLUG: Final = "default"
