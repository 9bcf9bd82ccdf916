"""Tenants and their settings on the wire."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from app.core.errors import Fault
from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Rule, each_once, patch_of
from app.domain.users.identity import is_email
from app.domain.users.schemas import Email, Password

Slug = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z",
        examples=["acme"],
        extra_json_schema={"patternErrorMessage": "takes small letters and digits, and dashes between them"},
    ),
]
"""A DNS label (RFC 1123 section 2.1) in small letters: it may be the first part of a host name."""
KeyDays = Annotated[int, Meta(ge=1, le=3650)]
SessionDays = Annotated[int, Meta(ge=1, le=365)]
PasswordLength = Annotated[int, Meta(ge=8, le=128)]
EmailDomain = Annotated[
    str,
    Meta(
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+\Z",
        examples=["example.org"],
        extra_json_schema={"patternErrorMessage": "must be the domain of an email address, in small letters"},
    ),
]
EmailDomains = Annotated[list[EmailDomain], Meta(max_length=50, extra_json_schema={"uniqueItems": True})]


def plainly_spelt(slug: str, path: str) -> Iterator[Fault]:
    """Rule: no label that is shown in other letters than it is written in (RFC 5890 section 2.3.1)."""
    if slug[2:4] == "--":
        yield Fault(path, "not_allowed", "must not have dashes in third and fourth place")


def admin_addressed(admin: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """Rule: the first admin has an email address."""
    yield from is_email(admin["email"], f"{path}.email")


RULES: Mapping[str, Rule] = {"slug": plainly_spelt, "name": well_named, "admin": admin_addressed}


class TenantOut(EntityOut):
    slug: str
    name: str
    is_active: bool
    """Whether its members can sign in, and its jobs and schedules go on."""


class TenantCreated(TenantOut, omit_defaults=True):
    invitation_link: str | None = None
    """Of the first admin, where they were given no password and the hub sends no mail: give it to them. Shown now and
    never again; else absent."""


class FirstAdmin(Input):
    email: Email
    password: Password | None = None
    """Without one the first admin is invited by a letter, and chooses it."""


class TenantCreate(Input):
    rules = RULES

    slug: Slug
    """Names the tenant at sign-in and among the folders of files. It never changes, and is never given again."""
    name: Name
    admin: FirstAdmin


class TenantPatch(Input):
    rules = RULES

    name: Name | UnsetType = UNSET


class TenantSettingsOut(EntityOut):
    max_key_days: int
    """The longest life of an API key."""
    is_admin_requestable: bool
    """Whether somebody may ask for the built-in role `admin`."""
    password_min_length: int | None
    """Characters that a new password of a member needs; null: as many as the deployment asks for."""
    requires_mfa: bool
    """Whether members may do nothing but what is about themselves before they have shown a second factor. API keys are
    not asked for one by this."""
    allowed_email_domains: list[str]
    """Of the addresses of new members; empty: all."""
    session_idle_days: int
    """After so many without a refresh a session ends."""
    session_days: int
    """After so many a session ends in any case."""


class TenantSettingsGiven(Input):
    """What a tenant that has decided nothing has."""

    rules = {"allowed_email_domains": each_once}

    max_key_days: KeyDays = 366
    is_admin_requestable: bool = False
    password_min_length: PasswordLength | None = None
    requires_mfa: bool = False
    allowed_email_domains: EmailDomains = field(default_factory=list)
    session_idle_days: SessionDays = 7
    session_days: SessionDays = 30


TenantSettingsPatch: Any = patch_of(
    TenantSettingsGiven, "TenantSettingsPatch", "What is absent stays; null gives a setting its default back."
)
