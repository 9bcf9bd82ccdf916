"""The one way in which a JSON text of somebody else becomes values: no number loses a digit.

What a floating point number does not say, `12345678901234567890.5` or `1e400`, keeps its digits, as PostgreSQL's `json`
keeps them: as a text, and as a `decimal` where the type of a field is told by its values. What tools write although no
standard has it is read as it is meant: `NaN`, `Infinity`. One half of a surrogate pair, which no answer could carry
and no catalogue could hold, stands as `\\udXXX`: as a name of a field, it would keep everything else out.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from app.connectors.values.values import json_safe, surrogates_replaced

_MAX_INTEGER_DIGITS: Final = 4_300
"""Python's own limit: turning more of them into a number costs the square of their count."""


class Digits(str):
    """A number, written as no floating point number can be."""

    __slots__ = ()


def decode_json(text: str | bytes) -> Any:
    """What the text stands for: `dict`, `list`, `str`, `int`, `float`, `bool`, None, and `Digits`. Raises
    `msgspec.DecodeError` for what is no JSON, `RecursionError` for what is nested too deep."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        try:
            value = json.loads(text, parse_float=exact_number, parse_int=_exact_integer)
        except ValueError:
            raise msgspec.DecodeError(str(error)) from None
        return surrogates_replaced(value) if _may_hold_surrogates(text) else value


def _may_hold_surrogates(text: str | bytes) -> bool:
    return b"\\ud" in text.lower() if isinstance(text, bytes) else "\\ud" in text.lower()


def read_json(text: str | bytes) -> Any:
    """The same as JSON-safe values, where digits are texts. Raises as `decode_json` does."""
    return json_safe(decode_json(text))


def exact_number(digits: str) -> float | Digits:
    """The floating point number that says just that, or the digits themselves."""
    value = float(digits)
    try:
        return value if Decimal(repr(value)) == Decimal(digits) else Digits(digits)
    except InvalidOperation:  # Not even a Decimal takes an exponent like this one.
        return Digits(digits)


def _exact_integer(digits: str) -> int | Digits:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else Digits(digits)


_decoder: Final = msgspec.json.Decoder(float_hook=exact_number)
