"""The rules about second factors: set up and removed by who has just proven to be themselves, and reset by an admin."""

from datetime import timedelta
from uuid import UUID

from msgspec.structs import asdict
from sqlalchemy import delete, func, select
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, NotFound
from app.core.schemas import single_spaced, to_struct
from app.domain.factors import one_time, passkeys, recovery
from app.domain.factors.challenges import Challenge
from app.domain.factors.checking import step_of, take_step
from app.domain.factors.models import Factor, RecoveryCode
from app.domain.factors.repositories import NO_SYNC, FactorRepository, ids_of_passkeys, note_factors
from app.domain.factors.schemas import (
    FactorConfirm,
    FactorCreate,
    FactorCreated,
    FactorOut,
    Options,
    RecoveryCodes,
)
from app.domain.factors.sealed import FIELD
from app.domain.factors.stepping_up import note_step_up, require_step_up
from app.domain.reach import require_reach
from app.domain.users.repositories import UserRepository
from app.domain.users.services import end_sessions
from app.domain.work import UnitOfWork

MOST_FACTORS = 20
CONFIRMED_WITHIN = timedelta(hours=1)
ISSUER = "Data Fusion Hub"


class FactorService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    @property
    def _factors(self) -> FactorRepository:
        return FactorRepository(self._work.session, tenant_id=self._work.tenant_id)

    async def create(self, new: FactorCreate) -> FactorCreated:
        """One that counts once it is confirmed. Raises Forbidden without a step-up, Conflict for too many."""
        await require_step_up(self._work)
        await self._make_room(new.type)
        factor_id, secret, challenge = uuid7(), None, None
        if new.type == "totp":
            secret = one_time.new_secret()
        else:
            challenge = Challenge().challenge
        factor = Factor(
            id=factor_id,
            **self._work.stamp(),
            user_id=self._work.actor.id,
            type=new.type,
            name=single_spaced(new.name),
            expires_at=self._work.now + CONFIRMED_WITHIN,
            sealed=self._sealed(factor_id, secret),
            key_id=self._work.parts.key_ring.current_id if secret else None,
            challenge=challenge,
        )
        await self._factors.add(factor)
        shown = to_struct(factor, FactorOut)
        self._work.audit("factor.create", "factor", factor_id, after=shown)
        account = self._work.actor.name
        uri = one_time.otpauth_uri(secret, account=account, issuer=ISSUER) if secret else None
        options = await self._creation_options(challenge) if challenge else None
        return FactorCreated(**asdict(shown), secret=secret, otpauth_uri=uri, options=options)

    def _sealed(self, factor_id: UUID, secret: str | None) -> bytes | None:
        if secret is None:
            return None
        ring = self._work.parts.key_ring
        return ring.seal(secret.encode(), tenant_id=self._work.tenant_id, row_id=factor_id, field=FIELD)

    async def _creation_options(self, challenge: bytes) -> Options:
        actor = self._work.actor
        user = await UserRepository(self._work.session, tenant_id=self._work.tenant_id).get_one(id=actor.id)
        return passkeys.creation_options(
            self._work.parts.settings,
            challenge,
            handle=passkeys.user_handle(self._work.tenant_id, actor.id),
            account=user.email,
            name=f"{user.first_name} {user.last_name}",
            known=await ids_of_passkeys(self._work.session, actor.id),
        )

    async def _make_room(self, kind: str) -> None:
        """What somebody began to set up and did not confirm makes room for what they begin now."""
        own = Factor.user_id == self._work.actor.id
        begun = delete(Factor).where(own, Factor.type == kind, Factor.confirmed_at.is_(None))
        await self._work.session.execute(begun, execution_options=NO_SYNC)
        count = await self._work.session.scalar(select(func.count()).select_from(Factor).where(own))
        if (count or 0) >= MOST_FACTORS:
            raise Conflict(code="too_many_factors")

    async def confirm(self, factor_id: UUID, given: FactorConfirm) -> FactorOut:
        """From now on a sign-in asks for it. Raises NotFound, Conflict for one that is confirmed, BadRequest for a code
        or an answer that is not right."""
        factor = await self._own(factor_id)
        if factor.expires_at is None:
            raise Conflict("The factor is confirmed already.")
        if factor.expires_at <= self._work.now:
            raise NotFound
        before = to_struct(factor, FactorOut)
        if factor.type == "totp":
            await self._confirm_code(factor, given)
        else:
            self._confirm_passkey(factor, given)
        self._work.apply(factor, {"confirmed_at": self._work.now, "expires_at": None, "challenge": None})
        await self._factors.update(factor)
        await note_factors(self._work.session, factor.user_id)
        await note_step_up(self._work, ("otp" if factor.type == "totp" else "hwk", "mfa"))
        after = to_struct(factor, FactorOut)
        self._work.audit("factor.confirm", "factor", factor_id, before=before, after=after)
        self._work.announce("factor.created", f"users/{factor.user_id}", after)
        return after

    async def _confirm_code(self, factor: Factor, given: FactorConfirm) -> None:
        step = step_of(self._work, factor, given.code) if given.code is not None else None
        if step is None or not await take_step(self._work, factor.id, step):
            raise BadRequest(code="wrong_factor")

    def _confirm_passkey(self, factor: Factor, given: FactorConfirm) -> None:
        settings, challenge = self._work.parts.settings, factor.challenge or b""
        made = passkeys.registered(settings, challenge, given.credential) if given.credential is not None else None
        if made is None:
            raise BadRequest(code="wrong_factor")
        factor.credential_id, factor.credential = made.credential_id, made.credential
        factor.sign_count = made.sign_count

    async def delete(self, factor_id: UUID) -> None:
        """With the last one the recovery codes go."""
        factor = await self._own(factor_id)
        await require_step_up(self._work)
        self._work.require_match(factor.version)
        before = to_struct(factor, FactorOut)
        await self._factors.delete(factor_id)
        if not await note_factors(self._work.session, factor.user_id):
            await self._drop_codes(factor.user_id)
        self._work.audit("factor.delete", "factor", factor_id, before=before)
        if before.is_confirmed:
            self._work.announce("factor.deleted", f"users/{factor.user_id}", before)

    async def _own(self, factor_id: UUID) -> Factor:
        """Raises NotFound for another's as for none."""
        return await self._factors.get_one(id=factor_id, user_id=self._work.actor.id, with_for_update=True)

    async def renew_recovery_codes(self) -> RecoveryCodes:
        """Raises Forbidden without a step-up."""
        await require_step_up(self._work)
        user_id = self._work.actor.id
        await self._drop_codes(user_id)
        codes = [recovery.new_code() for _ in range(recovery.NUMBER)]
        of_user = {"tenant_id": self._work.tenant_id, "user_id": user_id, "created_at": self._work.now}
        self._work.session.add_all(
            RecoveryCode(id=uuid7(), **of_user, digest=recovery.digest_of(user_id, code)) for code in codes
        )
        self._work.audit("user.replace_recovery_codes", "user", user_id)
        self._work.announce("user.recovery_codes_replaced", f"users/{user_id}", {"id": str(user_id)})
        return RecoveryCodes(codes)

    async def reset(self, user_id: UUID) -> None:
        """For who has lost all of theirs: whoever is signed in as them is signed out, and they sign in with what they
        know. Raises Forbidden for a user who may do more than the actor, and without a step-up."""
        users = UserRepository(self._work.session, tenant_id=self._work.tenant_id)
        await users.get_one(id=user_id, with_for_update=True)
        await require_reach(self._work, "user", user_id, "This user may do more than you: you cannot change them.")
        await require_step_up(self._work)
        await self._work.session.execute(delete(Factor).where(Factor.user_id == user_id), execution_options=NO_SYNC)
        await note_factors(self._work.session, user_id)
        await self._drop_codes(user_id)
        await end_sessions(self._work, user_id)
        self._work.audit("user.reset_factors", "user", user_id)
        self._work.announce("user.factors_reset", f"users/{user_id}", {"id": str(user_id)})

    async def _drop_codes(self, user_id: UUID) -> None:
        codes = delete(RecoveryCode).where(RecoveryCode.user_id == user_id)
        await self._work.session.execute(codes, execution_options=NO_SYNC)
