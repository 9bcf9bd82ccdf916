"""How much somebody may ask for in how long, and where they stand: what `RateLimit` and `RateLimit-Policy` say.

The fields are those of draft-ietf-httpapi-ratelimit-headers (revision 12 of November 2026; their form is that of 08).
"""

from math import ceil
from typing import Literal

from msgspec import Struct

PolicyName = Literal["principal", "directory", "address", "login-address", "login-account", "recipient"]
"""Whose quota it is. A directory tells of all users at once when it begins, and has ten times what a principal has.
`login-address` and `login-account` count sign-ins: by where they come from, and by whom they are said to be.
`recipient` counts letters, by whose mailbox they go to."""

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class Rate(Struct, frozen=True):
    quota: int
    """In units: a read takes one (`core.limits.prices`)."""
    window_s: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """`600/minute`, as the settings have checked it."""
        quota, _, window = text.partition("/")
        return cls(int(quota), SECONDS[window])


class Policy:
    def __init__(self, name: PolicyName, rate: Rate) -> None:
        self.name = name
        self.rate = rate
        self.quoted = f'"{name}"'
        self.header = (b"ratelimit-policy", f"{self.quoted};q={rate.quota};w={rate.window_s}".encode())


class Standing(Struct, frozen=True, gc=False):
    """What a request found of its quota."""

    policy: Policy
    remaining: int
    resets_in_s: float
    """Until there is more of it again; of a request that is refused: until there is enough for it."""
    is_admitted: bool = True

    @property
    def retry_after_s(self) -> int:
        return ceil(self.resets_in_s) or 1

    def header(self, *, with_reset: bool = True) -> tuple[bytes, bytes]:
        if not with_reset:
            return b"ratelimit", f"{self.policy.quoted};r={self.remaining}".encode()
        return b"ratelimit", f"{self.policy.quoted};r={self.remaining};t={self.retry_after_s}".encode()
