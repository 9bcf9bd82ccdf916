"""Filters as conditions of SQL: every value is a parameter, and every name one of a schema's own.

What a directory asks by again and again has a column with an index; everything else is looked up in the attributes as
the directory wrote them. No function that row-level security would hold back stands around a column that has an index
(see `core.schema_changes.make_searchable`).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from app.domain.scim.definitions import CORE_GROUP, CORE_USER, Attribute, Kind
from app.domain.scim.errors import ScimFault
from app.domain.scim.paths import Compare, Every, Filter, Has, Not, Some, Target, Value
from app.domain.scim.spelling import address_key, display_key, group_key, user_name_key

ValueKind = Literal["text", "boolean", "time", "id"]
_ORDERS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


class Expression(NamedTuple):
    """Something of a row that can be compared."""

    sql: str
    kind: ValueKind = "text"
    is_exact: bool = False
    """Whether case matters; where it does not and there is no `key`, both sides are made small by the database."""
    key: Callable[[str], str] | None = None
    """For a column that holds what is compared: how a value is made into that."""
    found_by: str | None = None
    """A function that answers the ids of the rows which have the value, for an index that holds several of each."""


class Elements(NamedTuple):
    """The values of a list, one row each."""

    rows: str
    """`FROM` and `WHERE`, to which conditions are added by AND."""
    parts: Mapping[str, Expression]


def _stored(document: str, name: str) -> str:
    """The text under a name of a schema, which is no text of a caller's."""
    return f"{document} ->> '{name}'"


_USER_COLUMNS: Mapping[tuple[str, str | None], Expression] = {
    ("id", None): Expression("users.id", "id"),
    ("externalId", None): Expression("users.external_id", is_exact=True),
    ("userName", None): Expression("users.user_name_key", key=user_name_key),
    ("displayName", None): Expression("users.display_name_key", key=display_key),
    ("active", None): Expression("users.is_active", "boolean"),
    ("meta", "created"): Expression("users.created_at", "time"),
    ("meta", "lastModified"): Expression("users.updated_at", "time"),
    ("meta", "resourceType"): Expression("'User'", is_exact=True),
}
_GROUP_COLUMNS: Mapping[tuple[str, str | None], Expression] = {
    ("id", None): Expression("groups.id", "id"),
    ("externalId", None): Expression("groups.external_id", is_exact=True),
    ("displayName", None): Expression("groups.name_key", key=group_key),
    ("meta", "created"): Expression("groups.created_at", "time"),
    ("meta", "lastModified"): Expression("groups.updated_at", "time"),
    ("meta", "resourceType"): Expression("'Group'", is_exact=True),
}
_ELEMENTS: Mapping[tuple[str, str], Elements] = {
    (CORE_USER, "groups"): Elements(
        """FROM group_members AS item JOIN groups AS held ON held.id = item.group_id AND held.tenant_id = item.tenant_id
           WHERE item.user_id = users.id AND item.tenant_id = users.tenant_id AND item.ended_at IS NULL
             AND held.managed_by = 'scim'""",
        {
            "value": Expression("held.id", "id"),
            "display": Expression("held.name_key", key=group_key),
            "type": Expression("'direct'"),
        },
    ),
    (CORE_GROUP, "members"): Elements(
        """FROM group_members AS item JOIN users AS held ON held.id = item.user_id AND held.tenant_id = item.tenant_id
           WHERE item.group_id = groups.id AND item.tenant_id = groups.tenant_id AND item.ended_at IS NULL
             AND held.managed_by = 'scim'""",
        {
            "value": Expression("item.user_id", "id"),
            "type": Expression("'User'"),
        },
    ),
}
_BY_INDEX: Mapping[tuple[str, str, str], Expression] = {
    (CORE_USER, "emails", "value"): Expression("users.id", key=address_key, found_by="found_by_users_address_keys_idx"),
}


