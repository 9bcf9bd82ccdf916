"""What owning brings: the owner role of a data source or a data domain."""

from typing import Final

from app.domain.roles.schemas import PERMISSIONS

OWNER_BRINGS: Final = frozenset(
    name for name in PERMISSIONS if name.startswith("data-sources:") and name != "data-sources:reference"
)
"""Whoever holds the owner role for the whole tenant may do this with the source, or with each source in the domain and
below it: everything but to read the secrets of the hub's operator."""
