"""Messages as rows: brokers carry bytes and know nothing of what is in them.

What a column of bytes is, all of its values that were read tell together: `json` if each is a JSON object or array,
`string` if each is UTF-8 without control characters, `binary` (base64) otherwise, `unknown` if there is none. An empty
value fits any of them. The members of JSON objects are columns of their own beside the whole, `value.customer` beside
`value`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.connectors.contract.objects import DiscoveredField, PortableType
from app.connectors.values.json_rows import fields_of
from app.connectors.values.json_text import decode_json
from app.connectors.values.values import json_safe

MAX_MEMBERS: Final = 100
"""Columns that one JSON value can bring; documents with names as data would bring any number."""

_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Facts = tuple[str, PortableType, str, bool]
"""Name, portable type, native type, nullable."""


class Bodies(Struct, frozen=True):
    """One column of bytes, read."""

    facts: tuple[Facts, ...]
    """The column, then its members."""
    values: list[dict[str, Any]]
    """For each payload, in their order: JSON-safe values by the names of `facts`; what is missing is null."""


def read_bodies(name: str, payloads: Sequence[bytes | None], *, with_members: bool = True) -> Bodies:
    """`payloads` are what the messages hold under the name, None where they hold nothing."""
    documents = [_document(payload) if payload else None for payload in payloads]
    portable = _type_of(payloads, documents)
    found = [document for document in documents if isinstance(document, dict)]
    members = fields_of(found)[:MAX_MEMBERS] if with_members and portable == "json" else ()
    is_partial = len(found) < len(payloads)
    facts: list[Facts] = [(name, portable, "bytes", True)]
    facts += [(f"{name}.{it.name}", it.type, it.native_type, it.is_nullable or is_partial) for it in members]
    values = [
        _values(name, _shown(payload, document, portable), members)
        for payload, document in zip(payloads, documents, strict=True)
    ]
    return Bodies(tuple(facts), values)


def _values(name: str, whole: object, members: Iterable[DiscoveredField]) -> dict[str, object]:
    inside = whole if isinstance(whole, dict) else {}
    return {name: whole, **{f"{name}.{it.name}": inside.get(it.name) for it in members}}


def _type_of(payloads: Sequence[bytes | None], documents: Sequence[object]) -> PortableType:
    if not any(payloads):
        return "unknown"
    if all(document is not None for payload, document in zip(payloads, documents, strict=True) if payload):
        return "json"
    return "string" if all(_text(payload) is not None for payload in payloads if payload) else "binary"


def _shown(payload: bytes | None, document: object, portable: PortableType) -> object:
    if payload is None:
        return None
    if portable == "json" and payload:
        return json_safe(document)
    return base64.b64encode(payload).decode("ascii") if portable == "binary" else payload.decode("utf-8")


def _document(payload: bytes) -> object:
    """The object or array that the bytes are as JSON, or None. A bare number or string is as good as text."""
    if payload.lstrip()[:1] not in {b"{", b"["}:
        return None
    try:
        return decode_json(payload)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(payload: bytes) -> str | None:
    """Numbers and records in a binary form are often valid UTF-8; their control characters tell them from text."""
    try:
        return None if _CONTROLS.search(payload) else payload.decode("utf-8")
    except UnicodeDecodeError:
        return None


def text_or_base64(payload: bytes) -> dict[str, str]:
    """One value among others of no common kind: `{"value": ...}` for text, `{"base64": ...}` for the rest."""
    text = _text(payload)
    return {"base64": base64.b64encode(payload).decode("ascii")} if text is None else {"value": text}


def as_fields(facts: Iterable[Facts]) -> tuple[DiscoveredField, ...]:
    return tuple(DiscoveredField(*fact, position) for position, fact in enumerate(facts, 1))
