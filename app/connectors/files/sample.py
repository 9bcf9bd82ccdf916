"""How much of a text file is looked at: 256 KiB of what can be shown of it.

Of a long record only a part is ever shown, so only that part counts: a record of a megabyte costs reading a megabyte,
and hides nothing that stands behind it.
"""

from __future__ import annotations

from typing import Final

SAMPLE_BYTES: Final = 256 * 1024
_SHOWN_BYTES: Final = 64 * 1024
"""Of one record that count: as much as a preview shows of one value."""


class Sample:
    """Records that were found in a file's beginning, in characters of which one stands for a byte."""

    def __init__(self) -> None:
        self._counted = 0
        self._left_out = 0

    def add(self, size: int) -> None:
        self._counted += min(size, _SHOWN_BYTES)
        self._left_out += max(size - _SHOWN_BYTES, 0)

    @property
    def is_short(self) -> bool:
        """Whether long records took so much of the beginning that more of the file should be read."""
        return self._left_out > 0 and self._counted < SAMPLE_BYTES
