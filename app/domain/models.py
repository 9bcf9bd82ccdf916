"""Every table of the hub, imported so that the metadata is complete: for Alembic, and for the check that both agree."""

from app.core.database import METADATA
from app.domain.access_reviews.models import AccessReview, AccessReviewItem
from app.domain.api_keys.models import ApiKey
from app.domain.assignments.models import RoleAssignment
from app.domain.audit.models import AuditEvent
from app.domain.auth.models import ServiceToken, Session, SignInCode
from app.domain.authz.models import RightsHistory
from app.domain.delegations.models import Delegation
from app.domain.domains.models import DataDomain
from app.domain.events.models import EventAttempt, OutboxEnd, OutboxEvent, RelayState
from app.domain.factors.models import Factor, RecoveryCode
from app.domain.groups.models import Group, GroupMember
from app.domain.idempotency.models import IdempotencyKey
from app.domain.identity_providers.models import IdentityProvider, UserIdentity
from app.domain.invitations.models import Invitation
from app.domain.jobs.models import Job
from app.domain.letters.models import Letter
from app.domain.oauth.models import OAuthClient
from app.domain.recovery.models import ForgottenPassword
from app.domain.role_requests.models import RoleRequest, RoleRequestEntry
from app.domain.roles.models import RegisteredPermission, Role, RoleApprover
from app.domain.saml.models import SamlArrival, SamlKey, SamlMetadata
from app.domain.scim.models import ScimKey
from app.domain.seals.models import AuditAnchor, AuditLeaf, AuditSeal, AuditWatermark, SealingKey
from app.domain.service_accounts.models import ServiceAccount
from app.domain.source_work.models import DataSourceTest, SourceObject
from app.domain.sources.models import DataSource, DataSourceSecret, DataSourceTag
from app.domain.spent.models import SpentToken
from app.domain.tenants.models import Tenant, TenantSettings
from app.domain.upkeep.models import UpkeepState
from app.domain.users.models import User
from app.domain.webhooks.models import Webhook, WebhookDelivery, WebhookSecret

TABLES = (
    AccessReview, AccessReviewItem, ApiKey, AuditAnchor, AuditEvent, AuditLeaf, AuditSeal, AuditWatermark, DataDomain,
    DataSource, DataSourceSecret, DataSourceTag, DataSourceTest, Delegation, EventAttempt, Factor,
    ForgottenPassword, Group, GroupMember, IdempotencyKey, IdentityProvider, Invitation, Job, Letter, OAuthClient,
    OutboxEnd, OutboxEvent, RecoveryCode, RegisteredPermission, RelayState, RightsHistory, Role, RoleApprover,
    RoleAssignment, RoleRequest, RoleRequestEntry, SamlArrival, SamlKey, SamlMetadata, ScimKey, SealingKey,
    ServiceAccount, ServiceToken, Session, SignInCode, SourceObject, SpentToken, Tenant, TenantSettings,
    UpkeepState, User, UserIdentity, Webhook, WebhookDelivery, WebhookSecret,
)  # fmt: skip

__all__ = ["METADATA", "TABLES"]
