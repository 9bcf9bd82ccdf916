"""The connections of changes: SQLAlchemy's pool, with places that no kind of change has all of (`core.places`)."""

from contextvars import ContextVar
from typing import Any

from sqlalchemy.exc import TimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only

from app.core.errors import Unavailable
from app.core.places import Places

KIND_OF_CHANGE: ContextVar[str | None] = ContextVar("kind_of_change", default=None)
"""Of the running task. Where it is not set, whatever is free may be taken."""
_KIND = "kind_of_change"


class ChangePool(AsyncAdaptedQueuePool):
    """Who waits for a connection waits for a place here; behind it there is always one, or room to open one."""

    _sqla_logger_namespace = "sqlalchemy.pool.ChangePool"  # beside the library's own, which are as quiet as it is

    def __init__(self, creator: Any, *, pool_size: int, timeout: float, places: Places | None = None, **options: Any):
        super().__init__(creator, pool_size=pool_size, timeout=timeout, **options)
        self.places = places or Places(pool_size, wait_s=timeout)

    def _do_get(self) -> ConnectionPoolEntry:
        kind = KIND_OF_CHANGE.get()
        if not self.places.try_take(kind):
            self._wait(kind)
        try:
            entry = super()._do_get()
        except BaseException:
            self.places.give_back(kind)
            raise
        entry.record_info[_KIND] = kind  # type: ignore[index]  # a dictionary wherever there is an entry
        return entry

    def _wait(self, kind: str | None) -> None:
        try:
            await_only(self.places.wait(kind))
        except Unavailable as error:
            raise TimeoutError(error.detail) from None  # what the pool's users know

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        self.places.give_back(record.record_info.pop(_KIND))  # type: ignore[union-attr]
