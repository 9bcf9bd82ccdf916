"""What a connector that was tricked can do to this machine: by the kernel's word, nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import certifi
import pytest

from app.connectors import registry
from app.connectors.processes import confinement
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.servers.starting import ROOT
from tests.ports import free_port

pytestmark = pytest.mark.anyio


def _version_of_the_kernel() -> int:
    """Asked apart from the code under test, so that a mistake there skips nothing."""
    return max(0, ctypes.CDLL(None).syscall(444, None, 0, 1)) if sys.platform == "linux" else 0


def needs(version: int) -> pytest.MarkDecorator:
    return pytest.mark.skipif(_version_of_the_kernel() < version, reason=f"needs Landlock {version} in the kernel")


walled = needs(1)


@pytest.fixture
async def faulty() -> AsyncIterator[ConnectorSandbox]:
    sandbox = ConnectorSandbox(packages=("tests.connectors.faulty",), template_idle_s=0)
    yield sandbox
    await sandbox.close()


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A data folder as `hub serve` makes it, with the folder for files inside."""
    folder = tmp_path / ".hub"
    (folder / "files" / "sub").mkdir(parents=True)
    (folder / "files" / "sub" / "shop.csv").write_text("a,b\n")
    (folder / "signing-keys.pem").write_text("secret")
    (folder / "files" / "to-keys").symlink_to("../signing-keys.pem")
    (folder / "files" / "to-kernel").symlink_to("/proc/self/root/etc/passwd")
    return folder


async def outcome(
    sandbox: ConnectorSandbox,
    way: str,
    target: object,
    files_root: Path | None = None,
    type_name: str = "misbehaving",
) -> str:
    policy = EgressPolicy(files_root=str(files_root) if files_root else None)
    result = await sandbox.check(type_name, {"way": way, "target": str(target)}, {}, policy)
    return result.steps[3].code


def test_the_version_is_the_kernels() -> None:
    assert confinement.version() == _version_of_the_kernel()


@walled
async def test_the_hubs_own_files_and_those_of_the_machine_are_closed(
    faulty: ConnectorSandbox, hub_folder: Path
) -> None:
    environment_of_the_hub = f"/proc/{os.getpid()}/environ"
    for target in (hub_folder / "signing-keys.pem", "/etc/passwd", environment_of_the_hub, ROOT / "pyproject.toml"):
        assert Path(target).read_bytes(), target
        assert await outcome(faulty, "read", target) == "permission_denied", target
    for target in (hub_folder, Path.home(), ROOT, "/", "/tmp", "/etc/ssl", "/proc"):
        assert await outcome(faulty, "list_folder", target) == "permission_denied", target


@walled
async def test_ssh_keys_of_the_hubs_user_are_closed(faulty: ConnectorSandbox, tmp_path: Path) -> None:
    key = tmp_path / ".ssh" / "id_ed25519"
    key.parent.mkdir()
    key.write_text("secret")
    assert await outcome(faulty, "read", key) == "permission_denied"
    assert await outcome(faulty, "list_folder", Path.home()) == "permission_denied"


@walled
async def test_threads_stand_behind_the_wall_as_well(faulty: ConnectorSandbox, hub_folder: Path) -> None:
    assert await outcome(faulty, "read_on_a_thread", hub_folder / "signing-keys.pem") == "permission_denied"


@walled
async def test_nothing_is_written_made_or_removed(faulty: ConnectorSandbox, hub_folder: Path) -> None:
    files = hub_folder / "files"
    for way, target in (
        ("write", files / "new"),
        ("write", files / "sub" / "shop.csv"),
        ("write", hub_folder / "new"),
        ("make_folder", files / "folder"),
        ("remove", files / "sub" / "shop.csv"),
    ):
        assert await outcome(faulty, way, target, files, "misbehaving_with_files") == "permission_denied", target
    assert (files / "sub" / "shop.csv").read_text() == "a,b\n"


