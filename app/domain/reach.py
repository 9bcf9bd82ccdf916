"""Nobody changes, or acts as, who may do more than they: it would be a way up."""

from uuid import UUID

from app.core.errors import Forbidden
from app.core.security import PrincipalType
from app.domain.auth.rights import Rights, rights_of_account, rights_of_user
from app.domain.work import UnitOfWork


async def require_reach(work: UnitOfWork, subject_type: PrincipalType, subject_id: UUID, sentence: str) -> None:
    """Raises Forbidden, saying so, where the subject may do anything that the actor may not, anywhere: now, or from a
    moment on that has not come yet, since whoever has their password or key by then acts as they do."""
    find = rights_of_user if subject_type == "user" else rights_of_account
    actor, theirs = work.actor, await find(work.session, subject_id, work.tenant_id)
    if not Rights(actor.permissions, actor.extents).includes(theirs):
        raise Forbidden(sentence, code="exceeds_own_permissions")
