"""The columns of a Delta table, and their values as the schema means them, whatever a file calls or stores them.

Source: delta-io/delta, `PROTOCOL.md`, sections "Schema Serialization Format", "Partition Value Serialization", "Column
Mapping" and "Type Widening".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.files.datasets import NO_VALUE
from app.connectors.types.delta_lake.log import Metadata
from app.connectors.values.arrow_values import MAX_NATIVE_TYPE
from app.connectors.values.values import json_safe

_MAX_DEPTH: Final = 64
_PHYSICAL_NAME: Final = "delta.columnMapping.physicalName"

_PORTABLE: Final[dict[str, PortableType]] = {
    **dict.fromkeys(("byte", "short", "integer", "long"), "integer"),
    **dict.fromkeys(("float", "double"), "number"),
    "string": "string",
    "binary": "binary",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp_tz",
    "timestamp_ntz": "timestamp",
    "void": "unknown",
    "struct": "object",
    "map": "object",
    "array": "array",
    "decimal": "decimal",
}

SchemaField = dict[str, Any]
"""An object of the schema, which is JSON."""
DeltaType = str | SchemaField
"""As the schema has it: a name, or an object for what is nested."""
Reader = Callable[[Any], Any]
"""From a JSON-safe value as a file has it, never None, to one of the table."""


class Column(msgspec.Struct, frozen=True):
    name: str
    physical_name: str
    """What files and partition values call it."""
    type: DeltaType
    is_nullable: bool
    is_partition: bool

    def field(self, position: int) -> DiscoveredField:
        return DiscoveredField(self.name, portable_type(self.type), native_type(self.type), self.is_nullable, position)

    def reader(self) -> Reader:
        return _reader(self.type, 0)

    def partition_value(self, values: Mapping[str, str | None]) -> object:
        """Its value in all rows of a file. An empty text is null, and so is Hive's name for none, which stands in logs
        of tables that were folders before. Other texts are values as they are: only paths are escaped."""
        text = values.get(self.physical_name)
        return _from_text(text, _name_of(self.type)) if text and text != NO_VALUE else None


def columns_of(metadata: Metadata) -> tuple[Column, ...]:
    """Raises `response_invalid` for what is no schema, `unsupported` for columns that are known by number only."""
    mode = metadata.configuration.get("delta.columnMapping.mode", "none")
    if mode not in {"none", "name"}:
        raise ConnectorError("unsupported", "The Delta table maps its columns by number.")
    try:
        fields = msgspec.json.decode(metadata.schema_string)["fields"]
        return tuple(_column(field, metadata.partition_columns) for field in fields)
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError):
        raise ConnectorError("response_invalid", "The schema of the Delta table is damaged.") from None


def _column(field: SchemaField, partition_columns: Sequence[str]) -> Column:
    name = str(field["name"])
    return Column(name, _physical(field), field["type"], field.get("nullable") is not False, name in partition_columns)


def _physical(field: SchemaField) -> str:
    return str((field.get("metadata") or {}).get(_PHYSICAL_NAME, field["name"]))


def _name_of(kind: DeltaType) -> str:
    """Without parameters: `decimal`."""
    return kind.partition("(")[0] if isinstance(kind, str) else str(kind["type"])


def portable_type(kind: DeltaType) -> PortableType:
    return _PORTABLE.get(_name_of(kind), "unknown")


def native_type(kind: DeltaType) -> str:
    """Delta's name of the type: `decimal(12,2)`, `array<struct<id:long>>`."""
    name = _written(kind, 0)
    return name if len(name) <= MAX_NATIVE_TYPE else name[: MAX_NATIVE_TYPE - 1] + "…"


def _written(kind: DeltaType, depth: int) -> str:
    if isinstance(kind, str):
        return kind
    _refuse_depth(depth)
    name, deeper = _name_of(kind), depth + 1
    if name == "array":
        return f"array<{_written(kind['elementType'], deeper)}>"
    if name == "map":
        return f"map<{_written(kind['keyType'], deeper)},{_written(kind['valueType'], deeper)}>"
    inner = (f"{field['name']}:{_written(field['type'], deeper)}" for field in kind.get("fields", ()))
    return f"{name}<{','.join(inner)}>"


def _refuse_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ConnectorError("unsupported", f"A column is nested more than {_MAX_DEPTH} levels deep.")


# Values ---------------------------------------------------------------------------------------------------------------


def _reader(kind: DeltaType, depth: int) -> Reader:
    """Files keep the types that they were written with when a column's type is widened, and know nothing of columns
    that were added since."""
    _refuse_depth(depth)
    name = _name_of(kind)
    if isinstance(kind, dict):
        if name == "array":
            item = _reader(kind["elementType"], depth + 1)
            return lambda values: [_or_null(item, value) for value in values]
        if name == "map":
            item = _reader(kind["valueType"], depth + 1)
            return lambda values: {key: _or_null(item, value) for key, value in values.items()}
        return _struct_reader(kind.get("fields", ()), depth + 1)
    if name == "decimal" and (scale := re.search(r",\s*([0-9]+)\)", kind)):
        return lambda value: _decimal(value, int(scale[1]))
    return _READERS.get(name, lambda value: value)


def _struct_reader(fields: Sequence[SchemaField], depth: int) -> Reader:
    readers = [(str(field["name"]), _physical(field), _reader(field["type"], depth)) for field in fields]
    return lambda value: {name: _or_null(read, value.get(physical)) for name, physical, read in readers}


def _or_null(read: Reader, value: object) -> object:
    return None if value is None else read(value)


def _decimal(value: Any, scale: int) -> str:
    try:
        return format(Decimal(value), f".{scale}f")
    except (InvalidOperation, TypeError):
        return str(value)


def _instant(value: object) -> str:
    """Files of older writers do not say that their times are in UTC."""
    text = str(value)
    return text if text.endswith("Z") else f"{text}Z"


def _local_time(value: object) -> str:
    text = str(value).removesuffix("Z")
    return text if "T" in text else f"{text}T00:00:00"


_READERS: Final[dict[str, Reader]] = {
    "timestamp": _instant,
    "timestamp_ntz": _local_time,
    "float": lambda value: float(value) if isinstance(value, int) else value,
    "double": lambda value: float(value) if isinstance(value, int) else value,
}


# Partition values -----------------------------------------------------------------------------------------------------


def _from_text(text: str, name: str) -> object:
    """Raises `response_invalid` for a text that is no value of the type."""
    read = _TEXT_READERS.get(name)
    try:
        return read(text) if read else text
    except ValueError:
        raise ConnectorError(
            "response_invalid", "The Delta table's log has a partition value of another type."
        ) from None


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


_TEXT_READERS: Final[dict[str, Reader]] = {
    **dict.fromkeys(("byte", "short", "integer", "long"), lambda text: json_safe(int(text))),
    **dict.fromkeys(("float", "double"), lambda text: json_safe(float(text))),
    "boolean": _boolean,
    "timestamp": lambda text: _instant(text.replace(" ", "T", 1)),
    "timestamp_ntz": lambda text: _local_time(text.replace(" ", "T", 1)),
    "binary": lambda text: json_safe(text.encode()),
}