@walled
async def test_no_program_is_executed(faulty: ConnectorSandbox, hub_folder: Path) -> None:
    for program in ("/bin/true", sys.executable, str(_placed(hub_folder / "files" / "program"))):
        assert subprocess.run([program, "-c", ""], check=False).returncode == 0
        code = await outcome(faulty, "execute", program, hub_folder / "files", "misbehaving_with_files")
        assert code == "permission_denied", program


def _placed(path: Path) -> Path:
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    return path


@walled
async def test_a_type_that_opens_files_reads_below_the_folder_for_files_alone(
    faulty: ConnectorSandbox, hub_folder: Path
) -> None:
    files = hub_folder / "files"
    for name, expected in (
        ("sub/shop.csv", "ok"),
        ("to-keys", "permission_denied"),
        ("to-kernel", "permission_denied"),
    ):
        assert await outcome(faulty, "read", files / name, files, "misbehaving_with_files") == expected, name
    assert await outcome(faulty, "list_folder", files, files, "misbehaving_with_files") == "ok"
    assert await outcome(faulty, "list_folder", hub_folder, files, "misbehaving_with_files") == "permission_denied"


@walled
async def test_to_other_types_the_folder_for_files_is_closed(faulty: ConnectorSandbox, hub_folder: Path) -> None:
    files = hub_folder / "files"
    assert await outcome(faulty, "read", files / "sub" / "shop.csv", files) == "permission_denied"


async def test_what_drivers_need_is_open(faulty: ConnectorSandbox) -> None:
    trusted = ssl.get_default_verify_paths()
    for target in (certifi.where(), ssl.__file__, trusted.cafile, "/etc/hosts", "/proc/self/status"):
        if target and os.path.exists(target):
            assert await outcome(faulty, "read", target) == "ok", target
    assert await outcome(faulty, "write", os.devnull) == "ok"


@needs(4)
async def test_no_port_of_its_choice_is_taken_and_any_free_one_is(faulty: ConnectorSandbox) -> None:
    """The free one is for the proxy that drivers with resolvers of their own are pointed at."""
    assert await outcome(faulty, "bind", free_port()) == "permission_denied"
    assert await outcome(faulty, "bind", 0) == "ok"


@needs(6)
async def test_abstract_sockets_and_other_processes_are_out_of_reach(faulty: ConnectorSandbox) -> None:
    name = f"hub-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        assert await outcome(faulty, "reach_abstract_socket", name) == "permission_denied"
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        os.kill(other.pid, signal.SIGCONT)
        assert await outcome(faulty, "signal", other.pid) == "permission_denied"
        other.kill()


@pytest.mark.slow
@walled
def test_no_driver_starts_a_thread_before_the_wall_is_up() -> None:
    """Landlock binds a thread and those that it starts; one that was there before would stay free."""
    program = (
        "import os\n"
        "from app.connectors import registry\n"
        "from app.connectors.processes import frames\n"
        "from app.connectors.processes.template import import_for_type\n"
        "for name in registry.find(): import_for_type(frames.Warm(name, registry.PACKAGES))\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "1"


def test_types_that_open_files_are_known_by_name() -> None:
    """Each is a hole in the wall; a new one belongs here on purpose."""
    assert {connector.type for connector in registry.all() if connector.opens_files} == {
        "delta_lake",
        "duckdb",
        "sqlite",
    }


async def test_without_landlock_connectors_work_as_before(tmp_path: Path) -> None:
    """As on an old kernel: the question for the version is refused."""
    program = (
        "from app.connectors.processes import confinement\n"
        "confinement._CREATE_RULESET = 100_000\n"
        "assert confinement.version() == 0\n"
        "confinement.confine()\n"
        f"open({str(tmp_path / 'new')!r}, 'w').close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert (tmp_path / "new").exists()


@needs(6)
def test_a_kernel_that_knows_nothing_of_signals_gets_the_rest_of_the_wall() -> None:
    """Kernels of Red Hat 9 say version 6 and refuse one of its two scopes."""
    program = (
        "from app.connectors.processes import confinement\n"
        "confinement._SIGNALS = 1 << 40\n"
        "confinement.confine()\n"
        "try: open('/etc/passwd')\n"
        "except PermissionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "refused"
