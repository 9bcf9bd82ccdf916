"""A STOMP 1.2 connection that publishes and knows for certain what has arrived.

The frames are stompman's, the connection is ours: stompman's client opens a new connection by itself in the midst of
what was sent, and goes on there with what comes later, so that order ends with the first interruption; and it tells of
a refused password only that time ran out (decision 0049). Here a connection lives once. What the broker has not
confirmed by its end may have arrived or not.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from urllib.parse import unquote, urlsplit

import stompman
from msgspec import Struct

from app.core.publishing import TAKEN, Confirmation, DestinationAway

CONNECT_TIMEOUT_S = 5.0
RECEIPT_TIMEOUT_S = 15.0
"""Without any receipt, while some are waited for."""
UNCONFIRMED = 20
"""So many are on their way at most: with more a broker is slower, not faster."""
HEARTBEAT_MS = 10_000
SILENCE_TOLERATED = 2.5
"""So many times the interval at which the broker promised to say something."""
READ_AT_ONCE = 65_536
PORT = 61613
LONGEST_REASON = 300


class Sending(Struct, frozen=True):
    destination: str
    body: bytes
    content_type: str
    headers: dict[str, str]


class StompAddress(Struct, frozen=True):
    host: str
    port: int
    login: str | None
    passcode: str | None
    is_tls: bool

    @classmethod
    def parse(cls, url: str) -> "StompAddress":
        """Of `stomp://user:password@host:61613`; with `stomps` the certificate is verified."""
        parts = urlsplit(url)
        login = None if parts.username is None else unquote(parts.username)
        passcode = None if parts.password is None else unquote(parts.password)
        return cls(parts.hostname or "", parts.port or PORT, login, passcode, parts.scheme == "stomps")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class StompConnection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = stompman.FrameParser()
        self._waiting: dict[str, int] = {}
        """By receipt which of what is being published is waited for."""
        self._answers: dict[int, Confirmation] = {}
        self._answered = asyncio.Event()
        self._end: str | None = None
        """Why the connection is over."""
        self._tasks: list[asyncio.Task[None]] = []
        self._last_heard = monotonic()
        self._receipts = 0

    @property
    def is_open(self) -> bool:
        return self._end is None

    @classmethod
    async def open(cls, address: StompAddress, *, ca_file: str | None = None) -> "StompConnection":
        """Raises DestinationAway."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=_tls(ca_file) if address.is_tls else None
                )
                connection = cls(reader, writer)
                try:
                    await connection._shake_hands(address)
                except BaseException:
                    writer.transport.abort()
                    raise
        except TimeoutError:
            raise DestinationAway(f"{address} does not answer within {CONNECT_TIMEOUT_S:g} s") from None
        except ssl.SSLCertVerificationError as error:
            hint = "HUB_BROKER_CA_FILE names the authority that signed it"
            raise DestinationAway(
                f"the certificate of {address} is not valid: {error.verify_message}; {hint}"
            ) from None
        except ssl.SSLError as error:
            reason = (error.reason or "unknown").lower().replace("_", " ")
            raise DestinationAway(f"TLS with {address} fails: {reason}; is it a port for TLS?") from None
        except OSError as error:
            raise DestinationAway(f"{address} cannot be reached: {error.strerror or type(error).__name__}") from None
        return connection

    async def publish(self, sendings: Sequence[Sending]) -> list[Confirmation]:
        """In this order, without waiting for one before the next; what became of each, in the same order. Afterwards
        the connection is open, or it is over and nothing more is sent."""
        self._answers = {}
        written = 0
        while self._end is None and len(self._answers) < len(sendings):
            while written < len(sendings) and len(self._waiting) < UNCONFIRMED:
                self._write(written, sendings[written])
                written += 1
            await self._wait_for_answers()
        lost = Confirmation("unknown", self._end or "")
        return [self._answers.get(place, lost) for place in range(len(sendings))]

    async def close(self) -> None:
        """Says good-bye where that does not take long."""
        if self._end is None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    self._writer.write(stompman.dump_frame(stompman.DisconnectFrame(headers={})))
                    await self._writer.drain()
        self._over("closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the beginning ---

    async def _shake_hands(self, address: StompAddress) -> None:
        frame = stompman.ConnectFrame(
            headers={"accept-version": "1.2", "host": address.host, "heart-beat": f"{HEARTBEAT_MS},{HEARTBEAT_MS}"}
        )
        if address.login is not None:
            frame.headers["login"] = address.login
        if address.passcode is not None:
            frame.headers["passcode"] = address.passcode
        self._writer.write(stompman.dump_frame(frame))
        await self._writer.drain()
        answer = await self._first_frame(address)
        if not isinstance(answer, stompman.ConnectedFrame):
            raise DestinationAway(_refusal(answer, address))
        ours, theirs = _heartbeats(answer)
        _acknowledge_at_once(self._writer)
        self._tasks = [asyncio.create_task(self._read_on(), name="stomp reader")]
        if ours or theirs:
            self._tasks.append(asyncio.create_task(self._keep_alive(ours, theirs), name="stomp heartbeat"))

    async def _first_frame(self, address: StompAddress) -> object:
        while chunk := await self._reader.read(READ_AT_ONCE):
            found = list(self._parser.parse_frames_from_chunk(chunk))  # all of it: the parser ends a frame afterwards
            for frame in found:
                if not isinstance(frame, stompman.HeartbeatFrame):
                    return frame
        raise DestinationAway(
            f"{address} hangs up before it says anything: is it a port for STOMP, with or without TLS?"
        )

    # --- publishing ---

    def _write(self, place: int, sending: Sending) -> None:
        self._receipts += 1
        receipt = str(self._receipts)
        self._waiting[receipt] = place
        frame = stompman.SendFrame.build(
            body=sending.body,
            destination=sending.destination,
            transaction=None,
            content_type=sending.content_type,
            headers={**sending.headers, "receipt": receipt},
            add_content_length=True,
        )
        self._writer.write(stompman.dump_frame(frame))

    async def _wait_for_answers(self) -> None:
        """For one more at least, or the end."""
        self._answered.clear()
        try:
            async with asyncio.timeout(RECEIPT_TIMEOUT_S):
                await self._answered.wait()
        except TimeoutError:
            self._over(f"the broker confirms nothing within {RECEIPT_TIMEOUT_S:g} s")

    async def _read_on(self) -> None:
        reason = "the broker hung up"
        try:
            while self._end is None and (chunk := await self._reader.read(READ_AT_ONCE)):
                self._last_heard = monotonic()
                _acknowledge_at_once(self._writer)
                for frame in self._parser.parse_frames_from_chunk(chunk):
                    self._take_in(frame)
        except OSError as error:
            reason = f"the connection broke: {error.strerror or type(error).__name__}"
        self._over(reason)

    def _take_in(self, frame: object) -> None:
        if isinstance(frame, stompman.ReceiptFrame):
            self._answer(frame.headers["receipt-id"], TAKEN)
        elif isinstance(frame, stompman.ErrorFrame):
            # The broker has to hang up after it (STOMP 1.2, ERROR); one that does not is left alone all the same: what
            # it did with the rest is not known.
            reason = _said(frame)
            self._answer(frame.headers.get("receipt-id", ""), Confirmation("refused", reason))
            self._over(f"the broker said: {reason}")

    def _answer(self, receipt: str, confirmation: Confirmation) -> None:
        place = self._waiting.pop(receipt, None)
        if place is not None:
            self._answers[place] = confirmation
            self._answered.set()

    def _over(self, reason: str) -> None:
        if self._end is None:
            self._end = reason
            self._waiting.clear()
            self._answered.set()
            self._writer.transport.abort()

    async def _keep_alive(self, ours_s: float, theirs_s: float) -> None:
        while self._end is None:
            await asyncio.sleep(ours_s or theirs_s)
            if ours_s:
                self._writer.write(b"\n")
            if theirs_s and monotonic() - self._last_heard > theirs_s * SILENCE_TOLERATED:
                self._over("the broker has fallen silent")


def _acknowledge_at_once(writer: asyncio.StreamWriter) -> None:
    """A broker without TCP_NODELAY holds the second receipt back until the first is acknowledged, for which the kernel
    takes 40 ms: that was nine tenths of the time. The kernel forgets the wish, so it is told again and again."""
    sock = writer.get_extra_info("socket")
    if sock is not None and _QUICKACK is not None:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Of Linux."""


def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _heartbeats(frame: stompman.ConnectedFrame) -> tuple[float, float]:
    """Seconds between ours, and between the broker's; 0 for none (STOMP 1.2, Heart-beating)."""
    offered, wanted = (int(part) for part in str(frame.headers.get("heart-beat") or "0,0").split(","))
    ours = max(HEARTBEAT_MS, wanted) if wanted else 0
    theirs = max(HEARTBEAT_MS, offered) if offered else 0
    return ours / 2000, theirs / 1000  # twice as often as promised: a busy loop may be late


def _refusal(frame: object, address: StompAddress) -> str:
    if not isinstance(frame, stompman.ErrorFrame):
        return f"{address} does not speak STOMP 1.2"
    said = _said(frame)
    hint = "check the user and the password in HUB_BROKER_URL" if _is_about_sign_in(said) else "see the broker's log"
    return f"{address} refuses the connection: {said}; {hint}"


def _is_about_sign_in(said: str) -> bool:
    return any(word in said.lower() for word in ("password", "user", "security", "auth", "credential", "login"))


def _said(frame: stompman.ErrorFrame) -> str:
    """One line, without what follows of a stack trace."""
    text = str(frame.headers.get("message") or "") or frame.body.decode("utf-8", "replace")
    return " ".join(text.split("\n", 1)[0].split())[:LONGEST_REASON] or "nothing"
