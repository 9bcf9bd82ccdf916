"""Where tests prove one thing for many members: a sample for the plain run, and all of them for CI."""

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def sampled(members: Iterable[Any], every: int) -> list[ParameterSet]:
    """All members as parameters: the first, and then one of so many, is taken by the plain run; the others are slow."""
    return [_as_parameters(member, number % every == 0) for number, member in enumerate(members)]


def _as_parameters(member: Any, is_in_sample: bool) -> ParameterSet:
    known = member if isinstance(member, ParameterSet) else None
    values, marks, test_id = known or (member if isinstance(member, tuple) else (member,), (), None)
    return pytest.param(*values, marks=[*marks, *(() if is_in_sample else [pytest.mark.slow])], id=test_id)
