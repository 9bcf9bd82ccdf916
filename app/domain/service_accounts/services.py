"""The rules about service accounts: told apart by their names, and changed by nobody who may do less than they."""

from uuid import UUID

from sqlalchemy import func
from uuid_utils.compat import uuid7

from app.core.rows import Normaliser
from app.core.schemas import named, to_struct
from app.domain.assignments.endings import end_assignments
from app.domain.assignments.models import RoleAssignment
from app.domain.lookalikes import refuse_lookalike
from app.domain.reach import require_reach
from app.domain.roles.built_in import public_role_id
from app.domain.service_accounts.jwks import kept
from app.domain.service_accounts.models import ServiceAccount
from app.domain.service_accounts.repositories import ServiceAccountRepository
from app.domain.service_accounts.schemas import ServiceAccountCreate, ServiceAccountOut, ServiceAccountPatch
from app.domain.work import UnitOfWork

COLUMNS = Normaliser(
    ServiceAccountCreate, ServiceAccountPatch, ServiceAccount, ServiceAccountOut, rules={"name": named, "jwks": kept}
)


class ServiceAccountService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    @property
    def _accounts(self) -> ServiceAccountRepository:
        return ServiceAccountRepository(self._work.session, tenant_id=self._work.tenant_id)

    async def create(self, new: ServiceAccountCreate) -> ServiceAccountOut:
        """An account that holds `public`, as everybody does.

        Raises Conflict for a name that is taken, or reads like one that is.
        """
        await refuse_lookalike(self._work, ServiceAccountRepository, new.name, "service account")
        account = self._work.add(ServiceAccount, id=uuid7(), **self._work.stamp(), **COLUMNS.columns_of_new(new))
        self._hold_public(account["id"])
        shown = to_struct(account, ServiceAccountOut)
        self._work.audit("service_account.create", "service_account", shown.id, after=shown)
        self._work.announce("service_account.created", f"service-accounts/{shown.id}", shown)
        return shown

    async def update(self, account_id: UUID, patch: ServiceAccountPatch) -> ServiceAccountOut:
        account = await self._changeable(account_id)
        before = to_struct(account, ServiceAccountOut)
        changes = COLUMNS.columns_of_changes(patch)
        if "name" in changes:
            await refuse_lookalike(
                self._work,
                ServiceAccountRepository,
                changes["name"],
                "service account",
                ServiceAccount.id != account_id,
            )
        if not self._work.apply(account, changes):
            return before
        await self._accounts.update(account)
        after = to_struct(account, ServiceAccountOut)
        self._work.forget("service_account", account_id)
        self._work.audit("service_account.update", "service_account", account_id, before=before, after=after)
        self._work.announce("service_account.updated", f"service-accounts/{account_id}", after)
        return after

    async def delete(self, account_id: UUID) -> None:
        """Its keys go with it. The audit log keeps the name under which it acted."""
        account = await self._changeable(account_id)
        before = to_struct(account, ServiceAccountOut)
        await end_assignments(self._work, RoleAssignment.subject_id == account_id)
        await self._accounts.delete(account_id)
        self._work.forget("service_account", account_id)
        self._work.audit("service_account.delete", "service_account", account_id, before=before)
        self._work.announce("service_account.deleted", f"service-accounts/{account_id}", {"id": str(account_id)})

    def _hold_public(self, account_id: UUID) -> None:
        given = {
            "subject_type": "service_account",
            "subject_id": account_id,
            "role_id": public_role_id(self._work.tenant_id),
            "scope_type": "tenant",
            "scope_id": None,
            "starts_at": func.statement_timestamp(),
            "expires_at": None,
            "reason": None,
            "via_type": "person",
            "via_id": self._work.actor_id,
        }
        self._work.session.add(RoleAssignment(**self._work.stamp(), **given))

    async def _changeable(self, account_id: UUID) -> ServiceAccount:
        """Raises Forbidden for an account that may do more than the actor: changing one would be a way up."""
        account = await self._accounts.get_one(id=account_id, with_for_update=True)
        sentence = "This account may do more than you: you cannot change it."
        await require_reach(self._work, "service_account", account_id, sentence)
        self._work.require_match(account.version)
        return account
