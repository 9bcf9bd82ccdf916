"""What a route declares of its answers beside their type: other media types, other bodies, and its own codes.

An entity tag is declared by the type of the answer (`core.answers.Tagged`). What a route brings along by its kind, such
as the codes of a body that cannot be read, is known of the kind (`app.api.endings`) and not declared again.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from app.core.error_codes import Code
from app.core.errors import HubError


class ErrorForm(Protocol):
    """The shape in which a route tells of errors where a standard has one of its own: a Struct."""

    @classmethod
    def status_of(cls, error: HubError | type[HubError]) -> int: ...


class Outcomes(Struct, frozen=True, kw_only=True):
    codes: tuple[Code, ...] = ()
    also_as: tuple[str, ...] = ()
    """Media types that `Accept` may ask for instead of JSON and MessagePack."""
    streams: bool = False
    """In those a list comes whole, not page by page (`app.core.exports`)."""
    by_status: Mapping[int, Any] = {}
    """The type of the body where another status than the usual one has another body."""
    to_others: Any = None
    """The type of the body for callers who see less of the same."""
    errors_as: type[ErrorForm] | None = None
    """The shape of every error that the route itself ends with, for the document (`core.answers.tells_errors_by` tells
    them so); what ends a request before there is a route (an unknown host, a stopping hub) has the hub's."""

    def __deepcopy__(self, memo: object) -> "Outcomes":
        """Litestar copies the handlers of a controller; what cannot change need not be copied."""
        return self


def outcomes(
    *codes: Code,
    also_as: tuple[str, ...] = (),
    streams: bool = False,
    by_status: Mapping[int, Any] | None = None,
    to_others: Any = None,
    errors_as: type[ErrorForm] | None = None,
) -> dict[str, Outcomes]:
    """For `opt`, beside `requires` and its siblings: `opt=requires("roles:write") | outcomes("name_taken")`."""
    made = Outcomes(
        codes=codes,
        also_as=also_as,
        streams=streams,
        by_status=by_status or {},
        to_others=to_others,
        errors_as=errors_as,
    )
    return {"outcomes": made}


NONE = Outcomes()
