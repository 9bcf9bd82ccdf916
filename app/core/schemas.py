"""What crosses the wire: base Structs, names, and how a select is told which columns a Struct wants."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import FieldInfo
from msgspec.structs import fields as fields_of

from app.core.errors import Fault

T = TypeVar("T")

Rule = Callable[[Any, str], Iterable[Fault]]
"""From a field's plain value, which fits its schema and is not null, and its path to what is wrong with it all the
same."""


class Input(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request body: closed (unknown fields are a 400) and strict (`"5"` is no integer)."""

    rules: ClassVar[Mapping[str, Rule]] = {}
    """By field, what no JSON Schema says. Held against the body as it is read: one that is wrong by itself is a 400,
    whatever is stored and whatever `If-Match` says (RFC 9110 section 13.2.1)."""


class Output(Struct, gc=False):
    """A response body. Positional, so that a row becomes one without a dictionary in between."""


class EntityOut(Output, gc=False):
    """What every entity carries."""

    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    """The acting principal's id; null for the system."""
    updated_by: UUID | None
    version: int
    """Counts the changes of the representation; the entity tag begins with `v<version>`."""

    def entity_tag(self) -> str:
        """The opaque part of the `ETag` (RFC 9110 section 8.8.3)."""
        return f"v{self.version}"


Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z", examples=["analysts"])]
Text = Annotated[str, Meta(max_length=4000, examples=["What this is for."])]


def tag_with(version: int, *changing: object) -> str:
    """An entity tag for a representation of which a part changes without a change of the entity."""
    return f"v{version}-{blake2b(msgspec.json.encode(changing), digest_size=6).hexdigest()}"


def changes_of(patch: Struct) -> dict[str, Any]:
    """The fields that a PATCH names (RFC 7396: what is absent stays)."""
    return {
        field: value for field in patch.__struct_fields__ if not isinstance(value := getattr(patch, field), UnsetType)
    }


def patch_of(base: type[Input], name: str, sentence: str, **further: Any) -> Any:
    """The body of a PATCH of what `base` creates: each of its fields may be absent, and null clears those that have a
    default. `further` are fields that only the patch has, by type.
    """
    fields: list[Any] = [(field.name, _clearable(field) | UnsetType, UNSET) for field in fields_of(base)]
    fields += [(field, wanted | UnsetType, UNSET) for field, wanted in further.items()]
    return msgspec.defstruct(
        name,
        fields,
        bases=(base,),  # for its rules, and the sentences under its attributes
        namespace={"__doc__": sentence},
        kw_only=True,
        forbid_unknown_fields=True,
    )


def _clearable(field: FieldInfo) -> Any:
    return field.type if field.required else field.type | None


INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that show nothing (Unicode's Default_Ignorable_Code_Point, and the Braille pattern without a dot): names
that differ in them look the same."""


def folded(text: str) -> str:
    """Case, width, Unicode variants and invisible characters taken away (Unicode Standard section 3.13, NFKC_Casefold).

    Applied twice, because folding can bring up characters that normalise again.
    """
    if text.isascii():  # nothing of all that but the case
        return text.lower().strip()
    for _ in range(2):
        text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return text.strip()


def single_spaced(text: str) -> str:
    """Without blanks around it, and with one space for each run of them, of whatever kind: nobody sees how many there
    are, or which."""
    return " ".join(text.split())


def canonical_name(name: str) -> str:
    """The form under which names are compared: case, width, blanks and Unicode variants are one name.

    Computed here, never by the database: PostgreSQL's `lower` depends on the locale of the server.
    """
    return single_spaced(unicodedata.normalize("NFKC", folded(name)))


def named(name: str) -> dict[str, object]:
    """Columns of what is told apart by its name."""
    return {"name": single_spaced(name), "name_key": canonical_name(name)}


def visible(value: str, path: str) -> Iterator[Fault]:
    """Rule: at least one character can be seen."""
    if not _is_visible(value):
        yield Fault(path, "blank", "must have at least one visible character")


def each_once(values: list[str], path: str) -> Iterator[Fault]:
    """Rule: none of them comes twice (`uniqueItems`)."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield Fault(f"{path}[{index}]", "duplicate", "is given twice")
        seen.add(value)


def _is_visible(value: str) -> bool:
    return bool((value if value.isascii() else INVISIBLE.sub("", value)).strip())


def to_struct(source: object, struct: type[T]) -> T:
    """A row or model as a response body."""
    return msgspec.convert(source, struct, from_attributes=True)
