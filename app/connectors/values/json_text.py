"""The one way in which a JSON text of somebody else becomes values: no number loses a digit.

What a floating point number does not say, `12345678901234567890.5` or `1e400`, keeps its digits, as PostgreSQL's `json`
keeps them: as a text, and as a `decimal` where the type of a field is told by its values. What tools write although no
standard has it is read as it is meant: `NaN`, `Infinity`. One half of a surrogate pair, which no answer could carry
and no catalogue could hold, stands as `\\udXXX`: as a name of a field, it would keep everything else out. A name that
an object says twice is told apart as in the header of a CSV file, `{"a": 1, "a": 2}` is `a` and `a_2`: RFC 8259 leaves
open which of them is meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from app.connectors.values.names import members_of
from app.connectors.values.values import json_safe, surrogates_replaced

_MAX_INTEGER_DIGITS: Final = 4_300
"""Python's own limit: turning more of them into a number costs the square of their count."""


class Digits(str):
    """A number, written as no floating point number can be."""

    __slots__ = ()


def decode_json(text: str | bytes) -> Any:
    """What the text stands for: `dict`, `list`, `str`, `int`, `float`, `bool`, None, and `Digits`. Raises
    `msgspec.DecodeError` for what is no JSON, `RecursionError` for what is nested too deep."""
    return _decoded(text, _decoder, exact_number)


def decode_digits(text: str | bytes) -> Any:
    """The same, with every number that has a point or an exponent as it is written."""
    return _decoded(text, _digits_decoder, Digits)


def decode_decimals(text: str | bytes) -> Any:
    """The same, with every such number as a `Decimal`."""
    return _decoded(text, _decimals_decoder, Decimal)


def _decoded(text: str | bytes, decoder: msgspec.json.Decoder[Any], number: Callable[[str], object]) -> Any:
    try:
        value = decoder.decode(text)
        if not _may_repeat_a_name(text, value):
            return value
    except (msgspec.DecodeError, UnicodeError):
        pass
    try:
        value = json.loads(text, parse_float=number, parse_int=_exact_integer, object_pairs_hook=members_of)
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from None
    return surrogates_replaced(value) if _may_hold_surrogates(text) else value


def _may_repeat_a_name(text: str | bytes, value: object) -> bool:
    """msgspec keeps the last of them, and the colons of the others are missing from what it makes of its own value. A
    colon may be written as an escape, too; it then stands in for a missing one."""
    colon, escaped = (b":", b"\\u003") if isinstance(text, bytes) else (":", "\\u003")
    count = text.count(colon)  # type: ignore[arg-type]
    if count < 2:
        return False
    if escaped in text:  # type: ignore[operator]
        return True
    return msgspec.json.encode(value, enc_hook=str).count(b":") != count


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
_digits_decoder: Final = msgspec.json.Decoder(float_hook=Digits)
_decimals_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)
