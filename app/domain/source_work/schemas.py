"""Work at sources on the wire: tests, what discovery found, previews."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType

from app.connectors.contract.objects import PortableType
from app.connectors.contract.steps import Step, TestStatus
from app.core.schemas import Input, Output
from app.domain.sources.schemas import ConfigPatch, SecretPatches, variants_of
from app.domain.sources.secrets.masks import no_masks


class ConnectionBase(Input, kw_only=True):
    """What a test needs of a source that is not saved."""

    rules = {"secrets": no_masks}


class ConnectionPatch(Input):
    """A change that is tested before it is saved; merged as a PATCH would be."""

    rules = {"secrets": no_masks}

    config: ConfigPatch | UnsetType = UNSET
    secrets: SecretPatches | None | UnsetType = UNSET


Connection: Any = variants_of(ConnectionBase, "Connection")


class TestOut(Output):
    __test__ = False  # not a test class, whatever its name makes pytest believe

    id: UUID
    status: Annotated[TestStatus, Meta(title="TestStatus")]
    steps: list[Step]
    server: dict[str, Any]
    duration_ms: float
    secret_versions: dict[str, int]
    """Which version of each secret was used."""
    created_at: datetime
    created_by: UUID | None


class FieldOut(Output):
    name: str
    type: Annotated[PortableType, Meta(title="PortableType")]
    """From one small vocabulary, the same for every type of source."""
    native_type: str
    """As the source calls it."""
    is_nullable: bool
    position: int


class ObjectOut(Output):
    id: UUID
    name: str
    path: list[str]
    qualified_name: str
    kind: str
    """table, view, collection, dataset, endpoint ..."""
    is_active: bool
    """False once a discovery no longer found it."""
    fields: list[FieldOut]
    notes: list[str]
    """What a reader should know: why there are no fields, what was guessed."""
    discovered_at: datetime


class PreviewAsk(Input):
    object: Annotated[str, Meta(min_length=1, max_length=2000, examples=["public.orders"])]
    """The id or the qualified name of an object; of a discovered one also the end of it, where no other ends so."""
    columns: Annotated[list[Annotated[str, Meta(max_length=500)]], Meta(min_length=1, max_length=500)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
