"""The hub that the demo talks to: the one that runs on the data folder, or one started while the demo lasts."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import msgspec
from msgspec import Struct

from app.commands.demo.telling import DemoFailed
from app.commands.places import Place, written_place
from app.core import embedded
from app.settings import Settings

KEPT = "demo.json"
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 30


class Kept(Struct):
    """What the next run needs of this one, in a file of mode 0600 in the data folder."""

    admin_email: str
    admin_password: str
    user_password: str
    database_password: str

    @classmethod
    def new(cls) -> "Kept":
        return cls("demo-admin@example.org", *(secrets.token_urlsafe(18) for _ in range(3)))


class RunningHub(Struct):
    url: str
    """Where the demo reaches it."""
    public_url: str
    """What others call it; of a hub that the demo has started, what they will call it once it is started again."""
    was_running: bool


def kept(settings: Settings) -> Kept:
    try:
        return msgspec.json.decode((settings.data_dir / KEPT).read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        return Kept.new()


def keep(settings: Settings, what: Kept) -> None:
    draft = settings.data_dir / f"{KEPT}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(what))
    draft.replace(settings.data_dir / KEPT)


@contextmanager
def running_hub(settings: Settings, what: Kept) -> Iterator[RunningHub]:
    """Raises DemoFailed where a hub works on the data folder and does not answer where it said that it is."""
    if not _is_owned(settings.data_dir):
        with _started(settings, what) as url:
            yield RunningHub(url, settings.url, was_running=False)
        return
    place = written_place(settings) or Place(settings.url, settings.url)
    answering = next(filter(_answers, (place.address, place.url)), None)
    if answering is None:
        raise DemoFailed(
            f"Another process works on {settings.data_dir}, but no hub answers at {place.address}: "
            "stop it, or set HUB_PUBLIC_URL to where it listens."
        )
    yield RunningHub(answering, place.url, was_running=True)


def _is_owned(data_dir: Path) -> bool:
    if not (data_dir / "postgres").exists():
        return False
    try:
        embedded.start(data_dir, exclusive=True).stop()
    except embedded.EmbeddedInUse:
        return True
    except embedded.EmbeddedError as error:
        raise DemoFailed(str(error)) from None
    return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def _started(settings: Settings, what: Kept) -> Iterator[str]:
    """`hub serve` on a free port, in a session of its own: Ctrl-C reaches only us, and we end it in good order."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "app", "serve", "--port", str(port)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            env=_environment(settings, what),
        )  # fmt: skip
        try:
            _wait_until_ready(process, url, said)
            yield url
        finally:
            _end(process)


def _environment(settings: Settings, what: Kept) -> dict[str, str]:
    """On an empty database the admin of the demo is the first one."""
    admin = {"HUB_ADMIN_EMAIL": what.admin_email, "HUB_ADMIN_PASSWORD": what.admin_password}
    place = {"HUB_DATA_DIR": str(settings.data_dir), "HUB_LOG_LEVEL": "warning"}
    return {**os.environ, **admin, **place}


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, said: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            said.seek(0)
            last = said.read().decode(errors="replace").splitlines()[-10:]
            raise DemoFailed("\n  ".join(["The hub did not start. It said:", *last]))
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_admin(settings: Settings, url: str, what: Kept) -> Kept:
    """Another admin in the hub's database, where the one of the demo cannot sign in (or no longer)."""
    from app.commands.admin import act_in
    from app.domain.users.admins import NewAdmin, create_admin

    email = f"demo-admin-{secrets.token_hex(4)}@example.org"
    asyncio.run(act_in(settings, url, lambda parts: create_admin(parts, NewAdmin(email, what.admin_password))))
    return msgspec.structs.replace(what, admin_email=email)
