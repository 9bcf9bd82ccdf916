"""Keys are rotated while hubs work, and nobody notices."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from app.core.sealing import KeyRing
from app.core.signing_keys import generate_signing_key, read_signing_keys
from app.domain.resealing import BATCH
from tests.commands.hubs import Serve, Served, environment, run
from tests.commands.test_keys import multiply

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATIENCE_S = 60
SECRETS = 8 * BATCH
POSTGRES = {"host": "127.0.0.1", "database": "d", "username": "u"}


@contextmanager
def going_on(*works: Callable[[], Any]) -> Iterator[list[Any]]:
    """Each again and again until the block ends, in a thread of its own. Yields what they return, in time."""
    results: list[Any] = []
    failures: list[BaseException] = []
    is_over = threading.Event()

    def repeat(work: Callable[[], Any]) -> None:
        try:
            while not is_over.is_set():
                results.append(work())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert results


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Signing keys ---------------------------------------------------------------------------------------------------------


def write(path: Path, *keys: bytes) -> None:
    """As a whole, as the README has it."""
    draft = path.with_suffix(".new")
    draft.write_bytes(b"".join(keys))
    draft.replace(path)


def kids(path: Path) -> list[str]:
    return [key.kid for key in read_signing_keys(path)]


def shown(hub: Served) -> list[str]:
    return [key["kid"] for key in httpx.get(f"{hub.url}/.well-known/jwks.json").json()["keys"]]


def signed_in_here_and_asked_there(here: Served, there: Served, given: dict[str, str]) -> Callable[[], str]:
    """Gives the key's id of the token that `here` gave out and `there` took."""
    clients = [httpx.Client(base_url=f"{hub.url}/api/v1", timeout=30) for hub in (here, there)]

    def once() -> str:
        login = clients[0].post("/auth/login", json=given)
        assert login.status_code == 200, login.text
        token = login.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        told = clients[1].post("/auth/introspect", data={"token": token}, headers=headers)
        assert (told.status_code, told.json().get("active")) == (200, True), told.text
        kid: str = jwt.get_unverified_header(token)["kid"]
        assert kid in [key["kid"] for key in httpx.get(f"{there.url}/.well-known/jwks.json").json()["keys"]]
        return kid

    return once


def test_signing_keys_come_and_go_under_two_hubs_without_a_failed_request(
    data_dir: Path, tmp_path: Path, serve: Serve
) -> None:
    path = tmp_path / "signing.pem"
    first, second, third = (generate_signing_key() for _ in range(3))
    write(path, first)
    given = {
        "HUB_SIGNING_KEYS_FILE": str(path),
        "HUB_SECRET_KEYS": KeyRing.generate(),
        "HUB_PUBLIC_URL": "http://hub.example.org",
        "HUB_ENV": "development",
    }
    one = serve(data_dir, **given)
    record = json.loads((data_dir / "postgres.json").read_text())
    database = {
        f"HUB_{name}DATABASE_URL": f"postgresql://{role}:{record['passwords'][role]}@127.0.0.1:{record['port']}/hub"
        for name, role in {"": "hub_app", "OWNER_": "hub_owner"}.items()
    }
    other = serve(tmp_path / "other", **given, **database)
    assert one.admin
    login = dict(zip(("email", "password"), one.admin, strict=True))
    works = [signed_in_here_and_asked_there(*pair, login) for pair in ((one, other), (other, one))]
    with going_on(*works) as used:
        for keys in ((first, second), (second, first), (third, second, first)):  # at the end, to the front, at once
            write(path, *keys)
            wanted = kids(path)
            until(lambda wanted=wanted: shown(one) == shown(other) == wanted)  # type: ignore[misc]
            if keys[0] != first:
                until(lambda wanted=wanted: used[-1] == wanted[0])  # type: ignore[misc]
        path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nhalf a")
        seen = len(used)
        until(lambda: len(used) > seen + 20)
        write(path, third)
        until(lambda: shown(one) == shown(other) == kids(path))
    assert set(used) == {key for keys in (first, second, third) for key in _kids_of(tmp_path, keys)}


def _kids_of(folder: Path, key: bytes) -> list[str]:
    path = folder / "one.pem"
    path.write_bytes(key)
    return kids(path)


# Secret keys ----------------------------------------------------------------------------------------------------------


def registered(client: httpx.Client, **source: Any) -> str:
    made = client.post("/data-sources", json={"name": "s", "config": {}, **source})
    assert made.status_code == 201, made.text
    source_id: str = made.json()["id"]
    return source_id


def previewed(client: httpx.Client, source_id: str) -> Callable[[], str]:
    """Each preview opens the secret of the source."""

    def once() -> str:
        ask = {"object": "simulated.object_000001", "limit": 1}
        answer = client.post(f"/data-sources/{source_id}/preview", json=ask)
        assert answer.status_code == 200, answer.text
        return answer.text

    return once


def killed_in_the_middle(data_dir: Path, **given: str) -> int:
    """How many secrets it said to have sealed anew, when it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "keys", "rotate"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(data_dir, **given),
    )
    assert process.stderr is not None
    done = process.stderr.readline()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stderr.close()
    return int(done.split()[0])


async def test_secrets_are_sealed_anew_under_previews_however_often_that_is_killed(
    data_dir: Path, serve: Serve
) -> None:
    """Every secret opens at every moment, and in the end under the new key alone."""
    old, new = KeyRing.generate("old"), KeyRing.generate("new")
    hub = serve(data_dir, HUB_SECRET_KEYS=old)
    assert hub.admin
    login = dict(zip(("email", "password"), hub.admin, strict=True))
    with hub.client() as client:
        secret = {"password": "quite a secret"}
        registered(client, name="many", type="postgresql", config=POSTGRES, secrets=secret)
        await multiply(data_dir, SECRETS, KeyRing.parse(old))
        source_id = registered(client, type="simulated", secrets=secret)
    hub.stop()
    ring = {"HUB_SECRET_KEYS": f"{new},{old}"}
    hub = serve(data_dir, **ring)
    token = httpx.post(f"{hub.url}/api/v1/auth/login", json=login).json()["access_token"]
    client = httpx.Client(base_url=f"{hub.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    with client, going_on(previewed(client, source_id)):
        for _ in range(2):
            assert 0 < killed_in_the_middle(data_dir, **ring) < SECRETS
        ended = run(data_dir, "keys", "rotate", **ring)
        assert ended.returncode == 0, ended.stderr
    assert "every one opens" in run(data_dir, "check", HUB_SECRET_KEYS=new).stdout
    listed = run(data_dir, "keys", "list", **ring).stdout
    assert f"{SECRETS + 1} secrets" in next(line for line in listed.splitlines() if "current" in line)
