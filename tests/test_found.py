"""The list of found faults is answered line by line (`python -m tests.found` shows by which tests)."""

import pytest

from tests.found import LATER, LINES, answers_by_line


@pytest.mark.parametrize("line", [line for line in LINES if line not in LATER])
def test_each_line_is_answered_by_a_test(line: str) -> None:
    assert answers_by_line().get(line), f"no test bears {line}"


def test_no_test_bears_an_id_that_is_none() -> None:
    assert answers_by_line().keys() <= LINES.keys()


def test_the_walk_finds_marks_on_tests_files_and_parameters() -> None:
    assert len(LINES) == 63
    assert any("test_locked_accounts.py" in test for test in answers_by_line()["U6"])
    assert any("test_passwords.py::test_blanks" in test for test in answers_by_line()["U12"])
