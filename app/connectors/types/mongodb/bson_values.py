"""BSON (bsonspec.org): its types as portable ones, the fields of sampled documents, and values as JSON keeps them.

| BSON                    | written as                                              |
|-------------------------|---------------------------------------------------------|
| object id               | its 24 hexadecimal digits                               |
| date                    | RFC 3339 in UTC; milliseconds since 1970 as a string for years beyond 1 to 9999 |
| binary of subtype 4     | UUID; any other is base64                               |
| timestamp               | `{"t": seconds, "i": ordinal}`                          |
| regular expression      | `/pattern/flags`                                        |
| DBRef                   | `{"$ref": ..., "$id": ..., "$db": ...}`                 |
| JavaScript              | its text                                                |
| min key, max key        | `MinKey`, `MaxKey`                                      |

Everything else is as in `app.connectors.values.values`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, SupportsInt
from uuid import UUID

from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.values.names import members_of, with_position
from app.connectors.values.values import MAX_DEPTH, json_safe

if TYPE_CHECKING:
    from bson.regex import Regex

MAX_FIELDS: Final = 1_000
"""Of one collection: documents whose keys are data are not a table of a million columns."""

_UUID: Final = "binData(4)"
_EPOCH: Final = dt.datetime(1970, 1, 1)
_PORTABLE: Final[dict[str, PortableType]] = {
    "double": "number",
    "string": "string",
    "object": "object",
    "array": "array",
    "binData": "binary",
    _UUID: "uuid",
    "objectId": "string",
    "bool": "boolean",
    "date": "timestamp_tz",
    "regex": "string",
    "dbPointer": "object",
    "javascript": "string",
    "symbol": "string",
    "javascriptWithScope": "string",
    "int": "integer",
    "timestamp": "object",
    "long": "integer",
    "decimal": "decimal",
}
"""By the names that `$type` gives."""
_NOTHING: Final = frozenset({"null", "undefined", "missing"})


def types_stage() -> dict[str, Any]:
    """A stage of an aggregation that gives names and types of a document's fields, as `f: [{k, t}]`, instead of it.

    Of binary values, those of subtype 4 are what lies between the least and the greatest UUID (MongoDB manual,
    "Comparison/Sort Order").
    """
    from bson.binary import Binary, UuidRepresentation

    least, greatest = (Binary.from_uuid(UUID(int=n), UuidRepresentation.STANDARD) for n in (0, 2**128 - 1))
    is_uuid = {"$and": [{"$gte": ["$$field.v", least]}, {"$lte": ["$$field.v", greatest]}]}
    named = {"k": "$$field.k", "t": {"$cond": [is_uuid, _UUID, {"$type": "$$field.v"}]}}
    fields = {"$map": {"input": {"$objectToArray": "$$ROOT"}, "as": "field", "in": named}}
    return {"$project": {"_id": 0, "f": fields}}


class FieldTypes:
    """What was seen of the top-level fields of some documents, in the order in which they first appeared."""

    def __init__(self) -> None:
        self._natives: dict[str, set[str]] = {}
        self._present: dict[str, int] = {}
        self._documents = 0
        self.has_repeats = False
        """Whether a document has a field twice, which is told apart as `Document` does: a server finds no such name."""

    def add(self, fields: Iterable[tuple[str, str]]) -> None:
        """The names and types of one document's fields."""
        self._documents += 1
        fields = list(fields)
        apart = members_of(fields)
        self.has_repeats = self.has_repeats or list(apart) != [name for name, _ in fields]
        for name, native in apart.items():
            if name not in self._natives and len(self._natives) == MAX_FIELDS:
                continue
            self._natives.setdefault(name, set()).add(native)
            self._present[name] = self._present.get(name, 0) + 1

    @property
    def documents(self) -> int:
        return self._documents

    def fields(self) -> tuple[DiscoveredField, ...]:
        """A field that is null somewhere, or that a document lacks, is nullable."""
        return tuple(
            DiscoveredField(
                name,
                _merged(natives - _NOTHING),
                "|".join(sorted(natives - _NOTHING)) or "null",
                bool(natives & _NOTHING) or self._present[name] < self._documents,
                position,
            )
            for position, (name, natives) in enumerate(self._natives.items(), 1)
        )


class Document(dict[str, object]):
    """A document as it is decoded. BSON lets a field be there twice, and drivers keep the last one; here they are told
    apart as in the header of a CSV file."""

    def __setitem__(self, name: str, value: object) -> None:
        fresh = with_position(name, len(self) + 1, self) if name in self else name
        super().__setitem__(fresh, value)


def _merged(natives: set[str]) -> PortableType:
    """Numbers of several kinds are still numbers; whatever else is mixed is JSON."""
    portable = {_PORTABLE.get(native, "unknown") for native in natives}
    if len(portable) == 1:
        return portable.pop()
    if portable and portable <= {"integer", "number", "decimal"}:
        return "decimal" if "decimal" in portable else "number"
    return "json" if portable else "unknown"


def plain(value: object, depth: int = 0) -> object:
    """A decoded value as JSON keeps it. Dates come as `DatetimeMS`, UUIDs as `uuid.UUID`."""
    if depth < MAX_DEPTH:
        if isinstance(value, dict):
            return {key: plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item, depth + 1) for item in value]
    writer = _writers().get(type(value))
    return json_safe(writer(value) if writer else value)


@lru_cache(maxsize=1)
def _writers() -> dict[type, Callable[[Any], object]]:
    from bson.code import Code
    from bson.datetime_ms import DatetimeMS
    from bson.dbref import DBRef
    from bson.decimal128 import Decimal128
    from bson.max_key import MaxKey
    from bson.min_key import MinKey
    from bson.regex import Regex
    from bson.timestamp import Timestamp

    return {
        Code: str,
        DatetimeMS: _date,
        DBRef: lambda value: plain(dict(value.as_doc())),
        Decimal128: lambda value: value.to_decimal(),
        MaxKey: lambda _: "MaxKey",
        MinKey: lambda _: "MinKey",
        Regex: _regex,
        Timestamp: lambda value: {"t": value.time, "i": value.inc},
    }


def _date(value: SupportsInt) -> str:
    try:
        moment = _EPOCH + dt.timedelta(milliseconds=int(value))
    except OverflowError:
        return str(int(value))
    return f"{moment.isoformat(timespec='milliseconds').removesuffix('.000')}Z"


def _regex(value: Regex[str] | Regex[bytes]) -> str:
    pattern = value.pattern if isinstance(value.pattern, str) else value.pattern.decode("utf-8", "backslashreplace")
    flags = {"i": re.I, "l": re.L, "m": re.M, "s": re.S, "u": re.U, "x": re.X}
    return f"/{pattern}/{''.join(letter for letter, flag in flags.items() if value.flags & flag)}"
