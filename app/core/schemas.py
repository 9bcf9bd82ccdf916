"""What crosses the wire: base Structs, names, and how a select is told which columns a Struct wants."""

import unicodedata
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, UnsetType

from app.core.errors import BadRequest, Fault

T = TypeVar("T")


class Input(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request body: closed (unknown fields are a 400) and strict (`"5"` is no integer)."""


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
    """Counts the changes of the representation; the entity tag is `"v<version>"`."""


Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["analysts"])]
Text = Annotated[str, Meta(max_length=4000, examples=["What this is for."])]


def changes_of(patch: Struct) -> dict[str, Any]:
    """The fields that a PATCH names (RFC 7396: what is absent stays)."""
    return {
        field: value for field in patch.__struct_fields__ if not isinstance(value := getattr(patch, field), UnsetType)
    }


def canonical_name(name: str) -> str:
    """The form under which names are compared: case, width and Unicode variants are one name.

    Computed here, never by the database: PostgreSQL's `lower` depends on the locale of the server.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def required_text(value: str, path: str) -> str:
    """The text without outer white space. Raises BadRequest where nothing is left."""
    if not (text := value.strip()):
        raise BadRequest(
            "A name needs at least one visible character.", errors=[Fault(path, "blank", "must not be blank")]
        )
    return text


def to_struct(source: object, struct: type[T]) -> T:
    """A row or model as a response body."""
    return msgspec.convert(source, struct, from_attributes=True)
