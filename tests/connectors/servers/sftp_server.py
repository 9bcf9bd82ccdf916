"""An SSH server on asyncssh, for what sshd cannot be asked for without users of its own: passwords, questions, two
credentials in a row, folders that never answer. The user's name says how it wants to be convinced.

Run as `python -m tests.connectors.servers.sftp_server PORT FOLDER`; FOLDER holds `host_key`, `user.pub` and `files/`, and gets
`attempts`, a line for each credential that was tried.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh

from tests.connectors.contract import CANARY

PASSWORD = f"pw-{CANARY}"
METHODS: dict[str, set[str]] = {
    "reader": {"password"},
    "asked": {"kbdint"},
    "careful": {"publickey", "password"},
    "expired": {"password"},
    "slow": {"password"},
    "stuck": {"password"},
}


class Connection(asyncssh.SSHServerConnection):
    """Wants both credentials of the user `careful`: asyncssh's own server is content with the first (RFC 4252,
    section 5.1, "partial success")."""

    async def send_userauth_success(self) -> None:
        owner = self._owner
        assert isinstance(owner, Server)
        if owner.left:
            self.send_userauth_failure(True)
        else:
            await super().send_userauth_success()


class Server(asyncssh.SSHServer):
    folder: Path

    def __init__(self) -> None:
        self.username = ""
        self.left: set[str] = set()

    def begin_auth(self, username: str) -> bool:
        self.username = username
        self.left = set(METHODS.get(username, {"password"}))
        self._note("name")
        return True

    def public_key_auth_supported(self) -> bool:
        return "publickey" in self.left

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._note("key")
        is_good = key == asyncssh.read_public_key(str(self.folder / "user.pub"))
        return self._count("publickey", is_good=is_good)

    def password_auth_supported(self) -> bool:
        return "password" in self.left

    async def validate_password(self, username: str, password: str) -> bool:
        self._note("password")
        if username == "slow":
            await asyncio.sleep(30)
        if username == "expired":
            raise asyncssh.PasswordChangeRequired("Choose another one.")
        return self._count("password", is_good=password == PASSWORD)

    def kbdint_auth_supported(self) -> bool:
        return "kbdint" in self.left

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "Welcome", "Answer all.", "", [("User: ", True), ("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        self._note("answers")
        return self._count("kbdint", is_good=list(responses) == ["asked", PASSWORD])

    def _count(self, method: str, *, is_good: bool) -> bool:
        if is_good:
            self.left.discard(method)
        return is_good

    def _note(self, what: str) -> None:
        with (self.folder / "attempts").open("a") as attempts:
            attempts.write(f"{self.username} {what}\n")


class Files(asyncssh.SFTPServer):
    """The folder `files/` is everything there is. For the user `stuck` it is never listed; for `frozen` the whole
    server stops there."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._username = channel.get_extra_info("username")
        super().__init__(channel, chroot=bytes(Server.folder / "files"))

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        if self._username == "stuck":
            await asyncio.sleep(30)
        if self._username == "frozen":
            time.sleep(30)
        async for entry in super().scandir(path):
            yield entry


async def serve(port: int, folder: Path) -> None:
    Server.folder = folder
    asyncssh.connection.SSHServerConnection = Connection  # type: ignore[misc]
    await asyncssh.listen(
        "127.0.0.1",
        port,
        server_factory=Server,
        server_host_keys=[str(folder / "host_key")],
        sftp_factory=Files,
        config=None,
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
