"""Invitations: written, sent again and withdrawn by who may make users, accepted by whoever has the link."""

from uuid import UUID

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import open_to_all, requires
from app.domain.idempotency.services import idempotent
from app.domain.invitations.repositories import INVITATION, INVITATIONS
from app.domain.invitations.schemas import AcceptInvitation, InvitationCreate, InvitationOut, InvitationSent
from app.domain.invitations.services import InvitationService, accept_invitation
from app.domain.requests import HubRequest
from app.domain.users.schemas import UserOut
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
INVITING = outcomes("already_invited", "email_taken", "exceeds_own_permissions")
ACCEPTING = outcomes("email_taken", "link_not_valid", "login_busy", "weak_password")


class InvitationController(Controller):
    path = "/users/invitations"
    tags = ["users"]

    @get("/", opt=requires("users:read", listing=INVITATIONS), summary="List invitations")
    async def list_invitations(self, request: HubRequest) -> Answer[Page[InvitationOut]]:
        """Those that wait to be accepted, and those that expired lately."""
        query, tenant_id = INVITATIONS.parse(request.query_string), request.principal.tenant_id
        return answer(
            request.exchange, await request.parts.reads.page(INVITATIONS, query, InvitationOut, tenant_id=tenant_id)
        )

    @get("/{invitation_id:uuid}", opt=requires("users:read"), summary="Get an invitation")
    async def get_invitation(self, request: HubRequest, invitation_id: FromPath[UUID]) -> Tagged[InvitationOut]:
        """One invitation, and how its letter gets on."""
        place = {"id": invitation_id, "tenant_id": request.principal.tenant_id}
        return entity(request.exchange, await request.parts.reads.one(INVITATION, InvitationOut, **place))

    @post("/", opt=requires("users:write") | INVITING, summary="Invite somebody")
    @idempotent
    async def create_invitation(
        self, request: HubRequest, work: Work, data: RequestBody[InvitationCreate]
    ) -> Tagged[InvitationSent]:
        """A letter goes to the address, with a link that works once, for seven days; whoever follows it chooses a
        password, and is a user then, with those of the roles that one may still give. Where the hub sends no mail the
        answer holds the link, this once."""
        sent = await InvitationService(work).invite(data)
        return created(request.exchange, sent, f"/api/v1/users/invitations/{sent.id}")

    @post(
        "/{invitation_id:uuid}/resend",
        opt=requires("users:write") | INVITING,
        status_code=200,
        summary="Send an invitation again",
    )
    @idempotent
    async def resend_invitation(
        self, request: HubRequest, work: Work, invitation_id: FromPath[UUID]
    ) -> Tagged[InvitationSent]:
        """With another link, for seven days from now; the one of before is worth nothing any more."""
        return entity(request.exchange, await InvitationService(work).send_again(invitation_id), changed=True)

    @delete("/{invitation_id:uuid}", opt=requires("users:write"), summary="Withdraw an invitation")
    async def delete_invitation(self, request: HubRequest, work: Work, invitation_id: FromPath[UUID]) -> Answer[None]:
        """Its link is worth nothing any more."""
        await InvitationService(work).withdraw(invitation_id)
        return no_content()


@post(
    "/auth/accept-invitation",
    opt=open_to_all() | ACCEPTING | costs("login"),
    tags=["auth"],
    summary="Accept an invitation",
)
async def accept(request: HubRequest, data: RequestBody[AcceptInvitation]) -> Tagged[UserOut]:
    """By the token in the link of a letter. From then on one signs in with the password."""
    user = await accept_invitation(request, data)
    return created(request.exchange, user, f"/api/v1/users/{user.id}")
