"""Attributes as a directory wrote them: taken from a body by the schemas, changed by PATCH, shown in part.

Names are taken in any case and kept as the schema spells them; `"True"` is true (Entra ID), one value is taken for a
list of one; null, an empty list and an empty text are no value (RFC 7643 section 2.5). What no schema has is dropped.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from app.domain.scim.definitions import Attribute, Kind
from app.domain.scim.errors import ScimFault
from app.domain.scim.paths import Target, target_at

Document = dict[str, Any]
MAX_TEXT: Final = 1000
MAX_LIST: Final = 100
"""Values of one list; members of a group are counted by the body alone."""
MOST_NAMES: Final = 200
"""That `attributes` may give."""


def taken(kind: Kind, body: Mapping[str, Any]) -> Document:
    """What a body says of what may be written. Raises ScimFault (invalidValue)."""
    found: Document = {}
    for name, value in body.items():
        target = _named(kind, name)
        if target is None:
            continue
        if isinstance(target, Attribute):
            _put(found, target, value)
        elif isinstance(value, dict):
            found[kind.extension or ""] = _taken_extension(kind, value)
        elif value is not None:
            raise ScimFault("invalidValue", f"{name} is an object.")
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def _named(kind: Kind, name: str) -> Attribute | str | None:
    """An attribute that may be written, the URN of the extension, or None for what is not taken."""
    if kind.extension is not None and name.lower() == kind.extension.lower():
        return kind.extension
    target = target_at(kind, name)
    if target is None or target.part is not None or target.is_extended or target.attribute.is_read_only:
        return None
    return target.attribute


def _taken_extension(kind: Kind, body: Mapping[str, Any]) -> Document:
    found: Document = {}
    for name, value in body.items():
        attribute = kind.extended_attribute(name)
        if attribute is not None:
            _put(found, attribute, value)
    return found


def _put(found: Document, attribute: Attribute, value: Any) -> None:
    known = value_of(attribute, value)
    if known is None:
        found.pop(attribute.name, None)
    else:
        found[attribute.name] = known


def value_of(attribute: Attribute, value: Any) -> Any:
    """The value as it is kept; None for none. Raises ScimFault (invalidValue)."""
    if not attribute.multi:
        if isinstance(value, list):
            if len(value) > 1:
                raise ScimFault("invalidValue", f"{attribute.name} is one value, not several.")
            value = value[0] if value else None
        return _single(attribute, value)
    items = value if isinstance(value, list) else [value]
    found = [kept for item in items if (kept := _single(attribute, item)) is not None]
    require_list(attribute, found)
    return found or None


def require_list(attribute: Attribute, values: list[Any]) -> None:
    """Raises ScimFault for too many values, or several that are meant first."""
    if attribute.name == "members":
        return
    if len(values) > MAX_LIST:
        raise ScimFault("invalidValue", f"{attribute.name} has more than {MAX_LIST} values.")
    if sum(1 for each in values if each.get("primary") is True) > 1:
        raise ScimFault("invalidValue", f"Only one of {attribute.name} may be primary.")


def _single(attribute: Attribute, value: Any) -> Any:
    if value is None or value == "":
        return None
    if attribute.type == "complex":
        return _complex(attribute, value)
    if attribute.type == "boolean":
        return _boolean(attribute, value)
    return _text(attribute, value)


def _complex(attribute: Attribute, value: Any) -> Document | None:
    """A plain text is taken for its value: so Entra ID writes a manager."""
    if isinstance(value, str) and attribute.part("value") is not None:
        value = {"value": value}
    if not isinstance(value, dict):
        raise ScimFault("invalidValue", f"{attribute.name} is an object.")
    found: Document = {}
    for name, item in value.items():
        part = attribute.part(name)
        if part is not None and not part.is_read_only:
            _put(found, part, item)
    return found or None


def _boolean(attribute: Attribute, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise ScimFault("invalidValue", f"{attribute.name} is true or false.")


def _text(attribute: Attribute, value: Any) -> str:
    if not isinstance(value, str):
        raise ScimFault("invalidValue", f"{attribute.name} is a text.")
    if len(value) > MAX_TEXT:
        raise ScimFault("invalidValue", f"{attribute.name} is longer than {MAX_TEXT} characters.")
    return value


# --- what is shown of it ---


class Selection:
    """`attributes` and `excludedAttributes` (RFC 7644 section 3.9). What is in no schema names nothing."""

    def __init__(self, kind: Kind, wanted: str | Iterable[str] | None, unwanted: str | Iterable[str] | None) -> None:
        self._wanted = None if not wanted else list(_targets(kind, wanted))
        self._unwanted = [] if not unwanted or self._wanted is not None else list(_targets(kind, unwanted))
        self._extension = kind.extension

    @property
    def is_asked_for(self) -> bool:
        return self._wanted is not None

    def shows(self, name: str) -> bool:
        """Whether anything of an attribute is shown: what costs much is not looked up where it is not."""
        if self._wanted is not None:
            return any(target.attribute.name == name for target in self._wanted)
        return not any(target.attribute.name == name and target.part is None for target in self._unwanted)

    def of(self, resource: Document) -> Document:
        if self._wanted is not None:
            return _chosen(resource, self._wanted, self._extension)
        for target in self._unwanted:
            _leave_out(resource, target, self._extension)
        return resource


def _targets(kind: Kind, names: str | Iterable[str]) -> Iterator[Target]:
    listed = names.split(",") if isinstance(names, str) else [name for name in names if isinstance(name, str)]
    for name in listed[:MOST_NAMES]:
        text = name.strip()
        if kind.extension is not None and text.lower() == kind.extension.lower():
            yield from (Target(attribute, None, True) for attribute in kind.extended)
        elif (target := target_at(kind, text)) is not None:
            yield target


def _chosen(resource: Document, wanted: list[Target], extension: str | None) -> Document:
    """`id` and `schemas` are always there."""
    found: Document = {"schemas": resource["schemas"], "id": resource["id"]}
    for target in wanted:
        source = resource.get(extension or "", {}) if target.is_extended else resource
        value = source.get(target.attribute.name)
        if value is None:
            continue
        into = found.setdefault(extension or "", {}) if target.is_extended else found
        name = target.attribute.name
        into[name] = value if target.part is None else _merged(into.get(name), value, target.part.name)
    return found


def _merged(known: Any, value: Any, part: str) -> Any:
    if isinstance(value, list):
        kept = known if isinstance(known, list) else [{} for _ in value]
        return [before | ({part: item[part]} if part in item else {}) for before, item in zip(kept, value, strict=True)]
    return (known or {}) | ({part: value[part]} if part in value else {})


def _leave_out(resource: Document, target: Target, extension: str | None) -> None:
    place = resource.get(extension or "", {}) if target.is_extended else resource
    name = target.attribute.name
    if name == "id":
        return
    if target.part is None:
        place.pop(name, None)
        return
    value = place.get(name)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            item.pop(target.part.name, None)
