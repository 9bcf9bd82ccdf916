"""The sliding window in a process: never more than the quota in any window, at the same cost whoever asks."""

import random
import sys
import time
from collections import deque

import pytest

from app.core.limits.limiter import NOWHERE, address_key
from app.core.limits.prices import UNITS, price_of
from app.core.limits.rates import Policy, Rate, Standing
from app.core.limits.windows import NOTES, SlidingWindows
from tests.cpu_growth import without_what_is_there
from tests.started import packages_of_a_start


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def windows(quota: int, window_s: int = 60, *, most_keys: int = 1000) -> tuple[SlidingWindows, Clock]:
    clock = Clock()
    policy = Policy("principal", Rate(quota, window_s))
    return SlidingWindows(policy, most_keys=most_keys, clock=clock), clock


def charge(found: SlidingWindows, units: int = 1, key: str = "somebody") -> Standing:
    return found.charge(key, units)


def test_as_many_as_the_quota_are_admitted_and_no_more() -> None:
    found, _ = windows(5)
    assert [charge(found).is_admitted for _ in range(7)] == [True] * 5 + [False] * 2


def test_what_was_used_comes_back_one_window_after_it_was_used() -> None:
    found, clock = windows(2)
    charge(found)
    clock.now += 10
    charge(found)
    clock.now += 49.9
    assert not charge(found).is_admitted
    clock.now += 0.1  # a minute after the first
    assert charge(found).is_admitted
    assert not charge(found).is_admitted


def test_there_is_no_moment_at_which_a_whole_quota_comes_back() -> None:
    """A window that is fixed lets twice the quota pass around its edge."""
    found, clock = windows(60)
    clock.now += 59
    admitted = sum(charge(found).is_admitted for _ in range(100))
    clock.now += 2
    assert admitted + sum(charge(found).is_admitted for _ in range(100)) == 60


def test_a_refusal_takes_nothing_and_says_how_long_to_wait() -> None:
    found, clock = windows(10)
    charge(found, 4)
    clock.now += 20
    charge(found, 4)
    refused = charge(found, 10)
    assert (refused.is_admitted, refused.remaining, refused.resets_in_s) == (False, 2, 60.0)
    refused = charge(found, 6)
    assert refused.resets_in_s == 40.0  # when the first four are back
    clock.now += refused.resets_in_s
    assert charge(found, 6).is_admitted


def test_whoever_goes_on_asking_is_admitted_when_they_were_told() -> None:
    found, clock = windows(3)
    for _ in range(3):
        charge(found)
    told = charge(found).retry_after_s
    ends = clock.now + told
    while clock.now < ends - 0.5:
        clock.now += 0.1
        assert not charge(found).is_admitted
    clock.now = ends
    assert charge(found).is_admitted


def test_remaining_and_reset_are_those_of_the_quota() -> None:
    found, clock = windows(10)
    assert (charge(found, 3).remaining, charge(found, 2).remaining) == (7, 5)
    clock.now += 15
    standing = charge(found)
    assert (standing.remaining, standing.retry_after_s) == (4, 45)


def test_no_quota_comes_back_later_than_a_window_from_now() -> None:
    found, clock = windows(5, 3600)
    clock.now = 29690.293
    assert clock.now + 3600 - clock.now > 3600  # as numbers of this kind are added
    assert charge(found).resets_in_s == 3600


def test_what_costs_more_than_the_whole_quota_takes_all_of_it() -> None:
    found, clock = windows(5)
    assert charge(found, 10).is_admitted
    assert not charge(found).is_admitted
    clock.now += 60
    charge(found)
    assert not charge(found, 10).is_admitted


def test_keys_do_not_share() -> None:
    found, _ = windows(1)
    assert charge(found, key="one").is_admitted
    assert charge(found, key="other").is_admitted
    assert not charge(found, key="one").is_admitted


@pytest.mark.parametrize("seed", range(8))
def test_no_window_ever_holds_more_than_the_quota_and_little_is_withheld(seed: int) -> None:
    """Against a log of every request: exact but for a sixtieth of a window in which units may come back later."""
    chance = random.Random(seed)
    quota = chance.choice((7, 50, 600))
    found, clock = windows(quota)
    admitted: deque[tuple[float, int]] = deque()
    for _ in range(3000):
        clock.now += chance.expovariate(quota / 60) * chance.choice((0.05, 0.5, 1, 3))
        units = chance.choice((1, 1, 1, 2, 10))
        while admitted and admitted[0][0] <= clock.now - 60 - 60 / NOTES:
            admitted.popleft()
        in_window = sum(spent for at, spent in admitted if at > clock.now - 60)
        a_little_longer = sum(spent for _, spent in admitted)
        if charge(found, units).is_admitted:
            admitted.append((clock.now, min(units, quota)))
            assert in_window + min(units, quota) <= quota
        else:
            assert a_little_longer + min(units, quota) > quota


