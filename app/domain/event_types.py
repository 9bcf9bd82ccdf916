"""The table of events: what the data of each is made of. Broker, webhooks, feed and AsyncAPI document read it here.

Most show their thing as the API does; what stands here is of those that do not.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from app.core.event_names import SENTENCES, EventName, type_of
from app.core.schemas import Output
from app.domain.access_reviews.schemas import AccessReviewOut, ReviewItemOut
from app.domain.api_keys.schemas import ApiKeyOut
from app.domain.assignments.schemas import AssignmentOut
from app.domain.delegations.schemas import DelegationOut
from app.domain.domains.schemas import DataDomainOut
from app.domain.factors.schemas import FactorOut
from app.domain.groups.schemas import GroupOut
from app.domain.jobs.schemas import JobOut
from app.domain.oauth.schemas import OAuthClientOut
from app.domain.role_requests.schemas import RoleRequestOut
from app.domain.roles.schemas import PermissionOut, RoleOut
from app.domain.seals.schemas import AuditSealOut
from app.domain.service_accounts.schemas import ServiceAccountOut
from app.domain.sources.schemas import DataSourceOut, SourceStatus
from app.domain.tenants.schemas import TenantOut, TenantSettingsOut
from app.domain.users.schemas import UserOut
from app.domain.webhooks.schemas import WebhookEvent


class IdOnly(Output):
    """Which one it was; there is nothing to show of it."""

    id: UUID


class PermissionName(Output):
    """Of a permission that is gone."""

    name: str


class Membership(Output):
    id: UUID
    """Of the group."""
    user_id: UUID


class NewDevice(Output):
    id: UUID
    """Of the user."""
    session_id: UUID
    device: str | None
    """What the program said of itself."""
    address: str | None


class StatusChange(Output):
    id: UUID
    """Of the data source."""
    status: SourceStatus
    before: SourceStatus


class DiscoveryResult(Output):
    id: UUID
    """Of the data source."""
    objects: int
    """How many were found."""
    deactivated: int
    """How many of before were not found any more."""
    is_complete: bool
    stopped_because: str | None
    """Why it stopped early."""


DATA: Final[Mapping[EventName, type[Output]]] = {
    "access_review.created": AccessReviewOut,
    "access_review.answered": ReviewItemOut,
    "access_review.closed": AccessReviewOut,
    "api_key.created": ApiKeyOut,
    "api_key.deleted": IdOnly,
    "audit.sealed": AuditSealOut,
    "data_domain.created": DataDomainOut,
    "data_domain.updated": DataDomainOut,
    "data_domain.deleted": IdOnly,
    "data_source.created": DataSourceOut,
    "data_source.updated": DataSourceOut,
    "data_source.deleted": IdOnly,
    "data_source.discovered": DiscoveryResult,
    "data_source.status_changed": StatusChange,
    "delegation.created": DelegationOut,
    "delegation.deleted": IdOnly,
    "factor.created": FactorOut,
    "factor.deleted": FactorOut,
    "group.created": GroupOut,
    "group.updated": GroupOut,
    "group.deleted": IdOnly,
    "group.member_added": Membership,
    "group.member_removed": Membership,
    "job.created": JobOut,
    "job.cancel_requested": JobOut,
    "job.cancelled": JobOut,
    "job.failed": JobOut,
    "job.retried": JobOut,
    "job.succeeded": JobOut,
    "oauth_client.created": OAuthClientOut,
    "oauth_client.updated": OAuthClientOut,
    "oauth_client.deleted": IdOnly,
    "permission.registered": PermissionOut,
    "permission.updated": PermissionOut,
    "permission.deleted": PermissionName,
    "role.created": RoleOut,
    "role.updated": RoleOut,
    "role.deleted": IdOnly,
    "role_assignment.created": AssignmentOut,
    "role_assignment.updated": AssignmentOut,
    "role_assignment.ended": AssignmentOut,
    "role_request.created": RoleRequestOut,
    "role_request.approval_given": RoleRequestOut,
    "role_request.approved": RoleRequestOut,
    "role_request.denied": RoleRequestOut,
    "role_request.cancelled": RoleRequestOut,
    "role_request.expired": RoleRequestOut,
    "role_request.revoked": RoleRequestOut,
    "role_request.restarted": RoleRequestOut,
    "role_request.commented": RoleRequestOut,
    "service_account.created": ServiceAccountOut,
    "service_account.updated": ServiceAccountOut,
    "service_account.deleted": IdOnly,
    "tenant.created": TenantOut,
    "tenant.updated": TenantOut,
    "tenant.suspended": TenantOut,
    "tenant.resumed": TenantOut,
    "tenant.deleted": IdOnly,
    "tenant_settings.updated": TenantSettingsOut,
    "user.created": UserOut,
    "user.updated": UserOut,
    "user.password_changed": IdOnly,
    "user.factors_reset": IdOnly,
    "user.recovery_codes_replaced": IdOnly,
    "user.signed_in_from_new_device": NewDevice,
    "user.deleted": IdOnly,
    "webhook.created": WebhookEvent,
    "webhook.updated": WebhookEvent,
    "webhook.secret_rotated": WebhookEvent,
    "webhook.disabled": WebhookEvent,
    "webhook.deleted": IdOnly,
}

if DATA.keys() != SENTENCES.keys():
    raise TypeError(f"events whose data nobody knows: {DATA.keys() ^ SENTENCES.keys()}")

TYPES: Final = tuple(type_of(name) for name in DATA)
