"""The page of results: each part has a section that is replaced alone, and the summary is read off what stands there."""

from argparse import Namespace
from pathlib import Path

import pytest

import bench.__main__ as command
from bench import page
from bench.page import Findings
from bench.report import Bound
from bench.rounds import Bench

DAY = "2026-11-30 20:48 UTC, 2 cores."
FAST, SLOW = Bound("start", 1.0, 2.0, "s"), Bound("second start", 3.0, 1.0, "s")


def shown(*bounds: Bound, problems: tuple[str, ...] = ()) -> str:
    return page.section(DAY, Findings(bounds=bounds), problems)


def summary(text: str) -> dict[str, list[str]]:
    lines = page.sections_of(text)[page.SUMMARY].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: others for first, *others in cells}


def test_a_section_is_replaced_and_the_others_stay() -> None:
    before = page.with_results("", "head", {"Start": shown(FAST), "Memory": shown(FAST)})
    after = page.with_results(before, "another head", {"Start": shown(SLOW)})
    assert page.sections_of(after)["Memory"] == page.sections_of(before)["Memory"]
    assert "| second start |" in page.sections_of(after)["Start"]
    assert "another head" in after
    assert "| start " not in page.sections_of(after)["Start"]


def test_sections_stand_in_the_order_of_the_parts_whichever_was_measured_first() -> None:
    text = page.with_results("", "", {"Growth": shown(FAST)})
    text = page.with_results(text, "", {page.AGAINST: shown(FAST)})
    text = page.with_results(text, "", {"Start": shown(FAST)})
    assert list(page.sections_of(text)) == [page.SUMMARY, "Start", "Growth", page.AGAINST]


def test_the_summary_counts_goals_and_names_parts_that_were_never_measured() -> None:
    found = summary(page.with_results("", "", {"Start": shown(FAST, SLOW), "Memory": shown(FAST)}))
    assert found["start"] == ["NO", "1 of 2", "2026-11-30 20:48"]
    assert found["memory"] == ["yes", "1 of 1", "2026-11-30 20:48"]
    assert found["growth"] == ["NO", "-", "never"]
    assert found.keys() == page.TITLES.keys()


def test_a_broken_part_does_not_hold_whatever_it_reached() -> None:
    text = page.with_results("", "", {"Start": shown(FAST, problems=("StartFailed: hub ended\nwith 1",))})
    assert summary(text)["start"] == ["NO", "1 of 1, broken", "2026-11-30 20:48"]
    assert "- StartFailed: hub ended with 1" in text


def test_each_part_has_a_title() -> None:
    assert list(command.PARTS) == list(page.TITLES)


def test_a_part_that_breaks_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_: Bench, __: Namespace) -> Findings:
        raise ZeroDivisionError("no round")

    def long(_: Bench, __: Namespace) -> Findings:
        return Findings(bounds=[FAST], files={"LONG.md": "all"})

    monkeypatch.setattr(command, "PARTS", {"start": broken, "memory": long})
    target = tmp_path / "RESULTS.md"
    monkeypatch.setattr("sys.argv", ["bench", "--out", str(target)])
    assert command.main() == 1
    found = summary(target.read_text())
    assert (found["start"][0], found["memory"][0]) == ("NO", "yes")
    assert "- ZeroDivisionError: no round" in target.read_text()
    assert (tmp_path / "LONG.md").read_text() == "all"


def test_a_quick_run_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "PARTS", {"start": lambda *_: Findings(bounds=[FAST])})
    monkeypatch.setattr(command, "_RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr("sys.argv", ["bench", "--quick"])
    assert command.main() == 0
    assert not list(tmp_path.iterdir())
