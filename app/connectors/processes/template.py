"""A template: a process of one type that has everything imported, and then does nothing but fork itself.

An interpreter start and a driver's imports take a tenth of a second of a processor and more; a fork takes some
milliseconds. So each piece of work has a process of its own, whichever rate it comes in. No word of a source ever
reaches a template: work is read after the fork, by a process that ends with it. Started by `python -I -c "... main()"`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys
import threading
from importlib import import_module
from typing import Final, NoReturn

from app.connectors import registry
from app.connectors.processes import frames
from app.connectors.processes.child import do_one_piece_of_work

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_OPEN_FILES: Final = 256
MAX_ORDER_BYTES: Final = 4096
FORKS: Final = sys.platform == "linux"
"""Elsewhere system libraries start threads of their own, or do not survive a fork."""
_PR_SET_PDEATHSIG: Final = 1


def main(parent: int, memory_bytes: int, control_fd: int) -> None:
    """`parent` is the hub's process id; this process ends when that one does, and its forks end with it."""
    _die_with(parent)
    _limit(memory_bytes)
    Template(socket.socket(fileno=control_fd)).serve()


class Template:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._alive: set[int] = set()
        self._ends, self._of_an_end = socket.socketpair()
        """A byte for each signal that a child has ended. A handler in Python would not do: a signal that comes right
        before the wait for an order is handled after it, and the next order may be long in coming."""

    def serve(self) -> None:
        """Until the hub closes its end."""
        self._listen_for_ends()
        news = select.poll()
        news.register(self._control, select.POLLIN)
        news.register(self._ends, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in news.poll()}
            if self._ends.fileno() in ready:
                self._ends.recv(MAX_ORDER_BYTES)
                self._collect()
            if self._control.fileno() in ready and not self._obey():
                return

    def _listen_for_ends(self) -> None:
        self._of_an_end.setblocking(False)
        signal.set_wakeup_fd(self._of_an_end.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _obey(self) -> bool:
        """The next order. False where there will be none any more."""
        message, descriptors, _, _ = socket.recv_fds(self._control, MAX_ORDER_BYTES, 2)
        if not message:
            return False
        order = frames.order_decoder.decode(message)
        if isinstance(order, frames.Warm):
            import_for_type(order)
        elif isinstance(order, frames.Kill):
            self._kill(order.pid)
        else:
            self._begin(*descriptors)
        return True

    def _begin(self, channel: int, complaints: int) -> None:
        if not FORKS or _count_threads() > 1:
            self._tell(frames.Forked(os.getpid(), is_itself=True))
            self._become_child(channel, complaints)
        template = os.getpid()
        pid = os.fork()
        if pid == 0:
            _begin_as_fork(template)
            self._become_child(channel, complaints)
        self._alive.add(pid)
        self._tell(frames.Forked(pid))
        os.close(channel)
        os.close(complaints)

    def _become_child(self, channel: int, complaints: int) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for socket_of_template in (self._control, self._ends, self._of_an_end):
            socket_of_template.close()
        try:
            do_one_piece_of_work(channel, complaints)
        finally:
            os._exit(1)

    def _kill(self, pid: int) -> None:
        """The process and all of its group; one that was collected already may be somebody else by now."""
        if pid in self._alive:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)

    def _collect(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._alive.discard(pid)
                self._tell(frames.Ended(pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, news: frames.News) -> None:
        with contextlib.suppress(OSError):  # a hub that is gone needs no news
            self._control.send(frames.datagram(news))


# Before and after a fork ----------------------------------------------------------------------------------------------


def import_for_type(order: frames.Warm) -> None:
    """Imports what the type needs before the guard is up: libraries look for others, with `ldconfig` for one, while
    they are imported. What was imported stays, so that the collector of no fork walks through it."""
    sys.modules.setdefault("trio", None)  # type: ignore[arg-type]  # httpcore would import it wherever it is installed
    connector = registry.one(order.type, order.packages)
    for module in (connector.driver, *connector.warm_modules) if connector else ():
        if module:
            with contextlib.suppress(Exception):  # whatever it raises, the work imports it again, and says so
                import_module(module)
    gc.collect()
    gc.disable()
    gc.freeze()


def _begin_as_fork(template: int) -> None:
    """In a session of its own, so that all that it starts ends with it."""
    os.setsid()
    _die_with(template)


def _count_threads() -> int:
    """Native ones, too: a fork takes none of them along, and leaves the locks that they held."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


# Limits ---------------------------------------------------------------------------------------------------------------


def _die_with(parent: int) -> None:
    """Forks do not inherit it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")  # Where memory runs out, the kernel is to take this process first.
    if os.getppid() != parent:
        os._exit(0)


def _limit(memory_bytes: int) -> None:
    """RLIMIT_DATA counts what is really written to; RLIMIT_AS would also count the address space that drivers merely
    reserve for their threads."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_DATA, memory_bytes)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))
