"""The page of results: a section for each part, each replaceable alone, and a summary that is read off the sections."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.report import Bound, Work, goals, measurements, table

TITLES: Mapping[str, str] = {
    "read": "Reads: by id, lists, unchanged",
    "identity": "Identity",
    "write": "Writes",
    "bulk": "Bulks",
    "login": "Logins",
    "mixed": "Reads beside logins",
    "sessions": "Sessions",
    "start": "Start",
    "memory": "Memory",
    "discover": "Discovery",
    "scheduler": "Scheduler",
    "bodies": "Bodies",
    "rights": "Rights",
    "limits": "Limits",
    "record": "On record",
    "growth": "Growth",
}
"""By part, in the order of the page."""
AGAINST = "Before and after"
SUMMARY = "Summary"
_BROKEN = "Broken, so this part counts as not reached:"


@dataclass
class Findings:
    """What a part has found."""

    works: Sequence[Work] = ()
    bounds: Sequence[Bound] = ()
    text: str = ""
    """Below the tables."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Whatever is too long for the page, by the name of a file beside it."""


def section(circumstances: str, findings: Findings, problems: Sequence[str]) -> str:
    parts = [circumstances]
    if problems:
        parts += [_BROKEN, "\n".join(f"- {' '.join(problem.split())}" for problem in problems)]
    if findings.bounds or any(work.goals for work in findings.works):
        parts.append(goals(findings.works, findings.bounds))
    if findings.works:
        shown = measurements(findings.works)
        parts.append(f"<details><summary>Measurements (medians)</summary>\n\n{shown}\n\n</details>")
    if findings.text:
        parts.append(findings.text)
    return "\n\n".join(parts)


def with_section(page: str, title: str, text: str) -> str:
    """The page with this section in place of the one of that title, or at its end."""
    before, heading, rest = page.partition(f"## {title}\n")
    _, next_heading, after = rest.partition("\n## ")
    before = before if heading else page.rstrip("\n") + "\n\n"
    return f"{before}## {title}\n\n{text.rstrip()}\n{next_heading}{after}"


def with_results(page: str, head: str, sections: Mapping[str, str]) -> str:
    """The page with these sections anew, in the order of `TITLES`, below a summary of all that stand on it.

    A section of no known part has been left by an earlier form of the page, and goes.
    """
    found = sections_of(page) | dict(sections)
    ordered = [title for title in (*TITLES.values(), AGAINST) if title in found]
    page = f"# Results\n\n{head}\n"
    for title, text in {SUMMARY: _summary(found), **{title: found[title] for title in ordered}}.items():
        page = with_section(page, title, text)
    return page


def sections_of(page: str) -> dict[str, str]:
    """By title, without the heading."""
    pieces = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def _summary(found: Mapping[str, str]) -> str:
    rows = [_summed(name, found.get(title, "")) for name, title in TITLES.items()]
    if AGAINST in found:
        rows.append(_summed("--against", found[AGAINST]))
    return table(["part", "holds", "goals reached", "measured"], rows)


def _summed(part: str, text: str) -> list[str]:
    if not text:
        return [part, "NO", "-", "never"]
    said = re.findall(r"\| (yes|NO|not measured) +\|$", text, re.MULTILINE)
    reached = said.count("yes")
    holds = "yes" if reached == len(said) and _BROKEN not in text else "NO"
    broken = ", broken" if _BROKEN in text else ""
    return [part, holds, f"{reached} of {len(said)}{broken}", text.partition(" UTC")[0]]
