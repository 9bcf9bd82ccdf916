"""How values of a preview are written, so that JSON carries them whole.

| value                                        | written as                                              |
|----------------------------------------------|---------------------------------------------------------|
| integer within ±(2^53 - 1)                   | number                                                  |
| other integer, decimal                       | string of its digits, as every JSON reader keeps them   |
| floating point number                        | number; `NaN`, `Infinity`, `-Infinity` as strings       |
| number in a JSON text                        | number; a string of its digits where that would lose any |
| date, time, timestamp                        | RFC 3339, a zone as `Z` or an offset; none if it has none |
| interval                                     | ISO 8601 duration                                       |
| binary                                       | base64                                                  |
| array, object, JSON                          | the same in JSON, by these rules inside                 |
| anything else                                | the source's own text for it                            |
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import struct
import uuid
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import msgspec

from app.connectors.values.names import members_of

MAX_SAFE_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 64
Row = tuple[Any, ...]
"""What a driver gives for a row: values of whatever Python types it has for those of its columns."""


def json_safe(value: object, depth: int = 0) -> object:
    """The value as above. What is nested deeper than `MAX_DEPTH` becomes its text."""
    if value is None or isinstance(value, bool) or type(value) is str:
        return value
    if isinstance(value, str):
        return str(value)  # Drivers have texts of classes of their own, which JSON's encoder does not take.
    if isinstance(value, int):
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else float_name(value)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(key): json_safe(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item, depth + 1) for item in value]
    return _as_text(value)


def _as_text(value: object) -> str:
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dt.datetime | dt.time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date | uuid.UUID):
        return str(value)
    if isinstance(value, dt.timedelta):
        return duration(value)
    return str(value)


def _decimal(value: Decimal) -> str:
    if value.is_nan():
        return "NaN"
    return format(value, "f") if value.is_finite() else float_name(float(value))


def single_precision(value: float) -> float:
    """The shortest number that is the same one in four bytes: 0.1 for what Python makes 0.10000000149011612 of."""
    return _shortest(value, "f", 6)


def half_precision(value: float) -> float:
    """The same in two bytes."""
    return _shortest(value, "e", 3)


def _shortest(value: float, form: str, least_digits: int) -> float:
    """`form` is that of `struct`; nine digits tell any number of these forms."""
    if not math.isfinite(value):
        return value
    packed = struct.pack(form, value)
    for digits in range(least_digits, 9):
        shorter = float(f"{value:.{digits}g}")
        with suppress(OverflowError):
            if struct.pack(form, shorter) == packed:
                return shorter
    return value


def float_name(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def duration(value: dt.timedelta) -> str:
    """ISO 8601, in days and seconds: `P1DT2.5S`, `-PT3S`."""
    sign, value = ("-", -value) if value < dt.timedelta(0) else ("", value)
    seconds = f"{value.seconds}.{value.microseconds:06d}".rstrip("0").rstrip(".")
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{seconds}S" if seconds != "0" or not days else f"{sign}P{days}"


def encoded_size(value: object) -> int:
    """Bytes of a JSON-safe value on the wire."""
    return len(msgspec.json.encode(value))


def without_surrogates(value: object) -> object:
    """The same, where a half of a surrogate pair stands by itself as `\\udXXX`: UTF-8 has no place for it."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return surrogates_replaced(value)
    return value


def surrogates_replaced(value: Any) -> Any:
    """As `without_surrogates`, of values that are not JSON-safe yet. What is ASCII stays of its type."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return members_of((surrogates_replaced(key), surrogates_replaced(item)) for key, item in value.items())
    return [surrogates_replaced(item) for item in value] if isinstance(value, list) else value


def cut(text: str, max_bytes: int) -> str:
    """The longest start of the text that takes at most `max_bytes` as UTF-8."""
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text.encode()
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode("utf-8", "ignore")
