"""From what PostgreSQL wrote to a sentence for the person at the terminal."""

import shutil
from contextlib import suppress
from pathlib import Path

from app.core.embedded.failures import EmbeddedDiskFull, EmbeddedFailed
from app.core.embedded.site import Site

FULL_DISK_BYTES = 1024 * 1024

_FULL_DISK = ("No space left on device", "Disk quota exceeded")
_MAY_PASS = ("Address already in use", "pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


def may_pass(said: list[str]) -> bool:
    return any(words in line for line in said for words in _MAY_PASS)


def names_full_disk(said: list[str]) -> bool:
    return any(words in line for line in said for words in _FULL_DISK)


def failure_of(said: list[str], site: Site) -> EmbeddedFailed:
    """The first cause that the lines name, and the last ten of them."""
    text = "\n".join(said)
    if names_full_disk(said):
        return EmbeddedDiskFull(site.cluster.parent, said[-10:])
    user = site.account or "the hub's user"
    causes = {
        "Address already in use": "PostgreSQL found no free port on this machine: end what holds them and start again.",
        "incompatible with server": f"The cluster {site.cluster} was made by another version of PostgreSQL.",
        "not compatible with": f"The cluster {site.cluster} was made by another version of PostgreSQL.",
        "Read-only file system": f"{site.cluster} cannot be written: set HUB_DATA_DIR to another folder.",
        "has wrong ownership": f"The cluster {site.cluster} must belong to {user}: give it back, or move it away.",
        "invalid permissions": f"The cluster {site.cluster} must be open to its owner only: `chmod 700` it.",
        "Permission denied": f"{user} may not use a file named below: mend its rights, or set HUB_DATA_DIR.",
        "pre-existing shared memory": f"An earlier PostgreSQL still works in {site.cluster}: wait, or end it.",
        "Cannot allocate memory": "PostgreSQL needs about 200 MB of free memory: free some and start again.",
    }
    for words, sentence in causes.items():
        if words in text:
            return EmbeddedFailed(sentence, said[-10:])
    # A full disk has no room for the log lines that would say so.
    if shutil.disk_usage(site.cluster.parent).free < FULL_DISK_BYTES:
        return EmbeddedDiskFull(site.cluster.parent, said[-10:])
    return EmbeddedFailed(
        f"PostgreSQL did not start: its last words follow, all of them are in {site.log}.", said[-10:]
    )


def log_since(log: Path, position: int) -> list[str]:
    with suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(position, log.stat().st_size - 20_000))
        return file.read().decode(errors="replace").splitlines()
    return []
