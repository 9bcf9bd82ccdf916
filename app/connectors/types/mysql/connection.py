"""One connection to a MySQL server: asyncmy's, told what it may say to a server that nobody has reason to trust yet.

What the greeting says comes from whoever answers, so it decides nothing about secrets: without TLS only challenges are
answered, and a public RSA key is taken from the configuration and never from the server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

from app.connectors.contract.failures import ConnectorError

if TYPE_CHECKING:
    from asyncmy.cursors import Cursor

_FAREWELL_S: Final = 0.2

NO_KEY: Final = "none"
"""Given to asyncmy in place of a public key, so that it does not ask the server for one. It is none: using it fails."""

_ANSWERS_TO_CHALLENGES: Final = frozenset({b"mysql_native_password", b"caching_sha2_password", b"client_ed25519"})
_CLEARTEXT: Final = frozenset({b"mysql_clear_password", b"dialog"})


class StagedConnection(Protocol):
    """What is used of a connection whose stages of signing in can be waited for."""

    greeted: asyncio.Event
    encrypted: asyncio.Event
    is_plain: bool
    tls_version: str

    async def connect(self) -> None: ...

    async def query(self, sql: str) -> object: ...

    def cursor(self, cursor: type[Cursor] | None = None) -> Any: ...

    async def select_db(self, db: str) -> None: ...

    async def ensure_closed(self) -> None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def under_way(connection: StagedConnection) -> AsyncIterator[asyncio.Task[object]]:
    from asyncmy.errors import MySQLError

    signing_in = asyncio.create_task(connection.connect())
    try:
        yield signing_in
    finally:
        signing_in.cancel()
        await asyncio.gather(signing_in, return_exceptions=True)
        with suppress(OSError, MySQLError):
            async with asyncio.timeout(_FAREWELL_S):  # Without a word, the server's log would have a warning.
                await connection.ensure_closed()
        connection.close()


@cache
def connection_class() -> Callable[..., StagedConnection]:
    """asyncmy's connection, with what it lacks: TLS is chosen after the greeting, stages can be waited for, and no
    server talks the password out of it."""
    from asyncmy.connection import Connection
    from asyncmy.constants.CLIENT import SSL

    class Staged(Connection):
        _host: str
        _auth_plugin_name: str
        _client_flag: int
        _secure: bool
        _server_public_key: bytes
        _ssl_context: ssl.SSLContext | None
        _transport: asyncio.Transport
        server_version: str
        server_capabilities: int

        def __init__(
            self,
            *,
            make_tls: Callable[[], ssl.SSLContext] | None,
            needs_tls: bool,
            allow_cleartext_password: bool,
            **options: object,
        ) -> None:
            super().__init__(**options)  # type: ignore[no-untyped-call]
            self.greeted = asyncio.Event()
            self.encrypted = asyncio.Event()
            self.is_plain = True
            self.tls_version = ""
            self._make_tls = make_tls
            self._needs_tls = needs_tls
            self._allow_cleartext_password = allow_cleartext_password

        async def _get_server_information(self) -> None:
            await super()._get_server_information()  # type: ignore[misc]
            int(self.server_version.split(".", 1)[0])  # The driver relies on it later.
            make_tls = self._make_tls if self.server_capabilities & SSL else None
            self.is_plain = make_tls is None
            self.greeted.set()
            if make_tls:
                self._ssl_context = make_tls()
                self._client_flag |= SSL
            elif self._needs_tls:
                raise ConnectorError("tls_unavailable", f"{self._host} offers no TLS.")
            elif self._auth_plugin_name == "sha256_password":
                self._auth_plugin_name = "mysql_native_password"  # The server then names what the user really has.

        def write_packet(self, payload: bytes) -> None:
            if self._secure and not self.encrypted.is_set():
                self.tls_version = str(self._transport.get_extra_info("ssl_object").version())
                self.encrypted.set()
            super().write_packet(payload)

        async def _request_authentication(self) -> None:
            try:
                answer = await super()._request_authentication()  # type: ignore[misc]
            except ValueError as error:
                if not self.is_plain:
                    raise
                raise self._no_usable_key() from error
            except AttributeError as error:  # The driver calls what it does not have, the scramble of MySQL 4.0.
                raise self._unsupported() from error
            if answer is not None and not answer.is_ok_packet():
                raise ConnectorError("protocol_mismatch", f"{self._host} does not follow MySQL's protocol.")

        def _no_usable_key(self) -> ConnectorError:
            if self._server_public_key == NO_KEY.encode():
                return ConnectorError(
                    "tls_required", f"{self._host} asks for the password, which is sent over TLS only."
                )
            return ConnectorError("invalid_configuration", "server_public_key is not a public RSA key in PEM form.")

        def _unsupported(self) -> ConnectorError:
            return ConnectorError("unsupported", f"{self._host} asks for a way to sign in that is not supported.")

        async def _process_auth(self, plugin_name: bytes, auth_packet: object) -> object:
            """A server asks for another way to sign in than the one that was tried."""
            wanted = bytes(plugin_name)
            if wanted in _CLEARTEXT and self._secure and not self._allow_cleartext_password:
                raise ConnectorError(
                    "invalid_configuration", f"{self._host} asks for the password itself: see allow_cleartext_password."
                )
            if wanted in _CLEARTEXT | {b"sha256_password"} and not self._secure:
                raise ConnectorError(
                    "tls_required", f"{self._host} asks for the password, which is sent over TLS only."
                )
            if wanted not in _ANSWERS_TO_CHALLENGES | _CLEARTEXT | {b"sha256_password"}:
                raise self._unsupported()
            if wanted == b"client_ed25519" and find_spec("nacl") is None:
                raise ConnectorError("unsupported", f"{self._host} asks for ed25519, which needs the package PyNaCl.")
            return await super()._process_auth(plugin_name, auth_packet)  # type: ignore[misc]

    staged: Any = Staged  # asyncmy's own types are those of half of it
    made: Callable[..., StagedConnection] = staged
    return made
