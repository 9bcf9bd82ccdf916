"""The five steps of a check, told as they happen, and the result that they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Final, Literal, get_args

from msgspec import Meta, Struct

from app.connectors.contract.failures import EXPLANATIONS, Code, ConnectorError, Fault

StepName = Literal["resolve", "connect", "tls", "authenticate", "list"]
StepStatus = Literal["passed", "failed", "skipped"]
TestStatus = Literal["passed", "failed", "unsupported"]

STEP_NAMES: Final[tuple[StepName, ...]] = get_args(StepName)


class Step(Struct, frozen=True):
    name: StepName
    status: StepStatus
    code: Code
    message: str
    duration_ms: float
    fault: Fault = "none"
    can_retry: bool = False


class TestResult(Struct, frozen=True):
    """All five steps, always, in their order; the first failed one says why, the ones after it are `not_reached`."""

    __test__: ClassVar[bool] = False  # Not a test class, whatever its name makes pytest believe.

    status: Annotated[TestStatus, Meta(title="TestStatus")]
    steps: tuple[Step, ...]
    server: dict[str, str]
    """What the server said of itself: `product`, `version` and the like. Empty if it was not reached."""
    duration_ms: float


class Steps:
    """Records the steps of a check as they happen. Discovery and preview walk the same way and throw the record away.

    `on_start` and `on_end` are told at once, so that a connector that is killed still shows where it stood.
    """

    def __init__(
        self,
        on_start: Callable[[StepName], None] | None = None,
        on_end: Callable[[Step], None] | None = None,
        retold: Callable[[ConnectorError], ConnectorError] = lambda error: error,
    ) -> None:
        """`retold` is what an error is told as (`Network.retold`)."""
        self.done: list[Step] = []
        self.server: dict[str, str] = {}
        self._on_start = on_start
        self._on_end = on_end
        self._retold = retold

    @contextmanager
    def step(self, name: StepName, passed: str | Callable[[], str]) -> Iterator[None]:
        """`passed` is the sentence shown if the block ends well, or gives it then. An error makes the step failed and
        goes on."""
        started = time.perf_counter()
        if self._on_start:
            self._on_start(name)
        try:
            yield
        except ConnectorError as caught:
            error = self._retold(caught)
            self._end(name, "failed", error.code, error.message, started)
            raise
        except MemoryError:
            self._end(name, "failed", "out_of_memory", OUT_OF_MEMORY, started)
            raise
        except Exception as error:
            self._end(name, "failed", "crashed", unexpected(error), started)
            raise
        self._end(name, "passed", "ok", passed if isinstance(passed, str) else passed(), started)

    def skip(self, name: StepName, why: str) -> None:
        self._end(name, "skipped", "not_applicable", why, None)

    def _end(self, name: StepName, status: StepStatus, code: Code, message: str, started: float | None) -> None:
        duration_ms = 0.0 if started is None else elapsed_ms(started)
        explained = EXPLANATIONS[code]
        if status == "failed":
            message = f"{message} {explained.advice}"
        step = Step(name, status, code, message, duration_ms, explained.fault, explained.can_retry)
        self.done.append(step)
        if self._on_end:
            self._on_end(step)

    def result(self, duration_ms: float) -> TestResult:
        """The five steps in order. What was not walked is `not_reached` after a failure, `not_applicable` otherwise."""
        by_name = {step.name: step for step in self.done}
        failed = any(step.status == "failed" for step in self.done)
        steps = tuple(by_name.get(name) or _unwalked(name, after_failure=failed) for name in STEP_NAMES)
        status: TestStatus = "failed" if failed else "passed"
        if any(step.code in {"unsupported", "driver_missing"} for step in self.done):
            status = "unsupported"
        return TestResult(status, steps, self.server, duration_ms)


OUT_OF_MEMORY: Final = "The connector needed more memory than it is allowed."


def unexpected(error: BaseException) -> str:
    """Names the kind of error only: its text is not ours and may repeat anything."""
    return f"The connector stopped on an unexpected {type(error).__name__}."


def elapsed_ms(started: float) -> float:
    """Milliseconds since `started`, a reading of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 3)


def _unwalked(name: StepName, *, after_failure: bool) -> Step:
    if after_failure:
        return Step(name, "skipped", "not_reached", "Not reached: an earlier step failed.", 0.0)
    return Step(name, "skipped", "not_applicable", EXPLANATIONS["not_applicable"].advice, 0.0)
