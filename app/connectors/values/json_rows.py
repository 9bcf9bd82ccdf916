"""Rows in JSON documents: where they are, and what fields they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.values.json_text import Digits

ITEM_KEYS: Final = ("items", "data", "results", "value", "records", "content", "rows")
"""Names under which servers put the list of an answer, in the order in which they are looked for."""

BY_JSON_TYPE: Final[dict[str, PortableType]] = {
    "boolean": "boolean",
    "integer": "integer",
    "number": "number",
    "decimal": "decimal",
    "string": "string",
    "array": "array",
    "object": "object",
}


def rows_in(answer: object, pointer: str | None) -> list[dict[str, object]]:
    """The objects of an answer: at the pointer, or a list by itself or under a usual name, or the answer as the only
    one. What is no object becomes one with the field `value`."""
    found = at_pointer(answer, pointer) if pointer is not None else _look(answer)
    if found is None:
        return []
    items = found if isinstance(found, list) else [found]
    return [item if isinstance(item, dict) else {"value": item} for item in items]


def _look(answer: object) -> object:
    if isinstance(answer, dict):
        for key in ITEM_KEYS:
            if isinstance(answer.get(key), list):
                return answer[key]
    return answer


def at_pointer(answer: object, pointer: str) -> object:
    """JSON Pointer, RFC 6901; None where it leads nowhere."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(answer, dict):
            answer = answer.get(key)
        elif isinstance(answer, list) and key.isdecimal() and int(key) < len(answer):
            answer = answer[int(key)]
        else:
            return None
    return answer


def leads_somewhere(answer: object, pointer: str) -> bool:
    """Whether there is something at the pointer, were it null."""
    above, _, last = pointer.rpartition("/")
    if not pointer:
        return True
    holder = at_pointer(answer, above)
    key = last.replace("~1", "/").replace("~0", "~")
    return key in holder if isinstance(holder, dict) else at_pointer(answer, pointer) is not None


def fields_of(rows: Sequence[Mapping[str, object]]) -> tuple[DiscoveredField, ...]:
    """In the order in which they first appear. A field that a row lacks is nullable."""
    seen: dict[str, set[str]] = {}
    present: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            seen.setdefault(name, set()).add(_kind(value))
            present[name] = present.get(name, 0) + 1
    return tuple(
        DiscoveredField(name, _merged(kinds), _native(kinds), "null" in kinds or present[name] < len(rows), position)
        for position, (name, kinds) in enumerate(seen.items(), 1)
    )


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return _KINDS[type(value)]


_KINDS: Final[dict[type, str]] = {
    int: "integer",
    float: "number",
    Digits: "decimal",
    str: "string",
    list: "array",
    dict: "object",
}


def _merged(kinds: set[str]) -> PortableType:
    kinds = kinds - {"null"}
    if not kinds:
        return "unknown"
    if kinds <= {"integer", "number", "decimal"} and len(kinds) > 1:
        return "decimal" if "decimal" in kinds else "number"
    return BY_JSON_TYPE[kinds.pop()] if len(kinds) == 1 else "json"


def _native(kinds: set[str]) -> str:
    """As JSON has it, where a number of many digits is a number."""
    return "|".join(sorted({"number" if kind == "decimal" else kind for kind in kinds - {"null"}})) or "null"
