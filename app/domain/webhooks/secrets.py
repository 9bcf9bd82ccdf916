"""Secrets of webhooks: sealed to their own rows, opened to sign."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import DateTime, Row, Select, bindparam, delete, or_, select, update
from uuid_utils.compat import uuid7

from app.core.sealing import KeyRing, SealingError
from app.domain.webhooks.models import WebhookSecret
from app.domain.webhooks.repositories import WebhookSecretRepository
from app.domain.webhooks.sealed import FIELD
from app.domain.webhooks.signing import new_secret
from app.domain.work import UnitOfWork

BOTH_SIGN_FOR: Final = timedelta(days=1)

LIVE: Select[Any] = (
    select(WebhookSecret.id, WebhookSecret.tenant_id, WebhookSecret.sealed)
    .where(
        WebhookSecret.webhook_id == bindparam("webhook_id", type_=WebhookSecret.webhook_id.type),
        WebhookSecret.tenant_id == bindparam("tenant_id", type_=WebhookSecret.tenant_id.type),
        or_(
            WebhookSecret.expires_at.is_(None),
            WebhookSecret.expires_at > bindparam("now", type_=DateTime(timezone=True)),
        ),
    )
    .order_by(WebhookSecret.created_at.desc(), WebhookSecret.id.desc())
)
"""The newest first."""


async def give_secret(work: UnitOfWork, webhook_id: UUID) -> str:
    """A new one, in the clear: it is stored sealed, and shown to whoever asked for it."""
    row_id, secret = uuid7(), new_secret()
    sealed = work.parts.key_ring.seal(secret.encode(), tenant_id=work.tenant_id, row_id=row_id, field=FIELD)
    await WebhookSecretRepository(work.session, tenant_id=work.tenant_id).add(
        WebhookSecret(
            id=row_id,
            tenant_id=work.tenant_id,
            webhook_id=webhook_id,
            sealed=sealed,
            key_id=work.parts.key_ring.current_id,
            created_at=work.now,
            expires_at=None,
        )
    )
    return secret


async def retire_secrets(work: UnitOfWork, webhook_id: UUID) -> datetime:
    """The newest signs for a day longer, beside the one that follows; those before it sign no more. When that day is
    over."""
    is_its = (WebhookSecret.webhook_id == webhook_id, WebhookSecret.tenant_id == work.tenant_id)
    expires_at = work.now + BOTH_SIGN_FOR
    await work.session.execute(delete(WebhookSecret).where(*is_its, WebhookSecret.expires_at.is_not(None)))
    retired = update(WebhookSecret).where(*is_its).values(expires_at=expires_at)
    await work.session.execute(retired, execution_options={"synchronize_session": False})
    return expires_at


def opened(ring: KeyRing, rows: Iterable[Row[Any]]) -> list[str]:
    """Those of `LIVE` that a key of the ring opens; with none of them nothing can be signed."""
    found = (_opened(ring, row) for row in rows)
    return [secret for secret in found if secret is not None]


def _opened(ring: KeyRing, row: Row[Any]) -> str | None:
    try:
        return ring.open(row.sealed, tenant_id=row.tenant_id, row_id=row.id, field=FIELD).decode()
    except SealingError:
        return None
