"""The rules about invitations: nobody gives more by one than they hold, when they write it and when it is accepted."""

import asyncio
from copy import copy
from time import monotonic
from typing import Any, Final
from uuid import UUID

from msgspec.structs import asdict
from sqlalchemy import delete, select, text
from uuid_utils.compat import uuid7

from app.core.errors import BadRequest, Conflict, Fault, HubError, TooManyRequests
from app.core.opaque_tokens import GivenToken
from app.core.schemas import single_spaced
from app.core.security import Principal
from app.domain.assignments.kinds import SUBJECTS
from app.domain.assignments.services import AssignmentService
from app.domain.auth.rights import lasting_rights
from app.domain.invitations.models import Invitation
from app.domain.invitations.repositories import InvitationRepository
from app.domain.invitations.schemas import AcceptInvitation, InvitationCreate, InvitationOut, InvitationSent
from app.domain.letters.services import (
    LIVES,
    are_enough,
    is_tenant_active,
    letter_of,
    link_of,
    require_token,
    write_letter,
)
from app.domain.requests import HubRequest
from app.domain.roles.built_in import public_role_id
from app.domain.users.identity import checked_email, email_key
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import UserCreate, UserOut
from app.domain.users.services import UserService
from app.domain.work import UnitOfWork, work_of_its_own

TO_INVITE: Final = "users:write"
RESEND_AFTER_S: Final = 600
REFUSED_AFTER_S: Final = 0.05
"""Several times what it takes to find out that whoever invited may not any more, for which most is asked: from the time
that it took, nobody learns why a link is worth nothing."""
_NO_SYNC: Final = {"synchronize_session": False}


class InvitationService:
    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._invitations = InvitationRepository(work.session, tenant_id=work.tenant_id)

    async def invite(self, new: InvitationCreate) -> InvitationSent:
        """Raises Conflict for an address that is taken or invited already, BadRequest for roles that are not there,
        Forbidden for those that bring more than the actor holds, TooManyRequests for an address that has got enough
        invitations of this tenant, withdrawn ones among them."""
        role_ids = await self._givable(new.role_ids)
        return await self._write(new, role_ids, self._work.actor.type)

    async def invite_first_admin(self, email: str, role_id: UUID) -> InvitationSent:
        """By the hub itself, of a tenant that was made in this transaction."""
        return await self._write(InvitationCreate(email=email), [role_id], None)

    async def withdraw(self, invitation_id: UUID) -> None:
        """Its link is worth nothing any more."""
        await self._held(invitation_id)
        before = await self._shown(invitation_id)
        self._work.require_match(before.entity_tag())
        await self._invitations.delete(invitation_id)
        self._work.audit("invitation.delete", "invitation", invitation_id, before=before)
        self._work.announce("invitation.deleted", f"invitations/{invitation_id}", {"id": str(invitation_id)})

    async def send_again(self, invitation_id: UUID) -> InvitationSent:
        """For seven days from now; the link of before is worth nothing any more. By whoever may give what it gives,
        who invites from now on. Raises as `invite`."""
        invitation = await self._held(invitation_id)
        before = await self._shown(invitation_id)
        if await are_enough(self._work, "invitation", invitation_id=invitation_id):
            raise TooManyRequests(code="rate_limited", retry_after_s=RESEND_AFTER_S)
        await self._refuse_taken(invitation.email_key)
        changes = {
            "role_ids": await self._givable(invitation.role_ids, leaving_out_gone=True),
            "inviter_type": self._work.actor.type,
            "created_by": self._work.actor_id,
            "expires_at": self._work.now + LIVES["invitation"],
        }
        self._work.apply(invitation, changes)
        await self._invitations.update(invitation)
        link = await self._send(invitation)
        after = await self._shown(invitation_id)
        self._work.audit("invitation.resend", "invitation", invitation_id, before=before, after=after)
        self._work.announce("invitation.updated", f"invitations/{invitation_id}", after)
        return InvitationSent(**asdict(after), link=link)

    async def _write(self, new: InvitationCreate, role_ids: list[UUID], inviter_type: str | None) -> InvitationSent:
        email = checked_email(new.email)
        await self._refuse_taken(email_key(email))
        await self._make_room(email_key(email))
        invitation = Invitation(
            id=uuid7(),
            **self._work.stamp(),
            email=email,
            email_key=email_key(email),
            first_name=single_spaced(new.first_name),
            last_name=single_spaced(new.last_name),
            role_ids=role_ids,
            inviter_type=inviter_type,
            expires_at=self._work.now + LIVES["invitation"],
        )
        await self._invitations.add(invitation)
        link = await self._send(invitation)
        after = await self._shown(invitation.id)
        self._work.audit("invitation.create", "invitation", invitation.id, after=after)
        self._work.announce("invitation.created", f"invitations/{invitation.id}", after)
        return InvitationSent(**asdict(after), link=link)

    async def _send(self, invitation: Invitation) -> str | None:
        """By mail; the link where the hub sends none, for the hand of whoever invites, who could as well have made the
        user with a password of their choice."""
        is_shown = self._work.parts.settings.smtp_url is None
        inviter = self._work.principal.name if self._work.principal is not None else "The hub's operator"
        letter = await write_letter(
            self._work,
            "invitation",
            invitation.email,
            invitation_id=invitation.id,
            words={"inviter": inviter},
            is_shown=is_shown,
        )
        return link_of(self._work, letter) if is_shown else None

    async def _refuse_taken(self, key: str) -> None:
        """Raises Conflict, as making a user with that address does: whoever invites may list users."""
        if await UserRepository(self._work.session, tenant_id=self._work.tenant_id).exists(email_key=key):
            fault = Fault("email", "email_taken", "is taken")
            raise Conflict(code="email_taken", errors=[fault])

    async def _make_room(self, key: str) -> None:
        """An invitation that has expired is in nobody's way."""
        is_over = (Invitation.tenant_id == self._work.tenant_id, Invitation.email_key == key)
        gone = delete(Invitation).where(*is_over, Invitation.expires_at <= self._work.now)
        await self._work.session.execute(gone, execution_options=_NO_SYNC)

    async def _givable(self, role_ids: list[UUID], *, leaving_out_gone: bool = False) -> list[UUID]:
        """Without `public`, which everyone holds. Raises as `invite`."""
        wanted = [each for each in dict.fromkeys(role_ids) if each != public_role_id(self._work.tenant_id)]
        assignments, givable = AssignmentService(self._work), []
        for place, role_id in enumerate(wanted):
            try:
                await assignments.require_givable(role_id)
            except BadRequest:
                if leaving_out_gone:
                    continue
                fault = Fault(f"role_ids[{place}]", "unknown_role", "is not a role")
                raise BadRequest(errors=[fault]) from None
            givable.append(role_id)
        return givable

    async def _held(self, invitation_id: UUID) -> Invitation:
        return await self._invitations.get_one(id=invitation_id, with_for_update=True)

    async def _shown(self, invitation_id: UUID) -> InvitationOut:
        return await self._invitations.read(InvitationOut, id=invitation_id, tenant_id=self._work.tenant_id)


