"""The hub's side of connector processes: templates, which have a type's driver imported, and their children, each of
which does one piece of work and ends.

A template is kept for `TEMPLATE_IDLE_S` after its last child, and `MAX_TEMPLATES` of them at most; an idle hub holds
none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

import app
from app.connectors.contract.failures import EXPLANATIONS, Code, ConnectorError
from app.connectors.contract.steps import OUT_OF_MEMORY
from app.connectors.processes import frames

TEMPLATE_IDLE_S: Final = 60.0
MAX_TEMPLATES: Final = 4
MAX_COMPLAINT_BYTES: Final = 16_384
MAX_NEWS_BYTES: Final = 4096
_FULL_S: Final = 0.01
"""Until a template is asked again that has hundreds of orders before it."""

_log = logging.getLogger(__name__)
_ROOT: Final = str(Path(next(iter(app.__path__))).resolve().parent)
_BOOT: Final = """
import sys
installed = (place for place, path in enumerate(sys.path) if path.endswith("-packages"))
sys.path.insert(next(installed, len(sys.path)), sys.argv[1])
from app.connectors.processes.template import main
main(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
"""
"""The child's `app` is the one that runs here, wherever that lies and whatever else of that name is installed; the
standard library stays before it."""
_INHERITED: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""The only variables that a connector process sees of the hub's: where the CAs and the libraries are."""
_DATAGRAMS: Final = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


class Children:
    """All connector processes of one hub process, made inside its event loop."""

    def __init__(
        self, *, memory_bytes: int, packages: tuple[str, ...], template_idle_s: float, max_templates: int
    ) -> None:
        self._memory_bytes = memory_bytes
        self._max_templates = max_templates
        self._packages = packages
        self._idle_s = template_idle_s
        self._by_type: dict[str, Template] = {}
        """The one used last at the end."""
        self._templates: set[Template] = set()
        """Those that are alive, whether they are still to be forked or not."""
        self._forks: set[asyncio.Task[Child]] = set()

    async def begin(self, type_name: str) -> Child:
        """A process that waits for its work. Raises ConnectorError where there is none to be had."""
        fork = asyncio.create_task(self._template(type_name).fork())
        self._forks.add(fork)
        fork.add_done_callback(self._forks.discard)
        try:
            return await asyncio.shield(fork)
        except asyncio.CancelledError:
            await self._end_of_nobody(fork)
            raise

    async def close(self) -> None:
        """Kills every process and waits until none is left."""
        while self._forks or self._templates:
            await asyncio.gather(*self._forks, return_exceptions=True)
            await asyncio.gather(*(template.end() for template in tuple(self._templates)))

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(pid for template in self._templates for pid in template.children)

    @property
    def template_pids(self) -> frozenset[int]:
        return frozenset(template.pid for template in self._templates if template.pid)

    def _template(self, type_name: str) -> Template:
        template = self._by_type.pop(type_name, None)
        if template is None or template.is_used_up:
            template = Template(type_name, self._packages, self._memory_bytes, self._idle_s, self._templates.discard)
            self._templates.add(template)
        self._by_type[type_name] = template
        while len(self._by_type) > self._max_templates:
            self._by_type.pop(next(iter(self._by_type))).use_up()
        return template

    async def _end_of_nobody(self, fork: asyncio.Task[Child]) -> None:
        """A caller who leaves in the middle takes the process along."""
        with contextlib.suppress(ConnectorError):
            await (await fork).end()


class Template:
    """One process, from which others are forked. It starts at once, and is told what to import."""

    def __init__(
        self,
        type_name: str,
        packages: tuple[str, ...],
        memory_bytes: int,
        idle_s: float,
        on_end: Callable[[Template], None],
    ) -> None:
        self._warm = frames.Warm(type_name, packages)
        self._memory_bytes = memory_bytes
        self._idle_s = idle_s
        self._on_end = on_end
        self._control, self._its_control = socket.socketpair(socket.AF_UNIX, _DATAGRAMS)
        self._control.setblocking(False)
        self._forking = 0
        self._awaited: deque[asyncio.Future[frames.Forked]] = deque()
        self._ends: dict[int, asyncio.Future[int | None]] = {}
        """Of each child that is alive; None where nobody knows its status."""
        self._idle: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._start = asyncio.create_task(self._started())
        self._life = asyncio.create_task(self._lived())
        self.pid = 0
        """Until it has started."""
        self.is_used_up = False
        """Nothing more is forked from it; it ends with its last child."""

    @property
    def children(self) -> tuple[int, ...]:
        return tuple(self._ends)

    async def fork(self) -> Child:
        """Raises ConnectorError where the template has ended."""
        self._forking += 1
        if self._idle:
            self._idle.cancel()
        try:
            return await self._forked()
        finally:
            self._forking -= 1
            self._rest()

    def use_up(self) -> None:
        self.is_used_up = True
        self._rest()

    async def end(self) -> None:
        """Kills the process, its children first, and waits for all of them."""
        self.is_used_up = self._is_ending = True
        for pid in self.children:
            self.kill_child(pid)
        await asyncio.gather(*self._ends.values())
        await asyncio.gather(self._start, return_exceptions=True)
        self._kill_itself()
        await asyncio.shield(self._life)

    def kill_child(self, pid: int) -> None:
        """By the template, which knows whether this pid is still the child's."""
        if pid == self.pid:
            self._kill_itself()
        elif pid in self._ends:
            with contextlib.suppress(OSError):  # one that has ended has taken its children along
                self._control.send(frames.datagram(frames.Kill(pid)))

    # Its life ---------------------------------------------------------------------------------------------------------

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", _BOOT),
            *(_ROOT, str(os.getpid()), str(self._memory_bytes), str(self._its_control.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._its_control.fileno(),),
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        self.pid = process.pid
        self._its_control.close()
        self._control.send(frames.datagram(self._warm))
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._hear)
        return process

    async def _lived(self) -> None:
        """Until the process has ended; then nothing waits for it any more."""
        status = None
        try:
            status = await (await self._start).wait()
            self._hear()
        finally:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._its_control.close()
            self.is_used_up = True
            while self._awaited:
                _settle(self._awaited.popleft(), ConnectorError("crashed", "The connector could not be started."))
            for pid in self.children:
                self._note_end(pid, status if pid == self.pid else None)
            self._on_end(self)

    def _kill_itself(self) -> None:
        if self.pid and not self._life.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _rest(self) -> None:
        """Where nothing is left to do, ends a template that is used up, and lets another one wait for a while."""
        if self._forking or self._ends or self._is_ending or self._life.done():
            return
        if self.is_used_up:
            self._is_ending = True
            self._ending = asyncio.create_task(self.end())
            return
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self.use_up)

    # Its children -----------------------------------------------------------------------------------------------------

    async def _forked(self) -> Child:
        ours, theirs = socket.socketpair()
        complaints = _file_for_complaints()
        try:
            forked = await self._order_fork(theirs, complaints)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1024 * 1024)
        except BaseException:
            ours.close()
            complaints.close()
            raise
        finally:
            theirs.close()
        return Child(self, forked.pid, self._ends.get(forked.pid), reader, writer, complaints)

    async def _order_fork(self, channel: socket.socket, complaints: BinaryIO) -> frames.Forked:
        try:
            await asyncio.shield(self._start)
        except OSError:
            raise ConnectorError("crashed", "The connector could not be started.") from None
        order, descriptors = [frames.datagram(frames.Fork())], [channel.fileno(), complaints.fileno()]
        answer: asyncio.Future[frames.Forked] = asyncio.get_running_loop().create_future()
        while True:
            try:
                socket.send_fds(self._control, order, descriptors)
                break
            except BlockingIOError:
                await asyncio.sleep(_FULL_S)
            except OSError:
                raise ConnectorError("crashed", "The connector could not be started.") from None
        self._awaited.append(answer)
        return await answer

    def _hear(self) -> None:
        with contextlib.suppress(OSError):  # BlockingIOError where all is heard
            while message := self._control.recv(MAX_NEWS_BYTES):
                news = frames.news_decoder.decode(message)
                if isinstance(news, frames.Ended):
                    self._note_end(news.pid, news.status)
                    continue
                self._ends[news.pid] = asyncio.get_running_loop().create_future()
                self.is_used_up = self.is_used_up or news.is_itself
                _settle(self._awaited.popleft(), news)

    def _note_end(self, pid: int, status: int | None) -> None:
        if (end := self._ends.pop(pid, None)) is not None:
            _settle(end, status)
        self._rest()


