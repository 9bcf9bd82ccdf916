"""Connections to Kafka's brokers: each one judged, dialled at its pinned address, and signed in.

The way goes from a bootstrap server to the brokers that the cluster advertises; aiokafka's connections carry out TLS
and SASL, on addresses that are found here, with a `NamedContext` that checks certificates against the names.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import ask, dialled, hung_up, silent
from app.connectors.network.http import HttpClient
from app.connectors.network.oauth import ClientCredentials, token_for_client
from app.connectors.network.recognising import Protocol, met, mismatch
from app.connectors.network.tls import handshake, tls_failure
from app.connectors.types.kafka.config import KafkaConfig, KafkaSecrets, host_and_port
from app.core.egress import EgressRefused, canonical_host

if TYPE_CHECKING:
    from aiokafka.conn import AIOKafkaConnection

_CLIENT_ID: Final = "data-fusion-hub"
_API_VERSIONS: Final = 18
_GREETING_ID: Final = 0x68756200


class Server(Struct, frozen=True):
    """A broker's listener, by the name that it was given under."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Dialler:
    """Finds a bootstrap server, opens signed-in connections to brokers, and says in our words why one did not open."""

    def __init__(self, network: Network, config: KafkaConfig, secrets: KafkaSecrets) -> None:
        self._network = network
        self._config = config
        self._secrets = secrets
        self._bearer = secrets.token

    # A first broker ---------------------------------------------------------------------------------------------------

    async def reach(self, steps: Steps) -> Server:
        """Steps resolve, connect and tls: the first bootstrap server that answers."""
        config = self._config
        with steps.step("resolve", "A bootstrap server is known."):
            servers = await self._resolved()
        with steps.step("connect", "A bootstrap server answers."):
            server = await self._first_to_answer(servers)
        if not config.requires_tls:
            steps.server["encryption"] = "none"
            steps.skip("tls", f"{config.security_protocol} is not encrypted.")
            return server
        with steps.step("tls", "The connection is encrypted."):
            steps.server["encryption"] = await self._encrypted(server)
        return server

    async def _resolved(self) -> list[Server]:
        """One after the other: a connector looks up one name at a time."""
        found, failures = [], []
        for place in self._config.bootstrap_servers:
            host, port = host_and_port(place) or ("", 0)
            try:
                await self._network.resolve(host, port, self._config.connect_timeout_s)
                found.append(Server(host, port))
            except ConnectorError as error:
                failures.append(error)
        if not found:
            raise failures[0]
        return found

    async def _first_to_answer(self, servers: Sequence[Server]) -> Server:
        tasks = [asyncio.create_task(self._answering(server)) for server in servers]
        try:
            for task in asyncio.as_completed(tasks):
                try:
                    return await task
                except ConnectorError:
                    continue
            return await tasks[0]
        finally:
            for running in tasks:
                running.cancel()

    async def _answering(self, server: Server) -> Server:
        """Without TLS a listener is greeted, so that credentials go only to what speaks Kafka."""
        pinned = await self._network.resolve(server.host, server.port, self._config.connect_timeout_s)
        if self._config.requires_tls:
            async with dialled(pinned, server.port, self._config.connect_timeout_s):
                return server
        await met(self._greeted(server), Protocol.KAFKA, "Kafka", pinned, server.port, "not_set")
        return server

    async def _greeted(self, server: Server) -> None:
        """Asks for the protocol's versions (ApiVersions), which every listener answers before any sign-in."""
        timeout_s = self._config.connect_timeout_s
        pinned = await self._network.resolve(server.host, server.port, timeout_s)
        async with dialled(pinned, server.port, timeout_s) as sock:
            answer = await ask(sock, _greeting(), pinned, server.port, timeout_s)
        if len(answer) < 8 or answer[0] != 0 or struct.unpack(">i", answer[4:8]) != (_GREETING_ID,):
            raise mismatch("Kafka", server.host, server.port, answer)

    async def _encrypted(self, server: Server) -> str:
        pinned = await self._network.resolve(server.host, server.port, self._config.connect_timeout_s)
        encrypted = self._shake_hands(server, self._tls_context(server.host))
        return await met(encrypted, Protocol.KAFKA, "Kafka", pinned, server.port, "now")

    async def _shake_hands(self, server: Server, context: ssl.SSLContext) -> str:
        timeout_s = self._config.connect_timeout_s
        pinned = await self._network.resolve(server.host, server.port, timeout_s)
        async with dialled(pinned, server.port, timeout_s) as sock:
            return await handshake(sock, context, pinned, server.port, timeout_s)

    def _tls_context(self, host: str) -> ssl.SSLContext:
        return self._config.tls_context(host, self._secrets)

    # Connections ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def admitted(self, server: Server) -> AsyncIterator[AIOKafkaConnection]:
        """A connection on which the broker answers more than greetings; a listener that asks for SASL hangs up on
        those who come without."""
        from aiokafka.protocol.metadata import MetadataRequest

        connection = await self.open(server)
        try:
            try:
                await self.ask(connection, MetadataRequest([]), server)
            except ConnectorError as error:
                if error.code == "connection_lost" and not self._config.signs_in and await self._wants_sasl(server):
                    raise ConnectorError(
                        "authentication_failed", f"{server} asks for a SASL sign-in: choose a SASL security_protocol."
                    ) from None
                raise
            yield connection
        finally:
            connection.close()

    async def open(self, server: Server) -> AIOKafkaConnection:
        from aiokafka.abc import AbstractTokenProvider
        from aiokafka.conn import AIOKafkaConnection

        config, timeout_s = self._config, self._config.connect_timeout_s
        pinned = await self._network.resolve(server.host, server.port, timeout_s)
        async with dialled(pinned, server.port, timeout_s) as sock:
            address = sock.address
        bearer = Bearer(self._bearer or "")
        AbstractTokenProvider.register(Bearer)
        connection = AIOKafkaConnection(
            address,
            server.port,
            client_id=_CLIENT_ID,
            request_timeout_ms=round(config.read_timeout_s * 1000),
            ssl_context=self._tls_context(server.host) if config.requires_tls else None,
            security_protocol=config.security_protocol,
            sasl_mechanism=config.sasl_mechanism,
            sasl_plain_username=config.username,
            sasl_plain_password=self._secrets.password,
            sasl_oauth_token_provider=bearer,
        )
        connection.authenticator_oauth = lambda: bearer
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connect()
        except Exception as error:
            explained = self._explain(error, server, timeout_s, is_signing_in=config.signs_in)
            if explained.code == "connection_lost" and config.requires_tls and config.client_certificate is None:
                explained = _wants_certificate(server)  # TLS 1.3 says so only after the handshake, or hangs up.
            raise explained from error
        return connection

    async def ask(self, connection: AIOKafkaConnection, request: object, server: Server) -> Any:
        try:
            return await connection.send(request)
        except Exception as error:
            raise self._explain(error, server, self._config.read_timeout_s) from error

    async def _wants_sasl(self, server: Server) -> bool:
        """A listener with SASL answers its handshake with mechanisms, one without refuses it."""
        from aiokafka.protocol.admin import SaslHandShakeRequest

        try:
            connection = await self.open(server)
            try:
                answer = await self.ask(connection, SaslHandShakeRequest("PLAIN"), server)
            finally:
                connection.close()
        except ConnectorError:
            return False
        return answer.error_code == 0 or bool(answer.enabled_mechanisms)

    async def fetch_token(self) -> None:
        """For OAUTHBEARER by client credentials."""
        config = self._config
        if config.sasl_mechanism != "OAUTHBEARER" or config.token_url is None:
            return
        credentials = ClientCredentials(
            token_url=config.token_url,
            client_id=str(config.client_id),
            client_secret=str(self._secrets.client_secret),
            scope=config.scope,
        )
        async with HttpClient(
            self._network,
            ca_certificate=config.token_ca_certificate,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        ) as client:
            self._bearer = await token_for_client(client, credentials)

    async def judge(self, broker: Server) -> None:
        """An advertised name is shown as it was told, if it is a name at all and holds no secret."""
        try:
            canonical_host(broker.host)
        except EgressRefused:
            raise _no_name() from None
        if not 1 <= broker.port <= 65_535 or len(broker.host) > 253 or self._shows_secret(broker.host):
            raise _no_name()
        await self._network.resolve(broker.host, broker.port, self._config.connect_timeout_s)

    def _shows_secret(self, text: str) -> bool:
        secrets = (self._bearer, *(getattr(self._secrets, name) for name in self._secrets.__struct_fields__))
        return any(secret and secret.lower() in text.lower() for secret in secrets)

    # Explaining -------------------------------------------------------------------------------------------------------

    def _explain(
        self, error: Exception, server: Server, timeout_s: float, *, is_signing_in: bool = False
    ) -> ConnectorError:
        """aiokafka's errors in our words. What ended a connection hides in the cause of what is raised."""
        from aiokafka import errors

        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, TimeoutError):
            cause = cause.__cause__
        if isinstance(cause, ConnectorError):
            return cause
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause, server.host, server.port, timeout_s)
        if is_signing_in and (refused := self._explain_sign_in(cause, server)):
            return refused
        if isinstance(cause, TimeoutError | errors.RequestTimedOutError):
            return silent(server.host, server.port, timeout_s)
        if isinstance(cause, asyncio.IncompleteReadError) and cause.partial:
            return mismatch("Kafka", server.host, server.port)
        if isinstance(cause, errors.IncompatibleBrokerVersion | NotImplementedError):
            return ConnectorError("unsupported", f"{server} runs a Kafka that is too old, or too new, for the hub.")
        if isinstance(cause, OSError | EOFError | errors.KafkaConnectionError):
            return hung_up(server.host, server.port)
        if isinstance(cause, errors.BrokerResponseError):
            return ConnectorError("server_error", f"{server} answered with error {cause.errno}.")
        if isinstance(cause, MemoryError):
            raise cause
        return ConnectorError("protocol_mismatch", f"{server} does not follow the Kafka protocol.")

    def _explain_sign_in(self, cause: BaseException, server: Server) -> ConnectorError | None:
        from aiokafka import errors

        mechanism = self._config.sasl_mechanism
        if isinstance(cause, errors.SaslAuthenticationFailed):
            return _unwelcome(server)
        if isinstance(cause, errors.UnsupportedSaslMechanismError):
            return ConnectorError(
                "invalid_configuration", f"{server} offers no sign-in by {mechanism} (sasl_mechanism)."
            )
        if isinstance(cause, errors.IllegalSaslStateError | errors.IncompatibleBrokerVersion):
            return ConnectorError("invalid_configuration", f"{server} offers no SASL (security_protocol).")
        if isinstance(cause, ValueError | KeyError | AssertionError):  # SCRAM: RFC 5802, section 3
            return ConnectorError("authentication_failed", f"{server} did not prove that it knows the password.")
        if isinstance(cause, asyncio.IncompleteReadError) and not cause.partial:
            return ConnectorError("authentication_failed", f"{server} hung up while the hub signed in.")
        return None


