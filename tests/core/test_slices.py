"""Long work leaves the event loop to others every few milliseconds."""

import asyncio
import time

import pytest

from app.core.slices import in_slices

pytestmark = [pytest.mark.anyio, pytest.mark.found("L10")]


async def test_others_have_their_turn_in_between_and_nothing_is_left_out() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    done = []
    async for number in in_slices(range(30)):
        time.sleep(0.001)
        done.append(number)
    counting.cancel()
    assert done == list(range(30))
    assert turns >= 8


async def test_short_work_is_done_in_one_turn() -> None:
    turned: list[bool] = []
    asyncio.get_running_loop().call_soon(turned.append, True)
    assert [number async for number in in_slices(range(3))] == [0, 1, 2]
    assert turned == []
