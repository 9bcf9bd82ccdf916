"""SSH for connectors, through asyncssh: one connection, dialled by us and handed over, which knows nothing of this
machine: no agent, no configuration, no known hosts, no keys of a home folder, no forwarding.

The server's key is pinned: a fingerprint or a key of the source's configuration is compared before the hub says who it
is. SSH has no authority that vouches for hosts, so the key belongs to the step `tls`, where a certificate would be
judged; the message shows what the server has, so that a person can compare and pin it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from app.connectors.contract import pem
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import ask, dial, hung_up, silent
from app.connectors.network.recognising import Protocol, met, mismatch
from app.core.egress import Pinned

if TYPE_CHECKING:
    import asyncssh

SshAuth = Literal["none", "password", "private_key", "private_key_and_password", "keyboard_interactive"]
Answer = TypeVar("Answer")

Identity: TypeAlias = "asyncssh.SSHKey | ConnectorError | None"
"""The private key, or what is wrong with it, which is told in the step that needs it."""

_IDENTIFICATION: Final = re.compile(rb"(?:^|\n)SSH-(?:2\.0|1\.99)-([!-~]{1,200})[ -~]*\r?\n")
_CROWDED: Final = (b"Exceeded MaxStartups", b"Not allowed at this time")
"""What OpenSSH says in clear to whom it does not want to talk for now."""
_MAX_GREETING_BYTES: Final = 8192
_PATIENCE_S: Final = 0.5
"""Between the first byte of a server and the end of its identification."""
_HELLO: Final = b"SSH-2.0-DataFusionHub\r\n\r\n"
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_METHODS: Final[dict[SshAuth, list[str]]] = {
    "none": [],
    "password": ["password", "keyboard-interactive"],
    "private_key": ["publickey"],
    "private_key_and_password": ["publickey", "password", "keyboard-interactive"],
    "keyboard_interactive": ["keyboard-interactive"],
}
_HOST_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Types of host keys in the order in which they are asked for, and the signatures that each is trusted with."""
_WEAK_HOST_KEYS: Final[dict[str, tuple[str, ...]]] = {"ssh-rsa": ("ssh-rsa",), "ssh-dss": ("ssh-dss",)}
_STRONG: Final = {
    "kex_algs": "-gss-*,*sha1",
    "encryption_algs": "-*-cbc,arcfour*",
    "mac_algs": "-*sha1*,*md5*,umac-64*",
    "signature_algs": "-ssh-rsa,ssh-dss",
}
"""asyncssh's own choice without SHA-1, MD5, CBC and tags of 64 bits."""
_WEAK: Final = {
    "kex_algs": "+diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha1,diffie-hellman-group1-sha1",
    "encryption_algs": "+*-cbc",
    "mac_algs": "+*sha1*",
    "signature_algs": "+ssh-rsa,ssh-dss",
}


class HostKey(msgspec.Struct, frozen=True):
    fingerprint: str
    """As `ssh-keygen -l` writes it, `SHA256:` and 43 characters."""
    type: str | None = None
    """Such as `ssh-ed25519`; None where only the fingerprint is known."""

    @classmethod
    def parse(cls, text: str) -> HostKey:
        """A fingerprint, a public key, or a line of `known_hosts` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). Raises
        `ValueError` with a sentence."""
        words = text.split()
        if not words or words[0].startswith("@"):
            raise ValueError("host_key is a key or its fingerprint; certificates of hosts are not used")
        for word in words:
            if _FINGERPRINT.fullmatch(word.rstrip("=")):
                return cls(word.rstrip("="))
        for name, key in pairwise(words):
            if name in _HOST_KEYS or name in _WEAK_HOST_KEYS:
                return cls(_fingerprint(name, key), name)
        raise ValueError("host_key is no SHA256 fingerprint and holds no key such as `ssh-ed25519 AAAA...`")


def _fingerprint(name: str, key: str) -> str:
    try:
        blob = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key in host_key is damaged") from None
    prefix = len(name).to_bytes(4, "big") + name.encode("ascii")
    if not blob.startswith(prefix):
        raise ValueError("the key in host_key is damaged")
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


class SshTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, as whom."""

    host: str
    port: int
    username: str
    auth: SshAuth
    host_key: HostKey | None
    password: str | None
    private_key: str | None
    passphrase: str | None
    may_be_weak: bool
    connect_timeout_s: float
    read_timeout_s: float

    def __repr__(self) -> str:
        return f"SshTarget({self.host!r}, {self.port})"


class SshSession:
    """A connection that is signed in."""

    def __init__(self, connection: asyncssh.SSHClientConnection, target: SshTarget) -> None:
        self.connection = connection
        self.target = target

    async def ask(self, question: Awaitable[Answer]) -> Answer:
        """Raises `timeout` for a server that does not answer in time, and asyncssh's errors. Such a server is hung up,
        which ends everything that waits for it; a mere cancellation would wait for it to close its handles."""
        is_late = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(self.target.read_timeout_s, self._give_up, is_late)
        try:
            return await question
        except Exception:
            if not is_late.is_set():
                raise
            raise late(self.target) from None
        finally:
            timer.cancel()

    def _give_up(self, is_late: asyncio.Event) -> None:
        is_late.set()
        self.connection.abort()


def late(target: SshTarget) -> ConnectorError:
    return ConnectorError("timeout", f"{target.host} gave no answer within {target.read_timeout_s:g} s.")


@asynccontextmanager
async def ssh_session(network: Network, target: SshTarget, steps: Steps) -> AsyncIterator[SshSession]:
    """Walks the steps up to `authenticate`. The connection is hung up at the end."""
    with steps.step("resolve", f"{target.host} is known."):
        pinned = await network.resolve(target.host, target.port, target.connect_timeout_s)
    dialler = _Dialler(target, pinned)
    with steps.step("connect", f"SSH is spoken on port {target.port}."):
        await met(dialler.meet(steps), Protocol.SSH, "SSH 2", pinned, target.port, "never")
    with steps.step("tls", "The connection is encrypted, and the server has the pinned key."):
        visit = await dialler.verified()
    try:
        steps.server["encryption"] = "SSH-2.0"
        with steps.step("authenticate", "The credentials are good." if target.auth != "none" else "No sign-in needed."):
            connection = await visit.signed_in()
        yield SshSession(connection, target)
    finally:
        await visit.leave()


# Meeting the server ---------------------------------------------------------------------------------------------------


class _Dialler:
    def __init__(self, target: SshTarget, pinned: Pinned) -> None:
        self._target = target
        self._pinned = pinned
        self._identity = _identity(target)
        self._sock: socket.socket | None = None
        self._shown: dict[str, str] = {}

    async def meet(self, steps: Steps) -> None:
        """Opens a connection and looks at the server's identification without taking it off the socket. To a server
        that waits we speak first: another protocol then says so, sooner than a time-out could."""
        target = self._target
        sock = await dial(self._pinned, target.port, target.connect_timeout_s)
        try:
            greeting = await _peeked(sock, target.read_timeout_s / 2)
            if greeting == b"":
                raise hung_up(target.host, target.port)
            if greeting is None:
                greeting = await ask(sock, _HELLO, self._pinned, target.port, target.read_timeout_s / 2)
                sock.close()
            _tell(steps, _identification(greeting, target))
        except BaseException:
            sock.close()
            raise
        self._sock = sock if sock.fileno() >= 0 else None

    async def verified(self) -> _Visit:
        """A server has one key of each type and shows the first that it is asked for; until the pinned one comes, each
        type is asked for in a connection of its own."""
        known = _host_keys(self._target)
        pinned_type = self._target.host_key.type if self._target.host_key else None
        wanted = [pinned_type] if pinned_type in known else list(known)
        while wanted:
            visit = await self._visit([name for key_type in wanted for name in known[key_type]])
            try:
                await visit.verified()
            except _OtherKey as other:
                await visit.leave()
                self._shown[other.type] = other.fingerprint
                known.pop(other.type, None)
            except _NoSuchKey:
                await visit.leave()
                known = {name: known[name] for name in known if name not in wanted}
            except BaseException:
                await visit.leave()
                raise
            else:
                return visit
            wanted = list(known)
        raise self._unpinned()

    async def _visit(self, host_key_algorithms: Sequence[str]) -> _Visit:
        sock, self._sock = self._sock, None
        if sock is None:
            sock = await dial(self._pinned, self._target.port, self._target.connect_timeout_s)
        return _Visit(self._target, self._identity, sock, host_key_algorithms)

    def _unpinned(self) -> ConnectorError:
        target = self._target
        if not self._shown:
            return ConnectorError(
                "tls_failed", f"{target.host} hung up, as one does that has no host key of a type asked for. {_ADVICE}"
            )
        shown = ", ".join(f"{name} {fingerprint}" for name, fingerprint in self._shown.items())
        if target.host_key is None:
            why = "host_key is not set; put the key there if the server's operator confirms it"
        else:
            why = f"host_key says {target.host_key.fingerprint}; somebody may stand between, or the server has new keys"
        return ConnectorError("invalid_configuration", f"{target.host} shows the key {shown}: {why}.")


_ADVICE: Final = "allow_weak_algorithms lets the hub use old ones."


def _host_keys(target: SshTarget) -> dict[str, tuple[str, ...]]:
    if not target.may_be_weak:
        return dict(_HOST_KEYS)
    weak = {name: (*_HOST_KEYS.get(name, ()), *algorithms) for name, algorithms in _WEAK_HOST_KEYS.items()}
    return {**_HOST_KEYS, **weak}


async def _peeked(sock: socket.socket, timeout_s: float) -> bytes | None:
    """The first bytes of the server, left where they are; none if it hung up, None if it said nothing in time."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(sock, is_readable.set)
    try:
        async with asyncio.timeout(timeout_s):
            await is_readable.wait()
    except TimeoutError:
        return None
    finally:
        loop.remove_reader(sock)
    try:
        return await _settled(sock)
    except OSError:
        return b""


