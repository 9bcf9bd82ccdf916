"""What tells linear work from quadratic, which many tests rely on."""

import gc
from collections.abc import Callable

from tests.cpu_growth import LOOKS, CpuGrowth, without_what_is_there


def quadratic(size: int) -> None:
    for _ in range(size):
        for _ in range(size):
            pass


def linear(size: int) -> None:
    for _ in range(size * 200):
        pass


def looked_at(growth: CpuGrowth, work: Callable[[int], None]) -> int:
    """How often."""
    looks = 0
    for size in growth.sizes():
        looks += 1
        with growth.look(size):
            work(size)
    return looks


def test_quadratic_work_is_told_by_its_growth_alone() -> None:
    growth = CpuGrowth(500, 1_000, floor_s=0.001)
    looks = looked_at(growth, quadratic)
    assert not growth.is_bounded
    assert looks == 2 * LOOKS, "a dear look is looked at again, but not until chance helps"


def test_linear_work_is_bounded() -> None:
    growth = CpuGrowth(500, 1_000, floor_s=0.001)
    looked_at(growth, linear)
    growth.assert_bounded()


def test_linear_work_that_is_dear_is_not() -> None:
    growth = CpuGrowth(500, 1_000, at_most_s=0.0001)
    looked_at(growth, linear)
    assert not growth.is_bounded


def test_what_the_process_holds_is_no_part_of_a_look() -> None:
    """The collector walks over what the look makes, and over nothing else."""
    held = [[number] for number in range(100_000)]
    with without_what_is_there():
        assert not any(gc.get_objects(generation) for generation in (1, 2))
        made = [[number] for number in range(2_000)]
        assert len(gc.get_objects()) < 5_000
    assert len(gc.get_objects()) > 100_000
    del held, made
