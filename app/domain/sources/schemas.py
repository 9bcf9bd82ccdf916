"""Data sources on the wire.

What a type takes comes from its connector: one variant of the input per type, told apart by `type`.
"""

import functools
import operator
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import fields as fields_of

from app.connectors import registry
from app.connectors.contract.base import Capabilities, Category
from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets
from app.core.errors import Fault
from app.core.faults import KNOWN_NAMES
from app.core.lookalikes import each_well_named, well_named
from app.core.schemas import EntityOut, Input, Name, Output, Rule, Text, patch_of
from app.domain.sources.discovery_times import cron_expression, known_time_zone
from app.domain.sources.secrets.masks import no_masks

MAX_BULK = 500

Tag = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z", examples=["sales"])]
Tags = Annotated[list[Tag], Meta(max_length=50)]
TestInterval = Annotated[
    int,
    Meta(ge=60, le=31 * 86_400, description="Seconds between the tests that the hub makes by itself.", examples=[3600]),
]
DiscoverSchedule = Annotated[
    str,
    Meta(
        min_length=9,
        max_length=100,
        pattern=r"^[0-9A-Za-z*/,#-]+( [0-9A-Za-z*/,#-]+){4}\Z",
        description="When the hub discovers the source by itself: five fields of cron (minute, hour, day of the month, "
        "month, day of the week), in `discover_time_zone`.",
        examples=["0 3 * * *"],
    ),
]
TimeZone = Annotated[
    str,
    Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*\Z", examples=["Europe/Berlin"]),
]
SecretPatch = Annotated[str, Meta(min_length=1, max_length=16_384, extra_json_schema={"writeOnly": True})]
MAX_CONFIG_FIELDS = 100
MAX_SECRETS = 50
"""Of one source; no type has half as many of either."""
Ref = Annotated[
    str,
    Meta(
        min_length=5,
        max_length=1024,
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f\x7f/][^\x00-\x1f\x7f]*)\Z",
        description="`env:NAME`, a variable of the hub, or `file:path`, a file below its folder for secrets.",
        examples=["env:SHOP_PASSWORD"],
    ),
]


class SecretReference(Input):
    """In place of a secret: where the hub finds it. What it refers to is read when it is used, and never stored."""

    ref: Ref


Value = str | SecretReference
Values = Mapping[str, Value | None]
"""Secrets as they are given, by name; None removes one."""


ConfigPatch = Annotated[dict[str, Any], Meta(max_length=MAX_CONFIG_FIELDS)]
SecretPatches = Annotated[dict[str, SecretPatch | SecretReference | None], Meta(max_length=MAX_SECRETS)]


class SecretState(Output):
    """All that is ever shown of a secret."""

    set: bool
    version: int
    """Counts how often the secret was given."""
    updated_at: datetime
    updated_by: UUID | None
    source: Literal["stored", "reference"]
    ref: str | None
    """What a reference refers to, which is no secret; null for a stored value."""


class GivenSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    """Base of every type's secrets in a request."""


SourceCategory = Annotated[Category, Meta(title="SourceCategory")]
SourceStatus = Annotated[Literal["untested", "passed", "failed", "unsupported"], Meta(title="SourceStatus")]
if TYPE_CHECKING:
    TypeName = str
else:
    TypeName = Annotated[
        Literal[tuple(connector.type for connector in registry.all())], Meta(title="DataSourceTypeName")
    ]


class DataSourceOut(EntityOut):
    name: str
    description: str | None
    type: TypeName
    category: SourceCategory
    config: dict[str, Any]
    secrets: dict[str, SecretState]
    tags: list[str]
    owner_role_id: UUID | None
    """Members of this role look after the source."""
    data_domain_id: UUID | None
    """The data domain that the source is in: rights in it, or above it, are rights at the source."""
    is_paused: bool
    """Nothing is done with the source on a schedule while it is paused."""
    test_interval_s: int | None
    """Seconds between the tests that the hub makes by itself; null: it makes none."""
    discover_schedule: str | None
    """When the hub discovers the source by itself, as five fields of cron; null: never."""
    discover_time_zone: str
    """Of `discover_schedule`."""
    next_discovery_at: datetime | None
    """Not counted in `version`."""
    status: SourceStatus
    """How the last saved test ended. Not counted in `version`."""
    status_since: datetime | None
    last_tested_at: datetime | None


class SourceWarning(Output):
    """Nothing is wrong, but somebody should look."""

    code: Literal["duplicate_source"]
    message: str
    data_source_id: UUID | None
    """The first of the other sources; null where all are of the same dry run, and have no ids."""
    data_source_ids: list[UUID]
    """Of the first three."""
    count: int
    """How many others there are; those that were there before are counted up to a hundred."""


class DataSourceSaved(DataSourceOut):
    warnings: list[SourceWarning] | UnsetType = UNSET
    """Absent where there is nothing to warn of."""


