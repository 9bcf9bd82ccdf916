"""The end of a sign-in in a browser: who it was is known, and the client hears of it by a one-time code."""

from app.domain.auth.sessions import Authenticated
from app.domain.sign_in.codes import issue_code
from app.domain.sign_in.pending import PendingSignIn
from app.domain.work import UnitOfWork


def finish(work: UnitOfWork, pending: PendingSignIn, who: Authenticated) -> str:
    """Where the browser goes now. `work` is in the user's tenant; `iss` says which server has answered (RFC 9207)."""
    return pending.ends_at(code=issue_code(work, pending, who), iss=work.parts.settings.url)
