"""The process in which one piece of connector work runs: forked from a template of its type, used once.

It limits itself first, reads its work, answers and ends. Whatever a driver prints goes to a file that the hub looks
into only where the process broke. An audit hook is the second wall around the network: no connection goes to an address
that the egress policy did not hand out, no name is looked up elsewhere, no other process is started. The kernel is the
second wall around the file system (`confinement.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import msgspec

from app.connectors import registry
from app.connectors.contract.base import Connector
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import OUT_OF_MEMORY, Steps, unexpected
from app.connectors.processes import frames
from app.connectors.processes.confinement import confine
from app.core.tunnels import TunnellingLoop

AnySource = Connector[Any, Any]
Send = Callable[[frames.Answer], None]
GC_THRESHOLD: Final = 10_000
"""Objects until a collection. Those that discovery makes are gone with their batch, and few are in cycles."""


def do_one_piece_of_work(channel: int, complaints: int) -> None:
    """Never returns. `channel` is a stream to the hub in both directions, `complaints` takes what is printed."""
    _print_into(complaints)
    with os.fdopen(channel, "rb", closefd=False) as questions, os.fdopen(os.dup(channel), "wb") as answers:
        if (work := _read_work(questions)) is not None:
            guard = DialGuard()
            sys.addaudithook(guard)
            gc.enable()
            gc.set_threshold(GC_THRESHOLD)
            _do(work, guard, answers)
            answers.flush()
    os._exit(0)  # A driver's threads and exit handlers have nothing more to say.


def _print_into(complaints: int) -> None:
    """Nothing is to be read from descriptor 0, and what is printed to 1 and 2 is not for the hub's terminal."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(complaints, 1)
    os.dup2(complaints, 2)
    os.close(nothing)
    os.close(complaints)


class DialGuard:
    """An audit hook (PEP 578). It cannot be taken away again, and it sees every driver written in Python."""

    def __init__(self) -> None:
        self.connector: AnySource | None = None

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
            if args[1] is not None:  # `sendmsg` without an address goes over a connection that was judged before
                self._judge_connect(args[1])
        elif event == "socket.getaddrinfo" or event == "socket.gethostbyname":
            self._judge_lookup(args[0])
        elif event in {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"}:
            raise ConnectorError("egress_refused", "A connector may not start another process.")

    def _judge_connect(self, address: object) -> None:
        if not isinstance(address, tuple):
            raise ConnectorError("egress_refused", "A connector may not use sockets of this machine.")
        if self.connector is not None and self.connector.network.tunnel_at(str(address[0])):
            raise ConnectorError(
                "unsupported",
                "The driver dials by itself, and goes through no proxy; HUB_EGRESS_DIRECT names hosts that are dialled "
                "without one.",
            )
        if self.connector is None or not self.connector.network.is_open_to(str(address[0]), int(address[1])):
            raise ConnectorError(
                "egress_refused", "The driver tried an address that the egress policy did not give out."
            )

    def _judge_lookup(self, host: object) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return
        if self.connector is None or not self.connector.network.is_looking_up(name):
            raise ConnectorError("egress_refused", "The driver tried to look up a name by itself.")


# Work -----------------------------------------------------------------------------------------------------------------


def _read_work(questions: BinaryIO) -> frames.Work | None:
    header = questions.read(frames.HEADER.size)
    if len(header) < frames.HEADER.size:
        return None
    work: frames.Work = frames.work_decoder.decode(questions.read(frames.HEADER.unpack(header)[0]))
    return work


def _do(work: frames.Work, guard: DialGuard, answers: BinaryIO) -> None:
    def send(frame: frames.Answer) -> None:
        answers.write(frames.encode(frame))
        answers.flush()

    try:
        _confine(work)
        connector = _connector(work)
        guard.connector = connector
        with asyncio.Runner(loop_factory=_loop_factory(connector.network)) as runner:
            runner.run(_act(work, connector, send))
    except ConnectorError as caught:
        error = caught if guard.connector is None else guard.connector.network.retold(caught)
        send(frames.Failed(error.code, error.message, error.unknown_columns, error.retry_after_s))
    except MemoryError:
        send(frames.Failed("out_of_memory", OUT_OF_MEMORY))
    except Exception as error:
        _log(error)
        send(frames.Failed("crashed", unexpected(error)))


def _loop_factory(network: Network) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if network.policy.proxy is None:
        return None
    return lambda: TunnellingLoop(network.tunnel_at, network.note_tunnel)


def _confine(work: frames.Work) -> None:
    policy = work.policy
    confine(work.packages, policy.readable_root if _type(work).opens_files else None, policy.hides)


def _type(work: frames.Work) -> registry.AnyConnector:
    connector = registry.one(work.type, work.packages)
    assert connector is not None, "the hub asks for types that it found itself"
    return connector


def _connector(work: frames.Work) -> AnySource:
    connector = _type(work)
    if not registry.is_driver_available(connector):
        raise ConnectorError(
            "driver_missing", f"The driver is not installed: the hub's extra `{connector.extra}` brings it."
        )
    config = msgspec.convert(work.config, connector.config_type)
    secrets = msgspec.convert(work.secrets, connector.secrets_type)
    return connector(config, secrets, work.policy)


async def _act(work: frames.Work, connector: AnySource, send: Send) -> None:
    if work.action == "check":
        await _check(connector, send)
    elif work.action == "preview":
        assert work.preview is not None
        send(frames.Previewed(await connector.preview(work.preview)))
    else:
        async for batch in connector.discover():
            send(frames.Batch(batch))
        send(frames.Discovered(connector.stopped_because))


async def _check(connector: AnySource, send: Send) -> None:
    started = time.perf_counter()
    steps = Steps(
        lambda name: send(frames.StepStarted(name)),
        lambda step: send(frames.StepEnded(step)),
        connector.network.retold,
    )
    try:
        await connector.check(steps)
    except Exception as error:
        if not any(step.status == "failed" for step in steps.done):
            raise
        if not isinstance(error, ConnectorError | MemoryError):
            _log(error)
    send(frames.Checked(steps.result((time.perf_counter() - started) * 1000)))


def _log(error: BaseException) -> None:
    """Where it happened, without the error's own text, which may hold a secret."""
    import traceback

    for frame in traceback.extract_tb(error.__traceback__)[-8:]:
        print(f"{frame.filename}:{frame.lineno} in {frame.name}", file=sys.stderr)
    print(type(error).__qualname__, file=sys.stderr, flush=True)
