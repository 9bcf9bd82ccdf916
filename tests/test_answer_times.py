import asyncio
from functools import partial

import pytest

from tests.answer_times import assert_alike

pytestmark = pytest.mark.anyio


async def test_answers_that_take_the_same_time_are_alike() -> None:
    await assert_alike({"one": partial(asyncio.sleep, 0.001), "other": partial(asyncio.sleep, 0.001)}, within_ms=3.0)


async def test_a_difference_is_seen_however_often_it_is_looked_at() -> None:
    with pytest.raises(AssertionError, match="slower"):
        await assert_alike(
            {"quicker": partial(asyncio.sleep, 0.0), "slower": partial(asyncio.sleep, 0.008)}, within_ms=3.0
        )
