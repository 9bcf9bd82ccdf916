"""The arithmetic behind the bench's table: which figures are compared, and when a goal counts as reached."""

import pytest

from bench.report import (
    Bound,
    Goal,
    Sample,
    Work,
    goals,
    measurements,
    percentile,
    round_ratios,
    table,
    verdict,
)

RATE_GOAL = Goal("hub", "F1", 0.80)


def sample(per_second: float, *, p99_ms: float = 1.0, failures: int = 0, cpu_s: float | None = None) -> Sample:
    return Sample(int(per_second * 2), 2.0, 0.5, p99_ms, failures, cpu_s)


def work(hub: list[Sample], base: list[Sample], goal: Goal = RATE_GOAL) -> Work:
    return Work("GET /roles/{id}", [goal], {goal.base: base, goal.subject: hub})


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() -> None:
    found = verdict(work([sample(90), sample(40), sample(85)], [sample(100), sample(50), sample(100)]), RATE_GOAL)
    assert (found.ratio, found.lowest, found.highest) == (0.85, 0.80, 0.90)
    assert found.holds


def test_a_goal_that_is_reached_exactly_holds() -> None:
    assert verdict(work([sample(80)], [sample(100)]), RATE_GOAL).holds


def test_a_goal_that_is_missed_by_a_little_does_not_hold() -> None:
    assert verdict(work([sample(79)], [sample(100)]), RATE_GOAL).holds is False


def test_a_latency_goal_is_an_upper_limit() -> None:
    goal = Goal("hub", "F1", 3.0, "p99")
    assert verdict(work([sample(1, p99_ms=6)], [sample(1, p99_ms=2)], goal), goal).holds
    assert verdict(work([sample(1, p99_ms=7)], [sample(1, p99_ms=2)], goal), goal).holds is False


@pytest.mark.parametrize("broken", ["hub", "F1"])
def test_a_contestant_that_answered_errors_is_not_counted_as_fast(broken: str) -> None:
    hub, base = sample(100, failures=int(broken == "hub")), sample(100, failures=int(broken == "F1"))
    found = verdict(work([hub], [base]), RATE_GOAL)
    assert found.ratio is None
    assert found.holds is None


def test_a_work_that_was_not_run_has_no_verdict() -> None:
    assert verdict(Work("GET /roles/{id}", [RATE_GOAL]), RATE_GOAL).holds is None


def test_cpu_is_given_per_ten_thousand_requests() -> None:
    assert sample(1000, cpu_s=0.5).cpu_s_each == 2.5


def test_the_cpu_ratio_is_above_one_for_whoever_needs_less() -> None:
    found = verdict(work([sample(100, cpu_s=0.1)], [sample(100, cpu_s=0.2)]), RATE_GOAL)
    assert found.cpu_ratio == 2.0


def test_cpu_that_was_not_measured_is_no_ratio() -> None:
    assert verdict(work([sample(100)], [sample(100)]), RATE_GOAL).cpu_ratio is None


def test_rounds_must_pair_up() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        round_ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(percent: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], percent) == value


def test_a_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 99) == 0


def test_a_bound_holds_up_to_its_limit() -> None:
    assert Bound("start", 3.0, 3.0, "s").holds
    assert not Bound("start", 3.1, 3.0, "s").holds


def test_a_bound_may_be_a_least_one() -> None:
    assert Bound("tests", 50.0, 50.0, "/s", is_least=True).holds
    assert not Bound("tests", 49.9, 50.0, "/s", is_least=True).holds


def test_two_versions_are_compared_by_requests_per_cpu_second() -> None:
    goal = Goal("now", "before", 0.95, "cpu")
    quicker = [sample(100, cpu_s=0.100), sample(10, cpu_s=0.010)]
    dearer = [sample(100, cpu_s=0.110), sample(10, cpu_s=0.011)]
    found = verdict(work(dearer, quicker, goal), goal)
    assert found.ratio == pytest.approx(0.909, abs=0.001)
    assert found.holds is False
    assert verdict(work(quicker, dearer, goal), goal).holds


def test_the_tables_name_every_contestant_and_say_what_does_not_hold() -> None:
    measured = work([sample(50)], [sample(12_345)])
    assert "12,345" in measurements([measured])
    shown = goals([measured], [Bound("idle worker", 140.0, 150.0, "MB")])
    assert "NO" in shown
    assert "| idle worker " in shown


def test_table_columns_are_as_wide_as_their_widest_cell() -> None:
    lines = table(["a", "bb"], [["ccc", "d"]]).splitlines()
    assert lines == ["| a   | bb |", "| --- | -- |", "| ccc | d  |"]
