"""The unit of work: one transaction per request, committed before the response starts.

It is the only generator dependency of the application. A failed COMMIT is the request's failure: nothing was sent yet.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol
from uuid import UUID

from litestar import Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.answers import require_match
from app.core.change_pool import KIND_OF_CHANGE
from app.core.database import Base, enter_tenant
from app.core.errors import NotFound
from app.core.event_names import EventName
from app.core.exchange import Exchange
from app.core.rows import complete
from app.core.security import Principal
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.audit.schemas import Outcome
from app.domain.audit.services import audit_row
from app.domain.auth.principals import CHANNEL
from app.domain.events.services import event_row
from app.domain.parts import Parts
from app.domain.records import NewRow, Records
from app.domain.requests import HubRequest


class Rehearsal(Protocol):
    """Keeps how it was before each change on which rights hang."""

    async def remember(self, work: "UnitOfWork", change: Any) -> None: ...


class UnitOfWork:
    """A session in a transaction, and who acts in it."""

    def __init__(
        self,
        parts: Parts,
        exchange: Exchange | None,
        principal: Principal | None,
        *,
        tenant_id: UUID = DEFAULT_TENANT_ID,
    ) -> None:
        self._session: AsyncSession | None = None
        self.parts = parts
        self.exchange = exchange
        self.principal = principal
        self._tenant_id = principal.tenant_id if principal else tenant_id
        self.now = datetime.now(UTC)
        self._records = Records(CHANNEL)
        self._forgotten: list[tuple[str, UUID]] = []
        self._once_committed: list[Callable[[], None]] = []
        self.confirmed_holders: int | None = None
        """How many the caller says hold what they fill (`domain.roles.confirming`)."""
        self.rehearsal: Rehearsal | None = None
        """Where the request only wants to know what would come of it (`domain.dry_runs`)."""

    @property
    def tenant_id(self) -> UUID:
        """Whose rows alone the session sees and writes."""
        return self._tenant_id

    def move_to(self, tenant_id: UUID) -> None:
        """Before anything is done: for somebody who becomes known only now. Raises RuntimeError later on."""
        if self._session is not None or self._records:
            raise RuntimeError("a unit of work is of one tenant")
        self._tenant_id = tenant_id

    @property
    def session(self) -> AsyncSession:
        """Opened when it is first asked for; its first statement begins the transaction."""
        if self._session is None:
            self._session = self.parts.sessions(self._tenant_id)
        return self._session

    @asynccontextmanager
    async def as_system_of(self, tenant_id: UUID) -> AsyncIterator["UnitOfWork"]:
        """This transaction in another tenant and in its name, for as long as the block lasts: none of its members acts,
        and who does is not theirs to know."""
        other = copy(self)
        other._session = self.session
        other._tenant_id, other.principal, other.exchange = tenant_id, None, None
        if tenant_id == self._tenant_id:
            yield other
            return
        await self.session.flush()
        await enter_tenant(self.session, tenant_id)
        yield other  # where the block raises, the transaction is over
        await self.session.flush()
        await enter_tenant(self.session, self._tenant_id)

    @property
    def actor(self) -> Principal:
        """Raises NotFound where nobody acts: only routes that require a principal call this."""
        if self.principal is None:
            raise NotFound
        return self.principal

    @property
    def actor_id(self) -> UUID | None:
        return self.principal.id if self.principal else None

    @property
    def address(self) -> str | None:
        return client_address(self.parts, self.exchange)

    def stamp(self) -> dict[str, object]:
        """The columns of a new entity that say whose it is and who made it."""
        by = {"created_by": self.actor_id, "updated_by": self.actor_id}
        return {"tenant_id": self.tenant_id, "created_at": self.now, "updated_at": self.now, **by}

    def apply(self, entity: Any, changes: Mapping[str, object]) -> bool:
        """Set what differs. False where nothing does: then no version is counted and nothing is recorded."""
        different = {name: value for name, value in changes.items() if getattr(entity, name) != value}
        for name, value in different.items():
            setattr(entity, name, value)
        if different:
            self.touch(entity)
        return bool(different)

    def require_match(self, current: int | str) -> None:
        """Hold the request's `If-Match` against the version of what it changes, or the whole tag where that has more to
        it. Raises PreconditionFailed."""
        if self.exchange is not None:
            tag = f"v{current}" if isinstance(current, int) else current
            require_match(self.exchange, tag, always=self.parts.settings.require_if_match)

    def touch(self, entity: Any) -> None:
        """Note on an entity who changed it; its UPDATE counts the version up."""
        entity.updated_at = self.now
        entity.updated_by = self.actor_id

    def audit(
        self, action: str, resource_type: str, resource_id: UUID | None, *, outcome: Outcome = "success", **details: Any
    ) -> None:
        """The row of this action in the audit log; written by `commit`, in this transaction."""
        self._records.audits.append(
            audit_row(
                action,
                resource_type,
                resource_id,
                tenant_id=self.tenant_id,
                principal=self.principal,
                exchange=self.exchange,
                address=self.address,
                outcome=outcome,
                **details,
            )
        )

    def announce(self, name: EventName, subject: str, data: object, *, domain_id: UUID | None = None) -> None:
        """The event of this change in the outbox; written by `commit`, in this transaction. `domain_id` is the data
        domain in which something was that is gone."""
        self._records.events.append(
            event_row(name, subject, data, tenant_id=self.tenant_id, time=self.now, domain_id=domain_id)
        )

    def forget(self, kind: str, row_id: UUID) -> None:
        """Every worker is told, at commit, that principals that hang on this row (session, user, role, tenant) are
        untrue.
        """
        self._forgotten.append((kind, row_id))

    def once_committed(self, tell: Callable[[], None]) -> None:
        """For the log and the metrics, which say nothing of what is undone."""
        self._once_committed.append(tell)

    def add(self, model: type[Base], **said: Any) -> dict[str, Any]:
        """The new row of a change that is nothing but this row; its columns, defaults included. Raises ForgottenColumn.

        Written by `commit`, which raises what the database says is wrong with it.
        """
        columns = complete(model, said)
        self._records.added = NewRow(model, columns)
        return columns

    async def commit(self) -> None:
        """Write what is on record and commit. This worker forgets at once what others forget when they are notified."""
        self._records.notifications = [f"{kind}:{row_id}" for kind, row_id in self._forgotten]
        if self._session is not None:
            if self._records:
                await self._records.write_in(self._session)
            await self._session.commit()
        elif self._records:
            async with self.parts.reads.connection(KIND_OF_CHANGE.get(), self._tenant_id) as connection:
                await self._records.write(connection)
        for kind, row_id in self._forgotten:
            self.parts.principals.drop(kind, row_id)
        for tell in self._once_committed:
            tell()

    async def undo(self) -> None:
        """As if nothing had been asked for: there is nothing to commit, nor to tell anybody."""
        self._records = Records(CHANNEL)
        self._forgotten.clear()
        self._once_committed.clear()
        if self._session is not None:
            await self._session.rollback()

    async def close(self) -> None:
        """Whatever was not committed is undone."""
        if self._session is not None:
            await self._session.close()


@asynccontextmanager
async def unit_of_work_of(
    parts: Parts,
    exchange: Exchange | None = None,
    principal: Principal | None = None,
    *,
    tenant_id: UUID = DEFAULT_TENANT_ID,
) -> AsyncIterator[UnitOfWork]:
    """Committed at the end of the block, unless the block raises."""
    work = UnitOfWork(parts, exchange, principal, tenant_id=tenant_id)
    try:
        yield work
        await work.commit()
    finally:
        await work.close()


@asynccontextmanager
async def work_of_its_own(request: HubRequest) -> AsyncIterator[UnitOfWork]:
    """A transaction that commits whatever the request's answer will be: failed logins, refusals, lock-out counts."""
    with _counted_as_change_of(request):
        async with unit_of_work_of(request.parts, request.exchange, request.exchange.principal) as work:
            yield work


async def unit_of_work(request: Request[Any, Any, Any]) -> AsyncGenerator[UnitOfWork, None]:
    """The dependency `work` of a handler."""
    assert isinstance(request, HubRequest)
    work = UnitOfWork(request.parts, request.exchange, request.exchange.principal)
    with _counted_as_change_of(request):
        try:
            yield work
            await work.commit()
        finally:
            await work.close()


@contextmanager
def _counted_as_change_of(request: HubRequest) -> Iterator[None]:
    """Its statements share the places for changes of the same resource."""
    KIND_OF_CHANGE.set(_kind_of_change(request.scope["path_template"]))
    try:
        yield
    finally:
        KIND_OF_CHANGE.set(None)


@cache
def _kind_of_change(path_template: str) -> str:
    """Of `/api/v1/roles/{id}/members`: `changes of roles`."""
    return "changes of " + path_template.removeprefix("/api/v1/").partition("/")[0]


def client_address(parts: Parts, exchange: Exchange | None) -> str | None:
    return exchange.client_address(parts.trusted_proxies) if exchange else None
