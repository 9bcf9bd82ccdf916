"""What other slices bring to the sign-in page: further steps, buttons of identity providers, and links.

They are named where the routes are put together (`app.api.v1`): this slice imports none of those that build on it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from app.domain.auth.sessions import Authenticated
from app.domain.requests import HubRequest
from app.domain.sign_in.pending import PendingSignIn
from app.domain.sign_in.rendering import Markup
from app.domain.work import UnitOfWork

Then = Callable[[UnitOfWork, Authenticated], Awaitable[str]]
"""To be called in the transaction that takes a proof, in the user's tenant: where the browser goes next."""


class HalfSignedIn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody who has proven something, but not all that is asked of them. Kept by the browser, sealed."""

    pending: PendingSignIn
    tenant_id: UUID
    who: Authenticated
    version: int
    """Of the user, when they had proven it."""
    step: str
    """Which one comes now."""
    expires_at: int
    """In seconds since 1970; no later than the sign-in as a whole."""


class Page(Struct, frozen=True, kw_only=True):
    """What a step shows, inside of the frame that all pages have."""

    heading: str
    body: Markup
    """With a form that is sent to the address of the step; `kept` comes back with it."""
    script: str | None = None
    """Of `pages/assets`. Without one the page may run none."""
    is_wrong: bool = False
    """Whether it says what went wrong."""


class SignInStep(Protocol):
    """One more thing that somebody has to do before they are signed in."""

    @property
    def name(self) -> str:
        """Its place below `/sign-in/`."""

    async def is_needed(self, work: UnitOfWork, pending: PendingSignIn, who: Authenticated) -> bool:
        """Of this user, by what they have proven already (`who.amr`). Asked in their tenant."""

    async def page(
        self, request: HubRequest, half: HalfSignedIn, action: str, kept: Mapping[str, str], problem: str | None
    ) -> Page:
        """`action` and `kept` are for its form, `problem` what went wrong with what was sent."""

    async def take(self, request: HubRequest, half: HalfSignedIn, form: Mapping[str, Any], then: Then) -> str:
        """Check what was sent, in a transaction of its own, and in it call `then` with what is proven now. A field
        of the form that was sent twice is a list.

        Raises HubError for what does not do: BadRequest, Unauthenticated and TooManyRequests show the page once more.
        """


class ProviderLink(Struct, frozen=True):
    """A button."""

    name: str
    label: str
    """Such as `Sign in with Acme`."""
    login_url: str
    """Path or address; it carries the sealed sign-in along, so that the provider's answer can end it."""


ProvidersOf = Callable[[HubRequest, PendingSignIn, str], Awaitable[Sequence[ProviderLink]]]
"""Of the tenant that the sign-in or the host names; the text is the sealed sign-in."""


class PageLink(Struct, frozen=True):
    """Below the form; it carries the sealed sign-in along as `request`, so that the page can lead back."""

    text: str
    path: str
    """Of the hub, such as `/sign-in/forgotten`."""


async def no_providers(request: HubRequest, pending: PendingSignIn, sealed: str) -> Sequence[ProviderLink]:
    return ()


class Ways:
    def __init__(self) -> None:
        self.steps: dict[str, SignInStep] = {}
        """By name, in the order in which they are asked for."""
        self.providers_of: ProvidersOf = no_providers
        self.links: list[PageLink] = []

    def offer_step(self, step: SignInStep) -> None:
        self.steps[step.name] = step


WAYS = Ways()
