"""The table of faults says what happened, also of a fault that nobody has tried."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.ledger import Verdict
from tests.faults.table import FAULTS, lines


def report(outcome: str, *properties: tuple[str, str]) -> Any:
    return SimpleNamespace(nodeid="tests/x.py::test_x", when="call", outcome=outcome, user_properties=list(properties))


def test_each_fault_has_a_line_and_one_without_a_test_says_so() -> None:
    verdict = Verdict(3, 2, 1, 5, one_audit_row_each=True, one_event_each=True, out_s=0.5)
    told = list(
        lines(
            {
                "passed": [
                    report("passed", ("fault", "FT1"), ("ledger", str(verdict))),
                    report("passed", ("fault", "RL2")),
                    report("passed", ("fault", "RL2")),
                ],
                "failed": [report("failed", ("fault", "FT2"))],
            }
        )
    )
    found = {line.split()[0]: line for line in told}
    assert list(found) == list(FAULTS)
    assert "acknowledged     3  present     2  lost 1" in found["FT1"]
    assert found["FT2"].endswith("FAILED tests/x.py::test_x")
    assert found["RL2"].endswith("2 tests passed")
    assert found["FT4"].endswith("NO TEST")


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(3, 2, 1, 5, one_audit_row_each=True, one_event_each=True, out_s=0.5),
        Verdict(3, 3, 0, 5, one_audit_row_each=False, one_event_each=True, out_s=0.5),
        Verdict(3, 3, 0, 5, one_audit_row_each=True, one_event_each=False, out_s=0.5),
        Verdict(0, 0, 0, 0, one_audit_row_each=True, one_event_each=True, out_s=0.5),
    ],
    ids=["lost", "unaudited", "unannounced", "nothing tried"],
)
def test_what_is_not_whole_is_not_good(verdict: Verdict) -> None:
    assert not verdict.is_good
