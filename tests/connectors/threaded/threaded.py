"""It passes, and says how many threads its process has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from app.connectors.contract.base import Connector
from app.connectors.contract.config import ConnectorConfig, NoSecrets
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps


class ThreadedConfig(ConnectorConfig, frozen=True, kw_only=True):
    pass


class Threaded(Connector[ThreadedConfig, NoSecrets]):
    type = "threaded"
    label = "Threaded"
    category = "database"
    description = "Starts a thread on import."
    config_type = ThreadedConfig
    secrets_type = NoSecrets
    warm_modules = ("tests.connectors.threaded.driver",)

    async def check(self, steps: Steps) -> None:
        with steps.step("resolve", "fine"):
            steps.server["threads"] = str(len(os.listdir("/proc/self/task")))

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        yield []

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        return PreviewResult((), [], False, 0.0)
