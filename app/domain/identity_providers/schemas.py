"""Identity providers on the wire."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, field

from app.core.errors import Fault
from app.core.lookalikes import well_named
from app.core.provider_settings import DEFAULT_SCOPES, ProviderKind, issuer_fault, scopes_fault, web_address_fault
from app.core.schemas import EntityOut, Input, Output, Rule, each_once, patch_of
from app.domain.tenants.schemas import EmailDomains, Slug

Kind = Annotated[ProviderKind, Meta(title="IdentityProviderKind", examples=["oidc"])]
ProviderName = Annotated[Slug, Meta(examples=["corporate"])]
Label = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z", examples=["Corporate login"])
]
WebAddress = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1000,
        pattern=r"^https?://[^\x00-\x20\x7f]+\Z",
        examples=["https://login.example.org"],
        extra_json_schema={"patternErrorMessage": "must start with https:// and hold no blanks"},
    ),
]
Line = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*\Z", examples=["data-fusion-hub"])]
Scope = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+\Z", examples=["openid"])]
Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=20, extra_json_schema={"uniqueItems": True})]
ClientSecret = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        pattern=r"^[\x20-\x7e]*\Z",
        examples=["a secret that the provider gave"],
        extra_json_schema={"writeOnly": True, "format": "password"},
    ),
]
Metadata = Annotated[str, Meta(min_length=1, max_length=262_144, examples=["<EntityDescriptor/>"])]
TENANT: dict[str, Any] = {
    "tenant": {
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "description": "Slug of the tenant that is meant. Left out: as the host says, or else the default one.",
    }
}
"""The parameter of what is asked of a tenant's providers."""


def is_issuer(value: str, path: str) -> Iterator[Fault]:
    """Rule: but for what hangs on where the hub runs, such as http on this machine."""
    if (fault := issuer_fault(value, is_development=True)) is not None:
        yield Fault(path, "invalid", fault)


def is_web_address(value: str, path: str) -> Iterator[Fault]:
    if (fault := web_address_fault(value, is_development=True)) is not None:
        yield Fault(path, "invalid", fault)


def are_scopes(value: Sequence[str], path: str) -> Iterator[Fault]:
    yield from each_once(list(value), path)
    if (fault := scopes_fault(tuple(value))) is not None:
        yield Fault(path, "invalid", fault)


RULES: Mapping[str, Rule] = {
    "label": well_named,
    "issuer": is_issuer,
    "metadata_url": is_web_address,
    "scopes": are_scopes,
    "allowed_domains": each_once,
}


class IdentityProviderOut(EntityOut):
    kind: Kind
    name: str
    label: str
    is_active: bool
    managed_by: Literal["settings"] | None
    """`settings`: the operator's variables, and nothing of it is changed here."""
    issuer: str | None
    client_id: str | None
    has_client_secret: bool
    scopes: list[str]
    groups_claim: str | None
    allowed_domains: list[str]
    metadata_xml: str | None
    metadata_url: str | None
    attribute_email: str | None
    attribute_first_name: str | None
    attribute_last_name: str | None
    attribute_groups: str | None


class IdentityProviderEvent(Output):
    """What events and the audit log tell of a provider: all but its secret and its metadata."""

    id: UUID
    kind: Kind
    name: str
    label: str
    is_active: bool
    issuer: str | None
    client_id: str | None
    has_client_secret: bool
    groups_claim: str | None
    allowed_domains: list[str]
    metadata_url: str | None
    attribute_groups: str | None


class ProviderFields(Input, kw_only=True):
    """What may change of a provider."""

    rules = RULES

    label: Label
    """What the button of the sign-in page says."""
    is_active: bool = True
    issuer: WebAddress | None = None
    """OIDC: as the provider itself writes it in its discovery document and in `iss`."""
    client_id: Line | None = None
    client_secret: ClientSecret | None = None
    """Write-only. It has to be given again with another issuer."""
    scopes: Scopes = field(default_factory=lambda: list(DEFAULT_SCOPES))
    groups_claim: Line | None = None
    """The claim whose values name groups; null: the provider says nothing of groups."""
    allowed_domains: EmailDomains = field(default_factory=list)
    """Of verified email addresses that may sign in; empty: all."""
    metadata_xml: Metadata | None = None
    """SAML: the metadata of the provider, or where they are (`metadata_url`)."""
    metadata_url: WebAddress | None = None
    attribute_email: Line | None = None
    attribute_first_name: Line | None = None
    attribute_last_name: Line | None = None
    attribute_groups: Line | None = None


class IdentityProviderCreate(ProviderFields, kw_only=True):
    kind: Kind
    name: ProviderName
    """Part of the addresses that are registered at the provider: it never changes."""


IdentityProviderPatch: Any = patch_of(
    ProviderFields, "IdentityProviderPatch", "What changes. Whoever is signed in by the provider stays so."
)


class ProviderOut(Output):
    """One way to sign in, as everybody may know it."""

    name: str
    kind: Kind
    label: str
    login_url: str


class IdentityOut(Output):
    id: UUID
    kind: Kind
    provider: str
    issuer: str
    subject: str
    """What the provider calls them."""
    created_at: datetime
    last_used_at: datetime | None


class IdentityEvent(Output):
    """Of the account: what a provider calls somebody is told to nobody else."""

    id: UUID
    """Of the user."""
    kind: Kind
    provider: str