def test_a_key_holds_no_more_than_some_sixty_notes_however_much_it_asks() -> None:
    found, clock = windows(10**9)
    for _ in range(20_000):
        clock.now += 0.007
        charge(found)
    assert len(found._young["somebody"]) <= 1 + 3 * (NOTES + 2)


def test_what_another_has_judged_is_noted_even_over_the_quota_and_forgotten_as_well() -> None:
    found, clock = windows(3)
    for _ in range(5):
        found.note("somebody", 1)
    assert charge(found).remaining == 0
    clock.now += 60
    assert charge(found).remaining == 2
    for _ in range(20_000):
        clock.now += 0.1
        found.note("other", 1)
    assert len(found._young["other"]) <= 1 + 3 * (NOTES + 2)


# Floods ---------------------------------------------------------------------------------------------------------------


def test_a_flood_of_keys_fills_a_table_of_one_size() -> None:
    found, clock = windows(5, most_keys=1000)
    for number in range(50_000):
        clock.now += 0.0001
        assert charge(found, key=f"k{number}").is_admitted
    assert len(found) <= 1000


def test_whoever_goes_on_asking_during_a_flood_is_not_forgotten() -> None:
    found, clock = windows(5, most_keys=1000)
    for _ in range(5):
        charge(found)
    for number in range(20_000):
        clock.now += 0.0001
        charge(found, key=f"k{number}")
        if number % 400 == 0:
            assert not charge(found).is_admitted


def test_keys_are_forgotten_once_their_windows_have_passed() -> None:
    found, clock = windows(5, most_keys=1000)
    for number in range(400):
        charge(found, key=f"k{number}")
    for _ in range(3):
        clock.now += 61
        charge(found, key=f"at {clock.now}")
    assert len(found) <= 2


@pytest.mark.slow
def test_ten_million_addresses_cost_a_bounded_memory_and_the_same_each() -> None:
    found = SlidingWindows(Policy("address", Rate(600, 60)), most_keys=65_536)
    took = []
    for million in range(10):
        looks = [seconds_of_charging(found, range(at, at + 100_000)) for at in numbers_of(million)]
        took.append(min(looks))  # what else a machine does only ever makes a look longer
        assert len(found) <= 65_536
    ages = (found._young, found._old)
    held = sum(sys.getsizeof(age) + sum(map(sys.getsizeof, age.values())) for age in ages)
    assert held < 32 * 1024 * 1024
    assert max(took) < 2.5 * min(took)


def numbers_of(million: int) -> range:
    return range(million * 1_000_000, (million + 1) * 1_000_000, 100_000)


def seconds_of_charging(windows: SlidingWindows, numbers: range) -> float:
    with without_what_is_there():
        began = time.thread_time()
        for number in numbers:
            windows.charge(number, 1)
        return time.thread_time() - began


# Addresses and prices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:DB8:1:2::1", "2001:0db8:0001:0002:0000::1"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("no address", "no address"),
        (None, NOWHERE),
        ("not:an:address", None),
    ],
)
def test_addresses_that_one_client_may_choose_from_share_a_quota(one: str | None, other: str | None) -> None:
    assert address_key(one) == address_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("192.0.2.7", "192.0.2.8"), ("2001:db8:1:2::1", "2001:db8:1:3::1"), ("::ffff:192.0.2.7", "::ffff:192.0.2.8")],
)
def test_addresses_of_others_do_not(one: str, other: str) -> None:
    assert address_key(one) != address_key(other)


def test_a_price_is_that_of_the_method_unless_it_is_declared() -> None:
    assert price_of({}, ["GET"], is_open=False) == (UNITS["read"], "principal")
    assert price_of({}, ["POST"], is_open=False) == (UNITS["write"], "principal")
    assert price_of({}, ["DELETE"], is_open=True) == (UNITS["write"], "address")
    assert price_of({"costs": "query"}, ["POST"], is_open=False) == (10, "principal")
    assert price_of({"costs": "login"}, ["POST"], is_open=True) == (1, "login-address")


def test_a_route_that_runs_a_connector_cannot_forget_its_price() -> None:
    with pytest.raises(ValueError, match="runs a connector"):
        price_of({}, ["POST"], is_open=False, codes=["connectors_busy"])
    assert price_of({"costs": "connector run"}, ["POST"], is_open=False, codes=["connectors_busy"]).units == 10


def test_who_sets_no_redis_does_not_import_its_client() -> None:
    assert "redis" not in packages_of_a_start()
