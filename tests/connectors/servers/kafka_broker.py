"""A Kafka broker in a few lines, for what the mock cluster of librdkafka cannot do: SASL, TLS, refusals, transactions,
and addresses that are advertised wrongly.

It answers the requests that the connector sends, one version of each, as the protocol's documentation has them. Batches
of messages are kept as bytes and given back whole, as a broker does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from aiokafka.protocol import admin, fetch, metadata, offset
from aiokafka.protocol.types import String
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

from tests.connectors.contract import CANARY
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import scripted_server, server_context

USER = "reader"
PASSWORD = f"pw-{CANARY}"
TOKEN = f"token-{CANARY}"
VERSIONS = {1: 4, 2: 2, 3: 1, 17: 1, 18: 0, 36: 0}
_FIRST_MESSAGE = 1_704_196_800_000


@dataclass(frozen=True)
class ScriptedTopic:
    name: str
    batches: tuple[bytes, ...] = ()
    """As `batch` and `end_of_transaction` make them."""
    begin: int = 0
    aborted: tuple[tuple[int, int], ...] = ()
    """Producer ids and first offsets of transactions that came to nothing."""
    error: int = 0
    """Of every fetch."""
    is_internal: bool = False

    @property
    def end(self) -> int:
        return max((_last_offset(content) + 1 for content in self.batches), default=self.begin)


@dataclass(frozen=True)
class ScriptedBroker:
    mechanisms: tuple[str, ...] = ()
    """Without any, the listener asks for no SASL."""
    advertised: tuple[tuple[str, int], ...] = ()
    """Empty: itself, as `localhost`."""
    is_encrypted: bool = False
    asks_for_certificate: bool = False
    topics: tuple[ScriptedTopic, ...] = ()
    silent_about: tuple[int, ...] = ()
    """Keys of requests that it reads and leaves at that."""
    asked: list[Any] = field(default_factory=list, compare=False)
    """Every request but greetings, as it was read."""

    def serve(self, connection: socket.socket) -> None:
        if self.is_encrypted:
            with self._context().wrap_socket(connection, server_side=True) as plain:
                self._converse(plain)
        else:
            self._converse(connection)

    def _context(self) -> ssl.SSLContext:
        context = server_context()
        if self.asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=authority().pem.decode())
        return context

    def _converse(self, connection: socket.socket) -> None:
        sign_in = SignIn(self.mechanisms)
        while (message := _message(connection)) is not None:
            key, version, correlation = struct.unpack(">hhi", message[:8])
            if not 0 <= key < 100 or version not in (VERSIONS.get(key), 0):
                return
            body = BytesIO(message[8:])
            String("utf-8").decode(body)
            if key not in (17, 18, 36) and not sign_in.is_done:
                return  # Kafka hangs up, too.
            if key in self.silent_about:
                continue
            answer = sign_in.answer(key, body) or self._answer(key, body, connection)
            connection.sendall(struct.pack(">ii", len(answer) + 4, correlation) + answer)

    def _answer(self, key: int, body: BytesIO, connection: socket.socket) -> bytes:
        if key == 3:
            return self._metadata(metadata.MetadataRequest_v1.decode(body), connection.getsockname()[1])
        if key == 2:
            return self._offsets(offset.OffsetRequest_v2.decode(body))
        return self._messages(fetch.FetchRequest_v4.decode(body))

    def _metadata(self, request: Any, port: int) -> bytes:
        self.asked.append(request)
        brokers = [(node, *place, None) for node, place in enumerate(self.advertised or (("localhost", port),))]
        partitions = [(0, 0, 0, [0], [0])]
        topics = [(0, topic.name, topic.is_internal, partitions) for topic in self.topics]
        content: bytes = metadata.MetadataResponse_v1(brokers, 0, topics).encode()
        return content

    def _topic(self, name: str) -> ScriptedTopic:
        return next(topic for topic in self.topics if topic.name == name)

    def _offsets(self, request: Any) -> bytes:
        self.asked.append(request)
        topics = []
        for name, partitions in request.topics:
            topic = self._topic(name)
            ends = {-2: topic.begin, -1: topic.end}
            topics.append((name, [(number, 0, -1, ends[moment]) for number, moment in partitions]))
        content: bytes = offset.OffsetResponse_v2(0, topics).encode()
        return content

    def _messages(self, request: Any) -> bytes:
        self.asked.append(request)
        topics = []
        for name, partitions in request.topics:
            topic = self._topic(name)
            found = [
                (number, topic.error, topic.end, topic.end, list(topic.aborted), _from(topic, start, room))
                for number, start, room in partitions
            ]
            topics.append((name, found))
        content: bytes = fetch.FetchResponse_v4(0, topics).encode()
        return content


@contextmanager
def scripted_broker(broker: ScriptedBroker) -> Iterator[int]:
    """Yields its port."""
    with scripted_server(broker.serve) as port:
        yield port


def _message(connection: socket.socket) -> bytes | None:
    header = _exactly(connection, 4)
    size = struct.unpack(">i", header)[0] if header else 0
    return _exactly(connection, size) if 8 < size < 100_000 else None


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    content = b""
    while len(content) < size:
        piece = connection.recv(size - len(content))
        if not piece:
            return None
        content += piece
    return content


# Messages -------------------------------------------------------------------------------------------------------------


def batch(
    first: int, values: list[bytes | None], *, producer: int = -1, codec: int = 0, last: int | None = None
) -> bytes:
    """`producer` makes it part of a transaction. `last` is the offset that the batch ends at, if compaction took its
    last messages."""
    builder = DefaultRecordBatchBuilder(2, codec, producer >= 0, producer, 0, 0, 10_000_000)
    for place, value in enumerate(values):
        builder.append(place, _FIRST_MESSAGE + first + place, None, value, [])
    return _sealed(bytes(builder.build()), first, (last if last is not None else first + len(values) - 1) - first)


def batch_with_headers(first: int, headers: list[list[tuple[str, bytes | None]]], *, codec: int = 0) -> bytes:
    """A message for each list of headers. The builder in C asks no name how it is encoded."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, False, -1, 0, 0, 10_000_000)
    for place, of_one in enumerate(headers):
        builder.append(place, _FIRST_MESSAGE + first + place, b"k", str(first + place).encode(), of_one)
    return _sealed(bytes(builder.build()), first, len(headers) - 1)


