"""Runs connector work in processes that can be killed, so that a driver that hangs, crashes or eats memory takes
nothing of the hub with it.

    SandboxError
    ├── TooManyConnectorRuns    the cap, of the hub process or of the tenant, is reached
    └── SandboxClosed           the hub process is shutting down

Each piece of work has a process of its own, forked from a template of its type (`children.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal

from msgspec import Struct

from app.connectors import registry
from app.connectors.contract.failures import EXPLANATIONS, Code, ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Step, StepName, Steps, TestResult, elapsed_ms
from app.connectors.processes import frames
from app.connectors.processes.children import MAX_TEMPLATES, TEMPLATE_IDLE_S, Child, Children
from app.core.egress import EgressPolicy

DEADLINE_S: Final = 10.0
MEMORY_BYTES: Final = 1024**3
MAX_DISCOVERY_S: Final = 600.0
DISCOVERY_IDLE_S: Final = 30.0

SharedPlaces = Callable[[str, int], AbstractAsyncContextManager[bool]]
"""A place of a tenant, who has at most so many in all hub processes together; False where all of them are taken."""


class SandboxError(Exception):
    """Connector work was not begun."""


class TooManyConnectorRuns(SandboxError):
    """`scope` says whose cap it was."""

    def __init__(self, scope: Literal["hub", "tenant"], limit: int) -> None:
        super().__init__(f"{limit} connector runs are under way for this {scope} already.")
        self.scope = scope
        self.limit = limit


class SandboxClosed(SandboxError):
    """`close` was called."""


class Run(Struct):
    """One piece of work, for whoever counts them."""

    action: str
    type: str
    code: str = "ok"
    """How it ended: the first failure's code; `busy` or `closed` for one that was not begun, `cancelled` for one that
    nobody waited for any more."""


Watch = Callable[[Run], contextlib.AbstractContextManager[None]]


class ConnectorSandbox:
    """One per hub process, made inside its event loop. `close` ends everything it started."""

    def __init__(
        self,
        *,
        max_runs: int = 8,
        max_runs_per_tenant: int = 4,
        memory_bytes: int = MEMORY_BYTES,
        template_idle_s: float = TEMPLATE_IDLE_S,
        max_templates: int = MAX_TEMPLATES,
        packages: tuple[str, ...] = registry.PACKAGES,
        shared: SharedPlaces | None = None,
        watch: Watch = lambda _: contextlib.nullcontext(),
    ) -> None:
        """`shared` is asked as well where several processes have one cap for a tenant. `watch` is entered with each
        piece of work, and left once it is known how that ended."""
        self._shared = shared
        self._watch = watch
        self._max_runs = max_runs
        self._max_runs_per_tenant = max_runs_per_tenant
        self._packages = packages
        self._running: Counter[str] = Counter()
        self._children = Children(
            memory_bytes=memory_bytes,
            packages=packages,
            template_idle_s=template_idle_s,
            max_templates=max_templates,
        )
        self._is_closed = False

    async def check(
        self,
        type_name: str,
        config: Mapping[str, object],
        secrets: Mapping[str, object],
        policy: EgressPolicy,
        *,
        deadline_s: float = DEADLINE_S,
        tenant: str = "",
    ) -> TestResult:
        """The staged test. What goes wrong at the source is in the result; raises `SandboxError` only."""
        work = self._work("check", type_name, config, secrets, policy)
        with self._watched(work) as run:
            result = await self._check(work, deadline_s, tenant)
            run.code = next((step.code for step in result.steps if step.status == "failed"), "ok")
        return result

    async def _check(self, work: frames.Work, deadline_s: float, tenant: str) -> TestResult:
        started = time.perf_counter()
        trail = _Trail()
        try:
            async with asyncio.timeout(deadline_s), self._run(work, tenant) as child:
                async for frame in child.answers():
                    if isinstance(frame, frames.Checked):
                        return frame.result
                    trail.follow(frame)
        except TimeoutError:
            return trail.broken_off("timeout", _too_slow(deadline_s), started)
        except ConnectorError as error:
            return trail.broken_off(error.code, error.message, started)
        return trail.broken_off("crashed", "The connector ended without an answer.", started)

    async def preview(
        self,
        type_name: str,
        config: Mapping[str, object],
        secrets: Mapping[str, object],
        policy: EgressPolicy,
        request: PreviewRequest,
        *,
        deadline_s: float = DEADLINE_S,
        tenant: str = "",
    ) -> PreviewResult:
        """Sample rows. Raises `ConnectorError` for whatever goes wrong, or `SandboxError`."""
        work = self._work("preview", type_name, config, secrets, policy, request)
        with self._watched(work):
            try:
                async with asyncio.timeout(deadline_s), self._run(work, tenant) as child:
                    async for frame in child.answers():
                        if isinstance(frame, frames.Previewed):
                            return frame.result
            except TimeoutError:
                raise ConnectorError("timeout", _too_slow(deadline_s)) from None
            raise ConnectorError("crashed", "The connector ended without an answer.")

    async def discover(
        self,
        type_name: str,
        config: Mapping[str, object],
        secrets: Mapping[str, object],
        policy: EgressPolicy,
        *,
        idle_s: float = DISCOVERY_IDLE_S,
        deadline_s: float = MAX_DISCOVERY_S,
        tenant: str = "",
        on_stopped: Callable[[str], None] | None = None,
    ) -> AsyncIterator[list[DiscoveredObject]]:
        """Batches as they come; `idle_s` may pass between two, `deadline_s` in all. Raises as `preview` does.
        `on_stopped` is told, after the last batch, why the connector did not get to the end of the source.

        The process waits while the caller is busy with a batch. Close the iterator (`contextlib.aclosing`) to end it
        early.
        """
        work = self._work("discover", type_name, config, secrets, policy)
        ends = time.monotonic() + deadline_s
        with self._watched(work):
            async with self._run(work, tenant) as child:
                answers = child.answers()
                while True:
                    patience = min(idle_s, ends - time.monotonic())
                    frame = await _next_frame(answers, patience, idle_s if patience == idle_s else deadline_s)
                    if isinstance(frame, frames.Discovered):
                        if frame.stopped_because is not None and on_stopped:
                            on_stopped(frame.stopped_because)
                        return
                    if isinstance(frame, frames.Batch):
                        yield frame.objects
                    elif frame is None:
                        raise ConnectorError("crashed", "The connector ended without an answer.")

    async def close(self) -> None:
        """Kills every process and waits until none is left."""
        self._is_closed = True
        await self._children.close()

    @property
    def running(self) -> int:
        """Pieces of work under way."""
        return self._running.total()

    @property
    def pids(self) -> frozenset[int]:
        """Of every process that does a piece of work."""
        return self._children.pids

    @property
    def template_pids(self) -> frozenset[int]:
        return self._children.template_pids

    # The processes ----------------------------------------------------------------------------------------------------

    def _work(
        self,
        action: frames.Action,
        type_name: str,
        config: Mapping[str, object],
        secrets: Mapping[str, object],
        policy: EgressPolicy,
        request: PreviewRequest | None = None,
    ) -> frames.Work:
        return frames.Work(
            action=action,
            type=type_name,
            packages=self._packages,
            config=dict(config),
            secrets=dict(secrets),
            policy=policy,
            preview=request,
        )

    @contextlib.contextmanager
    def _watched(self, work: frames.Work) -> Iterator[Run]:
        """Says how the work ended, as far as that is an exception."""
        run = Run(work.action, work.type)
        with self._watch(run):
            try:
                yield run
            except ConnectorError as error:
                run.code = error.code
                raise
            except SandboxError as error:
                run.code = "busy" if isinstance(error, TooManyConnectorRuns) else "closed"
                raise
            except (asyncio.CancelledError, GeneratorExit):
                run.code = "cancelled"
                raise
            except BaseException:
                run.code = "crashed"
                raise

    @contextlib.asynccontextmanager
    async def _run(self, work: frames.Work, tenant: str) -> AsyncIterator[Child]:
        with self._place(tenant):
            async with self._shared_place(tenant):
                child = await self._children.begin(work.type)
                try:
                    child.ask(work)
                    yield child
                finally:
                    await asyncio.shield(child.end())

    @contextlib.asynccontextmanager
    async def _shared_place(self, tenant: str) -> AsyncIterator[None]:
        if self._shared is None:
            yield
            return
        async with self._shared(tenant, self._max_runs_per_tenant) as is_free:
            if not is_free:
                raise TooManyConnectorRuns("tenant", self._max_runs_per_tenant)
            yield

    @contextlib.contextmanager
    def _place(self, tenant: str) -> Iterator[None]:
        if self._is_closed:
            raise SandboxClosed("The sandbox is closed.")
        if self._running.total() >= self._max_runs:
            raise TooManyConnectorRuns("hub", self._max_runs)
        if self._running[tenant] >= self._max_runs_per_tenant:
            raise TooManyConnectorRuns("tenant", self._max_runs_per_tenant)
        self._running[tenant] += 1
        try:
            yield
        finally:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]


async def _next_frame(answers: AsyncIterator[frames.Answer], patience_s: float, told_s: float) -> frames.Answer | None:
    """Raises ConnectorError where it takes longer; `told_s` is the limit that is told of."""
    try:
        async with asyncio.timeout(patience_s):
            return await anext(answers, None)
    except TimeoutError:
        raise ConnectorError("timeout", _too_slow(told_s)) from None


def _too_slow(deadline_s: float) -> str:
    return f"There was no answer within {deadline_s:g} s, and the connector was stopped."


class _Trail:
    """What a check did so far, for the case that it is broken off."""

    def __init__(self) -> None:
        self._done: list[Step] = []
        self._running: StepName = "resolve"
        self._started = time.perf_counter()

    def follow(self, frame: frames.Answer) -> None:
        if isinstance(frame, frames.StepStarted):
            self._running, self._started = frame.name, time.perf_counter()
        elif isinstance(frame, frames.StepEnded):
            self._done.append(frame.step)

    def broken_off(self, code: Code, message: str, started: float) -> TestResult:
        """The running step failed. A driver that is not there fails no step: nothing was tried."""
        steps = Steps()
        steps.done = [step for step in self._done if step.name != self._running]
        explained = EXPLANATIONS[code]
        is_failed = code not in {"driver_missing", "unsupported"}
        steps.done.append(
            Step(
                self._running,
                "failed" if is_failed else "skipped",
                code,
                f"{message} {explained.advice}" if is_failed else message,
                elapsed_ms(self._started) if is_failed else 0.0,
                explained.fault,
                explained.can_retry,
            )
        )
        return steps.result(elapsed_ms(started))
