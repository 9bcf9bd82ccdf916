"""Forgotten passwords and new email addresses on the wire."""

from typing import Annotated

from msgspec import Meta

from app.core.schemas import Input
from app.domain.auth.schemas import GivenPassword, TenantSlug
from app.domain.letters.schemas import LinkToken
from app.domain.users.identity import is_email
from app.domain.users.schemas import Email, Password


class ForgotPassword(Input):
    email: Annotated[str, Meta(max_length=320, examples=["ada@example.org"])]
    tenant: TenantSlug | None = None
    """As at sign-in: without one the host of the request says which, or the address, where one tenant alone has
    somebody of it."""


class ResetPassword(Input):
    token: LinkToken
    new_password: Password


class ChangeEmail(Input):
    rules = {"new_email": is_email}

    new_email: Email
    current_password: GivenPassword


class ConfirmEmail(Input):
    token: LinkToken
