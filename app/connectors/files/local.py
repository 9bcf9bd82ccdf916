"""The one way in which a file type opens a path: below `HUB_FILES_ROOT`, links followed first and judged after. Where
tenants have folders of their own in it, below one's own; all others are as if they were not there.

A path is opened without reading anything (`O_PATH`), and what was opened is judged: where it lies by the kernel's word
(`/proc/self/fd`), and what it is by `fstat`. Drivers are given a path through the open descriptor of its folder, so
that no folder above it can be exchanged in between; the last name they open themselves, and `watched` looks at what it
was. Systems without `O_PATH` have their paths resolved, and then opened by a name without links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from app.connectors.contract.failures import ConnectorError
from app.core.egress import EgressPolicy

FilePath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        description="Path below the hub's folder for files (HUB_FILES_ROOT), or an absolute one inside it.",
    ),
]

_O_PATH: Final = getattr(os, "O_PATH", 0)
_DESCRIPTORS: Final = "/proc/self/fd"
_HAS_DESCRIPTOR_PATHS: Final = bool(_O_PATH) and os.path.isdir(_DESCRIPTORS)
_LOOK: Final = (_O_PATH or os.O_RDONLY | os.O_NONBLOCK) | os.O_CLOEXEC
"""Opens nothing that could answer: no device wakes up, no pipe waits for its other end."""
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_KERNEL_FOLDERS: Final = ("/proc", "/sys")

What = Literal["file", "folder"]


class Root(msgspec.Struct, frozen=True):
    """The folder below which everything has to lie."""

    given: str
    """Absolute and normalised, links not followed."""
    real: str
    hides_name: Callable[[str], bool]
    """Of what is directly in it: whether it is another tenant's."""

    def hides(self, real_path: str) -> bool:
        """What is hidden, and what lies below it, is as if it were not there."""
        below = os.path.relpath(real_path, self.real).split("/")[0]
        return self.hides_name(below)

    def require(self, real_path: str, typed: str) -> None:
        """Raises `egress_refused` for what lies outside, and `not_found` for what is hidden."""
        if not _is_inside(real_path, self.real):
            raise _outside(typed)
        if self.hides(real_path):
            raise _absent(typed)


