"""What `hub check` has found out, one by one."""

from typing import Literal

from msgspec import Struct

Verdict = Literal["right", "wrong", "note"]


class Finding(Struct, frozen=True):
    verdict: Verdict
    subject: str
    sentence: str