class Conditions:
    """Collects the parameters of one statement: `$1` is the tenant."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._columns = _USER_COLUMNS if kind.urn == CORE_USER else _GROUP_COLUMNS
        self.values: list[Any] = []

    def bind(self, value: Any, sql_type: str) -> str:
        self.values.append(value)
        return f"${len(self.values) + 1}::{sql_type}"

    def of(self, found: Filter) -> str:
        """Raises ScimFault (invalidFilter) for what cannot be compared like that."""
        match found:
            case Every(conditions):
                return "(" + " AND ".join(map(self.of, conditions)) + ")"
            case Some(conditions):
                return "(" + " OR ".join(map(self.of, conditions)) + ")"
            case Not(condition):
                return f"(NOT coalesce({self.of(condition)}, false))"
            case Has(target, condition):
                return self._chosen(target, condition)
        return self._compared(found)

    def order_of(self, target: Target) -> str:
        """What a list is sorted by. Of a list of values that is the first one. Raises ScimFault."""
        attribute, part = target.attribute, target.part
        column = self._column(target)
        if column is not None:
            return column.sql
        if (self._kind.urn, attribute.name) in _ELEMENTS or attribute.is_read_only:
            raise ScimFault("invalidPath", f"Nothing is sorted by {attribute.name}.")
        if not attribute.parts:
            return f"lower({_stored(self._document(target), attribute.name)})"
        part = part or attribute.part("value")
        if part is None:
            raise ScimFault("invalidPath", f"{attribute.name} has several parts: say which one.")
        first = " -> 0" if attribute.multi else ""
        inner = f"({self._document(target)} -> '{attribute.name}'{first})"
        return f"lower({_stored(inner, part.name)})"

    def _column(self, target: Target) -> Expression | None:
        if target.is_extended:
            return None
        return self._columns.get((target.attribute.name, target.part.name if target.part else None))

    def _compared(self, found: Compare) -> str:
        target = found.target
        attribute = target.attribute
        column = self._column(target)
        if column is not None:
            return self._comparison(column, found)
        if attribute.name == "meta" and not target.is_extended:
            raise ScimFault("invalidFilter", "Nothing is found by that part of `meta`.")
        if not attribute.parts:
            return self._comparison(_written(self._document(target), attribute), found)
        if target.part is None:
            return self._of_whole(found)
        return self._negated_or_any(found, target.part)

    def _of_whole(self, found: Compare) -> str:
        """`emails pr` asks whether there is any; `emails eq` means the value of one."""
        attribute = found.target.attribute
        if found.operator == "pr" and (self._kind.urn, attribute.name) not in _ELEMENTS:
            return f"({self._document(found.target)} ? '{attribute.name}')"
        value = attribute.part("value")
        if value is None:
            raise ScimFault("invalidFilter", f"{attribute.name} has several parts: say which one.")
        return self._negated_or_any(found, value)

    def _negated_or_any(self, found: Compare, part: Attribute) -> str:
        """Of a list `ne` means that no value is equal; everything else that one is."""
        if found.operator == "ne" or (found.operator == "eq" and found.value is None):
            positive = Compare(found.target, "pr" if found.value is None else "eq", found.value)
            negative = f"(NOT {self._any(positive, part)})"
            return negative if (found.operator == "ne") != (found.value is None) else self._any(positive, part)
        return self._any(found, part)

    def _any(self, found: Compare, part: Attribute) -> str:
        attribute = found.target.attribute
        indexed = _BY_INDEX.get((self._kind.urn, attribute.name, part.name))
        if indexed is not None and found.operator == "eq" and not found.target.is_extended:
            value = self.bind(_text_of(found.value, indexed), "text")
            return f"({indexed.sql} = ANY (ARRAY(SELECT {indexed.found_by}({value}))))"
        elements = self._elements(found.target)
        return f"EXISTS (SELECT {elements.rows} AND {self._comparison(_part_of(elements, part), found)})"

    def _chosen(self, target: Target, condition: Filter) -> str:
        elements = self._elements(target)
        return f"EXISTS (SELECT {elements.rows} AND {self._within(elements, condition)})"

    def _within(self, elements: Elements, found: Filter) -> str:
        match found:
            case Every(conditions):
                return "(" + " AND ".join(self._within(elements, each) for each in conditions) + ")"
            case Some(conditions):
                return "(" + " OR ".join(self._within(elements, each) for each in conditions) + ")"
            case Not(condition):
                return f"(NOT coalesce({self._within(elements, condition)}, false))"
            case Compare(target) if target.part is not None:
                return self._comparison(_part_of(elements, target.part), found)
        raise ScimFault("invalidFilter", "Nothing is found by that part of a list.")

    def _elements(self, target: Target) -> Elements:
        attribute = target.attribute
        special = _ELEMENTS.get((self._kind.urn, attribute.name))
        if special is not None and not target.is_extended:
            return special
        name = f"{self._document(target)} -> '{attribute.name}'"
        rows = f"jsonb_array_elements({name})" if attribute.multi else f"(SELECT {name} AS value)"
        parts = {part.name: _written("item.value", part) for part in attribute.parts}
        return Elements(f"FROM {rows} AS item WHERE true", parts)

    def _document(self, target: Target) -> str:
        return f"(users.directory -> '{self._kind.extension}')" if target.is_extended else "users.directory"

    def _comparison(self, left: Expression, found: Compare) -> str:
        if found.operator == "pr":
            return f"({left.sql} IS NOT NULL)"
        if found.value is None:
            if found.operator not in ("eq", "ne"):
                raise ScimFault("invalidFilter", f"Nothing is {found.operator} null.")
            return f"({left.sql} IS {'' if found.operator == 'eq' else 'NOT '}NULL)"
        compare = {"text": self._text, "boolean": self._boolean, "time": self._time, "id": self._id}[left.kind]
        return f"({compare(left, found)})"

    def _text(self, left: Expression, found: Compare) -> str:
        sql, value = left.sql, self.bind(_text_of(found.value, left), "text")
        if left.key is None and not left.is_exact:
            sql, value = f"lower({sql})", f"lower({value})"
        match found.operator:
            case "eq":
                return f"{sql} = {value}"
            case "ne":
                return f"{sql} IS DISTINCT FROM {value}"
            case "co":
                return f"strpos({sql}, {value}) > 0"
            case "sw":
                return f"starts_with({sql}, {value})"
            case "ew":
                return f"right({sql}, length({value})) = {value}"
        return f'{sql} COLLATE "C" {_ORDERS[found.operator]} {value}'

    def _boolean(self, left: Expression, found: Compare) -> str:
        value = _boolean_of(found.value)
        if value is None or found.operator not in ("eq", "ne"):
            raise ScimFault("invalidFilter", f"{found.target.attribute.name} is true or false, nothing else.")
        distinct = "IS NOT DISTINCT FROM" if found.operator == "eq" else "IS DISTINCT FROM"
        return f"{left.sql} {distinct} {self.bind(value, 'boolean')}"

    def _time(self, left: Expression, found: Compare) -> str:
        operator = {"eq": "=", "ne": "<>", **_ORDERS}.get(found.operator)
        if operator is None:
            raise ScimFault("invalidFilter", f"A time is not compared by {found.operator}.")
        return f"{left.sql} {operator} {self.bind(_moment(found.value), 'timestamptz')}"

    def _id(self, left: Expression, found: Compare) -> str:
        text = _text_of(found.value, left)
        if found.operator not in ("eq", "ne"):
            return self._text(Expression(f"{left.sql}::text", is_exact=True), found)
        try:
            value = UUID(text)
        except ValueError:
            return "false" if found.operator == "eq" else "true"
        return f"{left.sql} {'=' if found.operator == 'eq' else '<>'} {self.bind(value, 'uuid')}"


def _part_of(elements: Elements, part: Attribute) -> Expression:
    """Raises ScimFault for one that is shown and kept nowhere, as the address of a group."""
    found = elements.parts.get(part.name)
    if found is None:
        raise ScimFault("invalidFilter", "Nothing is found by that part of a list.")
    return found


def _written(document: str, attribute: Attribute) -> Expression:
    sql = f"({_stored(document, attribute.name)})"
    if attribute.type == "boolean":
        return Expression(f"({sql})::boolean", "boolean")
    return Expression(sql, is_exact=attribute.exact)


def _text_of(value: Value, left: Expression) -> str:
    if not isinstance(value, str):
        raise ScimFault("invalidFilter", "A text is compared with a text, in quotation marks.")
    return value if left.key is None else left.key(value)


def _boolean_of(value: Value) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _moment(value: Value) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None:
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ScimFault("invalidFilter", "A time is written as in 2026-01-31T08:00:00Z.")
