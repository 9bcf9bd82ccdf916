"""Texts that are no UTF-8, for clients that encode what they are given."""

from __future__ import annotations

from typing import Any


class AnyBytes(str):
    """A byte for each character."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return super().encode("latin-1")
