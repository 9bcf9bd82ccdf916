"""SFTP again, on asyncssh's server, which knows passwords, questions, and users who have to show two credentials."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.sftp_server import PASSWORD
from tests.connectors.servers.shop_bucket import OBJECTS, PREVIEWS, content
from tests.connectors.servers.starting import ROOT, private_folder, running, unprivileged
from tests.ports import free_port


@dataclass(frozen=True)
class AsyncsshServer:
    port: int
    fingerprint: str
    private_key: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return {"host": "localhost", "port": self.port, "username": "reader", "host_key": self.fingerprint}

    def attempts(self, username: str) -> list[str]:
        """What was tried by this user so far."""
        lines = (line.split() for line in (self.folder / "attempts").read_text().splitlines())
        return [what for who, what in lines if who == username]


@contextmanager
def asyncssh_server() -> Iterator[AsyncsshServer]:
    import asyncssh

    with private_folder() as folder:
        host_key, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        host_key.write_private_key(str(folder / "host_key"))
        user.write_public_key(str(folder / "user.pub"))
        (folder / "attempts").touch()
        for key, body in content().items():
            (folder / "files" / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / "files" / key).write_bytes(body)
        who = unprivileged()
        for path in [folder, *folder.rglob("*")] if who else []:
            os.chown(path, who["user"], who["group"])
        port = free_port()
        command = [sys.executable, "-m", "tests.connectors.servers.sftp_server", str(port), str(folder)]
        with running(command, port, cwd=ROOT):
            private_key = user.export_private_key("openssh").decode()
            yield AsyncsshServer(port, host_key.get_fingerprint(), private_key, folder)


def kind(start: Start, ports: Ports) -> Kind:
    server = start(asyncssh_server)
    wrong = {"password": f"wrong-{CANARY}"}
    asked = {"username": "asked", "auth": "keyboard_interactive"}
    both = {"username": "careful", "auth": "private_key_and_password"}
    key = {"private_key": server.private_key}
    return Kind(
        "sftp",
        server.config,
        {"password": PASSWORD},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_answers", "authenticate", "authentication_failed", asked, wrong),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"password": None}),
            Case("key_not_taken", "authenticate", "authentication_failed", {"auth": "private_key"}, key),
            Case("questions_not_asked", "authenticate", "authentication_failed", {"auth": "keyboard_interactive"}),
            Case("one_of_two", "authenticate", "authentication_failed", {**both, "auth": "private_key"}, key),
            Case("second_of_two_wrong", "authenticate", "authentication_failed", both, {**key, **wrong}),
            Case("expired_password", "authenticate", "authentication_failed", {"username": "expired"}),
            Case("slow_sign_in", "authenticate", "timeout", {"username": "slow", "read_timeout_s": HASTY_S}),
            Case("stuck_folder", "list", "timeout", {"username": "stuck", "read_timeout_s": HASTY_S}),
            Case("other_host_key", "tls", "invalid_configuration", {"host_key": "SHA256:" + "A" * 43}),
            Case("wrong_folder", "list", "not_found", {"folder": "nowhere"}),
        ),
        OBJECTS,
        PREVIEWS,
        statuses=("passed",) * 5,
        server={"encryption": "SSH-2.0", "product": "AsyncSSH"},
    )
