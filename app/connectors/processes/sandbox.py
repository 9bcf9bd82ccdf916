"""Runs connector work in processes that can be killed, so that a driver that hangs, crashes or eats memory takes
nothing of the hub with it.

    SandboxError
    ├── TooManyConnectorRuns    the cap, of the hub process or of the tenant, is reached
    └── SandboxClosed           the hub process is shutting down

Each piece of work has a process of its own. One more is kept ready for `SPARE_IDLE_S` after the last work, with the
driver of that work imported, so that the next one costs no interpreter start; an idle hub holds none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

import app
from app.connectors import registry
from app.connectors.contract.failures import EXPLANATIONS, Code, ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import OUT_OF_MEMORY, Step, StepName, Steps, TestResult, elapsed_ms
from app.connectors.processes import frames
from app.core.egress import EgressPolicy

DEADLINE_S: Final = 10.0
SPARE_IDLE_S: Final = 60.0
MEMORY_BYTES: Final = 1024**3
MAX_STDERR_BYTES: Final = 16_384
MAX_DISCOVERY_S: Final = 600.0
DISCOVERY_IDLE_S: Final = 30.0

_log = logging.getLogger(__name__)
_ROOT: Final = str(Path(next(iter(app.__path__))).resolve().parent)
_BOOT: Final = """
import sys
installed = (place for place, path in enumerate(sys.path) if path.endswith("-packages"))
sys.path.insert(next(installed, len(sys.path)), sys.argv[1])
from app.connectors.processes.child import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
"""The child's `app` is the one that runs here, wherever that lies and whatever else of that name is installed; the
standard library stays before it."""
_INHERITED: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""The only variables that a connector process sees of the hub's: where the CAs and the libraries are."""

EndFrame = TypeVar("EndFrame", bound=frames.Checked | frames.Previewed)


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


