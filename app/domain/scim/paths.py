"""Attribute paths and filters (RFC 7644 sections 3.4.2.2 and 3.5.2): from text to what is meant, in one walk.

Bounded by length, by terms and by depth before anything is made of it, so that its cost is linear and small.
"""

import re
from collections.abc import Callable
from typing import Final, Literal, NoReturn, cast, get_args

import msgspec
from msgspec import Struct

from app.core.faults import FORBIDDEN
from app.domain.scim.definitions import Attribute, Kind
from app.domain.scim.errors import ScimFault, ScimType

MAX_LENGTH: Final = 4000
MAX_TERMS: Final = 50
MAX_DEPTH: Final = 16
Operator = Literal["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le", "pr"]
OPERATORS: Final = frozenset(get_args(Operator))
Value = str | bool | int | float | None
_TOKEN = re.compile(r'\s*(?:([()\[\]])|("(?:[^"\\]|\\.)*")|([^\s()\[\]"]+))')


class Target(Struct, frozen=True):
    """An attribute, or a part of one."""

    attribute: Attribute
    part: Attribute | None = None
    is_extended: bool = False


class Compare(Struct, frozen=True):
    target: Target
    operator: Operator
    value: Value = None


class Has(Struct, frozen=True):
    """Of a list of values: that there is one of which all of this holds."""

    target: Target
    condition: "Filter"


class Not(Struct, frozen=True):
    condition: "Filter"


class Every(Struct, frozen=True):
    conditions: "tuple[Filter, ...]"


class Some(Struct, frozen=True):
    conditions: "tuple[Filter, ...]"


Filter = Compare | Has | Not | Every | Some


class PatchPath(Struct, frozen=True):
    """What an operation is about. Without a target it is the whole extension."""

    target: Target | None
    condition: Filter | None = None


def target_at(kind: Kind, text: str) -> Target | None:
    """What a name means, in any case and with or without the URN of its schema; None for what is in no schema."""
    is_extended = False
    lowered = text.lower()
    if kind.extension is not None and lowered.startswith(f"{kind.extension.lower()}:"):
        text, is_extended = text[len(kind.extension) + 1 :], True
    elif lowered.startswith(f"{kind.urn.lower()}:"):
        text = text[len(kind.urn) + 1 :]
    name, dot, rest = text.partition(".")
    attribute = kind.extended_attribute(name) if is_extended else kind.attribute(name)
    if attribute is None:
        return None
    if not dot:
        return Target(attribute, None, is_extended)
    part = attribute.part(rest)
    return None if part is None else Target(attribute, part, is_extended)


def read_filter(kind: Kind, text: str) -> Filter:
    """Raises ScimFault (invalidFilter)."""
    reader = _Reader(text, "invalidFilter", lambda name: target_at(kind, name))
    found = reader.either()
    reader.require_end()
    return found


def read_patch_path(kind: Kind, text: str) -> PatchPath | None:
    """None for what is in no schema but is the RFC's, which is taken and not kept. Raises ScimFault (invalidPath)."""
    text = text.strip()
    if kind.extension is not None and text.lower() == kind.extension.lower():
        return PatchPath(None)
    before, bracket, _ = text.partition("[")
    bare = before.strip()
    target = target_at(kind, bare)
    if target is None:
        name = bare.lower().removeprefix(f"{kind.urn.lower()}:").partition(".")[0]
        if name in kind.ignored:
            return None
        raise ScimFault("invalidPath", f"There is no attribute {_quoted(bare)}.")
    if not bracket:
        return PatchPath(target)
    return _with_condition(text[len(before) :], target)


def _with_condition(text: str, target: Target) -> PatchPath:
    """`[type eq "work"]`, and `.value` behind it."""
    if target.part is not None or not target.attribute.multi:
        raise ScimFault("invalidPath", f"{target.attribute.name} is no list to choose from.")
    reader = _Reader(text, "invalidPath", lambda name: _part_of(target, name))
    condition = reader.bracketed()
    rest = reader.take_rest()
    if not rest:
        return PatchPath(target, condition)
    part = target.attribute.part(rest.removeprefix(".")) if rest.startswith(".") else None
    if part is None:
        raise ScimFault("invalidPath", f"{target.attribute.name} has no part {_quoted(rest)}.")
    return PatchPath(Target(target.attribute, part, target.is_extended), condition)


