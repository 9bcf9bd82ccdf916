"""SFTP, on OpenSSH's sshd: one that runs as an ordinary user can sign in that user only, and only with a key."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.connectors.contract import CANARY, HASTY_S, Case, FieldFacts, Kind, Ports, Start
from tests.connectors.servers.shop_bucket import OBJECTS, PREVIEWS, content
from tests.connectors.servers.starting import place, private_folder, program, running, scripted_server, unprivileged
from tests.ports import free_port

NEEDS_SERVICES = True

PASSPHRASE = f"pass-{CANARY}"
_SETTINGS = """
ListenAddress 127.0.0.1
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
StrictModes no
PidFile none
LogLevel QUIET
MaxStartups 100
"""


@dataclass(frozen=True)
class SshServer:
    port: int
    username: str
    folder: str
    """Holds the files, under `files/`, and `secret/`, which nobody may read."""
    private_key: str
    encrypted_key: str
    """The same key under `PASSPHRASE`, in PKCS#8."""
    stranger_key: str
    """One that opens nothing."""
    host_keys: dict[str, str]
    """Type to the line of the public key."""
    fingerprints: dict[str, str]

    @property
    def config(self) -> dict[str, Any]:
        return {
            "host": "localhost",
            "port": self.port,
            "username": self.username,
            "auth": "private_key",
            "host_key": self.fingerprints["ed25519"],
            "folder": f"{self.folder}/files",
        }


@contextmanager
def openssh(*more: str, subsystem: str = "internal-sftp") -> Iterator[SshServer]:
    """`more` lines of sshd_config come first, where they win over the others (sshd_config(5))."""
    sshd = program("sshd")
    with private_folder() as folder:
        _fill(folder / "files")
        (folder / "secret").mkdir(mode=0)
        keys = {name: _key(name) for name in ("ed25519", "rsa", "ecdsa")}
        user, stranger = _key("ed25519", "user"), _key("ed25519", "stranger")
        for name, key in {"user": user, **{f"host_{name}": key for name, key in keys.items()}}.items():
            place(folder / name, key.private.encode())
            place(folder / f"{name}.pub", key.public.encode())
        lines = [*more, *(f"HostKey {folder}/host_{name}" for name in keys)]
        lines += [f"Subsystem sftp {subsystem}"] if subsystem else []
        (folder / "sshd_config").write_text("\n".join([*lines, _SETTINGS.format(folder=folder)]))
        _own(folder)
        port = free_port()
        command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config"), "-p", str(port)]
        with running(command, port, cwd=folder, **unprivileged()):
            yield SshServer(
                port,
                pwd.getpwuid(unprivileged().get("user", os.getuid())).pw_name,
                str(folder),
                user.private,
                encrypted(user.private),
                stranger.private,
                {name: key.public.strip() for name, key in keys.items()},
                {name: key.fingerprint for name, key in keys.items()},
            )


ODD_FIELD: FieldFacts = ("n", "integer", "text", False)
"""Of a file whose name is no UTF-8."""


def _fill(folder: Path) -> None:
    """Beside the files: links that are shown, that lead out and around in a circle, and what is no file at all."""
    for key, body in content().items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    (folder / "latest.csv").symlink_to("customers.csv")
    (folder / "outside.csv").symlink_to("../sshd_config")
    (folder / "absolute.csv").symlink_to("/etc/passwd")
    (folder / "gone.csv").symlink_to("nowhere.csv")
    (folder / "circle.csv").symlink_to("circle.csv")
    (folder / "events" / "around").symlink_to("..")
    (folder / "closed").mkdir(mode=0)
    os.mkfifo(folder / "pipe.csv")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.csv"))).write_bytes(b"n\n1\n")


@dataclass(frozen=True)
class KeyPair:
    private: str
    public: str
    fingerprint: str
    """As `ssh-keygen` says it."""


