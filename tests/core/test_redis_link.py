"""The shared window and shared places in a real Redis, and a link that never makes anybody wait."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from app.core.limits.leases import Leases
from app.core.limits.rates import Policy, Rate, Standing
from app.core.limits.shared_windows import SharedWindows
from app.core.redis_link import TURNS, RedisAway, RedisLink, Script
from tests.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.anyio, pytest.mark.services]

OWN = Script("return {redis.call('INCR', KEYS[1])}", numbers=1)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def stored(server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
async def link(server: RedisServer, stored: "redis.Redis") -> AsyncIterator[RedisLink]:
    made = RedisLink(server.url)
    await made.start()
    assert made.is_up
    yield made
    await made.stop()


def policy(quota: int, window_s: int = 60) -> Policy:
    return Policy("principal", Rate(quota, window_s))


async def charge(link: RedisLink, of: Policy, units: int = 1, key: str = "somebody") -> Standing:
    return await SharedWindows(link).charge(of, key, units)


# The window -----------------------------------------------------------------------------------------------------------


async def test_exactly_the_quota_is_admitted_however_many_ask_at_once(server: RedisServer, link: RedisLink) -> None:
    other = RedisLink(server.url)
    await other.start()
    of = policy(100)
    found = await asyncio.gather(*(charge((link, other)[number % 2], of) for number in range(400)))
    await other.stop()
    assert sum(standing.is_admitted for standing in found) == 100
    assert sorted(standing.remaining for standing in found if standing.is_admitted) == list(range(100))


async def test_what_was_used_comes_back_after_the_window_and_not_before(link: RedisLink) -> None:
    of = policy(3, window_s=1)
    assert [(await charge(link, of)).is_admitted for _ in range(4)] == [True] * 3 + [False]
    refused = await charge(link, of)
    assert 0 < refused.resets_in_s <= 1
    await asyncio.sleep(refused.resets_in_s)
    assert (await charge(link, of)).is_admitted


async def test_no_window_of_redis_own_clock_holds_more_than_the_quota(link: RedisLink, stored: "redis.Redis") -> None:
    of, admitted = policy(20, window_s=1), []
    ends = time.monotonic() + 3.5
    while time.monotonic() < ends:
        if (await charge(link, of)).is_admitted:
            seconds, microseconds = stored.time()
            admitted.append(seconds + microseconds / 1e6)
        await asyncio.sleep(0.004)
    assert 60 <= len(admitted) <= 80
    late_s = 0.05  # the clock is read a moment after the script has read it
    assert all(later - earlier > 1 - late_s for earlier, later in zip(admitted, admitted[20:], strict=False))


async def test_a_refusal_takes_nothing_and_a_price_may_be_more_than_what_is_left(link: RedisLink) -> None:
    of = policy(10)
    await charge(link, of, 4)
    refused = await charge(link, of, 10)
    assert (refused.is_admitted, refused.remaining) == (False, 6)
    assert 59 < refused.resets_in_s <= 60
    assert (await charge(link, of, 6)).remaining == 0


async def test_what_costs_more_than_the_whole_quota_takes_all_of_it(link: RedisLink) -> None:
    assert (await charge(link, policy(5), 10)).is_admitted
    assert not (await charge(link, policy(5))).is_admitted


async def test_a_key_holds_some_sixty_notes_and_is_forgotten_after_its_window(
    link: RedisLink, stored: "redis.Redis"
) -> None:
    of = policy(10**9, window_s=1)
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        await charge(link, of)
    (key,) = stored.keys()
    assert stored.llen(key) <= 63
    assert 0 < stored.pttl(key) <= 1000
    assert int(str(stored.lindex(key, 0))) == sum(int(note.split()[2]) for note in stored.lrange(key, 1, -1))


@pytest.mark.parametrize(("ahead_s", "is_admitted"), [(30, False), (3600, True)])
async def test_a_clock_that_is_set_back_locks_nobody_out_for_longer_than_a_window(
    link: RedisLink, stored: "redis.Redis", ahead_s: int, is_admitted: bool
) -> None:
    """Notes of a moment that is still to come: as if Redis' clock had been set back by so much since."""
    of = policy(5)
    later = (stored.time()[0] + ahead_s) * 1_000_000
    stored.rpush("hub:limit:principal:60:somebody", 5, f"{later} {later} 5")
    standing = await charge(link, of)
    assert standing.is_admitted == is_admitted
    assert standing.resets_in_s <= 60


async def test_redis_forgets_all_scripts_and_they_are_sent_again(link: RedisLink, stored: "redis.Redis") -> None:
    stored.script_flush()
    assert (await charge(link, policy(5))).remaining == 4
    assert link.is_up


