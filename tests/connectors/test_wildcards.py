"""The wildcard of the settings, and the batches of discoveries: both stand once for all types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.values.batches import batches, slices
from app.connectors.values.wildcards import is_shown, like_pattern, matches
from tests.cpu_growth import CpuGrowth


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("part-1.csv", "part-*.csv", True),
        ("part-.csv", "part-*.csv", True),
        ("part-1.csv.gz", "part-*.csv", False),
        ("a/b/c.csv", "a/*.csv", True),
        ("abcabc", "*a*c*a*c", True),
        ("aba", "ab*ba", False),
        ("a\nb", "a*b", True),
        ("a[1]?", "a[1]?", True),
        ("a1", "a[1]", False),
        ("x" * 5000, "*x" * 500 + "y", False),
    ],
)
def test_a_star_stands_for_any_characters(text: str, pattern: str, expected: bool) -> None:
    assert matches(text, pattern) is expected


@given(st.text("ab", max_size=12), st.text("ab*", max_size=8))
def test_matching_agrees_with_the_library_s(text: str, pattern: str) -> None:
    assert matches(text, pattern) is fnmatchcase(text, pattern)


def test_many_stars_cost_no_more_than_the_text_is_long() -> None:
    growth = CpuGrowth(20_000, 40_000, floor_s=0.001)
    for length in growth.sizes():
        text, pattern = "a" * length, "*a" * (length // 2) + "*b"
        with growth.look(length):
            for _ in range(20):
                matches(text, pattern)
    growth.assert_bounded()


def test_what_is_left_out_wins_over_what_is_shown() -> None:
    assert is_shown("a", (), ())
    assert is_shown("ab", ("a*",), ("b*",))
    assert not is_shown("ab", ("b*",), ())
    assert not is_shown("ab", ("a*",), ("*b",))


@pytest.mark.parametrize(("escape", "expected"), [("\\", "a\\%\\_|\\\\%"), ("|", "a|%|_||\\%")])
def test_of_like_s_wildcards_the_star_s_is_the_only_one(escape: str, expected: str) -> None:
    assert like_pattern("a%_|\\*", escape) == expected


@pytest.mark.anyio
@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 9])
async def test_batches_hold_everything_once_and_are_never_empty(count: int) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(count):
            yield number

    found = [batch async for batch in batches(items(), 4)]
    assert [number for batch in found for number in batch] == list(range(count))
    assert all(found)
    assert found == [list(some) for some in slices(range(count), 4)]
