"""`pytest -m fault --fault-table`: one line for each fault and seed, with what was acknowledged and what is left of it.

A test bears the id of its fault (security.md) as `@pytest.mark.fault("FT1")`. One that keeps a ledger hands its verdict to
`record_property("ledger", ...)`; of the others the table says how many passed.
"""

from collections import defaultdict
from collections.abc import Iterator

import pytest

FAULTS = {
    "FT1": "PostgreSQL is killed",
    "FT2": "PostgreSQL falls silent",
    "FT3": "clients leave in the middle",
    "FT4": "the broker is killed",
    "FT5": "Redis is away",
    "FT6": "a worker is killed inside of a transaction",
    "FT7": "SIGTERM under load",
    "FT8": "the disk is full",
    "FT9": "many change one thing at once",
    "FT10": "migrated up, down and up",
    "FT11": "backed up and restored",
    "RL1": "bodies over the limit",
    "RL2": "slow clients",
    "RL3": "limits across workers",
    "RL4": "a flood of logins",
    "RL5": "connectors beyond their time",
    "RL6": "no connection to the database is free",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", action="store_true", help="print what each fault has left")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault: the fault that the test makes, e.g. FT1 (tests/faults/table.py)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            if unknown := set(mark.args) - FAULTS.keys():
                raise pytest.UsageError(f"{item.nodeid}: {', '.join(sorted(unknown))} is no fault of the table")
            item.user_properties += [("fault", fault) for fault in mark.args]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--fault-table"):
        terminalreporter.section("faults")
        for line in lines(terminalreporter.stats):
            terminalreporter.line(line)


def lines(stats: dict[str, list[pytest.TestReport]]) -> Iterator[str]:
    """In the order of the faults; one without any test says so."""
    told: dict[str, list[str]] = defaultdict(list)
    passed: dict[str, int] = defaultdict(int)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in stats.get(outcome, ()):
            properties = dict(report.user_properties)
            for fault in (value for name, value in report.user_properties if name == "fault"):
                if outcome != "passed":
                    told[str(fault)].append(f"{outcome.upper()} {report.nodeid}")
                elif report.when == "call" and "ledger" in properties:
                    told[str(fault)].append(str(properties["ledger"]))
                elif report.when == "call":
                    passed[str(fault)] += 1
    for fault, what in FAULTS.items():
        plain = [f"{passed[fault]} tests passed"] if passed[fault] else []
        for said in told[fault] + plain or ["NO TEST"]:
            yield f"{fault:5} {what:45} {said}"