class LocalFile(msgspec.Struct, frozen=True):
    """A plain file below the root, held until its context ends."""

    typed: str
    """As its source's configuration has it; the only path that a message may show."""
    path: str
    """For a driver to open. Its companions (`-wal` and the like) lie beside it."""
    real_path: str
    root: Root
    size: int
    identity: tuple[int, int]
    """Device and inode."""

    def companion(self, suffix: str) -> LocalFile | None:
        """The file whose name has this suffix behind, or None if there is none. Raises `egress_refused` for a link that
        leads out of the root and for what is no plain file."""
        if not os.path.lexists(self.path + suffix):
            return None
        with _looked_at(self.real_path + suffix, self.root, self.typed + suffix, "file") as (descriptor, real_path):
            return _local_file(descriptor, self.typed + suffix, self.path + suffix, real_path, self.root)

    def read_start(self, length: int) -> bytes:
        """The first bytes, fewer if the file is shorter. Raises `permission_denied`."""
        try:
            with open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                facts = os.fstat(file.fileno())
                if _identity(facts) != self.identity:
                    raise _outside(self.typed)
                if _has_other_names(facts):
                    raise _hard_link(self.typed)
                return file.read(length)
        except OSError as error:
            raise _explain(error, self.typed) from None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a driver's opening. Raises `egress_refused` if it opened a plain file outside of the root, or one that
        has other names."""
        before = set(_plain_files())
        yield
        opened = set(_plain_files()) - before
        for path, _ in opened:
            self.root.require(path, self.typed)
        if any(_has_other_names(os.fstat(descriptor)) for _, descriptor in opened):
            raise _hard_link(self.typed)


class LocalFolder(msgspec.Struct, frozen=True):
    """A folder below the root, held until its context ends."""

    typed: str
    path: str
    """For a driver to open."""
    real_path: str
    root: Root

    def names(self) -> list[str]:
        """Of what is directly in it. Raises OSError."""
        return [name for name in os.listdir(self.path) if not self.root.hides(os.path.join(self.real_path, name))]

    def judge(self, relative: str) -> str:
        """The real path of what lies below this folder under that name. Raises as `local_file` does, and
        `egress_refused` as well for what is elsewhere below the root."""
        typed = f"{self.typed}/{relative}"
        _refuse_spelling(relative, typed)
        if relative.startswith("/"):
            raise _outside(typed)
        with _looked_at(os.path.join(self.real_path, relative), self.root, typed, None) as (_, real_path):
            if not _is_inside(real_path, self.real_path):
                raise _outside(typed)
            return real_path


@contextmanager
def local_file(policy: EgressPolicy, path: str) -> Iterator[LocalFile]:
    """Raises `egress_refused` for what lies outside of the root or is no plain file, `not_found`, `permission_denied`,
    or `invalid_configuration` where the root is not set or the path names a folder."""
    root = _root(policy)
    with ExitStack() as held:
        descriptor, real_path = held.enter_context(_looked_at(_whole(path, root), root, path, "file"))
        folder, name = os.path.split(real_path)
        folder_descriptor, real_folder = held.enter_context(_looked_at(folder, root, path, "folder"))
        driver_path = os.path.join(_driver_path(folder_descriptor, real_folder), name)
        yield _local_file(descriptor, path, driver_path, real_path, root)


@contextmanager
def local_folder(policy: EgressPolicy, path: str) -> Iterator[LocalFolder]:
    """As `local_file`, for a folder."""
    root = _root(policy)
    with _looked_at(_whole(path, root), root, path, "folder") as (descriptor, real_path):
        yield LocalFolder(path, _driver_path(descriptor, real_path), real_path, root)


def _local_file(descriptor: int, typed: str, path: str, real_path: str, root: Root) -> LocalFile:
    facts = os.fstat(descriptor)
    return LocalFile(typed, path, real_path, root, facts.st_size, _identity(facts))


# Judging --------------------------------------------------------------------------------------------------------------


def _root(policy: EgressPolicy) -> Root:
    if not policy.files_root:
        raise ConnectorError(
            "invalid_configuration", "This hub reads no files: its operator has not set HUB_FILES_ROOT."
        )
    given = os.path.abspath(policy.files_root)
    if not os.path.isdir(given):
        raise ConnectorError(
            "invalid_configuration", "The folder that HUB_FILES_ROOT names is not there; its operator has to create it."
        )
    whole = Root(given, os.path.realpath(given), policy.hides)
    return whole if policy.files_folder is None else _folder_of_tenant(whole, policy.files_folder)


def _folder_of_tenant(whole: Root, name: str) -> Root:
    """A link in its place may be somebody's who may write to the folder around it."""
    own = Root(os.path.join(whole.given, name), os.path.join(whole.real, name), _hides_nothing)
    if not os.path.isdir(own.real):
        raise ConnectorError(
            "invalid_configuration",
            f"The folder {name} is not in that of HUB_FILES_ROOT; the hub's operator has to create it.",
        )
    if os.path.realpath(own.real) != own.real:
        raise ConnectorError(
            "invalid_configuration", f"The folder {name} in that of HUB_FILES_ROOT is a link; it has to be a folder."
        )
    return own


def _hides_nothing(_: str) -> bool:
    return False


def _whole(typed: str, root: Root) -> str:
    """The absolute path that is meant. What is plainly outside, or hidden, is refused before anything is looked at, so
    that no answer tells whether it exists."""
    _refuse_spelling(typed, typed)
    path = typed
    if path.startswith("/"):
        folder = next((folder for folder in (root.given, root.real) if _is_inside(path, folder)), None)
        if folder is None:
            raise _outside(typed)
        path = os.path.relpath(path, folder)
    whole = os.path.join(root.real, path)
    if root.hides(whole):
        raise _absent(typed)
    return whole


