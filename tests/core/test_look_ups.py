"""Look-ups of names: shared out among those whose names they are, and nobody waits for another one's."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from app.core.look_ups import LookUps
from tests.silent_names import SilentNames

pytestmark = pytest.mark.anyio

SHARE = 2


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentNames]:
    silent = SilentNames(monkeypatch)
    yield silent
    silent.release()


@pytest.fixture
def look_ups() -> Iterator[LookUps]:
    opened = LookUps(6, share=SHARE)
    yield opened
    opened.close()


async def given_up(look_ups: LookUps, whose: str, count: int) -> None:
    """So many names that nobody answers for, one after the other, none waited for for long."""
    for number in range(count):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await look_ups.of(whose)(f"{number}.unanswered.example", 443)


async def test_of_one_no_more_are_under_way_than_their_share_however_many_were_given_up(
    look_ups: LookUps, names: SilentNames
) -> None:
    await given_up(look_ups, "one", 20)
    assert len(names.threads) == SHARE


async def test_another_one_is_answered_meanwhile(look_ups: LookUps, names: SilentNames) -> None:
    for whose in ("one", "two"):
        await given_up(look_ups, whose, 20)
    async with asyncio.timeout(1):
        found = await asyncio.gather(*(look_ups.of("three")("localhost", 80) for _ in range(20)))
    assert "127.0.0.1" in found[0]
    assert len(names.threads) == 2 * SHARE


async def test_a_share_is_whole_again_once_the_resolver_has_given_up(look_ups: LookUps, names: SilentNames) -> None:
    await given_up(look_ups, "one", 5)
    names.release()
    async with asyncio.timeout(1):
        await asyncio.gather(*(look_ups.of("one")("localhost", 80) for _ in range(20)))
    assert len(names.threads) == SHARE, "nobody asks for what was given up in line"


async def test_a_name_without_an_address_is_an_error_of_the_system(look_ups: LookUps, names: SilentNames) -> None:
    names.release()
    with pytest.raises(socket.gaierror):
        await look_ups.of("one")("1.unanswered.example", 443)


async def test_a_share_is_whole_where_no_thread_can_be_started(
    look_ups: LookUps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refused)
        for _ in range(SHARE + 1):
            async with asyncio.timeout(1):
                with pytest.raises(OSError, match="can't start"):
                    await look_ups.of("one")("localhost", 80)
    async with asyncio.timeout(1):
        assert "127.0.0.1" in await look_ups.of("one")("localhost", 80)
