"""From what somebody says of a source to its row: the one place for sources that are new, changed, or one of many."""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta

from uuid_utils.compat import uuid7

from app.connectors.registry import AnyConnector
from app.core.lookalikes import plainly_written
from app.core.rows import Columns, Normaliser, complete
from app.core.schemas import named
from app.domain.sources.configs import columns_of_config
from app.domain.sources.discovery_times import first_discovery
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import DataSourceBase, DataSourceOut, DataSourcePatch, NewDataSource, Value
from app.domain.sources.secrets.states import states_after
from app.domain.work import UnitOfWork

SPREAD_OF_FIRST_TESTS = timedelta(minutes=1)


def _tagged(tags: list[str]) -> dict[str, object]:
    """In the order given, each once, and as people read it: what looks the same is the same."""
    return {"tags": list(dict.fromkeys(written for tag in tags if (written := plainly_written(tag))))}


COLUMNS = Normaliser(
    DataSourceBase,
    DataSourcePatch,
    DataSource,
    DataSourceOut,
    rules={"name": named, "tags": _tagged},
    apart={"config": "read by its type, `columns_of_config`", "secrets": "have a table of their own"},
)


def columns_of_new_source(
    work: UnitOfWork, connector: AnyConnector, new: NewDataSource, secrets: Mapping[str, Value]
) -> Columns:
    """All of the row, defaults included."""
    said = work.stamp() | COLUMNS.columns_of_new(new) | columns_of_config(connector, new.config)
    said |= {"id": uuid7(), "type": connector.type, "category": connector.category}
    said["secret_states"] = states_after(work, {}, secrets)
    said["next_test_at"] = first_test(work.now, new.test_interval_s)
    said["next_discovery_at"] = first_discovery(work.now, new.discover_schedule, new.discover_time_zone)
    return complete(DataSource, said)


def first_test(now: datetime, interval_s: int | None) -> datetime | None:
    """When the hub tests a source first: soon, and not all that were registered together in the same moment."""
    if interval_s is None:
        return None
    return now + random.random() * min(SPREAD_OF_FIRST_TESTS, timedelta(seconds=interval_s))  # noqa: S311 - no secret
