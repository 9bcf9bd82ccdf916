"""`hub serve`: from an empty folder to answers, and nothing left behind, however it is ended."""

import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.commands.serve import server_class
from tests.commands.hubs import Serve, Served, family, run, survivors
from tests.ports import free_port


def test_an_empty_folder_becomes_a_hub_that_shows_its_first_admin_once(data_dir: Path, serve: Serve) -> None:
    first = serve(data_dir)
    assert first.client().get("/auth/me").status_code == 200
    docs = httpx.get(f"{first.url}/docs")
    assert docs.status_code == 200
    assert "text/html" in docs.headers["content-type"]
    assert first.stop() == 0

    second = serve(data_dir)
    assert second.admin is None
    assert first.admin is not None
    email, password = first.admin
    login = httpx.post(f"{second.url}/api/v1/auth/login", json={"email": email, "password": password})
    assert login.status_code == 200
    assert password not in second.said


@pytest.mark.slow
def test_the_generated_keys_are_for_their_owner_only(data_dir: Path, serve: Serve) -> None:
    serve(data_dir).stop()
    for name in ("secret-keys", "signing-keys.pem", "postgres.json"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600


@pytest.mark.slow
def test_the_first_admin_may_be_given(data_dir: Path, serve: Serve) -> None:
    password = "lanterns drift over quiet water"
    hub = serve(data_dir, HUB_ADMIN_EMAIL="ada@example.org", HUB_ADMIN_PASSWORD=password)
    assert hub.admin is None
    assert password not in hub.said
    login = httpx.post(f"{hub.url}/api/v1/auth/login", json={"email": "ada@example.org", "password": password})
    assert login.status_code == 200


@pytest.mark.slow
def test_a_weak_first_admin_is_refused_in_one_line(data_dir: Path) -> None:
    ended = run(
        data_dir, "serve", "--port", str(free_port()), HUB_ADMIN_EMAIL="ada@example.org", HUB_ADMIN_PASSWORD="password"
    )
    assert ended.returncode == 1
    assert "HUB_ADMIN_PASSWORD" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(used_folder: Path, serve: Serve, signum: signal.Signals) -> None:
    hub = _with_its_family(serve, used_folder)
    processes = family(hub.process.pid)
    assert len(processes) >= 3
    assert hub.stop(signum) == 0
    assert survivors(processes) == {}
    assert "Traceback" not in hub.said


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_reaches_the_whole_group_and_ends_in_silence(used_folder: Path, serve: Serve) -> None:
    hub = _with_its_family(serve, used_folder)
    processes = family(hub.process.pid)
    os.killpg(hub.process.pid, signal.SIGINT)
    assert hub.process.wait(30) == 0
    assert survivors(processes) == {}
    assert "Traceback" not in hub.said
    assert "KeyboardInterrupt" not in hub.said


@pytest.mark.slow
def test_ctrl_c_twice_leaves_nothing_either(used_folder: Path, serve: Serve) -> None:
    hub = _with_its_family(serve, used_folder)
    processes = family(hub.process.pid)
    os.killpg(hub.process.pid, signal.SIGINT)
    time.sleep(0.1)
    if hub.process.poll() is None:
        os.killpg(hub.process.pid, signal.SIGINT)
    hub.process.wait(30)
    assert survivors(processes) == {}


@pytest.mark.slow
def test_a_killed_hub_takes_its_processes_along(used_folder: Path, serve: Serve) -> None:
    hub = _with_its_family(serve, used_folder)
    processes = family(hub.process.pid)
    hub.process.kill()
    hub.process.wait(10)
    assert survivors(processes) == {}


@pytest.mark.slow
def test_a_half_sent_request_does_not_hold_up_the_end(used_folder: Path, serve: Serve) -> None:
    hub = _with_its_family(serve, used_folder)
    processes = family(hub.process.pid)
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        head = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: 500\r\n\r\n{")
        time.sleep(0.3)
        hub.process.send_signal(signal.SIGTERM)
        hub.process.wait(25)
    assert survivors(processes) == {}


@pytest.mark.slow
def test_a_lost_worker_is_replaced(used_folder: Path, serve: Serve) -> None:
    hub = serve(used_folder)
    first = hub.wait_for("app worker")
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (second := hub.wait_for("app worker")) == first:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert second != first


@pytest.mark.slow
def test_two_hubs_on_two_folders_run_side_by_side(used_folder: Path, data_dir: Path, serve: Serve) -> None:
    one, other = serve(used_folder), serve(data_dir)
    for hub in (one, other):
        assert httpx.get(f"{hub.url}/health/ready").status_code == 200


@pytest.mark.slow
def test_a_second_hub_on_one_folder_is_refused_in_one_line(used_folder: Path, serve: Serve) -> None:
    hub = serve(used_folder)
    ended = run(used_folder, "serve", "--port", str(free_port()))
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"The data folder {used_folder} is in use by process {hub.process.pid}: "
        "stop it, or set HUB_DATA_DIR to another folder."
    ]


def test_a_taken_port_is_refused_in_one_line_before_anything_is_made(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run(data_dir, "serve", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "--port" in ended.stderr
    assert not data_dir.exists()


def _with_its_family(serve: Serve, folder: Path) -> Served:
    hub = serve(folder)
    hub.wait_for("app worker")
    hub.wait_for("bin/postgres")
    return hub


def test_a_signal_at_the_moment_at_which_the_server_begins_to_wait_is_not_lost() -> None:
    """The main thread holds the lock of its event just then; the handler runs in that thread and may not ask for it."""
    server = server_class()("app.asgi:serve", interface="asgi")
    handled = threading.Event()

    def interrupted_as_it_begins_to_wait() -> None:
        with server.main_loop_interrupt._cond:
            server.signal_handler_interrupt()
            handled.set()

    threading.Thread(target=interrupted_as_it_begins_to_wait, daemon=True).start()
    assert handled.wait(5)
    assert server.main_loop_interrupt.wait(5)
    assert server.interrupt_signal
