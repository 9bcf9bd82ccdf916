"""A Redis of Debian's on loopback, in a folder of its own, that tests kill, halt and replace by what is none."""

import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.connectors.servers.starting import private_folder, program, unprivileged, wait_for_port
from tests.ports import free_port

Script = Callable[[socket.socket], None]


class RedisServer:
    def __init__(self, folder: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "no"}
        command = [
            program("redis-server"),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
        ]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **unprivileged()
        )
        wait_for_port(self.port, self._process)

    def signal(self, signum: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def replaced_by(self, script: Script) -> Iterator[None]:
        """Something else answers on the port, each connection by itself, until the block ends."""
        self.kill()
        listener = socket.create_server(("127.0.0.1", self.port))
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                taken.append(connection)
                threading.Thread(target=_run, args=(script, connection), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for connection in taken:
                connection.close()


def _run(script: Script, connection: socket.socket) -> None:
    try:
        script(connection)
    except OSError:
        return


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    with private_folder() as folder:
        server = RedisServer(str(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
