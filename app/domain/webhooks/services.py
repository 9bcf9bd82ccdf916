"""The rules about webhooks: who may have events sent where, and how many there may be."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from msgspec.structs import asdict, replace
from sqlalchemy import delete, select, text, update
from uuid_utils.compat import uuid7

from app.core.egress import EgressPolicy, canonical_host
from app.core.errors import BadRequest, Conflict, Fault, Forbidden
from app.core.event_names import EventName
from app.core.extent import Place
from app.core.outbound import is_of_this_machine, target_of
from app.core.rows import Normaliser
from app.core.security import missing
from app.domain.domains.places import require_room
from app.domain.events.models import OutboxEnd, OutboxEvent
from app.domain.webhooks.models import Webhook, WebhookDelivery
from app.domain.webhooks.repositories import DeliveryRepository, WebhookRepository
from app.domain.webhooks.retries import KEPT_TRYING
from app.domain.webhooks.schemas import (
    DeliveryOut,
    SecretRotated,
    WebhookCreate,
    WebhookCreated,
    WebhookEvent,
    WebhookOut,
    WebhookPatch,
)
from app.domain.webhooks.secrets import give_secret, retire_secrets
from app.domain.work import UnitOfWork
from app.settings import Settings

MOST: Final = 100
"""Of one tenant."""
READ: Final = "webhooks:read"
WRITE: Final = "webhooks:write"
SEEING: Final = "events:read"
"""What a webhook is sent is shown to whoever has it sent there."""
DOMAIN = "data_domain_id"
COLUMNS = Normaliser(WebhookCreate, WebhookPatch, Webhook, WebhookOut)

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks of ' || CAST(:tenant AS text), 0))")
_SHOWS_MORE = {"url", "event_types", DOMAIN}
"""What is changed by nobody but who may see what it would be sent."""
_FROM_THE_START: Mapping[str, object] = {
    "failures": 0,
    "failing_since": None,
    "paused_until": None,
    "lease_id": None,
    "lease_until": None,
}
"""Nothing is known of the endpoint, and whoever sends to it at this moment knows an endpoint of before."""


class WebhookService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._webhooks = WebhookRepository(work.session, tenant_id=work.tenant_id)

    async def create(self, new: WebhookCreate) -> WebhookCreated:
        """It is sent what happens from now on. Raises Forbidden where the actor may not write or see events, BadRequest
        for a domain that is not there or a URL that is never dialled, Conflict for one too many."""
        await self._require_sight(new.data_domain_id)
        _judge_url(self._work.parts.settings, self._work.parts.egress, new.url)
        await self._refuse_too_many()
        webhook = Webhook(
            id=uuid7(), **self._work.stamp(), **COLUMNS.columns_of_new(new), position=await self._last_position()
        )
        await self._webhooks.add(webhook)
        secret = await give_secret(self._work, webhook.id)
        shown = shown_webhook(webhook)
        self._record("create", "webhook.created", webhook, after=noted(shown))
        return WebhookCreated(**asdict(shown), secret=secret)

    async def update(self, webhook_id: UUID, patch: Any) -> WebhookOut:
        """Raises as `create` does."""
        webhook = await self._locked(webhook_id)
        self._work.require_match(webhook.version)
        before, changes = shown_webhook(webhook), COLUMNS.columns_of_changes(patch)
        await self._judge(webhook, changes)
        if not self._work.apply(webhook, changes):
            return before
        await self._begin_anew(webhook, before)
        await self._forget_what_it_was_for(webhook, before)
        await self._webhooks.update(webhook)
        after = shown_webhook(webhook)
        self._record("update", "webhook.updated", webhook, before=noted(before), after=noted(after))
        return after

    async def delete(self, webhook_id: UUID) -> None:
        """What waited for it goes with it; what was delivered is removed in its time, and shown to nobody."""
        webhook = await self._locked(webhook_id)
        self._work.require_match(webhook.version)
        before = shown_webhook(webhook)
        await self._work.session.execute(delete(WebhookDelivery).where(*_waiting(self._work, webhook_id)))
        await self._webhooks.delete(webhook_id)
        self._work.audit("webhook.delete", "webhook", webhook_id, before=noted(before))
        self._work.announce("webhook.deleted", f"webhooks/{webhook_id}", {"id": str(webhook_id)})

    async def rotate_secret(self, webhook_id: UUID) -> SecretRotated:
        """For a day both sign."""
        webhook = await self._locked(webhook_id)
        expires_at = await retire_secrets(self._work, webhook_id)
        secret = await give_secret(self._work, webhook_id)
        webhook.lease_id = webhook.lease_until = None  # who sends at this moment does not know the new one
        await self._webhooks.update(webhook)
        self._record("rotate_secret", "webhook.secret_rotated", webhook)
        return SecretRotated(secret, expires_at)

    async def _judge(self, webhook: Webhook, changes: Mapping[str, Any]) -> None:
        """Whether the changes may be made."""
        if "url" in changes:
            _judge_url(self._work.parts.settings, self._work.parts.egress, changes["url"])
        changed = {name for name, value in changes.items() if getattr(webhook, name) != value}
        if changed & _SHOWS_MORE or ("is_active" in changed and changes["is_active"]):
            await self._require_sight(webhook.data_domain_id)
        if DOMAIN in changed:
            await self._require_sight(changes[DOMAIN])

    async def _begin_anew(self, webhook: Webhook, before: WebhookOut) -> None:
        """Where it is switched on or off, or leads elsewhere."""
        if (webhook.url, webhook.is_active) == (before.url, before.is_active):
            return
        for name, value in _FROM_THE_START.items():
            setattr(webhook, name, value)
        if not webhook.is_active:
            webhook.due_at = None
            await give_up_waiting(self._work, webhook.id)
            return
        webhook.disabled_because = webhook.disabled_at = None
        webhook.due_at = self._work.now
        if not before.is_active:
            webhook.position = await self._last_position()

    async def _forget_what_it_was_for(self, webhook: Webhook, before: WebhookOut) -> None:
        """Where it is for other events from now on. In another domain others see its deliveries, who may see nothing of
        what happened in the one before."""
        if webhook.data_domain_id != before.data_domain_id:
            await self._work.session.execute(delete(WebhookDelivery).where(*_deliveries_of(self._work, webhook.id)))
        elif set(webhook.event_types) != set(before.event_types):
            await give_up_waiting(self._work, webhook.id)
        else:
            return
        webhook.lease_id = webhook.lease_until = None  # who sends at this moment sends what it was for

    async def _require_sight(self, domain_id: UUID | None) -> None:
        """Raises Forbidden and BadRequest where the actor may not write there, or see what happens there."""
        await require_room(self._work, WRITE, domain_id, DOMAIN)
        if not self._work.actor.may_at(SEEING, Place(domain_id=domain_id)):
            fault = Fault(DOMAIN, "permission_missing", f"there you need `{SEEING}`, to have events sent somewhere")
            raise Forbidden(f"This needs the permission `{SEEING}`.", code="permission_missing", errors=[fault])

    async def _refuse_too_many(self) -> None:
        """One after the other: two at once would not see each other."""
        await self._work.session.execute(_LOCK, {"tenant": str(self._work.tenant_id)})
        if await self._webhooks.count() >= MOST:
            raise Conflict(code="too_many_webhooks")

    async def _last_position(self) -> int:
        last = select(OutboxEnd.last_position).where(OutboxEnd.tenant_id == self._work.tenant_id)
        return await self._work.session.scalar(last) or 0

    async def _locked(self, webhook_id: UUID) -> Webhook:
        """Raises NotFound, and Forbidden where it was moved since the request was let in."""
        webhook = await self._webhooks.get_one(id=webhook_id, with_for_update=True)
        require_right(self._work, webhook)
        return webhook

    def _record(self, verb: str, event: EventName, webhook: Webhook, **shown: Any) -> None:
        self._work.audit(f"webhook.{verb}", "webhook", webhook.id, **shown)
        self._work.announce(event, f"webhooks/{webhook.id}", event_of(webhook))


class DeliveryService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._deliveries = DeliveryRepository(work.session, tenant_id=work.tenant_id)
        self._webhooks = WebhookRepository(work.session, tenant_id=work.tenant_id)

    async def retry(self, delivery_id: UUID) -> DeliveryOut:
        """It is sent again at once, whatever became of it, under the same id, and tried for another day.

        Raises NotFound, Conflict for a webhook that is switched off and for an event that is not kept any more, and
        Forbidden where the actor may not see the event.
        """
        found = await self._deliveries.get_one(id=delivery_id)
        webhook = await self._webhooks.get_one(id=found.webhook_id, with_for_update=True)
        require_right(self._work, webhook)
        if not webhook.is_active:
            raise Conflict(code="webhook_inactive")
        delivery = await self._deliveries.get_one(id=delivery_id, with_for_update=True)
        await self._require_event(delivery)
        now = self._work.now
        delivery.status, delivery.attempts, delivery.failure = "pending", 0, None
        delivery.next_attempt_at, delivery.expires_at = now, now + KEPT_TRYING
        webhook.paused_until, webhook.due_at = None, now
        await self._deliveries.update(delivery)
        await self._webhooks.update(webhook)
        self._work.audit("webhook_delivery.retry", "webhook_delivery", delivery_id, after=_named(delivery))
        return DeliveryRepository.shown(delivery, DeliveryOut)

    async def _require_event(self, delivery: WebhookDelivery) -> None:
        is_it = (OutboxEvent.id == delivery.event_id, OutboxEvent.tenant_id == self._work.tenant_id)
        happened = select(OutboxEvent.data_source_id, OutboxEvent.data_domain_id).where(*is_it)
        row = (await self._work.session.execute(happened)).one_or_none()
        if row is None:
            raise Conflict(code="event_gone")
        if not self._work.actor.may_at(SEEING, Place(source_id=row.data_source_id, domain_id=row.data_domain_id)):
            raise missing(self._work.actor, SEEING)


def _named(delivery: WebhookDelivery) -> dict[str, object]:
    return {"webhook_id": str(delivery.webhook_id), "event_id": str(delivery.event_id)}


def _deliveries_of(work: UnitOfWork, webhook_id: UUID) -> tuple[Any, ...]:
    return (WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.tenant_id == work.tenant_id)


def _waiting(work: UnitOfWork, webhook_id: UUID) -> tuple[Any, ...]:
    return (*_deliveries_of(work, webhook_id), WebhookDelivery.status == "pending")


async def give_up_waiting(work: UnitOfWork, webhook_id: UUID) -> None:
    """All that waits for it, which is no more than its dispatcher lets wait."""
    given_up = {"status": "failed", "failure": "webhook_disabled", "next_attempt_at": None}
    await work.session.execute(
        update(WebhookDelivery).where(*_waiting(work, webhook_id)).values(given_up),
        execution_options={"synchronize_session": False},
    )


def require_right(work: UnitOfWork, webhook: Webhook) -> None:
    """Of a webhook that is locked: it may have been moved since the request was let in. Raises Forbidden."""
    if not work.actor.may_at(WRITE, Place(domain_id=webhook.data_domain_id)):
        raise missing(work.actor, WRITE)


def shown_webhook(webhook: Webhook) -> WebhookOut:
    return WebhookRepository.shown(webhook, WebhookOut)


def noted(shown: WebhookOut) -> WebhookOut:
    """As the audit log has it, which others read than the webhook: of the URL's path, which holds tokens, the beginning
    of its hash (SHA-256), by which a change is seen."""
    target = target_of(shown.url)
    digest = sha256(target.path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return replace(shown, url=replace(target, path=f"/sha256:{digest}").url(target.host))


def event_of(webhook: Webhook) -> WebhookEvent:
    return WebhookEvent(
        webhook.id,
        target_of(webhook.url).host,
        webhook.event_types,
        webhook.data_domain_id,
        webhook.description,
        webhook.is_active,
        webhook.disabled_because,
    )


def _judge_url(settings: Settings, policy: EgressPolicy, url: str) -> None:
    """As far as can be told without looking a name up: what a name leads to is judged when something is sent there.
    Raises BadRequest."""
    target = target_of(url)
    if not target.is_encrypted and not settings.egress_loopback:
        raise BadRequest(errors=[Fault("url", "not_allowed", "must start with https://")])
    host = canonical_host(target.host)
    if isinstance(host, str):
        return
    decision = policy.decide(host)
    if not decision.is_allowed:
        raise BadRequest(errors=[Fault("url", "not_allowed", f"leads to where the hub may not go: {decision.reason}")])
    if not target.is_encrypted and not is_of_this_machine(str(host)):
        raise BadRequest(errors=[Fault("url", "not_allowed", "must start with https://, but for this machine")])
