"""Places are shared out so that no kind of work has them all, and none is ever lost."""

import asyncio
import random
import time
from collections import Counter

import pytest

from app.core.errors import Unavailable
from app.core.places import Places

pytestmark = [pytest.mark.anyio, pytest.mark.found("L3")]


def taken(places: Places, *kinds: str | None) -> list[bool]:
    return [places.try_take(kind) for kind in kinds]


def as_many_as_it_gets(places: Places, kind: str) -> int:
    return sum(taken(places, *[kind] * places.size))


@pytest.mark.parametrize(
    ("size", "shares"),
    [(20, [15, 3, 1, 1]), (10, [8, 1, 1]), (8, [6, 1, 1]), (4, [3, 1]), (3, [2, 1]), (2, [1, 1]), (1, [1, 0])],
)
def test_the_first_kind_leaves_a_quarter_and_each_other_half_of_what_is_left(size: int, shares: list[int]) -> None:
    places = Places(size, wait_s=1)
    assert [as_many_as_it_gets(places, str(number)) for number in range(len(shares))] == shares
    assert places.free == 0


def test_work_of_no_kind_takes_whatever_is_free() -> None:
    places = Places(4, wait_s=1)
    assert taken(places, "a", None, None, None, None) == [True, True, True, True, False]


async def test_a_kind_that_waits_does_not_keep_others_from_passing() -> None:
    places = Places(4, wait_s=5)
    assert as_many_as_it_gets(places, "locked") == 3
    waiting = [asyncio.create_task(places.take("locked")) for _ in range(50)]
    await asyncio.sleep(0)
    for _ in range(10):
        await places.take("other")
        places.give_back("other")
    assert places.waiting == 50
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert places.waiting == 0


async def test_those_of_one_kind_are_let_in_in_order() -> None:
    places, served = Places(1, wait_s=5), list[int]()
    await places.take("a")

    async def use(number: int) -> None:
        async with places.place("a"):
            served.append(number)

    tasks = [asyncio.create_task(use(number)) for number in range(5)]
    await asyncio.sleep(0)
    places.give_back("a")
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_of_several_kinds_the_one_that_waited_longest_is_let_in() -> None:
    places, served = Places(1, wait_s=5), list[str]()
    await places.take("a")

    async def use(kind: str) -> None:
        async with places.place(kind):
            served.append(kind)

    tasks = [asyncio.create_task(use(kind)) for kind in ("b", "a", "c", "b")]
    await asyncio.sleep(0)
    places.give_back("a")
    await asyncio.gather(*tasks)
    assert served == ["b", "a", "c", "b"]


async def test_waiting_ends_in_time() -> None:
    places = Places(1, wait_s=0.02)
    await places.take("a")
    with pytest.raises(Unavailable) as caught:
        await places.take("b")
    assert (caught.value.code, caught.value.headers) == ("database_busy", {"Retry-After": "1"})
    places.give_back("a")
    assert taken(places, "b") == [True]


async def test_a_queue_that_is_long_enough_refuses_at_once() -> None:
    places = Places(1, wait_s=5, longest_queue=2, refusal="search_busy")
    await places.take("a")
    waiting = [asyncio.create_task(places.take("a")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await places.take("a")
    assert caught.value.code == "search_busy"
    for task in waiting:
        places.give_back("a")
        await task


async def test_a_place_given_as_the_wait_ends_is_not_lost() -> None:
    """Both fall into one turn of the loop: the place comes first, the time-out right behind it."""
    places = Places(1, wait_s=0.05)
    await places.take("a")
    waiting = asyncio.create_task(places.take("b"))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.04, places.give_back, "a")
    time.sleep(0.08)
    (found,) = await asyncio.gather(waiting, return_exceptions=True)
    assert places.free == (1 if isinstance(found, Unavailable) else 0)


async def test_a_place_given_to_one_who_left_goes_to_the_next() -> None:
    places = Places(1, wait_s=5)
    await places.take("a")
    leaving, staying = asyncio.create_task(places.take("b")), asyncio.create_task(places.take("c"))
    await asyncio.sleep(0)
    places.give_back("a")
    leaving.cancel()
    await asyncio.wait_for(staying, 1)
    assert places.free == 0


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_all_places_are_there_at_the_end(seed: int) -> None:
    chance, places, held = random.Random(seed), Places(5, wait_s=0.01), Counter[str | None]()

    async def use(kind: str | None) -> None:
        async with places.place(kind):
            held[kind] += 1
            assert held.total() <= 5
            await asyncio.sleep(chance.random() * 0.01)
            held[kind] -= 1

    tasks = [asyncio.create_task(use(chance.choice(["a", "a", "a", "b", "c", None]))) for _ in range(200)]
    for _ in range(30):
        await asyncio.sleep(chance.random() * 0.002)
        chance.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (places.free, places.waiting, places._taken, places._queues) == (5, 0, {}, {})
