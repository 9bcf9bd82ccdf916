"""Contestants in turn (A B A B ...), with the CPU that each took."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException

from bench import load, probe, processes
from bench.contestants import Server
from bench.load import Outcome, Request, Running
from bench.report import Sample, Work

_WARM_UP_S = 1.0
_MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Pace:
    rounds: int
    seconds: float
    connections: int


@dataclass(frozen=True)
class Entry:
    """One contestant's way of doing a work."""

    server: Server
    request: Request
    status: int = 200
    same_values: bool = True
    """Whether it must say what the hub says, or only name the same fields (an answer to a write names its own row)."""


class Bench:
    """Runs works and keeps what broke: a contestant that answers errors is reported, and never counted as fast."""

    def __init__(self, pace: Pace, postgres_pid: int | None, progress: Callable[[str], None]) -> None:
        self.pace, self._postgres_pid, self._progress = pace, postgres_pid, progress
        self.problems: list[str] = []

    def run(self, work: Work, entries: Mapping[str, Entry]) -> None:
        try:
            answers = self._check(entries)
        except (probe.WrongAnswer, OSError, HTTPException, ValueError, LookupError) as error:
            self.problem(f"{work.name}: {error}")
            return
        for entry in entries.values():
            load.run(_numbered(entry.request), self.pace.connections, _WARM_UP_S)
        for number in range(1, self.pace.rounds + 1):
            for name, entry in entries.items():
                outcome, sample = self.measure(entry)
                self._progress(f"{work.name}: {name}, round {number}: {sample.per_second:,.0f}/s")
                if not self._did_the_work(f"{work.name}: {name}", entry, outcome, answers[name]):
                    sample = replace(sample, failures=max(sample.failures, outcome.requests, 1))
                work.add(name, sample)

    def measure(
        self, entry: Entry, connections: int | None = None, seconds: float | None = None
    ) -> tuple[Outcome, Sample]:
        seconds = seconds or self.pace.seconds
        return self._measured(entry, seconds, partial(load.start, connections=connections or self.pace.connections))

    def measure_patient(self, entry: Entry, connections: int, seconds: float) -> tuple[Outcome, Sample]:
        """With clients that wait as they are told to."""
        return self._measured(entry, seconds, partial(load.start_patient, connections=connections))

    def measure_steady(self, entry: Entry, connections: int, per_second: float) -> tuple[Outcome, Sample]:
        """With clients that send so many requests a second together."""
        start = partial(load.start_steady, connections=connections, per_second=per_second)
        return self._measured(entry, self.pace.seconds, start)

    def _measured(self, entry: Entry, seconds: float, start: Callable[..., Running]) -> tuple[Outcome, Sample]:
        before = self._cpu(entry.server)
        outcome = start(_numbered(entry.request), seconds=seconds).result(seconds)
        after = self._cpu(entry.server)
        return outcome, sample_of(outcome, after[0] - before[0], _difference(after[1], before[1]))

    def problem(self, sentence: str) -> None:
        self._progress(f"BROKEN: {sentence}")
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(sentence)

    def tell(self, sentence: str) -> None:
        """To whoever waits."""
        self._progress(sentence)

    def _check(self, entries: Mapping[str, Entry]) -> dict[str, probe.Answer]:
        answers = {name: probe.expect(entry.request, entry.status, _fresh()) for name, entry in entries.items()}
        if "hub" in entries:
            for name, entry in entries.items():
                if name not in ("hub", "F0") and answers[name].body:
                    probe.same_entity(answers["hub"].json, answers[name].json, values=entry.same_values)
        return answers

    def _did_the_work(self, who: str, entry: Entry, outcome: Outcome, answer: probe.Answer) -> bool:
        errors, broken = outcome.bad_statuses, outcome.socket_errors
        if errors or broken or not outcome.requests:
            self.problem(f"{who} gave {errors} errors and {broken} broken sockets in {outcome.requests} requests")
            return False
        try:
            probe.expect_size(outcome, answer, entry.request)
        except probe.WrongAnswer as error:
            self.problem(f"{who}: {error}")
            return False
        return True

    def _cpu(self, server: Server) -> tuple[float, float | None]:
        own, _ = processes.cpu_seconds(server.pid)
        postgres_pid = server.postgres_pid or self._postgres_pid
        return own, None if postgres_pid is None else processes.cpu_seconds(postgres_pid)[1]


def sample_of(outcome: Outcome, cpu_s: float | None, postgres_cpu_s: float | None) -> Sample:
    return Sample(
        requests=outcome.requests,
        seconds=outcome.seconds,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
        failures=outcome.bad_statuses + outcome.socket_errors,
        cpu_s=cpu_s,
        postgres_cpu_s=postgres_cpu_s,
    )


def _numbered(request: Request) -> Request:
    """Names unique across runs too: a name that exists would be a 409."""
    return replace(request, body=request.body.replace("{n}", f"{_fresh()} {{n}}"))


def _fresh() -> str:
    return uuid.uuid4().hex[:10]


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
