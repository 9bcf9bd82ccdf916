"""The wall around the file system of a connector process, by the kernel: Landlock, https://landlock.io.

A driver that is tricked, by a view in a file, a path in a table's log or an option that nobody knew, opens files as the
hub's user, whose keys lie on the same disk. After `confine`, the process and every thread that it starts may read what
Python, drivers and the resolver need, and the hub's folder for files where the type opens files. It writes nothing,
starts no program, listens on no port that it names, and reaches no abstract socket and no process outside.

What was open before stays open, and so does what has no place on a disk (`memfd`). Files can still be looked for
(`stat`), and named Unix sockets be reached: the kernels that close these are too new to be asked for it.
"""

from __future__ import annotations

import errno
import os
import ssl
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final

# linux/landlock.h; the calls have these numbers on all architectures of today.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_BELOW_PATH: Final = 1
_PORT: Final = 2
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_FOLDER: Final = 1 << 3
_BIND_TCP: Final = 1 << 0
_ABSTRACT_SOCKETS: Final = 1 << 0
_SIGNALS: Final = 1 << 1
_FILE_RIGHTS: Final = (0, 13, 14, 15, 15, 16)
"""How many there are to take away, by version; later versions have added none that is wanted here."""
_PR_SET_NO_NEW_PRIVS: Final = 38

_LIBRARIES: Final = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"),
    *("/nix/store", "/etc/ld.so.cache", "/etc/ld.so.preload"),
)
_NAMES: Final = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"),
    *("/etc/services", "/etc/protocols", "/etc/mime.types", "/etc/os-release"),
    *("/usr/share/zoneinfo", "/etc/localtime"),
)
_CERTIFICATES: Final = (
    *(
        "/etc/ssl/certs",
        "/etc/ssl/cert.pem",
        "/etc/ssl/openssl.cnf",
        "/etc/ca-certificates",
        "/var/lib/ca-certificates",
    ),
    *("/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf"),
    *("/etc/crypto-policies", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
)
"""Never /etc/ssl or /etc/pki as a whole: private keys have their place there as well."""
_MACHINE: Final = (
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/fs/cgroup"),
    *("/dev/zero", "/dev/random", "/dev/urandom"),
)


@cache
def version() -> int:
    """Of the kernel's Landlock. 0 where it has none, has it switched off, or a sandbox around us forbids the question:
    before Linux 5.13, in gVisor, on other systems."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:
        return 0


def confine(
    packages: Iterable[str] = (), files_root: str | None = None, hides: Callable[[str], bool] = lambda _: False
) -> None:
    """Puts up the wall around the calling thread, for good; where there is no Landlock, nothing is done. Modules of
    `packages` can still be imported. `hides` says of names directly in `files_root` which stay closed. Raises `OSError`
    if the kernel has Landlock and will not put it up."""
    if not version():
        return
    ruleset = _ruleset()
    try:
        for path in (*_python(packages), *_given(), *_LIBRARIES, *_NAMES, *_CERTIFICATES, *_MACHINE):
            _allow(ruleset, path)
        if files_root:
            _allow_files(ruleset, files_root, hides)
        _allow(ruleset, os.devnull, _READ_FILE | _WRITE_FILE)
        if version() >= 4:
            # Port 0, any free one, is for our own `PinnedProxy`; `listen` alone takes such a port anyway.
            _call(_ADD_RULE, ruleset, _PORT, struct.pack("=QQ", _BIND_TCP, 0), 0)
        _restrict(ruleset)
    finally:
        os.close(ruleset)


# What may be read -----------------------------------------------------------------------------------------------------


def _python(packages: Iterable[str]) -> Iterator[str]:
    """Where modules come from. Of a checkout it is the packages alone: their folder is where `.hub` and `.env` lie."""
    yield from (os.path.join(base, lib) for base in {sys.prefix, sys.base_prefix} for lib in ("lib", "lib64"))
    yield from (os.path.dirname(os.__file__), sys.executable)
    yield from (path for path in sys.path if path.endswith("-packages"))
    for package in {"app", *packages}:
        yield from import_module(package).__path__


def _given() -> Iterator[str]:
    """What the environment, or the way in which OpenSSL was built, says of certificates and libraries."""
    trusted = ssl.get_default_verify_paths()
    yield from (trusted.openssl_cafile, trusted.openssl_capath)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"):
        yield from (path for path in os.environ.get(name, "").split(":") if path.startswith("/"))


# The kernel -----------------------------------------------------------------------------------------------------------


def _ruleset() -> int:
    """A descriptor. Everything is taken away that this kernel can take."""
    files = (1 << _FILE_RIGHTS[min(version(), len(_FILE_RIGHTS) - 1)]) - 1
    ports = _BIND_TCP if version() >= 4 else 0
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if version() >= 6 else 0
    try:
        return _create(files, ports, scoped)
    except OSError as error:
        # Kernels of Red Hat 9 call themselves version 6 and know nothing of signals.
        if error.errno != errno.EINVAL or not scoped:
            raise
        return _create(files, ports, _ABSTRACT_SOCKETS)


def _create(files: int, ports: int, scoped: int) -> int:
    attributes = struct.pack("=QQQ", files, ports, scoped)
    return _call(_CREATE_RULESET, attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, rights: int = _READ_FILE | _READ_FOLDER, *, how: int = 0) -> None:
    """What is not there is passed over."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | how)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= ~_READ_FOLDER
            _call(_ADD_RULE, ruleset, _BELOW_PATH, struct.pack("=Qi", rights, descriptor), 0)
        finally:
            os.close(descriptor)


def _allow_files(ruleset: int, root: str, hides: Callable[[str], bool]) -> None:
    """What is allowed below a folder cannot be taken back further down. So where something in it is hidden, all else is
    allowed thing by thing, as it is at this moment; names may be listed everywhere. Links are not followed: where one
    leads is allowed, or not, by itself."""
    names = _names_in(root)
    if not any(map(hides, names)):
        _allow(ruleset, root)
        return
    _allow(ruleset, root, _READ_FOLDER)
    for name in names:
        if not hides(name):
            _allow(ruleset, os.path.join(root, name), how=os.O_NOFOLLOW)


def _names_in(folder: str) -> list[str]:
    """None of what is not there or may not be listed: in such a folder nothing is opened either."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return os.listdir(folder)
    return []


def _restrict(ruleset: int) -> None:
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(errno.EPERM, "PR_SET_NO_NEW_PRIVS was refused")
    _call(_RESTRICT_SELF, ruleset, 0)


@cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    import ctypes

    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in (number, *arguments))
    result = int(_libc().syscall(*words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
