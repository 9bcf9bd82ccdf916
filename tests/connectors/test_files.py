"""What a path below HUB_FILES_ROOT may be, and what it may not."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.local import local_file, local_folder
from app.core.egress import EgressPolicy


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.db").write_bytes(b"secret")
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "files"
    (root / "sub").mkdir(parents=True)
    (root / "shop.db").write_bytes(b"shop")
    (root / "sub" / "Zoë 李.db").write_bytes(b"deep")
    (root / "to-file").symlink_to(outside / "secret.db")
    (root / "to-folder").symlink_to("../outside")
    (root / "to-nothing").symlink_to(outside / "nothing.db")
    (root / "to-itself").symlink_to("to-itself")
    (root / "around").symlink_to("to-file")
    (root / "inside").symlink_to(root / "shop.db")
    (root / "inside-relative").symlink_to("sub/../shop.db")
    (root / "to-environment").symlink_to("/proc/self/environ")
    (root / "to-root").symlink_to("/proc/self/root/etc/passwd")
    (root / "to-terminal").symlink_to("/dev/tty")
    return root


@pytest.fixture
def policy(root: Path) -> EgressPolicy:
    return EgressPolicy(files_root=str(root))


def content(policy: EgressPolicy, path: str) -> bytes:
    with local_file(policy, path) as file:
        return file.read_start(100)


def code(policy: EgressPolicy, path: str) -> str:
    with pytest.raises(ConnectorError) as caught, local_file(policy, path):
        pass
    return caught.value.code


@pytest.mark.parametrize("path", ["shop.db", "./shop.db", ".//shop.db", "inside", "inside-relative"])
def test_what_lies_inside_is_opened(policy: EgressPolicy, path: str) -> None:
    assert content(policy, path) == b"shop"


def test_names_are_what_they_are(policy: EgressPolicy, root: Path) -> None:
    assert content(policy, "sub/Zoë 李.db") == b"deep"
    (root / "~").write_bytes(b"tilde")
    (root / "..hidden..").write_bytes(b"dots")
    (root / "a%2e%2e$HOME?x=1#y").write_bytes(b"odd")
    assert [content(policy, name) for name in ("~", "..hidden..", "a%2e%2e$HOME?x=1#y")] == [b"tilde", b"dots", b"odd"]


def test_an_absolute_path_inside_is_opened(policy: EgressPolicy, root: Path) -> None:
    assert content(policy, str(root / "shop.db")) == b"shop"


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.db",
        "sub/../../outside/secret.db",
        "..",
        "sub/../shop.db",
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/null",
        "to-file",
        "around",
        "to-folder/secret.db",
        "to-folder/nothing.db",
        "to-nothing",
        "to-environment",
        "to-root",
        "to-terminal",
    ],
)
def test_what_lies_outside_is_refused_whether_it_exists_or_not(policy: EgressPolicy, path: str) -> None:
    assert code(policy, path) == "egress_refused"


def test_a_folder_whose_name_only_begins_like_the_root_is_outside(policy: EgressPolicy, root: Path) -> None:
    beside = root.with_name("files-of-others")
    beside.mkdir()
    (beside / "x.db").write_bytes(b"x")
    assert code(policy, str(beside / "x.db")) == "egress_refused"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nothing.db", "not_found"),
        ("shop.db/below", "not_found"),
        ("shop.db/", "not_found"),
        ("to-itself", "not_found"),
        ("x" * 1000, "not_found"),
        ("sub", "invalid_configuration"),
        (".", "invalid_configuration"),
        ("shop.db\x00.txt", "invalid_configuration"),
    ],
)
def test_what_is_no_file_is_told_apart(policy: EgressPolicy, path: str, expected: str) -> None:
    assert code(policy, path) == expected


def test_things_of_the_system_are_refused(policy: EgressPolicy, root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))
        assert code(policy, "socket") == "egress_refused"
    assert code(policy, "fifo") == "egress_refused"


@pytest.mark.parametrize("root", ["/", "/proc", "/dev"])
def test_a_root_that_holds_the_system_opens_nothing_of_it(root: str) -> None:
    policy = EgressPolicy(files_root=root)
    assert code(policy, "/proc/self/environ" if root != "/dev" else "/dev/null") == "egress_refused"


@pytest.mark.found("A12")
@pytest.mark.parametrize("name", ["hard.db", "sub/hard.db", "to-hard"])
def test_a_file_of_several_names_is_refused(policy: EgressPolicy, root: Path, outside: Path, name: str) -> None:
    os.link(outside / "secret.db", root / "hard.db")
    os.link(outside / "secret.db", root / "sub" / "hard.db")
    (root / "to-hard").symlink_to("hard.db")
    assert code(policy, name) == "egress_refused"
    with local_folder(policy, ".") as folder, pytest.raises(ConnectorError) as caught:
        folder.judge(name)
    assert caught.value.code == "egress_refused"
    assert "hard link" in caught.value.message


@pytest.mark.found("A12")
def test_a_companion_of_several_names_is_refused(policy: EgressPolicy, root: Path, outside: Path) -> None:
    os.link(outside / "secret.db", root / "shop.db-wal")
    with local_file(policy, "shop.db") as file, pytest.raises(ConnectorError) as caught:
        file.companion("-wal")
    assert caught.value.code == "egress_refused"


@pytest.mark.found("A12")
def test_a_file_that_gets_another_name_meanwhile_is_refused(policy: EgressPolicy, root: Path, outside: Path) -> None:
    with local_file(policy, "shop.db") as file:
        os.link(root / "shop.db", outside / "shop.db")
        with pytest.raises(ConnectorError) as caught:
            file.read_start(10)
        assert caught.value.code == "egress_refused"
        with pytest.raises(ConnectorError) as caught, file.watched(), ExitStack() as held:
            held.enter_context(open(file.path, "rb"))
            kept = os.open(file.path, os.O_RDONLY)
        os.close(kept)
        assert caught.value.code == "egress_refused"
    (outside / "shop.db").unlink()
    assert content(policy, "shop.db") == b"shop"


def test_a_root_that_is_a_link_is_followed(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    policy = EgressPolicy(files_root=str(link))
    assert content(policy, "shop.db") == content(policy, str(link / "shop.db")) == b"shop"
    assert content(policy, str(root / "shop.db")) == b"shop"
    assert code(policy, "to-file") == "egress_refused"


@pytest.mark.parametrize("files_root", [None, "", "/nonexistent/files", "/etc/passwd"])
def test_without_a_root_the_message_names_the_setting(files_root: str | None) -> None:
    with pytest.raises(ConnectorError) as caught, local_file(EgressPolicy(files_root=files_root), "shop.db"):
        pass
    assert caught.value.code == "invalid_configuration"
    assert "HUB_FILES_ROOT" in caught.value.message


def test_messages_show_no_path_but_the_typed_one(policy: EgressPolicy, root: Path, outside: Path) -> None:
    for path in ("to-file", "to-nothing", "nothing.db", "sub", "to-folder/secret.db"):
        with pytest.raises(ConnectorError) as caught, local_file(policy, path):
            pass
        assert str(root) not in caught.value.message
        assert str(outside) not in caught.value.message
        assert path in caught.value.message


# What is exchanged while it is used -----------------------------------------------------------------------------------


def test_a_folder_exchanged_after_the_judgement_leads_nowhere_else(
    policy: EgressPolicy, root: Path, outside: Path
) -> None:
    (root / "sub" / "secret.db").write_bytes(b"harmless")
    with local_file(policy, "sub/secret.db") as file:
        (root / "sub").rename(root / "moved")
        (root / "sub").symlink_to(outside)
        assert Path(file.path).read_bytes() == file.read_start(100) == b"harmless"


def test_a_file_exchanged_for_a_link_is_refused(policy: EgressPolicy, root: Path, outside: Path) -> None:
    with local_file(policy, "shop.db") as file:
        (root / "shop.db").unlink()
        (root / "shop.db").symlink_to(outside / "secret.db")
        with pytest.raises(ConnectorError) as caught:
            file.read_start(100)
    assert caught.value.code in {"egress_refused", "not_found"}


def test_a_driver_led_astray_is_caught(policy: EgressPolicy, root: Path, outside: Path) -> None:
    with local_file(policy, "shop.db") as file:
        (root / "shop.db").unlink()
        (root / "shop.db").symlink_to(outside / "secret.db")
        with ExitStack() as driver, pytest.raises(ConnectorError) as caught, file.watched():
            driver.enter_context(open(file.path, "rb"))
    assert caught.value.code == "egress_refused"


# Companions and folders -----------------------------------------------------------------------------------------------


def test_companions_are_judged_like_the_file(policy: EgressPolicy, root: Path, outside: Path) -> None:
    (root / "shop.db-wal").write_bytes(b"log")
    (root / "shop.db-shm").symlink_to(outside / "secret.db")
    with local_file(policy, "shop.db") as file:
        wal = file.companion("-wal")
        assert wal is not None
        assert (wal.size, wal.typed) == (3, "shop.db-wal")
        assert file.companion("-journal") is None
        with pytest.raises(ConnectorError) as caught:
            file.companion("-shm")
    assert caught.value.code == "egress_refused"


def test_what_lies_below_a_folder_is_judged_by_it(policy: EgressPolicy, root: Path) -> None:
    (root / "sub" / "up").symlink_to("../shop.db")
    with local_folder(policy, "sub") as folder:
        assert Path(folder.path, "Zoë 李.db").read_bytes() == b"deep"
        assert folder.judge("Zoë 李.db") == str(root / "sub" / "Zoë 李.db")
        for relative, expected in (
            ("../shop.db", "egress_refused"),
            ("/etc/passwd", "egress_refused"),
            ("up", "egress_refused"),
            ("nothing", "not_found"),
        ):
            with pytest.raises(ConnectorError) as caught:
                folder.judge(relative)
            assert caught.value.code == expected, relative


def test_a_folder_is_no_file_and_a_file_no_folder(policy: EgressPolicy) -> None:
    with pytest.raises(ConnectorError) as caught, local_folder(policy, "shop.db"):
        pass
    assert caught.value.code == "invalid_configuration"
    with local_folder(policy, ".") as folder:
        assert "shop.db" in os.listdir(folder.path)


def test_nothing_stays_open(policy: EgressPolicy) -> None:
    before = os.listdir("/proc/self/fd")
    for path in ("shop.db", "to-file", "nothing.db", "sub", "../x"):
        try:
            with local_file(policy, path):
                pass
        except ConnectorError:
            continue
    assert os.listdir("/proc/self/fd") == before