def end_of_transaction(at: int, *, producer: int, is_commit: bool) -> bytes:
    """A control batch: one record whose key says how the transaction ended."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, 0, 10_000)
    builder.append(0, _FIRST_MESSAGE, struct.pack(">hh", 0, int(is_commit)), struct.pack(">hi", 0, 0), [])
    return _sealed(bytes(builder.build()), at, 0, control=0x20)


def _sealed(content: bytes, first: int, last_delta: int, control: int = 0) -> bytes:
    """The batch header: base offset, length, epoch, magic, checksum, attributes, last offset delta."""
    attributes = struct.unpack(">h", content[21:23])[0] | control
    rest = struct.pack(">hi", attributes, last_delta) + content[27:]
    return struct.pack(">q", first) + content[8:17] + struct.pack(">I", calc_crc32c(rest)) + rest


def _last_offset(content: bytes) -> int:
    first, delta = struct.unpack(">q", content[:8])[0], struct.unpack(">i", content[23:27])[0]
    return int(first + delta)


def _from(topic: ScriptedTopic, start: int, room: int) -> bytes:
    """Whole batches from the one that holds the offset, at least one of them (KIP-74)."""
    found = b""
    for content in topic.batches:
        if _last_offset(content) >= start:
            if found and len(found) + len(content) > room:
                break
            found += content
    return found


# Signing in -----------------------------------------------------------------------------------------------------------


class SignIn:
    """The server's side of SASL, for one connection."""

    def __init__(self, mechanisms: tuple[str, ...]) -> None:
        self.is_done = not mechanisms
        self._mechanisms = mechanisms
        self._mechanism = ""
        self._first = ""
        self._nonce = ""
        self._is_refused = False

    def answer(self, key: int, body: BytesIO) -> bytes:
        """Empty for requests that are about something else."""
        content = b""
        if key == 18:
            content = admin.ApiVersionResponse_v0(0, [(api, 0, top) for api, top in VERSIONS.items()]).encode()
        elif key == 17:
            content = self._handshake(admin.SaslHandShakeRequest_v1.decode(body).mechanism)
        elif key == 36:
            content = self._authenticate(admin.SaslAuthenticateRequest_v0.decode(body).sasl_auth_bytes)
        return content

    def _handshake(self, mechanism: str) -> bytes:
        self._mechanism = mechanism
        error = 0 if mechanism in self._mechanisms else 33 if self._mechanisms else 34
        content: bytes = admin.SaslHandShakeResponse_v1(error, list(self._mechanisms)).encode()
        return content

    def _authenticate(self, payload: bytes) -> bytes:
        found = {"PLAIN": self._plain, "OAUTHBEARER": self._bearer}.get(self._mechanism, self._scram)(payload)
        refusal = (58, f"Authentication failed for {payload!r}", b"")
        content: bytes = admin.SaslAuthenticateResponse_v0(*(refusal if found is None else (0, None, found))).encode()
        return content

    def _plain(self, payload: bytes) -> bytes | None:
        self.is_done = payload.decode().split("\0")[1:] == [USER, PASSWORD]
        return b"" if self.is_done else None

    def _bearer(self, payload: bytes) -> bytes | None:
        """RFC 7628: a refusal comes as a challenge, and fails after the client's next byte."""
        if self._is_refused:
            return None
        self.is_done = payload == f"n,,\x01auth=Bearer {TOKEN}\x01\x01".encode()
        self._is_refused = not self.is_done
        return b"" if self.is_done else b'{"status":"invalid_token"}'

    def _scram(self, payload: bytes) -> bytes | None:
        """RFC 5802, with a fixed salt."""
        salt, rounds = b"salt and pepper", 4096
        digest = self._mechanism.removeprefix("SCRAM-").replace("-", "").lower()
        if not self._nonce:
            self._first = payload.decode().removeprefix("n,,")
            user, nonce = (part.partition("=")[2] for part in self._first.split(","))
            self._nonce = nonce + "server"
            self._server_first = f"r={self._nonce},s={base64.b64encode(salt).decode()},i={rounds}"
            return self._server_first.encode() if user == USER else None
        without_proof, _, proof = payload.decode().rpartition(",p=")
        everything = f"{self._first},{self._server_first},{without_proof}".encode()
        salted = hashlib.pbkdf2_hmac(digest, PASSWORD.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", digest)
        signature = hmac.digest(hashlib.new(digest, client_key).digest(), everything, digest)
        expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.is_done = base64.b64decode(proof) == expected
        verifier = hmac.digest(hmac.digest(salted, b"Server Key", digest), everything, digest)
        return b"v=" + base64.b64encode(verifier) if self.is_done else None
