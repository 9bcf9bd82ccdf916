"""Second factors on the sign-in page: the step after the password, and the page of passkeys."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import select

from app.core.errors import BadRequest, Unauthenticated
from app.core.sealed_values import seal
from app.domain.auth.sessions import Authenticated
from app.domain.factors import passkeys
from app.domain.factors.challenges import Challenge, opened
from app.domain.factors.checking import Given
from app.domain.factors.repositories import ids_of_passkeys
from app.domain.factors.schemas import Credential
from app.domain.factors.signing_in import with_factor
from app.domain.requests import HubRequest
from app.domain.sign_in import forms
from app.domain.sign_in.page_routes import text_of
from app.domain.sign_in.pending import PENDING, PendingSignIn
from app.domain.sign_in.rendering import NOTHING, Markup, fill, together
from app.domain.sign_in.texts import TEXTS
from app.domain.sign_in.ways import HalfSignedIn, Page, Then
from app.domain.users.models import User
from app.domain.work import UnitOfWork

SCRIPT = "passkey.js"
MOST_OF_CODE = 64
DIGITS_OF_TOTP = 6


class FactorStep:
    """After a password, of who has set up a second factor. Identity providers ask for theirs themselves."""

    name = "factor"

    async def is_needed(self, work: UnitOfWork, pending: PendingSignIn, who: Authenticated) -> bool:
        if "mfa" in who.amr or "pwd" not in who.amr:
            return False
        return bool(await work.session.scalar(select(User.factors).where(User.id == who.user_id)))

    async def page(
        self, request: HubRequest, half: HalfSignedIn, action: str, kept: Mapping[str, str], problem: str | None
    ) -> Page:
        is_wrong = problem is not None
        async with request.parts.sessions(half.tenant_id) as session:
            user = await session.scalar(select(User).where(User.id == half.who.user_id))
            known = await ids_of_passkeys(session, half.who.user_id)
        if user is None or user.version != half.version:  # such as by a new password: the old one was shown
            raise Unauthenticated(code="invalid_mfa_token")
        challenge = Challenge(user_id=user.id, tenant_id=half.tenant_id, version=user.version, amr=tuple(half.who.amr))
        code = forms.field(
            "code",
            TEXTS["factor_code"],
            autocomplete="one-time-code",
            hint=TEXTS["factor_hint" if "totp" in user.factors else "factor_only_passkey"],
            most=MOST_OF_CODE,
            is_wrong=is_wrong,
            has_focus=not is_wrong,
        )
        fields = [code, passkey_button(request, challenge, known) if known else NOTHING]
        hidden = {**kept, "mfa_token": challenge.sealed(request.parts.key_ring, "mfa")}
        said = NOTHING if problem is None else forms.problem(problem)
        anew = seal(request.parts.key_ring, PENDING, half.pending)
        body = together(
            [
                said,
                forms.paragraph(f"{TEXTS['factor_signed_in_as']} {user.email}"),
                forms.form(action, fields, TEXTS["go_on"], hidden),
                forms.link(TEXTS["factor_begin_anew"], f"{request.exchange.base_path}/sign-in?request={anew}"),
            ]
        )
        script = SCRIPT if known else None
        return Page(heading=TEXTS["factor_title"], body=body, script=script, is_wrong=is_wrong)

    async def take(self, request: HubRequest, half: HalfSignedIn, form: Mapping[str, Any], then: Then) -> str:
        challenge = opened(request.parts.key_ring, "mfa", text_of(form, "mfa_token"))
        if challenge is None or challenge.user_id != half.who.user_id:
            raise Unauthenticated(code="invalid_mfa_token")

        async def go_on(work: UnitOfWork, who: Authenticated) -> str:
            return await then(work, structs.replace(half.who, amr=who.amr))

        return await with_factor(request, challenge, _given(form), go_on)


def _given(form: Mapping[str, Any]) -> Given:
    """A recovery code is told by its length, so that nobody has to say what they type."""
    if text_of(form, "credential"):
        return Given("webauthn", credential=credential_of(form))
    code = text_of(form, "code").strip()[:MOST_OF_CODE]
    digits = code.replace(" ", "")
    is_totp = len(digits) == DIGITS_OF_TOTP and digits.isdigit()
    return Given("totp" if is_totp else "recovery", code=code)


def credential_of(form: Mapping[str, Any]) -> Credential:
    """Raises BadRequest for what no script of ours has sent."""
    try:
        return msgspec.json.decode(text_of(form, "credential"), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest from None


def passkey_button(
    request: HubRequest, challenge: Challenge, known: list[bytes] | None, label: str = TEXTS["passkey_use"]
) -> Markup:
    """Shown by the script, which knows whether the browser can do it."""
    options = passkeys.request_options(request.parts.settings, challenge.challenge, known)
    return fill("passkey", options=msgspec.json.encode(options).decode(), label=label)


def passkey_page(request: HubRequest, sealed: str, problem: str | None) -> Page:
    """To sign in with a passkey and nothing else."""
    base, challenge = request.exchange.base_path, Challenge()
    token = challenge.sealed(request.parts.key_ring, "passkey")
    fields = [
        forms.hidden("request", sealed),
        forms.hidden("token", token),
        passkey_button(request, challenge, None, TEXTS["passkey_sign_in"]),
    ]
    parts = [
        NOTHING if problem is None else forms.problem(problem),
        forms.paragraph(TEXTS["passkey_hint"]),
        fill("no_script", text=TEXTS["passkey_no_script"]),
        fill("bare_form", action=f"{base}/sign-in/passkey", fields=together(fields)),
        forms.link(TEXTS["passkey_back"], f"{base}/sign-in?request={sealed}"),
    ]
    is_wrong = problem is not None
    return Page(heading=TEXTS["passkey_title"], body=together(parts), script=SCRIPT, is_wrong=is_wrong)
