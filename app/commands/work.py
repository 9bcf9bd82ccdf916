"""`hub worker`."""

import asyncio
import os
import sys

from app.commands.database import CommandFailed, database, refuse_mighty_role
from app.commands.metrics import listening_for_metrics
from app.core import collector
from app.core.processes import HANDED_OVER, end_with_parent
from app.settings import Settings


def work(settings: Settings) -> int:
    """Beside `hub serve`, which answers for its metrics, on the database that was handed over; alone on the given or
    the embedded one."""
    url = os.environ.get(HANDED_OVER)
    if url:
        # Before the imports: they take a second, in which the parent may be killed.
        end_with_parent()
    with collector.at_rest():
        from app.commands.keys import refuse_replaced_keys
        from app.runtime import is_key_ring_missing
        from app.worker import run_worker

    if url:
        asyncio.run(run_worker(settings, url))
        return 0
    try:
        metrics = listening_for_metrics(settings)
        with database(settings) as target:
            refuse_mighty_role(settings, target)
            if is_key_ring_missing(settings):
                refuse_replaced_keys(settings, target.app_url)
            asyncio.run(run_worker(settings, target.app_url, metrics))
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0