def _unwelcome(server: Server | None = None) -> ConnectorError:
    who = str(server) if server else "The broker"
    return ConnectorError("authentication_failed", f"{who} did not accept the credentials.")


class Bearer:
    """Sends the token, and sees what aiokafka's own takes for a welcome: a refusal that comes as a challenge, to be
    answered with one more byte (RFC 7628, section 3.2.3)."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._steps = 0

    async def token(self) -> str:
        return self._token

    async def step(self, challenge: bytes | None) -> tuple[bytes, bool] | None:
        self._steps += 1
        if self._steps == 1:
            return f"n,,\x01auth=Bearer {self._token}\x01\x01".encode(), True
        if challenge and self._steps == 2:
            return b"\x01", True
        if self._steps > 2:
            raise _unwelcome()
        return None


def _greeting() -> bytes:
    client = _CLIENT_ID.encode()
    message = struct.pack(">hhih", _API_VERSIONS, 0, _GREETING_ID, len(client)) + client
    return struct.pack(">i", len(message)) + message


def _wants_certificate(server: Server) -> ConnectorError:
    return ConnectorError(
        "tls_failed", f"{server} hung up after the TLS handshake; it may ask for a client certificate."
    )


def _no_name() -> ConnectorError:
    return ConnectorError("response_invalid", "The cluster advertises a broker under something that is no host name.")
