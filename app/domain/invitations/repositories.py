"""Which rows make an invitation on the wire, and which lists of invitations there are."""

from sqlalchemy import select

from app.core.database import Repository
from app.core.lists.listing import Listing, Sort
from app.domain.invitations.models import Invitation
from app.domain.invitations.schemas import InvitationOut
from app.domain.letters.models import Letter
from app.domain.users.identity import email_filter


class InvitationRepository(Repository[Invitation]):
    model_type = Invitation
    computed = {
        "letter": select(Letter.status)
        .where(Letter.invitation_id == Invitation.id, Letter.tenant_id == Invitation.tenant_id)
        .order_by(Letter.created_at.desc())
        .limit(1)
        .correlate(Invitation)
        .scalar_subquery()
    }


INVITATION = InvitationRepository.selection_by_id(InvitationOut)
INVITATIONS = Listing(
    InvitationRepository.selection(InvitationOut),
    name="invitations",
    id_column=Invitation.id,
    sorts={
        "created_at": Sort(Invitation.created_at, "invitations_tenant_id_created_at_id_idx"),
        "email": Sort(Invitation.email_key, "invitations_tenant_id_email_key_id_idx"),
    },
    default_sort="-created_at",
    filters={"email": email_filter(Invitation.email_key, index="invitations_tenant_id_email_key_id_idx")},
)
