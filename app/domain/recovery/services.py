"""The rules about forgotten passwords and new email addresses: whoever has a letter's link has the mailbox it went to.

What somebody types as their address is noted and nothing more: who it is, is found out by a worker, so that neither the
answer nor its time tells (`forgotten`).
"""

from typing import Any, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault
from app.core.opaque_tokens import GivenToken
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.auth.services import confirmed_by_password, slug_of
from app.domain.letters.models import Letter
from app.domain.letters.schemas import Accepted, LetterKind
from app.domain.letters.services import are_enough, is_tenant_active, letter_of, notify, require_token, write_quietly
from app.domain.recovery.models import ForgottenPassword
from app.domain.recovery.schemas import ChangeEmail, ForgotPassword, ResetPassword
from app.domain.requests import HubRequest
from app.domain.sign_in_rules import rules_of
from app.domain.users.identity import checked_email, email_key
from app.domain.users.managed import refuse_managed
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import UserOut
from app.domain.users.services import end_sessions, hash_new_password
from app.domain.work import UnitOfWork, work_of_its_own

ON_ITS_WAY: Final = Accepted("If somebody has that address, a letter is on its way to them.")
TO_CONFIRM: Final = Accepted("A letter is on its way to the new address. Until it is confirmed the old one stays.")


async def forget_password(request: HubRequest, given: ForgotPassword) -> Accepted:
    """Raises TooManyRequests for too many of one address, whether anybody has it or not."""
    slug = slug_of(request, given.tenant)
    apart_from_logins = f"forgotten {email_key(given.email)}"
    await request.parts.limits.charge_account(request.exchange, slug, apart_from_logins)
    async with work_of_its_own(request) as work:
        work.move_to(DEFAULT_TENANT_ID)
        work.add(
            ForgottenPassword,
            id=uuid7(),
            tenant_id=DEFAULT_TENANT_ID,
            email=given.email,
            slug=slug,
            created_at=work.now,
        )
        work.audit("auth.forgot_password", "user", None)
    return ON_ITS_WAY


async def reset_password(request: HubRequest, given: ResetPassword) -> None:
    """All sessions end, and the account is not locked any more. Raises BadRequest for a link that is worth nothing, and
    for a weak password, after which the link is still good."""
    token = require_token("reset_password", given.token)
    async with work_of_its_own(request) as work:
        work.move_to(token.tenant_id)
        user, _ = await _user_of(work, "reset_password", token)
        hashed = await hash_new_password(
            work, given.new_password, (user.email, user.first_name, user.last_name), path="new_password"
        )
        changes = {"password_hash": hashed, "failed_logins": 0, "locked_until": None}
        await _change(work, user, changes)
        await end_sessions(work, user.id)
        by: dict[str, Any] = {"actor_id": user.id, "actor_name": user.email}
        work.audit("auth.reset_password", "user", user.id, **by)
        work.announce("user.password_changed", f"users/{user.id}", {"id": str(user.id)})
        await notify(work, "password_reset", user.email, user.id)


async def change_email(request: HubRequest, given: ChangeEmail) -> Accepted:
    """A letter goes to the new address, unless somebody has it, which nobody is told. Raises BadRequest for a wrong
    password and for a domain that the tenant does not take, Conflict for who is kept by a directory."""
    new_email = checked_email(given.new_email, "new_email")

    async def ask(work: UnitOfWork, user: User) -> Accepted:
        refuse_managed(user)
        (await rules_of(work.parts, work.tenant_id)).refuse_domain(new_email, path="new_email")
        await _held_user(work, user.id)
        if not await are_enough(work, "confirm_email", user_id=user.id):
            await write_quietly(work, "confirm_email", new_email, user.id)
        work.audit("auth.change_email", "user", user.id, after={"new_email": new_email})
        return TO_CONFIRM

    return await confirmed_by_password(request, given.current_password, ask, action="auth.change_email")


async def confirm_email(request: HubRequest, text: str) -> None:
    """Raises BadRequest for a link that is worth nothing and for a domain that the tenant takes no more, Conflict where
    somebody else has the address by now."""
    token = require_token("confirm_email", text)
    async with work_of_its_own(request) as work:
        work.move_to(token.tenant_id)
        user, letter = await _user_of(work, "confirm_email", token)
        refuse_managed(user)
        (await rules_of(work.parts, work.tenant_id)).refuse_domain(letter.email, path="token")
        before, old_email = await _shown(work, user.id), user.email
        await _refuse_taken(work, user.id, letter.email)
        await _change(work, user, {"email": letter.email, "email_key": email_key(letter.email)})
        work.forget("user", user.id)
        after = await _shown(work, user.id)
        by: dict[str, Any] = {"actor_id": user.id, "actor_name": old_email}
        work.audit("auth.confirm_email", "user", user.id, before=before, after=after, **by)
        work.announce("user.updated", f"users/{user.id}", after)
        await notify(work, "email_changed", old_email, user.id, new_address=letter.email)


async def _user_of(work: UnitOfWork, kind: LetterKind, given: GivenToken) -> tuple[User, Letter]:
    """Whom a link is about, and its letter, both held; of several that come with it at once one is the first, and its
    change ends the letter. Raises BadRequest."""
    letter = await letter_of(work, kind, given)
    user = await _held_user(work, letter.user_id) if letter.user_id is not None else None
    letter = await letter_of(work, kind, given, is_held=True)
    if user is None or not user.is_active or not await is_tenant_active(work):
        raise BadRequest(code="link_not_valid")
    letter.ended_at = work.now
    return user, letter


async def _held_user(work: UnitOfWork, user_id: UUID) -> User | None:
    users = UserRepository(work.session, tenant_id=work.tenant_id)
    return await users.get_one_or_none(id=user_id, with_for_update=True)


async def _change(work: UnitOfWork, user: User, changes: dict[str, object]) -> None:
    """By themselves, whom nobody knows yet in this request."""
    work.apply(user, changes)
    user.updated_by = user.id
    await UserRepository(work.session, tenant_id=work.tenant_id).update(user)


async def _shown(work: UnitOfWork, user_id: UUID) -> UserOut:
    return await UserRepository(work.session).read(UserOut, id=user_id, tenant_id=work.tenant_id)


async def _refuse_taken(work: UnitOfWork, user_id: UUID, email: str) -> None:
    users = UserRepository(work.session, tenant_id=work.tenant_id)
    if await users.exists(User.id != user_id, email_key=email_key(email)):
        raise Conflict(code="email_taken", errors=[Fault("token", "email_taken", "is for an address that is taken")])