RULES: Mapping[str, Rule] = {
    "name": well_named,
    "tags": each_well_named,
    "secrets": no_masks,
    "discover_schedule": cron_expression,
    "discover_time_zone": known_time_zone,
}


class DataSourceBase(Input, kw_only=True):
    rules = RULES

    name: Name
    description: Text | None = None
    tags: Tags = []
    owner_role_id: UUID | None = None
    data_domain_id: UUID | None = None
    is_paused: bool = False
    test_interval_s: TestInterval | None = None
    discover_schedule: DiscoverSchedule | None = None
    discover_time_zone: TimeZone = "UTC"


DataSourcePatch: Any = patch_of(
    DataSourceBase,
    "DataSourcePatch",
    "`config` and `secrets` merge key by key; null clears a key, and in place of a field with a default that field.",
    config=ConfigPatch,
    secrets=SecretPatches | None,
)


def variants_of(base: type[Input], suffix: str) -> object:
    """A union of `base` with each type's config and secrets, tagged by `type`."""
    variants = [_variant(base, suffix, connector) for connector in registry.all()]
    return functools.reduce(operator.or_, variants)


def _variant(base: type[Input], suffix: str, connector: registry.AnyConnector) -> Any:
    secrets_type = given_secrets_type(connector.secrets_type)
    KNOWN_NAMES.update(connector.config_type.__struct_fields__, secrets_type.__struct_fields__)
    fields: list[Any] = [("config", connector.config_type), ("secrets", secrets_type, secrets_type())]
    name = connector.config_type.__name__.removesuffix("Config") + suffix
    return msgspec.defstruct(
        name, fields, bases=(base,), tag=connector.type, tag_field="type", kw_only=True, forbid_unknown_fields=True
    )


@functools.cache
def given_secrets_type(secrets_type: type[ConnectorSecrets]) -> Any:
    """The secrets of a type as they are given: each a text, or a reference to one."""
    fields = [(field.name, _or_reference(field.type), field.default) for field in fields_of(secrets_type)]
    return msgspec.defstruct(
        secrets_type.__name__, fields, bases=(GivenSecrets,), frozen=True, kw_only=True, forbid_unknown_fields=True
    )


def _or_reference(annotation: object) -> object:
    """What is said of a field in `Annotated` stays said of it."""
    if get_origin(annotation) is not Annotated:
        return annotation | SecretReference
    inner, *said = get_args(annotation)
    return Annotated[(inner | SecretReference, *said)]


DataSourceCreate: Any = variants_of(DataSourceBase, "DataSource")


class NewDataSource(DataSourceBase, kw_only=True):
    """What every variant of DataSourceCreate has, for the reader and the type checker."""

    config: ConnectorConfig
    secrets: GivenSecrets


OnConflict = Annotated[Literal["fail", "skip", "update"], Meta(title="OnConflict")]
BulkStatus = Annotated[
    Literal["created", "updated", "unchanged", "skipped", "valid", "failed"], Meta(title="BulkItemStatus")
]


class BulkBase(Input, kw_only=True):
    atomic: bool = True
    """All or none; false: those that can be are, and the answer says why the others are not."""
    dry_run: bool = False
    """Answer as if, and save nothing."""
    on_conflict: OnConflict = "fail"
    """What becomes of an item whose name a data source has already: it fails, it is passed over, or the data source is
    changed as a PATCH with the item's fields would change it."""


class DataSourceBulk(BulkBase, kw_only=True):
    data_sources: Annotated[list[DataSourceCreate], Meta(min_length=1, max_length=MAX_BULK)]


class UnreadBulk(BulkBase, kw_only=True):
    """The same before its items are read: a faulty one must not hide what the others are."""

    data_sources: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_BULK)]


class BulkItem(Output):
    index: int
    """The place in the request, from 0."""
    status: BulkStatus
    """`valid` where a dry run would have created or changed it."""
    data_source: DataSourceOut | None
    errors: list[Fault]
    """Paths lead from the whole request: `data_sources[3].config.port`."""
    warnings: list[SourceWarning]


class BulkOut(Output):
    created: int
    updated: int
    unchanged: int
    skipped: int
    failed: int
    dry_run: bool
    items: list[BulkItem]
    """One for each data source of the request, in its order."""


def type_of(variant: msgspec.Struct) -> str:
    """The type that a decoded variant is for."""
    tag = variant.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


class TypeOut(Output):
    type: TypeName
    label: str
    category: SourceCategory
    description: str
    config_schema: dict[str, Any]
    """JSON Schema 2020-12."""
    secrets_schema: dict[str, Any]
    """JSON Schema 2020-12; every field is `writeOnly`."""
    capabilities: Capabilities
    driver_available: bool
    install_hint: str | None
    """How to install the driver where it is missing."""
    verified_with: list[str]
    """Servers and emulators that the automated tests run this type against."""
