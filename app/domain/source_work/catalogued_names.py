"""Names of a source as the catalogue can hold them, and back.

PostgreSQL has no place for a NUL in a text, nor for a name of many kilobytes in an index. A NUL is written `␀0`, and
the sign itself `␀␀`, so that every name has a form of its own; a name that is too long is cut, and its object can be
seen and not be read. No name keeps others out of the catalogue.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

import msgspec

from app.connectors.contract.objects import DiscoveredField, DiscoveredObject, PreviewResult

MAX_QUALIFIED_BYTES: Final = 2_000
"""An entry of an index holds some more."""
MAX_FIELDS: Final = 10_000
_SIGN: Final = "␀"
_WRITTEN: Final = re.compile(f"{_SIGN}([0{_SIGN}])")


def catalogued_name(name: str) -> str:
    if "\x00" not in name and _SIGN not in name:
        return name
    return name.replace(_SIGN, _SIGN * 2).replace("\x00", f"{_SIGN}0")


def name_at_source(name: str) -> str:
    """Of a name that came from the catalogue, or from somebody who saw it there."""
    return _WRITTEN.sub(lambda found: "\x00" if found[1] == "0" else _SIGN, name)


def catalogued(found: DiscoveredObject) -> DiscoveredObject:
    notes = tuple(note.replace("\x00", f"{_SIGN}0") for note in found.notes)
    fields = tuple(map(_field, found.fields[:MAX_FIELDS]))
    if len(found.fields) > MAX_FIELDS:
        notes = (*notes, f"Of {len(found.fields):,} fields the first {MAX_FIELDS:,} are kept.")
    path = tuple(map(catalogued_name, found.path))
    kept = DiscoveredObject.at(path, found.kind, fields, notes)
    size = len(kept.qualified_name.encode())
    if size <= MAX_QUALIFIED_BYTES:
        return kept
    digest = sha256(kept.qualified_name.encode()).hexdigest()[:16]
    note = f"Its name of {size:,} bytes is too long for the catalogue and was cut; it has no preview."
    return DiscoveredObject.at((f"{path[-1][:200]}… {digest}",), found.kind, fields, (*notes, note))


def _field(field: DiscoveredField) -> DiscoveredField:
    name, native = catalogued_name(field.name), field.native_type.replace("\x00", f"{_SIGN}0")
    if name == field.name and native == field.native_type:
        return field
    return msgspec.structs.replace(field, name=name, native_type=native)


def preview_with_catalogued_names(preview: PreviewResult) -> PreviewResult:
    columns = tuple(msgspec.structs.replace(one, name=catalogued_name(one.name)) for one in preview.columns)
    return msgspec.structs.replace(preview, columns=columns)
