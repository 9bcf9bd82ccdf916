"""One type; its config says in which way it goes wrong, after two steps that went well."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator

from app.connectors.base import (
    Connector,
    ConnectorConfig,
    ConnectorSecrets,
    DiscoveredField,
    DiscoveredObject,
    PreviewRequest,
    PreviewResult,
    Steps,
)


class MisbehavingConfig(ConnectorConfig, frozen=True, kw_only=True):
    way: str
    target: str = ""


class MisbehavingSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: str | None = None


class Misbehaving(Connector[MisbehavingConfig, MisbehavingSecrets]):
    type = "misbehaving"
    label = "Misbehaving"
    category = "database"
    description = "Goes wrong on purpose."
    config_type = MisbehavingConfig
    secrets_type = MisbehavingSecrets
    destination_fields = frozenset({"target"})

    async def check(self, steps: Steps) -> None:
        with steps.step("resolve", "fine"):
            pass
        with steps.step("connect", "fine"):
            pass
        with steps.step("authenticate", "fine"):
            self._go_wrong()
        with steps.step("list", "fine"):
            pass

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        field = DiscoveredField("x", "string", "text", True, 1)
        for number in range(3):
            yield [DiscoveredObject.at((str(number),), "table", (field,))]
        self._go_wrong()
        while self.config.way == "endless":
            yield [DiscoveredObject.at(("again",), "table", (field,))]
            await asyncio.sleep(0.01)

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        self._go_wrong()
        return PreviewResult((), [], False, 0.0)

    def _go_wrong(self) -> None:
        way = self.config.way
        if way == "hang":
            time.sleep(3600)
        elif way == "segv":
            os.kill(os.getpid(), 11)
        elif way == "eat":
            bytearray(4 * 1024**3)
        elif way == "eat_slowly":
            _ = [bytearray(16 * 1024**2) for _ in range(256)]
        elif way == "exit":
            os._exit(3)
        elif way == "raise":
            raise RuntimeError(f"dsn with {self.secrets.password}")
        elif way == "chatter":
            print(f"password {self.secrets.password}")
            os.write(1, b"\xff" * 100)
            print("x" * 1_000_000, file=sys.stderr)
        else:
            self._reach_out(way)

    def _reach_out(self, way: str) -> None:
        """What drivers might do behind the policy's back."""
        if way == "dial":
            socket.create_connection(("127.0.0.1", int(self.config.target)), 1)
        elif way == "unix":
            socket.socket(socket.AF_UNIX).connect(self.config.target)
        elif way == "look_up":
            socket.getaddrinfo("localhost", 80)
        elif way == "spawn":
            subprocess.run(["/bin/true"], check=True)
        elif way == "environment":
            found = sorted(name for name in os.environ if name.startswith(("HUB_", "PG", "AWS_", "PYTHONPATH")))
            if found or os.getcwd() != "/":
                raise AssertionError(found)
