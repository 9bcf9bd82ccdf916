"""Answers that stay open: each holds a connection of a client, so there are limits."""

from collections import Counter
from functools import partial
from uuid import UUID

from app.core.errors import TooManyRequests, Unavailable
from app.core.exchange import Exchange

OF_ONE_PRINCIPAL = 20
OF_ONE_PROCESS = 250
RETRY_AFTER_S = 5


class OpenStreams:
    """Those of this process, by the id of whoever opened them."""

    def __init__(self) -> None:
        self._open: Counter[UUID] = Counter()

    @property
    def count(self) -> int:
        return self._open.total()

    def admit(self, exchange: Exchange) -> None:
        """Let the exchange go on for as long as it wants.

        Raises TooManyRequests where its principal has as many open already, Unavailable where all together have.
        """
        assert exchange.principal is not None
        holder = exchange.principal.id
        if self._open[holder] >= OF_ONE_PRINCIPAL:
            raise TooManyRequests(
                f"You have {OF_ONE_PRINCIPAL} streams open. Close one, then open another.",
                code="too_many_streams",
                retry_after_s=RETRY_AFTER_S,
            )
        if self.count >= OF_ONE_PROCESS:
            raise Unavailable(code="server_busy", retry_after_s=RETRY_AFTER_S)
        self._open[holder] += 1
        exchange.run_without_deadline(at_end=partial(self._release, holder))

    def _release(self, holder: UUID) -> None:
        self._open[holder] -= 1
        if not self._open[holder]:
            del self._open[holder]
