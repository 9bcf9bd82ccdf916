"""Publishing over STOMP to brokers that are of little use: they forget, hang up, refuse, or fall silent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import stompman

from app.core import stomp
from app.core.publishing import DestinationAway
from app.core.stomp import Sending, StompAddress, StompConnection

pytestmark = pytest.mark.anyio

Answer = Callable[[object, int], bytes | None]
"""From a frame and how many came before it to what is said; nothing ends the connection."""


def connected(heart_beat: str = "0,0") -> bytes:
    return stompman.dump_frame(stompman.ConnectedFrame(headers={"version": "1.2", "heart-beat": heart_beat}))


def receipt(frame: object) -> bytes:
    assert isinstance(frame, stompman.SendFrame)
    return stompman.dump_frame(stompman.ReceiptFrame(headers={"receipt-id": frame.headers["receipt"]}))


def forgetful(frame: object, _: int) -> bytes | None:
    return connected() if isinstance(frame, stompman.ConnectFrame) else b""


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[StompAddress]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # at the end of the loop
            await talk(reader, writer)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser, count = stompman.FrameParser(), 0
        while chunk := await reader.read(65_536):
            for frame in list(parser.parse_frames_from_chunk(chunk)):
                if isinstance(frame, stompman.HeartbeatFrame):
                    continue
                said = answer(frame, count)
                count += 1
                if said is None:
                    writer.transport.abort()
                    return
                writer.write(said)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield StompAddress.parse(f"stomp://127.0.0.1:{listening.sockets[0].getsockname()[1]}")


def sending(number: int) -> Sending:
    return Sending("/topic/x", b"%d" % number, "text/plain", {})


async def test_what_a_broker_takes_and_forgets_is_not_known_to_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames are written, and nothing goes wrong: without receipts this would be a success."""
    monkeypatch.setattr(stomp, "RECEIPT_TIMEOUT_S", 0.2)
    async with server(forgetful) as address:
        connection = await StompConnection.open(address)
        answers = await connection.publish([sending(1), sending(2)])
    assert [answer.outcome for answer in answers] == ["unknown", "unknown"]
    assert "confirms nothing" in answers[0].reason
    assert not connection.is_open
    await connection.close()


async def test_a_slow_broker_is_waited_for_as_long_as_it_confirms_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stomp, "UNCONFIRMED", 2)
    seen: list[bytes] = []

    def answer(frame: object, count: int) -> bytes | None:
        if isinstance(frame, stompman.SendFrame):
            seen.append(frame.body)
            return receipt(frame)
        return connected()

    async with server(answer) as address:
        connection = await StompConnection.open(address)
        answers = await connection.publish([sending(number) for number in range(250)])
        await connection.close()
    assert {answer.outcome for answer in answers} == {"taken"}
    assert seen == [b"%d" % number for number in range(250)]


async def test_receipts_in_any_order_belong_to_their_messages() -> None:
    held: list[object] = []

    def answer(frame: object, count: int) -> bytes | None:
        if isinstance(frame, stompman.ConnectFrame):
            return connected()
        held.append(frame)
        if len(held) < 3:
            return b""
        refused = stompman.ErrorFrame(headers={"message": "no room", "receipt-id": "2"}, body=b"")
        return receipt(held[2]) + receipt(held[0]) + stompman.dump_frame(refused)

    async with server(answer) as address:
        connection = await StompConnection.open(address)
        answers = await connection.publish([sending(number) for number in range(3)])
        await connection.close()
    assert [answer.outcome for answer in answers] == ["taken", "refused", "taken"]
    assert answers[1].reason == "no room"


async def test_after_an_error_nothing_more_is_sent_and_what_was_on_its_way_is_not_known() -> None:
    def answer(frame: object, count: int) -> bytes | None:
        if isinstance(frame, stompman.ConnectFrame):
            return connected()
        if count == 1:
            return receipt(frame)
        return stompman.dump_frame(stompman.ErrorFrame(headers={"message": "gone mad"}, body=b"\tat a line of Java"))

    async with server(answer) as address:
        connection = await StompConnection.open(address)
        first = await connection.publish([sending(1), sending(2), sending(3)])
        second = await connection.publish([sending(4)])
        await connection.close()
    assert [answer.outcome for answer in first] == ["taken", "unknown", "unknown"]
    assert first[2].reason == "the broker said: gone mad"
    assert second[0].outcome == "unknown"


async def test_a_broker_that_hangs_up_leaves_the_rest_unknown() -> None:
    def answer(frame: object, count: int) -> bytes | None:
        if isinstance(frame, stompman.ConnectFrame):
            return connected()
        return receipt(frame) if count < 3 else None

    async with server(answer) as address:
        connection = await StompConnection.open(address)
        answers = await connection.publish([sending(number) for number in range(4)])
        await connection.close()
    assert [answer.outcome for answer in answers][2:] == ["unknown", "unknown"]


async def test_a_broker_that_breaks_its_word_to_say_something_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stomp, "HEARTBEAT_MS", 20)

    def answer(frame: object, count: int) -> bytes | None:
        return connected("20,20") if isinstance(frame, stompman.ConnectFrame) else b""

    async with server(answer) as address:
        connection = await StompConnection.open(address)
        async with asyncio.timeout(10):
            while connection.is_open:
                await asyncio.sleep(0.01)
        await connection.close()


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (b"ERROR\nmessage:User name [x] or password is invalid.\n\n\0", "check the user and the password"),
        (b"ERROR\nmessage:not today\n\n\0", "see the broker's log"),
        (b"MESSAGE\nmessage-id:1\n\n\0", "does not speak STOMP 1.2"),
        (None, "with or without TLS"),
    ],
)
async def test_a_refused_connection_says_what_to_do(said: bytes | None, hint: str) -> None:
    async with server(lambda _frame, _count: said) as address:
        with pytest.raises(DestinationAway, match=hint):
            await StompConnection.open(address)


async def test_a_port_at_which_nobody_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stomp, "CONNECT_TIMEOUT_S", 0.2)
    async with server(lambda _frame, _count: b"") as address:
        with pytest.raises(DestinationAway, match="does not answer"):
            await StompConnection.open(address)


async def test_an_address_is_read_with_its_escapes_and_shown_without_its_password() -> None:
    address = StompAddress.parse("stomps://hub:p%40ss%3Aword%2F@[::1]:61614")
    assert (address.host, address.port, address.is_tls) == ("::1", 61614, True)
    assert (address.login, address.passcode) == ("hub", "p@ss:word/")
    assert "p@ss" not in str(address)
    assert StompAddress.parse("stomp://broker").port == 61613
