"""PATCH (RFC 7644 section 3.5.2), in all the forms in which Entra ID and Okta write it.

Every operation is done on a copy of the attributes; whoever calls this keeps the result if it is allowed.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from app.core.errors import TooLarge
from app.domain.scim.definitions import Attribute, Kind
from app.domain.scim.documents import Document, require_list, taken, value_of
from app.domain.scim.errors import ScimFault
from app.domain.scim.paths import Compare, Every, Filter, Not, PatchPath, Some, Target, read_patch_path

PATCH_OP: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
MAX_OPERATIONS: Final = 1000
Op = Literal["add", "remove", "replace"]
_NAMES: Final[Mapping[str, Op]] = {"add": "add", "remove": "remove", "replace": "replace"}


class Operation(Struct, frozen=True):
    op: Op
    path: PatchPath | None
    """None where the value names the attributes."""
    value: Any


def operations(kind: Kind, body: Mapping[str, Any]) -> list[Operation]:
    """Without those on what is taken and not kept. Raises ScimFault, or TooLarge for too many."""
    fields = {name.lower(): value for name, value in body.items()}
    schemas = fields.get("schemas")
    if not isinstance(schemas, list) or PATCH_OP.lower() not in [str(each).lower() for each in schemas]:
        raise ScimFault("invalidSyntax", f"`schemas` has to name {PATCH_OP}.")
    given = fields.get("operations")
    if not isinstance(given, list) or not given:
        raise ScimFault("invalidSyntax", "`Operations` is a list of at least one operation.")
    if len(given) > MAX_OPERATIONS:
        raise TooLarge(f"A PATCH may have {MAX_OPERATIONS} operations.")
    return [found for each in given if (found := _operation(kind, each)) is not None]


def _operation(kind: Kind, given: Any) -> Operation | None:
    if not isinstance(given, dict):
        raise ScimFault("invalidSyntax", "An operation is an object.")
    fields = {name.lower(): value for name, value in given.items()}
    op = _NAMES.get(str(fields.get("op")).lower())
    if op is None:
        raise ScimFault("invalidSyntax", "`op` is add, remove or replace.")
    text, value = fields.get("path"), fields.get("value")
    if text is not None and not isinstance(text, str):
        raise ScimFault("invalidPath", "`path` is a text.")
    if not text:
        return _without_path(op, value)
    path = read_patch_path(kind, text)
    if path is None:
        return None
    if path.target is not None and _is_read_only(path.target):
        raise ScimFault("mutability", f"{path.target.attribute.name} is not to be written.")
    if op != "remove" and "value" not in fields:
        raise ScimFault("invalidValue", f"There is no value to {op}.")
    return Operation(op, path, value)


def _without_path(op: Op, value: Any) -> Operation:
    if op == "remove":
        raise ScimFault("noTarget", "What is to be removed is not said: a `path` is missing.")
    if not isinstance(value, dict):
        raise ScimFault("invalidValue", "Without a `path` the value is an object of attributes.")
    return Operation(op, None, value)


def _is_read_only(target: Target) -> bool:
    return target.attribute.is_read_only or (target.part is not None and target.part.is_read_only)


def patched(kind: Kind, document: Mapping[str, Any], done: list[Operation]) -> Document:
    """Raises ScimFault."""
    found = _copied(document)
    for operation in done:
        if operation.path is None:
            _write_each(kind, found, operation)
        elif operation.path.target is None:
            _write_extension(kind, found, operation)
        else:
            _write_at(kind, found, operation.path, operation)
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _write_each(kind: Kind, found: Document, operation: Operation) -> None:
    """A value without a path: each of its names is a path, as `name.givenName` (Entra ID), or an attribute. What is not
    to be written is left out, as in a whole resource: Okta repeats the `id`."""
    for name, value in operation.value.items():
        path = _path_of_name(kind, name)
        if path is None:
            continue
        if path.target is None:
            _write_extension(kind, found, Operation(operation.op, path, value))
        elif not _is_read_only(path.target):
            _write_at(kind, found, path, Operation(operation.op, path, value))


def _path_of_name(kind: Kind, name: str) -> PatchPath | None:
    """None for what is in no schema, which is ignored as in a whole resource."""
    try:
        return read_patch_path(kind, name)
    except ScimFault:
        return None


def _write_extension(kind: Kind, found: Document, operation: Operation) -> None:
    extension = kind.extension or ""
    if operation.op == "remove" or operation.value is None:
        found.pop(extension, None)
        return
    if not isinstance(operation.value, dict):
        raise ScimFault("invalidValue", f"{extension} is an object.")
    given = taken(kind, {extension: operation.value}).get(extension, {})
    cleared = {
        attribute.name for name in operation.value if (attribute := kind.extended_attribute(name))
    } - given.keys()
    known = found.setdefault(extension, {})
    known |= given
    for name in cleared:
        known.pop(name, None)


def _write_at(kind: Kind, found: Document, path: PatchPath, operation: Operation) -> None:
    target = path.target
    assert target is not None
    place = found.setdefault(kind.extension or "", {}) if target.is_extended else found
    attribute = target.attribute
    if path.condition is not None:
        _write_chosen(place, target, path.condition, operation)
    elif target.part is not None:
        _write_part(place, attribute, target.part, operation)
    elif operation.op == "remove":
        _remove(place, attribute, operation.value)
    else:
        _write_whole(place, attribute, operation)
    if attribute.multi and attribute.name in place:
        require_list(attribute, place[attribute.name])


def _write_whole(place: Document, attribute: Attribute, operation: Operation) -> None:
    """`add` joins lists and parts; `replace` of an object replaces the parts that it names (section 3.5.2.3)."""
    value = value_of(attribute, operation.value)
    known = place.get(attribute.name)
    if value is None:
        if operation.op == "replace":
            place.pop(attribute.name, None)
    elif attribute.multi and operation.op == "add":
        place[attribute.name] = _joined(known or [], value)
    elif isinstance(value, dict) and isinstance(known, dict):
        place[attribute.name] = known | value
    else:
        place[attribute.name] = value


def _joined(known: list[Document], new: list[Document]) -> list[Document]:
    """What is there already is not added; of several that are meant first it is the last that was added."""
    added = [each for each in new if each not in known]
    if any(each.get("primary") for each in added):
        for each in known:
            each.pop("primary", None)
    return known + added


def _remove(place: Document, attribute: Attribute, value: Any) -> None:
    """With a value those that are like it go: so some clients take members out."""
    if value is None or value == [] or not attribute.multi:
        place.pop(attribute.name, None)
        return
    unwanted = value_of(attribute, value) or []
    kept = [each for each in place.get(attribute.name, []) if not any(_is_like(each, one) for one in unwanted)]
    place[attribute.name] = kept


def _is_like(each: Document, one: Document) -> bool:
    return all(each.get(name) == value for name, value in one.items())


def _write_part(place: Document, attribute: Attribute, part: Attribute, operation: Operation) -> None:
    """Of a list: of each of its values."""
    value = None if operation.op == "remove" else value_of(part, operation.value)
    if attribute.multi:
        for each in place.get(attribute.name, []):
            _set(each, part, value)
        if attribute.name in place:
            place[attribute.name] = [each for each in place[attribute.name] if each]
        return
    known = place.setdefault(attribute.name, {})
    _set(known, part, value)
    if not known:
        del place[attribute.name]


def _set(each: Document, part: Attribute, value: Any) -> None:
    if value is None:
        each.pop(part.name, None)
    else:
        each[part.name] = value


def _write_chosen(place: Document, target: Target, condition: Filter, operation: Operation) -> None:
    """`emails[type eq "work"].value`: what is not there yet is made where the condition says what it has to be."""
    attribute, part = target.attribute, target.part
    values: list[Document] = place.setdefault(attribute.name, [])
    chosen = [each for each in values if holds(condition, each)]
    if operation.op == "remove":
        _remove_chosen(values, chosen, part)
    else:
        if not chosen:
            chosen = [_made_for(condition, attribute)]
            values += chosen
        for each in chosen:
            _write_into(each, attribute, part, operation)
        if part is not None and part.name == "primary" and chosen[0].get("primary"):
            for each in values:
                if each is not chosen[0]:
                    each.pop("primary", None)
    place[attribute.name] = [each for each in values if each]


def _remove_chosen(values: list[Document], chosen: list[Document], part: Attribute | None) -> None:
    for each in chosen:
        if part is None:
            values.remove(each)
        else:
            each.pop(part.name, None)


def _write_into(each: Document, attribute: Attribute, part: Attribute | None, operation: Operation) -> None:
    if part is not None:
        _set(each, part, value_of(part, operation.value))
        return
    value = value_of(attribute, operation.value)
    if value is None or len(value) != 1:
        raise ScimFault("invalidValue", f"One value of {attribute.name} is written here.")
    if operation.op == "replace":
        each.clear()
    each |= value[0]


def _made_for(condition: Filter, attribute: Attribute) -> Document:
    """Raises ScimFault (noTarget) where the condition leaves open what is to be made."""
    wanted = condition.conditions if isinstance(condition, Every) else (condition,)
    found: Document = {}
    for each in wanted:
        part = each.target.part if isinstance(each, Compare) and each.operator == "eq" else None
        if part is None or not isinstance(each, Compare):
            raise ScimFault("noTarget", f"No value of {attribute.name} is like that.")
        _set(found, part, value_of(part, each.value))
    return found


def holds(condition: Filter, item: Document) -> bool:
    """Of one value of a list. Raises ScimFault (invalidPath) for what is not compared there."""
    match condition:
        case Every(conditions):
            return all(holds(each, item) for each in conditions)
        case Some(conditions):
            return any(holds(each, item) for each in conditions)
        case Not(inner):
            return not holds(inner, item)
        case Compare(target, operator, value) if target.part is not None:
            return _compared(target.part, operator, item.get(target.part.name), value)
    raise ScimFault("invalidPath", "That is not compared in a path.")


def _compared(part: Attribute, operator: str, known: Any, wanted: Any) -> bool:
    if operator == "pr":
        return known is not None
    if part.type == "boolean":
        wanted = {"true": True, "false": False}.get(str(wanted).lower(), wanted)
        known = bool(known)
    elif isinstance(known, str) and isinstance(wanted, str) and not part.exact:
        known, wanted = known.casefold(), wanted.casefold()
    if operator in ("eq", "ne"):
        return bool(known == wanted) == (operator == "eq")
    if not isinstance(known, str) or not isinstance(wanted, str):
        return False
    compared: dict[str, bool] = {
        "co": wanted in known,
        "sw": known.startswith(wanted),
        "ew": known.endswith(wanted),
        "gt": known > wanted,
        "ge": known >= wanted,
        "lt": known < wanted,
        "le": known <= wanted,
    }
    return compared[operator]
