"""A column of a preview in Arrow: of its Arrow type where that says just what JSON says, as texts otherwise.

Nothing is cast and hoped for: each value is read by rules that know all of it, and one that does not keep to them makes
the whole column texts.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from app.connectors.contract.objects import PortableType
from app.domain.source_work.column_texts import column_texts

if TYPE_CHECKING:
    from arro3.core import Array, DataType

_INT64: Final = range(-(2**63), 2**63)
_DIGITS: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_EPOCH: Final = dt.date(1970, 1, 1)
_NS: Final = 1_000_000_000
_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class _DoesNotFit(ValueError):
    """The Arrow type would say something else."""


def arrow_column(portable: PortableType, cells: Sequence[object]) -> Array:
    from arro3.core import Array, DataType

    make = _MAKERS.get(portable)
    try:
        if make is not None:
            return make(cells)
    except (_DoesNotFit, ValueError, OverflowError, InvalidOperation):
        pass
    return Array(column_texts(portable, cells), type=DataType.utf8())


def _each(cells: Sequence[object], read: Callable[[Any], Any]) -> list[Any]:
    return [None if cell is None else read(cell) for cell in cells]


def _booleans(cells: Sequence[object]) -> Array:
    from arro3.core import Array, DataType

    if not all(cell is None or isinstance(cell, bool) for cell in cells):
        raise _DoesNotFit
    return Array(list(cells), type=DataType.bool())


def _integers(cells: Sequence[object]) -> Array:
    from arro3.core import Array, DataType

    numbers = _each(cells, _integer)
    if all(number is None or number in _INT64 for number in numbers):
        return Array(numbers, type=DataType.int64())
    return _of_digits([None if number is None else Decimal(number) for number in numbers])


def _integer(cell: object) -> int:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return cell
    if isinstance(cell, str) and _DIGITS.fullmatch(cell) and len(cell) < 100:
        return int(cell)
    raise _DoesNotFit


def _floats(cells: Sequence[object]) -> Array:
    from arro3.core import Array, DataType

    return Array(_each(cells, _float), type=DataType.float64())


def _float(cell: object) -> float:
    if isinstance(cell, str) and cell in _FLOATS:
        return _FLOATS[cell]
    exact = _exact(cell)
    value = float(exact)
    if Decimal(repr(value)) != exact:
        raise _DoesNotFit
    return value


def _exact(cell: object) -> Decimal:
    if isinstance(cell, bool) or not isinstance(cell, int | float | str) or cell in _FLOATS:
        raise _DoesNotFit
    if isinstance(cell, str) and not _NUMBER.fullmatch(cell):
        raise _DoesNotFit
    number = Decimal(cell if isinstance(cell, str) else repr(cell))
    if not number.is_finite():
        raise _DoesNotFit
    return number


def _decimals(cells: Sequence[object]) -> Array:
    return _of_digits(_each(cells, _exact))


def _of_digits(numbers: Sequence[Decimal | None]) -> Array:
    """In the narrower of the two types that holds all of their digits."""
    from arro3.core import Array, DataType

    known = [number for number in numbers if number is not None]
    scale = max((-int(number.as_tuple().exponent) for number in known), default=0)
    scale = max(scale, 0)
    whole = max((number.adjusted() + 1 for number in known), default=1)
    digits = max(whole, 1) + scale
    if digits > 76:
        raise _DoesNotFit
    wanted = DataType.decimal128(38, scale) if digits <= 38 else DataType.decimal256(76, scale)
    texts = Array([None if number is None else format(number, "f") for number in numbers], type=DataType.utf8())
    return _cast(texts, wanted)


def _cast(array: Array, wanted: DataType) -> Array:
    cast = array.cast(wanted)
    if cast.null_count != array.null_count:
        raise _DoesNotFit
    return cast


def _dates(cells: Sequence[object]) -> Array:
    from arro3.core import Array, DataType

    return Array(_each(cells, _days), type=DataType.int32()).cast(DataType.date32())


def _days(cell: object) -> int:
    if not isinstance(cell, str) or not _DATE.fullmatch(cell):
        raise _DoesNotFit
    return (dt.date.fromisoformat(cell) - _EPOCH).days


def _timestamps(cells: Sequence[object], zone: str | None) -> Array:
    """To the microsecond, or to the nanosecond where a value says one and all of them lie within its 584 years."""
    from arro3.core import Array, DataType

    moments = _each(cells, lambda cell: _nanoseconds(cell, has_zone=zone is not None))
    unit, per_unit = ("us", 1000) if all(not moment or moment % 1000 == 0 for moment in moments) else ("ns", 1)
    counts = [None if moment is None else moment // per_unit for moment in moments]
    if any(count is not None and count not in _INT64 for count in counts):
        raise _DoesNotFit
    wanted = DataType.timestamp(unit, tz=zone)  # type: ignore[arg-type]
    return Array(counts, type=DataType.int64()).cast(wanted)


def _nanoseconds(cell: object, *, has_zone: bool) -> int:
    """Since 1970. A moment without a zone is none with one, and the other way round."""
    found = _MOMENT.fullmatch(cell) if isinstance(cell, str) else None
    if found is None or (found[6] is not None) is not has_zone:
        raise _DoesNotFit
    date, hours, minutes, seconds, fraction, zone = found.groups()
    if int(hours) > 23 or int(minutes) > 59 or int(seconds or 0) > 59:
        raise _DoesNotFit
    total = (_days(date) * 24 + int(hours)) * 3600 + int(minutes) * 60 + int(seconds or 0)
    if zone not in {None, "Z"}:
        total -= (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    return total * _NS + int((fraction or "").ljust(9, "0"))


def _binaries(cells: Sequence[object]) -> Array:
    from arro3.core import Array, DataType

    return Array(_each(cells, _bytes), type=DataType.binary())


def _bytes(cell: object) -> bytes:
    """Of base64 as it is written; what only looks like it (a cut value, a text) would be other bytes."""
    if not isinstance(cell, str):
        raise _DoesNotFit
    try:
        content = base64.b64decode(cell, validate=True)
    except binascii.Error:
        raise _DoesNotFit from None
    if base64.b64encode(content).decode() != cell:
        raise _DoesNotFit
    return content


_MAKERS: Final[dict[PortableType, Callable[[Sequence[object]], Array]]] = {
    "boolean": _booleans,
    "integer": _integers,
    "number": _floats,
    "decimal": _decimals,
    "date": _dates,
    "timestamp": lambda cells: _timestamps(cells, None),
    "timestamp_tz": lambda cells: _timestamps(cells, "UTC"),
    "binary": _binaries,
}