class ConnectorSandbox:
    """One per hub process, made inside its event loop. `close` ends everything it started."""

    def __init__(
        self,
        *,
        max_runs: int = 8,
        max_runs_per_tenant: int = 4,
        memory_bytes: int = MEMORY_BYTES,
        spare_idle_s: float = SPARE_IDLE_S,
        packages: tuple[str, ...] = registry.PACKAGES,
    ) -> None:
        self._max_runs = max_runs
        self._max_runs_per_tenant = max_runs_per_tenant
        self._memory_bytes = memory_bytes
        self._spare_idle_s = spare_idle_s
        self._packages = packages
        self._running: Counter[str] = Counter()
        self._children: set[Child] = set()
        self._starts: set[asyncio.Task[Child]] = set()
        self._spare: Child | None = None
        self._spare_task: asyncio.Task[None] | None = None
        self._spare_wanted = asyncio.Event()
        self._last_type = ""
        self._is_closed = False

    async def check(
        self,
        type_name: str,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        policy: EgressPolicy,
        *,
        deadline_s: float = DEADLINE_S,
        tenant: str = "",
    ) -> TestResult:
        """The staged test. What goes wrong at the source is in the result; raises `SandboxError` only."""
        started = time.perf_counter()
        trail = _Trail()
        work = self._work("check", type_name, config, secrets, policy)
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
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
        policy: EgressPolicy,
        request: PreviewRequest,
        *,
        deadline_s: float = DEADLINE_S,
        tenant: str = "",
    ) -> PreviewResult:
        """Sample rows. Raises `ConnectorError` for whatever goes wrong, or `SandboxError`."""
        work = self._work("preview", type_name, config, secrets, policy, request)
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
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
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
        async with self._run(work, tenant) as child:
            answers = child.answers()
            while True:
                patience = min(idle_s, ends - time.monotonic())
                try:
                    async with asyncio.timeout(patience):
                        frame = await anext(answers, None)
                except TimeoutError:
                    raise ConnectorError("timeout", _too_slow(idle_s if patience == idle_s else deadline_s)) from None
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
        if self._spare_task:
            self._spare_task.cancel()
            await asyncio.gather(self._spare_task, return_exceptions=True)
        await asyncio.gather(*self._starts, return_exceptions=True)
        await asyncio.gather(*(self._end(child) for child in tuple(self._children)))

    @property
    def pids(self) -> frozenset[int]:
        """Of every process alive, the spare one included."""
        return frozenset(child.pid for child in self._children)

    # The processes ----------------------------------------------------------------------------------------------------

    def _work(
        self,
        action: frames.Action,
        type_name: str,
        config: Mapping[str, Any],
        secrets: Mapping[str, Any],
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

    @contextlib.asynccontextmanager
    async def _run(self, work: frames.Work, tenant: str) -> AsyncIterator[Child]:
        with self._place(tenant):
            child = self._take_spare() or await self._start()
            try:
                child.ask(work)
                yield child
            finally:
                await asyncio.shield(self._end(child))
                self._keep_spare(work.type)

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

    async def _start(self) -> Child:
        """A caller who leaves in the middle takes the process along."""
        start = asyncio.create_task(self._start_known())
        self._starts.add(start)
        start.add_done_callback(self._starts.discard)
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            await self._end(await start)
            raise

    async def _start_known(self) -> Child:
        child = await Child.start(self._memory_bytes)
        self._children.add(child)
        if self._is_closed:
            await self._end(child)
            raise SandboxClosed("The sandbox is closed.")
        return child

    async def _end(self, child: Child) -> None:
        await child.kill()
        self._children.discard(child)

    def _take_spare(self) -> Child | None:
        spare, self._spare = self._spare, None
        if spare and not spare.is_alive:
            self._children.discard(spare)
            return None
        return spare

    def _keep_spare(self, type_name: str) -> None:
        if self._is_closed or self._spare_idle_s <= 0:
            return
        self._last_type = type_name
        self._spare_wanted.set()
        if self._spare_task is None or self._spare_task.done():
            self._spare_task = asyncio.create_task(self._hold_spare())

    async def _hold_spare(self) -> None:
        """Has a spare ready after each work, until no work came for `spare_idle_s`."""
        with contextlib.suppress(TimeoutError, SandboxClosed):
            while True:
                async with asyncio.timeout(self._spare_idle_s):
                    await self._spare_wanted.wait()
                self._spare_wanted.clear()
                if self._spare is None:
                    spare = await self._start()
                    spare.ask(frames.Warm(self._last_type, self._packages))
                    self._spare = spare
        if spare_left := self._take_spare():
            await self._end(spare_left)


class Child:
    """One connector process, its pipes and what it last complained of."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._complaints = bytearray()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, memory_bytes: int) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            _BOOT,
            _ROOT,
            str(os.getpid()),
            str(memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            limit=1024 * 1024,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def ask(self, question: frames.Question) -> None:
        assert self._process.stdin
        self._process.stdin.write(frames.encode(question))

    async def answers(self) -> AsyncIterator[frames.Answer]:
        """Frames until the process ends. Raises `ConnectorError` if that comes before its last word."""
        assert self._process.stdout
        while True:
            try:
                header = await self._process.stdout.readexactly(frames.HEADER.size)
                (length,) = frames.HEADER.unpack(header)
                if length > frames.MAX_FRAME_BYTES:
                    raise ConnectorError("response_too_large", "The connector's answer is too large.")
                body = await self._process.stdout.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise await self._last_words() from None
            frame = _decoded(body)
            if isinstance(frame, frames.Failed):
                self._report(frame.code)
                raise ConnectorError(frame.code, frame.message, unknown_columns=frame.unknown_columns)
            yield frame

    async def kill(self) -> None:
        """Ends the process and all of its group, and waits for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()
        await self._process.wait()
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)

    async def _listen(self) -> None:
        assert self._process.stderr
        while chunk := await self._process.stderr.read(4096):
            self._complaints += chunk
            del self._complaints[:-MAX_STDERR_BYTES]

    async def _last_words(self) -> ConnectorError:
        """Why a process ended by itself. An allocation that fails in native code ends in an abort."""
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._listener), 0.5)
        code: Code = "out_of_memory" if self._ran_out_of_memory(status) else "crashed"
        self._report(code)
        if code == "out_of_memory":
            return ConnectorError(code, OUT_OF_MEMORY)
        return ConnectorError(code, f"The connector {_manner_of_death(status)}.")

    def _ran_out_of_memory(self, status: int) -> bool:
        said = any(words in self._complaints for words in (b"memory allocation of", b"MemoryError", b"bad_alloc"))
        return said or status == -signal.SIGKILL

    def _report(self, code: Code) -> None:
        """Into the hub's log only; a user never sees what a driver printed. Its text is left out there as well unless
        debugging asks for it, because drivers print DSNs."""
        if EXPLANATIONS[code].fault == "hub":
            _log.warning("A connector process ended with %s, pid %d.", code, self.pid)


def _decoded(body: bytes) -> frames.Answer:
    try:
        answer: frames.Answer = frames.answer_decoder.decode(body)
    except msgspec.DecodeError:
        raise ConnectorError("crashed", "The connector's answer could not be read.") from None
    return answer


def _manner_of_death(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {"PATH": os.defpath, "HOME": "/nonexistent", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONUTF8": "1", **inherited}


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
