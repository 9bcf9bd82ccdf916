"""Every table of the hub, imported so that the metadata is complete: for Alembic, and for the check that both agree."""

from app.core.database import METADATA
from app.domain.audit.models import AuditEvent
from app.domain.auth.models import Session
from app.domain.events.models import OutboxEvent
from app.domain.idempotency.models import IdempotencyKey
from app.domain.jobs.models import Job
from app.domain.roles.models import Role, RoleApprover
from app.domain.service_accounts.models import ServiceAccount
from app.domain.source_work.models import DataSourceTest, SourceObject
from app.domain.sources.models import DataSource, DataSourceSecret, DataSourceTag
from app.domain.tenants.models import Tenant, TenantSettings
from app.domain.upkeep.models import UpkeepState
from app.domain.users.models import User, UserRole

TABLES = (
    AuditEvent, DataSource, DataSourceSecret, DataSourceTag, DataSourceTest, IdempotencyKey, Job, OutboxEvent, Role,
    RoleApprover, ServiceAccount, Session, SourceObject, Tenant, TenantSettings, UpkeepState, User, UserRole,
)  # fmt: skip

__all__ = ["METADATA", "TABLES"]
