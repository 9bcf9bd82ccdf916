"""What these pages show, put together of the pieces of the sign-in pages."""

from collections.abc import Mapping

from app.core.errors import HubError
from app.domain.requests import HubRequest
from app.domain.sign_in.forms import field, form, link, paragraph, problem
from app.domain.sign_in.rendering import NOTHING, Markup, together
from app.domain.sign_in.services import MOST_OF_ADDRESS, MOST_OF_PASSWORD, MOST_OF_SLUG
from app.domain.sign_in.texts import TEXTS
from app.domain.sign_in.views import told
from app.domain.sign_in.ways import Page

MOST_OF_NAME = 100
DEAD = "link_not_valid"


def forgotten_page(
    request: HubRequest, sealed: str, email: str, *, asks_for_tenant: bool, wrong: HubError | None
) -> Page:
    if request.parts.settings.smtp_url is None:
        parts = [paragraph(TEXTS["no_mail"]), _back(request, sealed)]
        return Page(heading=TEXTS["forgotten_title"], body=together(parts))
    fields = [
        field(
            "email",
            TEXTS["email"],
            kind="email",
            value="" if wrong else email,
            autocomplete="username",
            most=MOST_OF_ADDRESS,
            has_focus=wrong is None,
            is_wrong=wrong is not None,
        )
    ]
    if asks_for_tenant:
        hint = TEXTS["organisation_hint"]
        fields.append(
            field(
                "tenant",
                TEXTS["organisation"],
                autocomplete="organization",
                hint=hint,
                most=MOST_OF_SLUG,
                is_needed=False,
            )
        )
    body = form(_at(request, "forgotten"), fields, TEXTS["forgotten_button"], {"request": sealed})
    parts = [_said(wrong), paragraph(TEXTS["forgotten"]), body, _back(request, sealed)]
    return Page(heading=TEXTS["forgotten_title"], body=together(parts), is_wrong=wrong is not None)


def letter_on_its_way(request: HubRequest, sealed: str) -> Page:
    """The same for everybody."""
    parts = [paragraph(TEXTS["on_its_way"]), paragraph(TEXTS["look_for_letter"]), _back(request, sealed)]
    return Page(heading=TEXTS["on_its_way_title"], body=together(parts))


def reset_page(request: HubRequest, token: str, wrong: HubError | None = None) -> Page:
    if wrong is not None and wrong.code == DEAD:
        return _dead_link(wrong, link(TEXTS["forgotten_again"], _at(request, "forgotten")))
    fields = [_new_password(request, wrong)]
    body = form(_at(request, "reset"), fields, TEXTS["reset_button"], {"token": token})
    return Page(heading=TEXTS["reset_title"], body=together([_said(wrong), body]), is_wrong=wrong is not None)


def invitation_page(request: HubRequest, given: Mapping[str, str], wrong: HubError | None = None) -> Page:
    if wrong is not None and wrong.code == DEAD:
        return _dead_link(wrong)
    names = [
        field(
            name,
            TEXTS[name],
            value=given.get(name, "") if len(given.get(name, "")) <= MOST_OF_NAME else "",
            autocomplete=autocomplete,
            most=MOST_OF_NAME,
            is_needed=False,
        )
        for name, autocomplete in (("first_name", "given-name"), ("last_name", "family-name"))
    ]
    fields = [*names, _new_password(request, wrong)]
    body = form(_at(request, "invitation"), fields, TEXTS["invitation_button"], {"token": given["token"]})
    parts = [_said(wrong), paragraph(TEXTS["invitation"]), body]
    return Page(heading=TEXTS["invitation_title"], body=together(parts), is_wrong=wrong is not None)


def email_page(request: HubRequest, token: str, wrong: HubError | None = None) -> Page:
    if wrong is not None and wrong.code == DEAD:
        return _dead_link(wrong)
    body = form(_at(request, "email"), [], TEXTS["email_button"], {"token": token})
    parts = [_said(wrong), paragraph(TEXTS["email_confirmed_by"]), body]
    return Page(heading=TEXTS["email_title"], body=together(parts), is_wrong=wrong is not None)


def _dead_link(wrong: HubError, way_on: Markup = NOTHING) -> Page:
    """In place of a form that can no longer be sent."""
    return Page(heading=TEXTS["dead_link_title"], body=together([paragraph(told(wrong)), way_on]), is_wrong=True)


def done_page(request: HubRequest, what: str) -> Page:
    parts = [paragraph(TEXTS[what]), link(TEXTS["start_link"], f"{request.exchange.base_path}/docs")]
    return Page(heading=TEXTS[f"{what}_title"], body=together(parts))


def _new_password(request: HubRequest, wrong: HubError | None) -> Markup:
    return field(
        "password",
        TEXTS["new_password"],
        kind="password",
        autocomplete="new-password",
        hint=TEXTS["password_hint"].format(request.parts.settings.password_min_length),
        most=MOST_OF_PASSWORD,
        has_focus=wrong is None,
        is_wrong=wrong is not None,
    )


def _said(wrong: HubError | None) -> Markup:
    """With what is wrong with a password in particular."""
    if wrong is None:
        return NOTHING
    reasons = [fault.message for fault in wrong.errors if fault.code == "weak_password"]
    return problem(" ".join([told(wrong), *reasons]))


def _at(request: HubRequest, page: str) -> str:
    return f"{request.exchange.base_path}/sign-in/{page}"


def _back(request: HubRequest, sealed: str) -> Markup:
    """To the sign-in from which somebody came."""
    if not sealed:
        return NOTHING
    return link(TEXTS["back_to_sign_in"], f"{request.exchange.base_path}/sign-in?request={sealed}")
