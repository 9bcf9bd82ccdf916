"""One-time passwords by the clock (RFC 6238): six digits, thirty seconds, as every authenticator app takes them."""

import hmac
from typing import Final

PERIOD_S: Final = 30
STEPS_AROUND: Final = (-1, 0, 1)
"""A clock may be half a minute off, and a code takes a moment to type (RFC 6238 section 5.2)."""


def new_secret() -> str:
    """160 random bits in base 32 (RFC 4226 section 4)."""
    import pyotp

    return pyotp.random_base32(32)


def otpauth_uri(secret: str, *, account: str, issuer: str) -> str:
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def step_of(secret: str, code: str, now: float) -> int | None:
    """The time step whose code it is, of those around now; None for any other. All are compared, whichever fits."""
    import pyotp

    otp, found = pyotp.TOTP(secret), None
    for step in (int(now) // PERIOD_S + around for around in STEPS_AROUND):
        if hmac.compare_digest(otp.generate_otp(step).encode(), code.encode()):
            found = step
    return found
