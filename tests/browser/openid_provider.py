"""npm's `oidc-provider` in a process of its own: an OpenID provider that others have made."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import npm
from tests.connectors.servers.starting import program, wait_for_port
from tests.ports import free_port

SOURCES = Path(__file__).parent / "openid"
CLIENT_SECRET = "a secret of the browser tests"


class OpenIdProvider:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._accounts = folder / "accounts.json"
        self._process: subprocess.Popen[bytes] | None = None
        self.knows()

    def knows(self, **claims: dict[str, Any]) -> None:
        """What it says of each account, by its name, beside an address at example.org."""
        self._accounts.write_text(json.dumps(claims), encoding="utf-8")

    def start(self, hub: str, key: str) -> None:
        """With a key of this name, made now, and none of the sessions that it had."""
        at = f"{hub}/api/v1/auth/oidc/corp"
        command = [program("node"), "provider.js", str(self.port), f"{at}/callback", f"{at}/backchannel-logout"]
        with (self._folder / "provider.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self._accounts), key], cwd=self._folder, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@contextmanager
def installed_provider(folder: Path) -> Iterator[OpenIdProvider]:
    """It is not started yet."""
    npm.install(SOURCES, folder)
    provider = OpenIdProvider(folder)
    try:
        yield provider
    finally:
        provider.stop()