class Child:
    """One process for one piece of work: what goes in and comes out, and what it last complained of."""

    def __init__(
        self,
        template: Template,
        pid: int,
        ended: asyncio.Future[int | None] | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        complaints: BinaryIO,
    ) -> None:
        """`ended` is None for one that has ended already."""
        self._template = template
        self._ended = ended
        self._reader = reader
        self._writer = writer
        self._complaints = complaints
        self.pid = pid

    def ask(self, work: frames.Work) -> None:
        self._writer.write(frames.encode(work))

    async def answers(self) -> AsyncIterator[frames.Answer]:
        """Frames until the process ends. Raises `ConnectorError` if that comes before its last word."""
        while True:
            try:
                header = await self._reader.readexactly(frames.HEADER.size)
                (length,) = frames.HEADER.unpack(header)
                if length > frames.MAX_FRAME_BYTES:
                    raise ConnectorError("response_too_large", "The connector's answer is too large.")
                body = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise await self._last_words() from None
            frame = _decoded(body)
            if isinstance(frame, frames.Failed):
                self._report(frame.code)
                raise ConnectorError(
                    frame.code,
                    frame.message,
                    unknown_columns=frame.unknown_columns,
                    retry_after_s=frame.retry_after_s,
                )
            yield frame

    async def end(self) -> None:
        """Ends the process and all of its group, and waits for it."""
        self._writer.close()
        self._template.kill_child(self.pid)
        await self._status()
        self._complaints.close()

    async def _status(self) -> int | None:
        return await asyncio.shield(self._ended) if self._ended else None

    async def _last_words(self) -> ConnectorError:
        """Why a process ended by itself. An allocation that fails in native code ends in an abort."""
        status = await self._status()
        code: Code = "out_of_memory" if self._ran_out_of_memory(status) else "crashed"
        self._report(code)
        if code == "out_of_memory":
            return ConnectorError(code, OUT_OF_MEMORY)
        return ConnectorError(code, f"The connector {_manner_of_death(status)}.")

    def _ran_out_of_memory(self, status: int | None) -> bool:
        written = os.fstat(self._complaints.fileno()).st_size
        last = os.pread(self._complaints.fileno(), MAX_COMPLAINT_BYTES, max(0, written - MAX_COMPLAINT_BYTES))
        said = any(words in last for words in (b"memory allocation of", b"MemoryError", b"bad_alloc"))
        return said or status == -signal.SIGKILL

    def _report(self, code: Code) -> None:
        """Into the hub's log only; a user never sees what a driver printed. Its text is left out there as well unless
        debugging asks for it, because drivers print DSNs."""
        if EXPLANATIONS[code].fault == "hub":
            _log.warning("A connector process ended with %s, pid %d.", code, self.pid)


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _decoded(body: bytes) -> frames.Answer:
    try:
        answer: frames.Answer = frames.answer_decoder.decode(body)
    except msgspec.DecodeError:
        raise ConnectorError("crashed", "The connector's answer could not be read.") from None
    return answer


def _manner_of_death(status: int | None) -> str:
    if status is None:
        return "ended, and nobody knows why"
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _file_for_complaints() -> BinaryIO:
    """In memory where that can be had, and without a name: read only where a process broke."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("complaints"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {"PATH": os.defpath, "HOME": "/nonexistent", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONUTF8": "1", **inherited}