def _part_of(target: Target, name: str) -> Target | None:
    part = target.attribute.part(name)
    return None if part is None else Target(target.attribute, part, target.is_extended)


def _quoted(text: str) -> str:
    return repr(text[:60])


class _Reader:
    """Recursive descent over tokens; `or` binds least, then `and`, then `not` and brackets."""

    def __init__(self, text: str, fault: ScimType, find: Callable[[str], Target | None]) -> None:
        self._text = text
        self._fault: ScimType = fault
        self._find = find
        self._at = 0
        self._depth = 0
        self._terms = 0
        if len(text) > MAX_LENGTH:
            self._refuse(f"It is longer than {MAX_LENGTH} characters.")

    def either(self) -> Filter:
        found = [self._both()]
        while self._take_word("or"):
            found.append(self._both())
        return found[0] if len(found) == 1 else Some(tuple(found))

    def _both(self) -> Filter:
        found = [self._term()]
        while self._take_word("and"):
            found.append(self._term())
        return found[0] if len(found) == 1 else Every(tuple(found))

    def _term(self) -> Filter:
        self._terms += 1
        if self._terms > MAX_TERMS:
            self._refuse(f"It has more than {MAX_TERMS} terms.")
        if self._take_word("not"):
            return Not(self._grouped())
        if self._peek()[0] == "(":
            return self._grouped()
        return self._comparison()

    def _grouped(self) -> Filter:
        self._expect("(")
        found = self._deeper()
        self._expect(")")
        return found

    def bracketed(self) -> Filter:
        self._expect("[")
        found = self._deeper()
        self._expect("]")
        return found

    def _deeper(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"It is nested more than {MAX_DEPTH} levels deep.")
        found = self.either()
        self._depth -= 1
        return found

    def _comparison(self) -> Filter:
        name = self._word()
        target = self._find(name)
        if target is None:
            self._refuse(f"There is no attribute {_quoted(name)}.")
        if self._peek()[0] == "[":
            return self._chosen(target)
        operator = self._word().lower()
        if operator not in OPERATORS:
            self._refuse(f"There is no operator {_quoted(operator)}.")
        if operator == "pr":
            return Compare(target, "pr")
        return Compare(target, cast(Operator, operator), self._value())

    def _chosen(self, target: Target) -> Filter:
        if target.part is not None or not target.attribute.parts:
            self._refuse(f"{target.attribute.name} is no list to choose from.")
        outer, self._find = self._find, lambda name: _part_of(target, name)
        found = self.bracketed()
        self._find = outer
        return Has(target, found)

    def _value(self) -> Value:
        token, start = self._peek()
        if token.startswith('"'):
            self._at = start + len(token)
        else:
            token = self._word()
        try:
            value = msgspec.json.decode(token.lower() if token.lower() in ("true", "false", "null") else token)
        except (msgspec.DecodeError, UnicodeError, ValueError):
            self._refuse(f"{_quoted(token)} is no value.")
        if isinstance(value, str) and FORBIDDEN.search(value):
            self._refuse("A value holds a character that no text may hold.")
        return cast(Value, value)

    def take_rest(self) -> str:
        rest = self._text[self._at :].strip()
        self._at = len(self._text)
        return rest

    def require_end(self) -> None:
        if self._text[self._at :].strip():
            self._refuse("It goes on behind its end.")

    def _peek(self) -> tuple[str, int]:
        """The next token and where it begins; empty at the end."""
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            return "", self._at
        return found[found.lastindex or 0], found.start(found.lastindex or 0)

    def _word(self) -> str:
        token, start = self._peek()
        if not token or token[0] in '()[]"':
            self._refuse("It ends too early, or something is missing in it.")
        self._at = start + len(token)
        return token

    def _take_word(self, word: str) -> bool:
        token, start = self._peek()
        if token.lower() != word:
            return False
        self._at = start + len(token)
        return True

    def _expect(self, sign: str) -> None:
        token, start = self._peek()
        if token != sign:
            self._refuse(f"A {sign} is missing.")
        self._at = start + 1

    def _refuse(self, sentence: str) -> NoReturn:
        what = "filter" if self._fault == "invalidFilter" else "path"
        raise ScimFault(self._fault, f"The {what} cannot be read. {sentence}")
