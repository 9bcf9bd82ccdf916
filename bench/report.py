"""The arithmetic of the table and the table itself. Knows nothing of servers, so that it can be tested without any."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

REQUESTS = 10_000
"""CPU is given in seconds per this many requests."""


@dataclass(frozen=True)
class Sample:
    """One contestant in one round."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int = 0
    """Answers of 400 and above, sockets that broke, and all requests of a run whose answers were of another size."""
    cpu_s: float | None = None
    """Of the server's process tree without PostgreSQL."""
    postgres_cpu_s: float | None = None

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_s_each(self) -> float | None:
        """Server CPU seconds per REQUESTS requests."""
        return _each(self.cpu_s, self.requests)

    @property
    def postgres_cpu_s_each(self) -> float | None:
        return _each(self.postgres_cpu_s, self.requests)


@dataclass(frozen=True)
class Goal:
    """What `subject` must reach, as a multiple of `base`: of its rate, or of its requests per CPU second, at least
    `limit`, of its p99 at most `limit`."""

    subject: str
    base: str
    limit: float
    of: Literal["rate", "p99", "cpu"] = "rate"

    def figure(self, sample: Sample) -> float:
        if self.of == "cpu":
            return 1 / sample.cpu_s_each if sample.cpu_s_each else 0.0
        return sample.per_second if self.of == "rate" else sample.p99_ms

    def holds(self, ratio: float) -> bool:
        return ratio <= self.limit if self.of == "p99" else ratio >= self.limit

    def __str__(self) -> str:
        kind = {"rate": ">=", "p99": "p99 <=", "cpu": "by CPU >="}[self.of]
        return f"{kind} {self.limit:.2f} x {self.base}"


@dataclass(frozen=True)
class Bound:
    """A single figure that must not be exceeded, such as a start-up time; or not be missed, with `is_least`."""

    name: str
    measured: float
    limit: float
    unit: str
    note: str = ""
    is_least: bool = False

    @property
    def holds(self) -> bool:
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit


@dataclass
class Work:
    """One kind of request, with every contestant's samples in the order of the rounds."""

    name: str
    goals: Sequence[Goal] = ()
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, contestant: str, sample: Sample) -> None:
        self.samples.setdefault(contestant, []).append(sample)


@dataclass(frozen=True)
class Verdict:
    work: str
    goal: Goal
    ratio: float | None
    lowest: float | None
    highest: float | None
    cpu_ratio: float | None
    """`base`'s CPU per request over `subject`'s: like `ratio`, more is better for the subject."""

    @property
    def holds(self) -> bool | None:
        return None if self.ratio is None else self.goal.holds(self.ratio)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that `percent` of all values do not exceed. 0 without values."""
    if not values:
        return 0.0
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(int(rank), 1) - 1]


def round_ratios(subject: Sequence[float], base: Sequence[float]) -> list[float]:
    """Ratios within each round: the two are neighbours in time, so what disturbs the machine disturbs both."""
    return [one / other for one, other in zip(subject, base, strict=True) if other > 0]


def verdict(work: Work, goal: Goal) -> Verdict:
    subject, base = work.samples.get(goal.subject, []), work.samples.get(goal.base, [])
    ratios = round_ratios([goal.figure(s) for s in subject], [goal.figure(s) for s in base])
    if not ratios or any(sample.failures for sample in (*subject, *base)):
        return Verdict(work.name, goal, None, None, None, None)
    cpu_ratio = None if goal.of == "p99" else _cpu_ratio(subject, base)
    return Verdict(work.name, goal, median(ratios), min(ratios), max(ratios), cpu_ratio)


def _cpu_ratio(subject: Sequence[Sample], base: Sequence[Sample]) -> float | None:
    ours, theirs = _median([s.cpu_s_each for s in subject]), _median([s.cpu_s_each for s in base])
    return theirs / ours if ours and theirs else None


def _each(cpu_s: float | None, requests: int) -> float | None:
    return None if cpu_s is None or not requests else cpu_s / requests * REQUESTS


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads as well in a terminal."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def measurements(works: Sequence[Work]) -> str:
    cpu = f"CPU s / {REQUESTS:,}"
    head = [
        "work",
        "contestant",
        "requests/s",
        "p50 ms",
        "p99 ms",
        cpu,
        f"PostgreSQL {cpu}",
        "failures",
    ]
    return table(head, [_row(work.name, name, samples) for work in works for name, samples in work.samples.items()])


def _row(work: str, contestant: str, samples: Sequence[Sample]) -> list[str]:
    return [
        work,
        contestant,
        _number(median(s.per_second for s in samples)),
        _number(median(s.p50_ms for s in samples)),
        _number(median(s.p99_ms for s in samples)),
        _number(_median([s.cpu_s_each for s in samples])),
        _number(_median([s.postgres_cpu_s_each for s in samples])),
        str(sum(s.failures for s in samples)),
    ]


def goals(works: Sequence[Work], bounds: Sequence[Bound]) -> str:
    verdicts = [verdict(work, goal) for work in works for goal in work.goals]
    rows = [_verdict_row(each) for each in verdicts] + [_bound_row(bound) for bound in bounds]
    return table(["work", "goal", "measured", "lowest-highest round", "by CPU", "holds"], rows)


def _verdict_row(each: Verdict) -> list[str]:
    goal = str(each.goal) if each.goal.subject == "hub" else f"{each.goal.subject}: {each.goal}"
    if each.ratio is None:
        return [each.work, goal, "-", "-", "-", "not measured"]
    spread = f"{each.lowest:.2f}-{each.highest:.2f}"
    cpu = "-" if each.cpu_ratio is None else f"{each.cpu_ratio:.2f} x"
    return [each.work, goal, f"{each.ratio:.2f} x", spread, cpu, "yes" if each.holds else "NO"]


def _bound_row(bound: Bound) -> list[str]:
    measured = f"{_number(bound.measured)} {bound.unit}" + (f" ({bound.note})" if bound.note else "")
    goal = f"{'>=' if bound.is_least else '<='} {_number(bound.limit)} {bound.unit}"
    return [bound.name, goal, measured, "-", "-", "yes" if bound.holds else "NO"]


def _number(value: float | None) -> str:
    """Three significant digits, thousands grouped. What is counted is whole."""
    if value is None:
        return "-"
    if value >= 100 or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
