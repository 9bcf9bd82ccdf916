"""What a role can be given to, and where: filled by the slices whose things those are, so that this one knows none of
them."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from app.core.error_codes import FaultCode


class ScopeKind(Struct, frozen=True):
    model: Any
    place: Mapping[str, Any]
    """The columns that make the `Place` of one, by its fields."""
    unknown: FaultCode
    """What is said of an id that nothing has."""
    seen_with: str
    """The permission with which one is seen."""


SUBJECTS: dict[str, Any] = {}
"""By subject type the model of its rows."""
SCOPES: dict[str, ScopeKind] = {}
"""By scope type, but for the whole tenant."""
