"""What whoever publishes something elsewhere is told."""

from typing import Final, Literal

from msgspec import Struct


class DestinationAway(Exception):
    """There is no connection. The text says why, and what can be done where that is known."""


class Confirmation(Struct, frozen=True):
    outcome: Literal["taken", "refused", "unsendable", "unknown"]
    """`unsendable` is what was not even tried, `unknown` what the connection broke over."""
    reason: str = ""


TAKEN: Final = Confirmation("taken")
