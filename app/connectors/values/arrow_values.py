"""Arrow's types and values in the hub's words, whoever produced them: Parquet files, Delta tables.

Types are read from the C data interface, which every Arrow library exports and which, unlike arro3's own classes, shows
what is inside a map. Values are cast to plain numbers before they become Python objects: `datetime` has no nanoseconds
and no year 10000, and arro3 gives None for what does not fit.

Source: Arrow specification, "The Arrow C data interface", sections "Data type description" and "The ArrowSchema
structure".
"""

from __future__ import annotations

import ctypes
import datetime as dt
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.values.json_text import read_json
from app.connectors.values.names import members_of, told_apart
from app.connectors.values.values import half_precision, json_safe, single_precision

if TYPE_CHECKING:
    from arro3.core import Array, ChunkedArray, DataType

MAX_NATIVE_TYPE: Final = 255
"""Characters of a type's name: a struct of thousands of fields has a long one."""
_MAX_DEPTH: Final = 64

# Types ----------------------------------------------------------------------------------------------------------------


class ArrowType(msgspec.Struct, frozen=True):
    """A field of an Arrow schema and everything below it."""

    name: str
    format: str
    """As the C data interface writes it: `l` for int64, `tsu:UTC`, `+l`."""
    is_nullable: bool
    children: tuple[ArrowType, ...]
    dictionary: ArrowType | None
    """The type of the values, where `format` is that of their indices."""
    extension: str
    """Such as `arrow.uuid`; mostly empty."""

    @property
    def value_type(self) -> ArrowType:
        """What the values are, behind dictionaries and run ends: those are ways to store."""
        if self.dictionary is not None:
            return self.dictionary.value_type
        return self.children[1].value_type if self.format == "+r" else self


class _CSchema(ctypes.Structure):
    pass


