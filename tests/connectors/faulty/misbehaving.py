"""One type; its config says in which way it goes wrong, after two steps that went well."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from app.connectors.contract.base import Connector
from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredField, DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps


class MisbehavingConfig(ConnectorConfig, frozen=True, kw_only=True):
    way: str
    target: str = ""


class MisbehavingSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: str | None = None


class Misbehaving(Connector[MisbehavingConfig, MisbehavingSecrets]):
    type = "misbehaving"
    label = "Misbehaving"
    category = "database"
    description = "Goes wrong on purpose."
    config_type = MisbehavingConfig
    secrets_type = MisbehavingSecrets
    destination_fields = frozenset({"target"})

    async def check(self, steps: Steps) -> None:
        with steps.step("resolve", "fine"):
            pass
        with steps.step("connect", "fine"):
            pass
        with steps.step("authenticate", "fine"):
            self._go_wrong()
        with steps.step("list", "fine"):
            pass

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        field = DiscoveredField("x", "string", "text", True, 1)
        for number in range(3):
            yield [DiscoveredObject.at((str(number),), "table", (field,))]
        self._go_wrong()
        while self.config.way == "endless":
            yield [DiscoveredObject.at(("again",), "table", (field,))]
            await asyncio.sleep(0.01)

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        self._go_wrong()
        return PreviewResult((), [], False, 0.0)

    def _go_wrong(self) -> None:
        way = self.config.way
        if way == "hang":
            time.sleep(3600)
        elif way == "segv":
            os.kill(os.getpid(), 11)
        elif way == "eat":
            bytearray(4 * 1024**3)
        elif way == "eat_slowly":
            _ = [bytearray(16 * 1024**2) for _ in range(256)]
        elif way == "exit":
            os._exit(3)
        elif way == "raise":
            raise RuntimeError(f"dsn with {self.secrets.password}")
        elif way == "chatter":
            print(f"password {self.secrets.password}")
            os.write(1, b"\xff" * 100)
            print("x" * 1_000_000, file=sys.stderr)
        else:
            self._reach_out(way)

    def _reach_out(self, way: str) -> None:
        """What drivers might do behind the policy's back."""
        if way == "dial":
            socket.create_connection(("127.0.0.1", int(self.config.target)), 1)
        elif way == "send_to":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("127.0.0.1", int(self.config.target)))
        elif way == "send_message":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendmsg([b"x"], [], 0, ("127.0.0.1", int(self.config.target)))
        elif way == "send_on":
            one, _ = socket.socketpair()
            one.sendmsg([b"x"])
        elif way == "unix":
            socket.socket(socket.AF_UNIX).connect(self.config.target)
        elif way == "look_up":
            socket.getaddrinfo("localhost", 80)
        elif way == "spawn":
            subprocess.run(["/bin/true"], check=True)
        elif way == "environment":
            found = sorted(name for name in os.environ if name.startswith(("HUB_", "PG", "AWS_", "PYTHONPATH")))
            if found or os.getcwd() != "/":
                raise AssertionError(found)
        elif way == "poison":
            if hasattr(socket, "poisoned"):
                raise AssertionError("another one was here")
            socket.poisoned = True  # type: ignore[attr-defined]
        elif way == "descriptors":
            opened = os.listdir("/proc/self/fd")
            if len(opened) > int(self.config.target):
                raise AssertionError([os.readlink(f"/proc/self/fd/{name}") for name in opened])
        elif way in _BREAKS:
            self._break_out(way)

    def _break_out(self, way: str) -> None:
        """What a tricked driver might do with the hub's own rights; natively where Python would tell the audit hook."""
        try:
            _BREAKS[way](self.config.target)
        except PermissionError:
            raise ConnectorError("permission_denied", f"{way} was refused.") from None


class MisbehavingWithFiles(Misbehaving):
    type = "misbehaving_with_files"
    label = "Misbehaving with files"
    opens_files = True


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


def _read_on_a_thread(path: str) -> None:
    errors: list[OSError] = []

    def read() -> None:
        try:
            _read(path)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def _write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"was here")


def _execute(program: str) -> None:
    _native("execv", program.encode(), (ctypes.c_char_p * 2)(program.encode(), None))


def _bind(port: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", int(port)))


def _reach_abstract_socket(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        address = struct.pack("=H", socket.AF_UNIX) + b"\0" + name.encode()
        _native("connect", sock.fileno(), address, len(address))


def _native(function: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), function)


_BREAKS: Final[dict[str, Callable[[str], Any]]] = {
    "read": _read,
    "read_on_a_thread": _read_on_a_thread,
    "list_folder": os.listdir,
    "write": _write,
    "make_folder": os.mkdir,
    "remove": os.unlink,
    "execute": _execute,
    "bind": _bind,
    "reach_abstract_socket": _reach_abstract_socket,
    "signal": lambda pid: os.kill(int(pid), signal.SIGCONT),
}