async def _settled(sock: socket.socket) -> bytes:
    """The identification may come behind other lines, and in pieces (RFC 4253, section 4.2)."""
    greeting = sock.recv(_MAX_GREETING_BYTES, socket.MSG_PEEK)
    ends = time.monotonic() + _PATIENCE_S
    while greeting and not _IDENTIFICATION.search(greeting) and time.monotonic() < ends:
        await asyncio.sleep(0.02)
        greeting = sock.recv(_MAX_GREETING_BYTES, socket.MSG_PEEK)
    return greeting


def _identification(greeting: bytes, target: SshTarget) -> str:
    found = _IDENTIFICATION.search(greeting)
    if found is not None:
        return found[1].decode("ascii")
    if greeting.startswith(_CROWDED):
        raise _crowded(target)
    raise mismatch("SSH 2", target.host, target.port, greeting)


def _crowded(target: SshTarget) -> ConnectorError:
    return ConnectorError("rate_limited", f"{target.host} takes no more connections for now.")


def _tell(steps: Steps, software: str) -> None:
    product, _, version = software.partition("_")
    steps.server["product"] = product
    if version:
        steps.server["version"] = version


# One connection -------------------------------------------------------------------------------------------------------


class _OtherKey(Exception):
    """The server has another key than the pinned one."""

    def __init__(self, key_type: str, fingerprint: str) -> None:
        super().__init__()
        self.type = key_type
        self.fingerprint = fingerprint


class _NoSuchKey(Exception):
    """The server has no key of the types asked for, or nothing else in common."""


