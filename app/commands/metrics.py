"""The port for metrics (HUB_METRICS_PORT): opened first, so that one that is taken is told of before all else."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import socket

from app.commands.database import CommandFailed
from app.settings import Settings, variable

JOINED_WITHIN_S = 2.0


def listening_for_metrics(settings: Settings) -> socket | None:
    """None where none is wanted. Raises CommandFailed."""
    if settings.metrics_address is None:
        return None
    from app.core.metrics_port import listen

    host, port = settings.metrics_address
    try:
        return listen(host, port)
    except OSError as error:
        name = variable("metrics_port")
        raise CommandFailed(
            f"{name}: cannot listen on {host}:{port}: {error.strerror}. Another hub or worker of this machine needs "
            f"a port of its own."
        ) from None


@contextmanager
def answering_scrapes(listening: socket, database_url: str, settings: Settings) -> Iterator[None]:
    """In a thread with a loop of its own, for all of the hub's processes: they share their metrics in a folder."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=_answer, args=(loop, listening, database_url, settings), name="metrics", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join(JOINED_WITHIN_S)


def _answer(loop: asyncio.AbstractEventLoop, listening: socket, database_url: str, settings: Settings) -> None:
    from app.domain.health.gauges import answer_scrapes

    with suppress(asyncio.CancelledError):
        loop.run_until_complete(answer_scrapes(listening, database_url, settings))
    loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
