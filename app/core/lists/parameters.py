"""What a list is asked for: the parameters of a query string, each with its fault, and their schemas."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

from app.core.errors import BadRequest, Fault
from app.core.faults import shown_name

Parsed = dict[str, Any]
"""What a query string says, by the names of the parameters."""

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_QUERY_BYTES = 8192
MAX_VALUE_CHARACTERS = 1000


def parse_parameters(query_string: bytes) -> dict[str, str]:
    """Raises BadRequest for repeated, over-long or undecodable parameters."""
    if not query_string:
        return {}
    if len(query_string) > MAX_QUERY_BYTES:
        raise BadRequest("The query string is too long.", code="invalid_parameter")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise BadRequest("The query string is not valid.", code="invalid_parameter") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise BadRequest(code="repeated_parameter")
    if any("\x00" in text or len(text) > MAX_VALUE_CHARACTERS for text in given.values()):
        raise BadRequest("A query parameter holds a value that is not allowed.", code="invalid_parameter")
    return given


def _limit(text: str) -> int:
    if not (_is_whole_number(text, digits=4) and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _count(text: str) -> bool:
    if text != "exact":
        raise ValueError("must be `exact`")
    return True


def _limit_of_all(text: str) -> int:
    if not (_is_whole_number(text, digits=18) and int(text) >= 1):
        raise ValueError("must be a whole number from 1 on")
    return int(text)


def _no_count(_: str) -> bool:
    raise ValueError("has no place where the whole list is sent")


def _is_whole_number(text: str, *, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


PLAIN: dict[str, Callable[[str], object]] = {"limit": _limit, "count": _count}
PLAIN_OF_ALL: dict[str, Callable[[str], object]] = {"limit": _limit_of_all, "count": _no_count}

EVERYTHING = 10**18
"""More rows than there are."""


def parse_uuid(text: str) -> UUID:
    try:
        found = UUID(text)
    except ValueError:
        raise ValueError("must be a UUID") from None
    if str(found) != text.lower():
        raise ValueError("must be a UUID")
    return found


def parse_time(text: str) -> datetime:
    """Raises ValueError."""
    try:
        moment = msgspec.convert(text.replace(" ", "+"), datetime)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (msgspec.ValidationError, OverflowError):
        raise ValueError("must be an RFC 3339 time such as 2025-11-22T14:53:59Z") from None


UUID_SCHEMA: dict[str, object] = {"type": "string", "format": "uuid"}
STRING: dict[str, object] = {"type": "string", "maxLength": MAX_VALUE_CHARACTERS}


def parsed_as(given: Mapping[str, str], known: Mapping[str, Callable[[str], object]]) -> tuple[Parsed, list[Fault]]:
    """By what reads each text, and raises ValueError with what is wanted."""
    values: Parsed = {}
    faults: list[Fault] = []
    for place, (name, text) in enumerate(given.items(), 1):
        try:
            values[name] = known.get(name, _unknown_parameter)(text)
        except ValueError as error:
            shown = name if name in known else shown_name(name, place)
            faults.append(Fault(shown, "invalid_cursor" if name == "cursor" else "invalid_parameter", str(error)))
    return values, faults


def refuse_faulty_parameters(faults: Sequence[Fault]) -> None:
    """Raises BadRequest."""
    if faults:
        is_of_cursor = faults[0].code == "invalid_cursor"
        raise BadRequest(code="invalid_cursor" if is_of_cursor else "invalid_parameter", errors=faults)


def _unknown_parameter(text: str) -> object:
    raise ValueError("is not a parameter of this list")


COMMON_PARAMETERS: dict[str, dict[str, object]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cursor": STRING | {"description": "The next_cursor of the page before."},
    "count": {
        "type": "string",
        "enum": ["exact"],
        "description": "Ask for `total`; the only part of a list whose cost grows with it.",
    },
}