async def accept_invitation(request: HubRequest, given: AcceptInvitation) -> UserOut:
    """The user that comes of it, with those of its roles that are still there and that whoever invited may still give.

    Raises BadRequest for a link that is worth nothing, as it is once whoever invited is gone or may not invite any
    more; Conflict where somebody has the address by now.
    """
    token = require_token("invitation", given.token)
    began = monotonic()
    try:
        return await _accepted(request, given, token)
    except BadRequest as refusal:
        if refusal.code == "link_not_valid":
            await asyncio.sleep(began + REFUSED_AFTER_S - monotonic())
        raise


async def _accepted(request: HubRequest, given: AcceptInvitation, token: GivenToken) -> UserOut:
    async with work_of_its_own(request) as work:
        work.move_to(token.tenant_id)
        invitations = InvitationRepository(work.session, tenant_id=work.tenant_id)
        letter = await letter_of(work, "invitation", token)
        invitation = await invitations.get_one_or_none(id=letter.invitation_id, with_for_update=True)
        if invitation is None or not await is_tenant_active(work):
            raise BadRequest(code="link_not_valid")
        await letter_of(work, "invitation", token, is_held=True)
        roles = await _still_givable(work, invitation)
        new = UserCreate(
            email=invitation.email,
            password=given.password,
            first_name=invitation.first_name if given.first_name is None else given.first_name,
            last_name=invitation.last_name if given.last_name is None else given.last_name,
        )
        inviter_id = invitation.created_by
        user = await UserService(work).create(new, roles=roles, is_registration=True, given_by=inviter_id)
        await invitations.delete(invitation.id)
        accepted = {"user_id": user.id, "role_ids": roles, "left_out": sorted(set(invitation.role_ids) - set(roles))}
        by: dict[str, Any] = {"actor_id": user.id, "actor_name": user.email}
        work.audit("invitation.accept", "invitation", invitation.id, after=accepted, **by)
        work.announce("invitation.accepted", f"invitations/{invitation.id}", {"id": invitation.id, "user_id": user.id})
    return user


async def _still_givable(work: UnitOfWork, invitation: Invitation) -> list[UUID]:
    """Raises BadRequest where whoever invited may not any more."""
    if invitation.inviter_type is None:
        return await _there(work, invitation.role_ids)
    as_inviter = copy(work)
    as_inviter.principal = await _inviter(work, invitation)
    givable = []
    for role_id in invitation.role_ids:
        try:
            await AssignmentService(as_inviter).require_givable(role_id)
        except HubError:
            continue
        givable.append(role_id)
    return givable


async def _inviter(work: UnitOfWork, invitation: Invitation) -> Principal:
    """With what they hold at this moment."""
    inviter_id, kind = invitation.created_by, invitation.inviter_type
    assert inviter_id is not None
    who: dict[str, Any] = {"id": inviter_id, "type": kind, "tenant_id": work.tenant_id, "session_id": None, "name": ""}
    nothing: dict[str, Any] = {"role_ids": frozenset(), "permissions": frozenset()}
    rights = await lasting_rights(work.session, Principal(**who, **nothing), work.now)
    of_kind = SUBJECTS[str(kind)]
    is_it = (of_kind.id == inviter_id, of_kind.tenant_id == work.tenant_id)
    if not await work.session.scalar(select(of_kind.is_active).where(*is_it)) or TO_INVITE not in rights.permissions:
        raise BadRequest(code="link_not_valid")
    return Principal(**who, role_ids=frozenset(), permissions=rights.permissions, extents=rights.extents)


async def _there(work: UnitOfWork, role_ids: list[UUID]) -> list[UUID]:
    found = set(await work.session.scalars(text("SELECT id FROM roles WHERE id = ANY (:ids)"), {"ids": role_ids}))
    return [role_id for role_id in role_ids if role_id in found]