# Places ---------------------------------------------------------------------------------------------------------------


async def test_places_are_shared_and_free_again_when_they_are_given_back(server: RedisServer, link: RedisLink) -> None:
    other = RedisLink(server.url)
    await other.start()
    here, there = Leases(link, "runs"), Leases(other, "runs")
    async with here.place("acme", 2) as one, there.place("acme", 2) as two, here.place("acme", 2) as three:
        assert (one, two, three) == (True, True, False)
        async with there.place("globex", 2) as of_another:
            assert of_another
    async with there.place("acme", 1) as again:
        assert again
    await asyncio.gather(here.stop(), there.stop(), other.stop())


async def test_a_place_is_kept_for_as_long_as_it_is_held(link: RedisLink) -> None:
    leases, others = Leases(link, "runs", lease_s=0.4, renew_s=0.1), Leases(link, "runs")
    async with leases.place("acme", 1):
        await asyncio.sleep(1.0)
        async with others.place("acme", 1) as is_free:
            assert not is_free
    await leases.stop()


async def test_a_place_of_who_was_killed_is_free_once_its_lease_ends(link: RedisLink) -> None:
    killed, others = Leases(link, "runs", lease_s=0.4, renew_s=60), Leases(link, "runs")
    place = killed.place("acme", 1)
    await place.__aenter__()
    await killed.stop()
    async with others.place("acme", 1) as is_free:
        assert not is_free
    await asyncio.sleep(0.5)
    async with others.place("acme", 1) as is_free:
        assert is_free


async def test_places_that_redis_has_lost_are_noted_again(link: RedisLink, stored: "redis.Redis") -> None:
    leases, others = Leases(link, "runs", renew_s=0.1), Leases(link, "runs")
    async with leases.place("acme", 1):
        stored.flushall()
        await asyncio.sleep(0.4)
        async with others.place("acme", 1) as is_free:
            assert not is_free
    await leases.stop()
    assert stored.keys("hub:lease:*") == []


# The link -------------------------------------------------------------------------------------------------------------


async def test_where_nobody_answers_a_start_is_not_stopped_and_nothing_is_asked() -> None:
    made = RedisLink("redis://127.0.0.1:1/0")
    await made.start()
    assert not made.is_up
    for _ in range(100):
        with pytest.raises(RedisAway):
            await made.call(OWN, "x")
    assert (made._busy, len(made._waiting)) == (0, 0)
    await made.stop()


@pytest.mark.parametrize(
    "text",
    ["return 1", "return {}", "return {1, 2}", "return {'one'}", "return redis.error_reply('OOM')", "return {{1}}"],
)
async def test_a_wrong_answer_opens_the_circuit(link: RedisLink, text: str) -> None:
    with pytest.raises(RedisAway):
        await link.call(Script(text, numbers=1), "x")
    assert not link.is_up
    for _ in range(50):
        await asyncio.sleep(0.1)
        if link.is_up:
            break
    assert link.is_up  # it answers the probe


async def test_a_caller_who_leaves_opens_nothing(link: RedisLink) -> None:
    async def ask() -> Any:
        return await link.call(OWN, "asked")

    for _ in range(50):
        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert link.is_up
    (count,) = await link.call(OWN, "mine")
    assert count == 1  # the answer to this call, and not to one before it


async def test_a_thousand_calls_at_once_are_sent_together_and_open_nothing(link: RedisLink) -> None:
    """As many as a process has requests under way, over four connections."""
    found = await asyncio.gather(*(link.call(OWN, "counted") for _ in range(1000)))
    assert sorted(number for (number,) in found) == list(range(1, 1001))
    assert link.is_up


async def test_nobody_is_left_waiting_whenever_they_come(link: RedisLink) -> None:
    async def come(after_s: float) -> None:
        await asyncio.sleep(after_s)
        for _ in range(20):
            await link.call(OWN, "counted")

    async with asyncio.timeout(30):
        await asyncio.gather(*(come(number / 1000) for number in range(50)))
    assert link._busy == 0


async def test_all_who_wait_for_one_that_goes_silent_are_let_go_together(server: RedisServer, link: RedisLink) -> None:
    server.signal(signal.SIGSTOP)
    before = link._deadlines._turn
    answers = await asyncio.gather(*(link.call(OWN, "counted") for _ in range(1000)), return_exceptions=True)
    turns = link._deadlines._turn - before
    server.signal(signal.SIGCONT)
    assert {type(answer) for answer in answers} == {RedisAway}
    assert turns <= TURNS + 1  # those whose turn had not come did not wait for one of their own
