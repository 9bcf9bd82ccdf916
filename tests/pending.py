"""A sign-in that a client has asked for, as `/auth/authorize` seals it for the browser in which it began."""

import time
from typing import Any

from app.core.sealed_values import seal
from app.core.sealing import KeyRing
from app.domain.sign_in.pending import PENDING, PendingSignIn, digest_of

CLIENT = "https://client.example.org/signed-in"


def pending(browser: str, **given: Any) -> PendingSignIn:
    """In the browser with this cookie, and good for half an hour, but for what is given."""
    usual = {"client_id": None, "redirect_uri": CLIENT, "state": "s", "code_challenge": "x" * 43}
    return PendingSignIn(browser=digest_of(browser), **{"expires_at": int(time.time()) + 1800, **usual, **given})


def sealed(ring: KeyRing, browser: str, **given: Any) -> str:
    """What the sign-in page is told by its address and its form: `request`."""
    return seal(ring, PENDING, pending(browser, **given))