def _refuse_spelling(path: str, typed: str) -> None:
    """`a/..` is not `.` where `a` is a link, and nobody needs it."""
    if "\x00" in path:
        raise ConnectorError("invalid_configuration", "The path holds a NUL character.")
    if ".." in path.split("/"):
        raise _outside(typed)


def _is_inside(path: str, folder: str) -> bool:
    path, folder = os.path.normpath(path), os.path.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@contextmanager
def _looked_at(path: str, root: Root, typed: str, what: What | None) -> Iterator[tuple[int, str]]:
    """An open descriptor that is good for looking only, and the real path of what it is."""
    try:
        descriptor = os.open(path, _LOOK)
    except (OSError, ValueError) as error:
        root.require(os.path.realpath(path), typed)
        raise _explain(error, typed) from None
    try:
        real_path = _real_path(descriptor, path)
        root.require(real_path, typed)
        _refuse_kind(os.fstat(descriptor), typed, what)
        yield descriptor, real_path
    finally:
        os.close(descriptor)


def _real_path(descriptor: int, path: str) -> str:
    if _HAS_DESCRIPTOR_PATHS:
        return os.readlink(f"{_DESCRIPTORS}/{descriptor}")
    return os.path.realpath(path)


def _driver_path(descriptor: int, real_path: str) -> str:
    return f"{_DESCRIPTORS}/{descriptor}" if _HAS_DESCRIPTOR_PATHS else real_path


def _refuse_kind(facts: os.stat_result, typed: str, what: What | None) -> None:
    is_file, is_folder = stat.S_ISREG(facts.st_mode), stat.S_ISDIR(facts.st_mode)
    if not (is_file or is_folder) or facts.st_dev in _kernel_devices():
        raise ConnectorError("egress_refused", f"{typed} is neither a file nor a folder, but a thing of the system.")
    if is_file and _has_other_names(facts):
        raise _hard_link(typed)
    if what == "file" and is_folder:
        raise ConnectorError("invalid_configuration", f"{typed} is a folder; a file is wanted.")
    if what == "folder" and is_file:
        raise ConnectorError("invalid_configuration", f"{typed} is a file; a folder is wanted.")


def _has_other_names(facts: os.stat_result) -> bool:
    """A hard link: the kernel tells one name of a file only, and the others may lie outside of the root."""
    return facts.st_nlink > 1


def _hard_link(typed: str) -> ConnectorError:
    return ConnectorError(
        "egress_refused",
        f"{typed} has more than one name in its file system (a hard link), and the others may lie elsewhere. "
        "A copy of it can be read.",
    )


def _kernel_devices() -> set[int]:
    """What looks like plain files there is the inside of processes and of the kernel."""
    devices = set()
    for folder in _KERNEL_FOLDERS:
        with contextlib.suppress(OSError):
            devices.add(os.stat(folder).st_dev)
    return devices


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _plain_files() -> Iterator[tuple[str, int]]:
    """Paths and descriptors of the plain files that this process has open. Empty where the system does not tell."""
    for name in os.listdir(_DESCRIPTORS) if _HAS_DESCRIPTOR_PATHS else ():
        with contextlib.suppress(OSError):  # The descriptor of this very listing is closed again.
            path = os.readlink(f"{_DESCRIPTORS}/{name}")
            if stat.S_ISREG(os.fstat(int(name)).st_mode) and not path.startswith("/memfd:"):
                yield path, int(name)


def _outside(typed: str) -> ConnectorError:
    return ConnectorError("egress_refused", f"{typed} does not lie in the folder of HUB_FILES_ROOT.")


def _absent(typed: str) -> ConnectorError:
    return ConnectorError("not_found", f"There is no {typed} in the folder of HUB_FILES_ROOT.")


def _explain(error: Exception, typed: str) -> ConnectorError:
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    if number in _ABSENT:
        return _absent(typed)
    if number in {errno.EACCES, errno.EPERM}:
        return ConnectorError("permission_denied", f"The hub's user may not read {typed}.")
    return ConnectorError(
        "server_error", f"{typed} could not be opened ({errno.errorcode.get(number or 0, 'unknown')})."
    )