@cache
def _key(kind: str, owner: str = "host") -> KeyPair:
    """Each is made once for all servers of a run; `owner` tells those of one kind apart."""
    keygen = program("ssh-keygen")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / owner
        subprocess.run([keygen, "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)], check=True)
        public = path.with_suffix(".pub")
        listed = subprocess.run([keygen, "-l", "-f", str(public)], check=True, capture_output=True, text=True)
        return KeyPair(path.read_text(), public.read_text(), listed.stdout.split()[1])


def encrypted(private_key: str) -> str:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_ssh_private_key(private_key.encode(), None)
    scheme = form.BestAvailableEncryption(PASSPHRASE.encode())
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, scheme).decode()


def _own(folder: Path) -> None:
    who = unprivileged()
    for path in [folder, *folder.rglob("*")] if who else []:
        os.chown(path, who["user"], who["group"], follow_symlinks=False)


def wait_as_http(connection: socket.socket) -> None:
    """Says nothing until it is spoken to, and then that it does not understand."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def greet_as_ftp(connection: socket.socket) -> None:
    connection.sendall(b"220 files.example.org FTP server ready\r\n")
    connection.recv(4096)


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


OLD = (
    "KexAlgorithms diffie-hellman-group14-sha1",
    "HostKeyAlgorithms ssh-rsa",
    "MACs hmac-sha1",
    "Ciphers aes128-cbc",
)


def no_sftp() -> Any:
    return openssh(subsystem="")


def broken_sftp() -> Any:
    return openssh(subsystem="/bin/false")


def chatty_sftp() -> Any:
    return openssh(subsystem="/bin/echo This account is not available.")


def kind(start: Start, ports: Ports) -> Kind:
    server = start(openssh)
    config = server.config
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    files = f"{server.folder}/files"
    wrong_key = {"private_key": server.stranger_key}
    other_fingerprint = "SHA256:" + "A" * 43
    return Kind(
        "sftp",
        config,
        {"private_key": server.private_key},
        (
            Case("wrong_key", "authenticate", "authentication_failed", {}, wrong_key),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody-of-that-name"}),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"private_key": None}),
            Case(
                "password_not_taken",
                "authenticate",
                "authentication_failed",
                {"auth": "password"},
                {"password": f"pw-{CANARY}"},
            ),
            Case("no_key", "authenticate", "invalid_configuration", {}, {"private_key": f"key-{CANARY}"}),
            Case("no_passphrase", "authenticate", "invalid_configuration", {}, {"private_key": server.encrypted_key}),
            Case(
                "wrong_passphrase",
                "authenticate",
                "authentication_failed",
                {},
                {"private_key": server.encrypted_key, "passphrase": f"wrong-{CANARY}"},
            ),
            Case("unpinned", "tls", "invalid_configuration", {"host_key": None}),
            Case("other_host_key", "tls", "invalid_configuration", {"host_key": other_fingerprint}),
            Case("old_server", "tls", "tls_failed", _at(start(openssh, *OLD))),
            Case("wrong_folder", "list", "not_found", {"folder": f"{files}/nowhere"}),
            Case("folder_is_file", "list", "not_found", {"folder": f"{files}/customers.csv"}),
            Case("forbidden_folder", "list", "permission_denied", {"folder": f"{server.folder}/secret"}),
            Case("no_sftp", "list", "protocol_mismatch", _at(start(no_sftp)), _with(start(no_sftp))),
            Case("broken_sftp", "list", "protocol_mismatch", _at(start(broken_sftp)), _with(start(broken_sftp))),
            Case("chatty_sftp", "list", "protocol_mismatch", _at(start(chatty_sftp)), _with(start(chatty_sftp))),
            Case("closed_port", "connect", "connection_refused", {"port": ports.closed}),
            Case("unknown_name", "resolve", "name_not_resolved", {"host": "nowhere.invalid"}),
            Case("link_local", "resolve", "egress_refused", {"host": "169.254.169.254"}),
            Case("silent", "connect", "timeout", {"port": ports.silent, **hasty}),
            Case("silent_later", "tls", "timeout", {"port": ports.ssh, **hasty}),
            Case("waiting_protocol", "connect", "protocol_mismatch", _port(start, wait_as_http)),
            Case("greeting_protocol", "connect", "protocol_mismatch", _port(start, greet_as_ftp)),
            Case("hanging_up", "connect", "connection_lost", _port(start, hang_up)),
        ),
        {**OBJECTS, ("latest.csv",): OBJECTS[("customers.csv",)], ("\\xff.csv",): ("file", (ODD_FIELD,))},
        {**PREVIEWS, ("latest.csv",): PREVIEWS[("customers.csv",)], ("\\xff.csv",): [[1]]},
        statuses=("passed",) * 5,
        server={"encryption": "SSH-2.0", "product": "OpenSSH"},
    )


def _at(server: SshServer) -> dict[str, Any]:
    return {**server.config, "read_timeout_s": 4.0}


def _with(server: SshServer) -> dict[str, Any]:
    return {"private_key": server.private_key}


def _port(start: Start, script: Any) -> dict[str, Any]:
    return {"port": start(scripted_server, script), "read_timeout_s": 2.0}