class _Visit:
    """One connection on its way through key exchange and sign-in, which asyncssh does in one go."""

    def __init__(
        self, target: SshTarget, identity: Identity, sock: socket.socket, host_key_algorithms: Sequence[str]
    ) -> None:
        self._target = target
        self._identity = identity
        key = None if isinstance(identity, ConnectorError) else identity
        self._client = _client(target, key)
        self._task = asyncio.create_task(self._connect(sock, host_key_algorithms))

    async def _connect(self, sock: socket.socket, host_key_algorithms: Sequence[str]) -> asyncssh.SSHClientConnection:
        import asyncssh

        target = self._target
        # asyncssh asks for the local user's name, which a container's arbitrary user id does not have.
        os.environ.setdefault("LOGNAME", "hub")
        try:
            return await asyncssh.connect(
                target.host,
                target.port,
                sock=sock,
                config=None,
                client_factory=lambda: self._client,
                known_hosts=([], [], []),
                username=target.username,
                client_keys=None,
                agent_path=None,
                pkcs11_provider=None,
                host_based_auth=False,
                gss_host=None,
                gss_kex=False,
                gss_auth=False,
                x509_trusted_certs=None,
                preferred_auth=_METHODS[target.auth],
                server_host_key_algs=list(host_key_algorithms),
                compression_algs=None,
                login_timeout=0,
                **(_WEAK if target.may_be_weak else _STRONG),
            )
        finally:
            if not self._client.was_connected:
                sock.close()

    async def verified(self) -> None:
        """Returns when the keys are exchanged and the host key is the pinned one."""
        await asyncio.wait(
            {self._task, self._client.is_verified},
            timeout=self._target.read_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._client.is_verified.done():
            return
        if not self._task.done():
            raise silent(self._target.host, self._target.port, self._target.read_timeout_s)
        raise self._unverified(self._task.exception())

    def _unverified(self, error: BaseException | None) -> Exception:
        import asyncssh

        if self._client.other_key is not None:
            return _OtherKey(*self._client.other_key)
        if isinstance(error, asyncssh.KeyExchangeFailed):
            found = re.match("No matching (key exchange|encryption|MAC|compression) algorithm", str(error))
            if found is None:
                return _NoSuchKey()
            return ConnectorError(
                "tls_failed", f"{self._target.host} and the hub have no {found[1]} algorithm in common. {_ADVICE}"
            )
        if isinstance(error, asyncssh.ConnectionLost | OSError):
            return _NoSuchKey()  # OpenSSH hangs up without a word where it has no such key.
        if isinstance(error, asyncssh.DisconnectError):
            return ConnectorError("tls_failed", f"The key exchange with {self._target.host} failed.")
        return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)

    async def signed_in(self) -> asyncssh.SSHClientConnection:
        import asyncssh

        target = self._target
        if isinstance(self._identity, ConnectorError):
            raise self._identity
        try:
            return await asyncio.wait_for(asyncio.shield(self._task), target.read_timeout_s)
        except TimeoutError:
            raise late(target) from None
        except (asyncssh.ConnectionLost, OSError):
            raise hung_up(target.host, target.port) from None
        except asyncssh.DisconnectError as error:
            raise self._refused(error) from None

    def _refused(self, error: asyncssh.DisconnectError) -> ConnectorError:
        import asyncssh

        target = self._target
        if error.code == asyncssh.DISC_TOO_MANY_CONNECTIONS:
            return _crowded(target)
        if self._client.has_expired_password:
            return ConnectorError("authentication_failed", f"The password of {target.username} has expired.")
        if target.auth != "none" and not self._client.tried:
            return ConnectorError(
                "authentication_failed", f"{target.host} does not take {target.auth} from {target.username}."
            )
        return ConnectorError("authentication_failed", f"{target.host} did not let {target.username} in.")

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and self._task.exception() is None:
            self._task.result().abort()


def _identity(target: SshTarget) -> Identity:
    import asyncssh

    if target.private_key is None or target.auth not in {"private_key", "private_key_and_password"}:
        return None
    try:
        return asyncssh.import_private_key(pem.or_as_it_is(pem.private_key, target.private_key), target.passphrase)
    except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
        if "bcrypt" in str(error):
            return ConnectorError("driver_missing", "Keys that OpenSSH encrypted need the module bcrypt.")
        if target.passphrase is None and "assphrase" in str(error):
            return ConnectorError("invalid_configuration", "The private_key is encrypted; it needs its passphrase.")
        if isinstance(error, asyncssh.KeyEncryptionError) or "decrypt" in str(error):
            return ConnectorError("authentication_failed", "The passphrase does not open the private_key.")
        return ConnectorError("invalid_configuration", "The private_key is no key in PEM or OpenSSH form.")


def _client(target: SshTarget, key: asyncssh.SSHKey | None) -> Any:
    """What asyncssh asks while it connects. Each credential is offered once: a server counts wrong ones."""
    import asyncssh

    class Client(asyncssh.SSHClient):
        def __init__(self) -> None:
            self.is_verified: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.other_key: tuple[str, str] | None = None
            self.was_connected = False
            self.has_expired_password = False
            self.tried: set[str] = set()

        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            self.was_connected = True

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            fingerprint = key.get_fingerprint()
            if target.host_key is not None and fingerprint == target.host_key.fingerprint:
                return True
            self.other_key = (key.get_algorithm(), fingerprint)
            return False

        def begin_auth(self, username: str) -> None:
            self.is_verified.set_result(None)

        def public_key_auth_requested(self) -> asyncssh.SSHKey | None:
            return key if self._is_first("key") else None

        def password_auth_requested(self) -> str | None:
            return target.password if self._is_first("password") else None

        def password_change_requested(self, prompt: str, lang: str) -> Any:
            self.has_expired_password = True
            return NotImplemented

        def kbdint_auth_requested(self) -> str | None:
            return "" if self._is_first("password") else None

        def kbdint_challenge_received(
            self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
        ) -> list[str] | None:
            """What would be shown while it is typed is taken for a question after the user's name."""
            return [target.username if is_shown else target.password or "" for _, is_shown in prompts]

        def _is_first(self, credential: str) -> bool:
            is_first = credential not in self.tried
            self.tried.add(credential)
            return is_first

    return Client()