_CSchema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_CSchema))),
    ("dictionary", ctypes.POINTER(_CSchema)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_NULLABLE: Final = 2


class Schemed(Protocol):
    """A schema, field or type of any Arrow library."""

    def __arrow_c_schema__(self) -> object: ...


def arrow_type(exported: Schemed) -> ArrowType:
    """Raises `unsupported` for types nested beyond any use."""
    capsule = exported.__arrow_c_schema__()
    pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_in.restype, pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return _from_c(_CSchema.from_address(pointer_in(capsule, b"arrow_schema")), 0)


def _from_c(schema: Any, depth: int) -> ArrowType:
    if depth > _MAX_DEPTH:
        raise ConnectorError("unsupported", f"A column is nested more than {_MAX_DEPTH} levels deep.")
    children = tuple(_from_c(schema.children[place].contents, depth + 1) for place in range(schema.n_children))
    return ArrowType(
        (schema.name or b"").decode("utf-8", "replace"),
        schema.format.decode("utf-8", "replace"),
        bool(schema.flags & _NULLABLE),
        children,
        _from_c(schema.dictionary.contents, depth + 1) if schema.dictionary else None,
        _metadata(schema.metadata).get(b"ARROW:extension:name", b"").decode("utf-8", "replace"),
    )


def _metadata(address: int | None) -> dict[bytes, bytes]:
    """Pairs of byte strings, each behind its length, behind their number; all in the machine's byte order."""
    if not address:
        return {}
    texts: list[bytes] = []
    (count,) = struct.unpack("=i", ctypes.string_at(address, 4))
    address += 4
    for _ in range(2 * count):
        (length,) = struct.unpack("=i", ctypes.string_at(address, 4))
        texts.append(ctypes.string_at(address + 4, length))
        address += 4 + length
    return dict(zip(texts[::2], texts[1::2], strict=True))


def discovered_fields(columns: Sequence[ArrowType]) -> tuple[DiscoveredField, ...]:
    """The columns of a table as fields, each with a name of its own."""
    names = told_apart([column.name for column in columns])
    return tuple(
        DiscoveredField(name, portable_type(column), native_type(column), column.is_nullable, position)
        for position, (name, column) in enumerate(zip(names, columns, strict=True), 1)
    )


_PORTABLE: Final[dict[str, PortableType]] = {
    "n": "unknown",
    "b": "boolean",
    **dict.fromkeys("cCsSiIlL", "integer"),
    **dict.fromkeys("efg", "number"),
    **dict.fromkeys(("z", "Z", "vz", "w"), "binary"),
    **dict.fromkeys(("u", "U", "vu"), "string"),
    "d": "decimal",
    **dict.fromkeys(("tdD", "tdm"), "date"),
    **dict.fromkeys(("tts", "ttm", "ttu", "ttn"), "time"),
    **dict.fromkeys(("tDs", "tDm", "tDu", "tDn", "tiM", "tiD", "tin"), "interval"),
    **dict.fromkeys(("+l", "+L", "+vl", "+vL", "+w"), "array"),
    **dict.fromkeys(("+s", "+m"), "object"),
    **dict.fromkeys(("+ud", "+us"), "json"),
}
_BY_EXTENSION: Final[dict[str, PortableType]] = {
    "arrow.uuid": "uuid",
    "arrow.json": "json",
    "ogc.wkb": "geometry",
    "geoarrow.wkb": "geometry",
    "geoarrow.wkt": "geometry",
}


def portable_type(column: ArrowType) -> PortableType:
    value = column.value_type
    for extension in (column.extension, value.extension):
        if extension in _BY_EXTENSION:
            return _BY_EXTENSION[extension]
    kind, _, parameters = value.format.partition(":")
    if kind.startswith("ts"):
        return "timestamp_tz" if parameters else "timestamp"
    return _PORTABLE.get(kind, "unknown")


_NAMES: Final = {
    "n": "null",
    "b": "bool",
    **dict(zip("cCsSiIlL", ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"), strict=True)),
    **dict(zip("efg", ("float16", "float32", "float64"), strict=True)),
    **{
        "z": "binary",
        "Z": "large_binary",
        "vz": "binary_view",
        "u": "string",
        "U": "large_string",
        "vu": "string_view",
    },
    **{"tdD": "date32", "tdm": "date64", "tts": "time32[s]", "ttm": "time32[ms]", "ttu": "time64[us]"},
    **{"ttn": "time64[ns]", "tDs": "duration[s]", "tDm": "duration[ms]", "tDu": "duration[us]", "tDn": "duration[ns]"},
    **{"tiM": "interval[month]", "tiD": "interval[day_time]", "tin": "interval[month_day_nano]"},
    **{"+l": "list", "+L": "large_list", "+vl": "list_view", "+vL": "large_list_view", "+s": "struct", "+m": "map"},
    **{"+ud": "dense_union", "+us": "sparse_union"},
}
_UNITS: Final = {"s": "s", "m": "ms", "u": "us", "n": "ns"}


def native_type(column: ArrowType) -> str:
    """Arrow's name of the type, as its libraries print it: `timestamp[us, UTC]`, `list<decimal128(12, 2)>`."""
    name = _name(column)
    return name if len(name) <= MAX_NATIVE_TYPE else name[: MAX_NATIVE_TYPE - 1] + "…"


def _name(column: ArrowType) -> str:
    if column.dictionary is not None:
        return f"dictionary<{_name(column.dictionary)}>"
    kind, _, parameters = column.format.partition(":")
    if kind.startswith("ts"):
        return f"timestamp[{_UNITS.get(kind[2:], '?')}{', ' + parameters if parameters else ''}]"
    if kind == "d":
        precision, scale, *width = parameters.split(",")
        return f"decimal{width[0] if width else 128}({precision}, {scale})"
    if kind == "w":
        return f"fixed_size_binary[{parameters}]"
    if kind in {"+w", "+r"}:
        outer = f"fixed_size_list[{parameters}]" if kind == "+w" else "run_end_encoded"
        return f"{outer}<{_name(column.children[-1])}>"
    return _NAMES.get(kind, kind) + _inside(kind, column.children)


def _inside(kind: str, children: Sequence[ArrowType]) -> str:
    if not children:
        return ""
    if kind == "+m":
        return f"<{', '.join(_name(child) for child in children[0].children)}>"
    if kind in {"+s", "+ud", "+us"}:
        return f"<{', '.join(f'{child.name}: {_name(child)}{_mark(child)}' for child in children)}>"
    return f"<{_name(children[0])}>"


def _mark(column: ArrowType) -> str:
    return "" if column.is_nullable else " not null"


# Values ---------------------------------------------------------------------------------------------------------------

Reader = Callable[[Any], object]
"""From a plain Python value, never None, to a JSON-safe one."""


def values_of(array: Array | ChunkedArray, column: ArrowType) -> list[object]:
    """JSON-safe values (see `values.py`) of an array of that type, or of one that can be cast to it."""
    read = _reader(column)
    plain = array.cast(_plain_type(column)) if _is_cast(column) else array
    return [None if value is None else read(value) for value in plain.to_pylist()]


def _is_cast(column: ArrowType) -> bool:
    kind = column.format
    is_special = kind.startswith(("t", "+v", "+r", "+w")) or column.dictionary is not None or _repeats_a_name(column)
    return is_special or any(_is_cast(child) for child in column.children)


def _repeats_a_name(column: ArrowType) -> bool:
    """Whether Python's dictionaries would lose a member."""
    return column.format == "+s" and len({child.name for child in column.children}) < len(column.children)


def _member_names(column: ArrowType) -> list[str]:
    """Of a struct, as arro3 gives them out: casts go by position where no name is the same."""
    if _repeats_a_name(column):
        return [f"# {place}" for place in range(len(column.children))]
    return [child.name for child in column.children]


def _plain_type(column: ArrowType) -> DataType:
    """The type in which arro3 gives the values out whole."""
    from arro3.core import DataType, Field

    column = column.value_type
    kind, _, parameters = column.format.partition(":")
    if kind in {"tiM", "tiD", "tin"}:
        return DataType.string()
    if kind == "tdD":
        return DataType.int32()
    if kind.startswith("t"):
        return DataType.int64()
    members = column.children[0] if kind == "+m" else column
    inner = [
        Field(name, _plain_type(child), nullable=child.is_nullable)
        for name, child in zip(_member_names(members), members.children, strict=True)
    ]
    if kind == "+m":
        key, item = inner
        return DataType.map(key, item, False)
    if kind == "+s":
        return DataType.struct(inner)
    if kind in {"+l", "+vl", "+w"}:
        return DataType.list(inner[0])
    if kind in {"+L", "+vL"}:
        return DataType.large_list(inner[0])
    if kind == "w":
        return DataType.binary(int(parameters))
    if kind == "d":
        precision, scale, *width = parameters.split(",")
        make = DataType.decimal256 if width == ["256"] else DataType.decimal128
        return make(int(precision), int(scale))
    if kind in _SIMPLE:
        made: DataType = getattr(DataType, _SIMPLE[kind])()
        return made
    raise ConnectorError("unsupported", f"Values of the type {_name(column)[:100]} cannot be shown.")


_SIMPLE: Final = {
    **{kind: name for kind, name in _NAMES.items() if kind in frozenset("ncCsSiIlLefgzZuU") | {"vz", "vu"}},
    "b": "bool",
}


def _reader(column: ArrowType) -> Reader:
    value = column.value_type
    kind, _, parameters = value.format.partition(":")
    if "arrow.uuid" in {column.extension, value.extension}:
        return lambda raw: _uuid(raw)
    if "arrow.json" in {column.extension, value.extension}:
        return _document
    if kind in _READERS:
        return _READERS[kind]
    if kind.startswith("ts"):
        zone, per_second = "Z" if parameters else "", _PER_SECOND[kind[2:]]
        return lambda count: _timestamp(count, per_second) + zone
    if kind == "+s":
        return _struct_reader(value)
    if kind == "+m":
        key, item = map(_reader, value.children[0].children)
        return lambda pairs: members_of((_key(key(name)), _or_null(item, content)) for name, content in pairs)
    if kind in {"+l", "+L", "+vl", "+vL", "+w"}:
        inner = _reader(value.children[0])
        return lambda items: [_or_null(inner, item) for item in items]
    return json_safe


def _struct_reader(column: ArrowType) -> Reader:
    shown = told_apart([child.name for child in column.children]) if _repeats_a_name(column) else _member_names(column)
    readers = [
        (name, inner, _reader(child))
        for name, inner, child in zip(shown, _member_names(column), column.children, strict=True)
    ]
    return lambda content: {name: _or_null(read, content[inner]) for name, inner, read in readers}


def _or_null(read: Reader, value: object) -> object:
    return None if value is None else read(value)


def _key(name: object) -> str:
    """JSON's objects have texts for keys."""
    return name if isinstance(name, str) else msgspec.json.encode(name).decode("utf-8", "replace")


def _uuid(raw: bytes) -> object:
    import uuid

    return str(uuid.UUID(bytes=raw)) if len(raw) == 16 else json_safe(raw)


def _document(text: str) -> object:
    """The text itself where it is no JSON."""
    try:
        return read_json(text)
    except (msgspec.DecodeError, RecursionError, TypeError):
        return json_safe(text)


# Times ----------------------------------------------------------------------------------------------------------------

_PER_SECOND: Final = {"s": 1, "m": 1_000, "u": 1_000_000, "n": 1_000_000_000}
_NS: Final = 1_000_000_000
_DAYS_OF_400_YEARS: Final = 146_097
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


def _timestamp(count: int, per_second: int) -> str:
    days, rest = divmod(count, 86_400 * per_second)
    return f"{_date(days)}T{_time(rest, per_second)}"


def _date(days: int) -> str:
    """Of days since 1970. The calendar repeats every 400 years, which leads around the end of `datetime`; a year with
    more than four digits has its sign (ISO 8601, "expanded representation")."""
    cycles, day = divmod(days + _EPOCH - 1, _DAYS_OF_400_YEARS)
    date = dt.date.fromordinal(day + 1)
    year = date.year + 400 * cycles
    return f"{year:04d}{date:-%m-%d}" if 0 <= year <= 9999 else f"{year:+05d}{date:-%m-%d}"


def _time(count: int, per_second: int) -> str:
    """Of the time since midnight. Fractions have six digits or, where they need them, nine."""
    seconds, nanoseconds = divmod(count * (_NS // per_second), _NS)
    fraction = f".{nanoseconds:09d}" if nanoseconds % 1000 else f".{nanoseconds // 1000:06d}" if nanoseconds else ""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def _duration(count: int, per_second: int) -> str:
    """As `values.duration`, to the nanosecond."""
    days, rest = divmod(abs(count) * (_NS // per_second), 86_400 * _NS)
    seconds = f"{rest // _NS}.{rest % _NS:09d}".rstrip("0").rstrip(".")
    sign, date = "-" if count < 0 else "", f"{days}D" if days else ""
    return f"{sign}P{date}T{seconds}S" if rest or not days else f"{sign}P{date}"


_INTERVAL_PART: Final = re.compile(r"(-?[0-9.]+) (year|mon|day|hour|min|sec)s?")
_DESIGNATORS: Final = {"year": "Y", "mon": "M", "day": "D", "hour": "H", "min": "M", "sec": "S"}


def _interval(text: str) -> str:
    """From arro3's text (`1 mons 2 days 3.500000000 secs`) to ISO 8601."""
    date = time = ""
    for number, unit in _INTERVAL_PART.findall(text):
        short = number.rstrip("0").rstrip(".") if "." in number else number
        if unit in {"year", "mon", "day"}:
            date += short + _DESIGNATORS[unit]
        else:
            time += short + _DESIGNATORS[unit]
    return f"P{date}{'T' + time if time else ''}" if date or time else "PT0S"


def _time_reader(per_second: int) -> Reader:
    return lambda count: _time(count, per_second)


def _duration_reader(per_second: int) -> Reader:
    return lambda count: _duration(count, per_second)


_READERS: Final[dict[str, Reader]] = {
    "e": lambda number: json_safe(half_precision(number)),
    "f": lambda number: json_safe(single_precision(number)),
    "tdD": _date,
    "tdm": lambda milliseconds: _date(milliseconds // 86_400_000),
    **{f"tt{unit}": _time_reader(per_second) for unit, per_second in _PER_SECOND.items()},
    **{f"tD{unit}": _duration_reader(per_second) for unit, per_second in _PER_SECOND.items()},
    **dict.fromkeys(("tiM", "tiD", "tin"), _interval),
}
