"""A column of a preview as texts: the same ones in CSV and in Arrow, and none that could stand for two values.

| column                                   | text of a value                                                |
|------------------------------------------|----------------------------------------------------------------|
| json, array, object                      | JSON: the text `5` is `"5"`, the number is `5`                 |
| integer, number, decimal                 | its digits, whether JSON has them as a number or as a string   |
| anything else, if all values are strings | the string itself                                              |
| anything else                            | JSON                                                           |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from app.connectors.contract.objects import PortableType

_JSON: Final = frozenset({"json", "array", "object"})
_NUMBERS: Final = frozenset({"integer", "number", "decimal"})


def column_texts(portable: PortableType, cells: Sequence[Any]) -> list[str | None]:
    """None for null."""
    if portable in _JSON:
        return [_as_json(cell) for cell in cells]
    if portable in _NUMBERS and not any(isinstance(cell, bool | dict | list) for cell in cells):
        return [cell if isinstance(cell, str) else _as_json(cell) for cell in cells]
    if all(cell is None or isinstance(cell, str) for cell in cells):
        return list(cells)
    return [_as_json(cell) for cell in cells]


def _as_json(cell: object) -> str | None:
    return None if cell is None else msgspec.json.encode(cell).decode()
