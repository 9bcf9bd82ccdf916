"""Who owns a data folder: whoever holds the flock on a file in it."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import ClassVar


class Lock:
    """A flock on a file that holds the holder's process id."""

    held: ClassVar["set[Lock]"] = set()

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.held.add(self)

    @classmethod
    def take(cls, path: Path) -> "Lock | None":
        """The lock, or None where another holds it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return cls(fd)

    def release(self) -> None:
        self.held.discard(self)
        os.close(self._fd)

    @classmethod
    def drop_inherited(cls) -> None:
        """A forked child must not keep alive the lock of a parent that was killed."""
        for lock in tuple(cls.held):
            lock.release()


os.register_at_fork(after_in_child=Lock.drop_inherited)


def read_pid(path: Path) -> int | None:
    """The process id on the first line of a lock or pid file."""
    with suppress(OSError, ValueError, IndexError):
        return int(path.read_text(encoding="utf-8", errors="replace").splitlines()[0])
    return None
