"""Files of several tenants below one HUB_FILES_ROOT: each reads its own folder, and `default` none of theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.local import local_file, local_folder
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from tests.connectors.test_confinement import faulty as faulty
from tests.connectors.test_confinement import walled


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What `default`, `acme` and `beta` have, and all ways from one to the other that somebody may have made."""
    root = tmp_path / "files"
    for folder in ("acme/sub", "beta", "sub/acme", "ACME", "acmeandmore"):
        (root / folder).mkdir(parents=True)
        (root / folder / "x.db").write_bytes(folder.encode())
    (root / "sub" / "x.db").write_bytes(b"sub")
    (root / "shop.db").write_bytes(b"shop")
    (root / "acme" / "shop.db").write_bytes(b"acme's shop")
    (root / "to-folder").symlink_to("acme")
    (root / "to-file").symlink_to("acme/shop.db")
    (root / "sub" / "back").symlink_to(root / "acme" / "sub")
    (root / "acme" / "up").symlink_to("../shop.db")
    (root / "acme" / "beta").symlink_to("../beta")
    (root / "acme" / "acme").mkdir()
    (root / "acme" / "acme" / "x.db").write_bytes(b"deep")
    os.link(root / "acme" / "sub" / "x.db", root / "hard.db")
    (root / "linked").symlink_to("sub")
    return root


@pytest.fixture
def of_default(root: Path) -> EgressPolicy:
    return EgressPolicy(files_root=str(root), hidden_folders=frozenset({"acme", "beta", "gone"}))


@pytest.fixture
def of_acme(root: Path) -> EgressPolicy:
    return EgressPolicy(files_root=str(root), files_folder="acme", hidden_folders=frozenset({"acme"}))


def content(policy: EgressPolicy, path: str) -> bytes:
    with local_file(policy, path) as file:
        return file.read_start(100)


def fault(policy: EgressPolicy, path: str) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught, local_file(policy, path):
        pass
    return caught.value


@pytest.mark.parametrize(
    "path", ["shop.db", "sub/x.db", "sub/acme/x.db", "acmeandmore/x.db", "linked/x.db", "{root}/shop.db"]
)
def test_default_reads_all_that_is_nobody_elses(of_default: EgressPolicy, root: Path, path: str) -> None:
    assert content(of_default, path.format(root=root))


@pytest.mark.parametrize(
    "path",
    [
        *("acme/shop.db", "./acme/shop.db", ".//acme//shop.db", "acme/sub/x.db", "beta/x.db", "{root}/acme/shop.db"),
        *("ACME/x.db", "to-folder/shop.db", "to-file", "sub/back/x.db", "acme", "linked/back/x.db"),
        *("acme/nothing.db", "to-folder/nothing.db", "gone/x.db", "nowhere/x.db", "acme/up"),
    ],
)
def test_to_default_folders_of_others_are_not_there(of_default: EgressPolicy, root: Path, path: str) -> None:
    """In no other words than what is really not there, so that nobody learns who has files here."""
    path = path.format(root=root)
    found = fault(of_default, path)
    assert (found.code, found.message) == ("not_found", f"There is no {path} in the folder of HUB_FILES_ROOT.")


@pytest.mark.parametrize("path", ["sub/../acme/shop.db", "acme/../acme/shop.db", "hard.db", "acme/sub/x.db\x00"])
def test_other_ways_are_refused_as_ever(of_default: EgressPolicy, path: str) -> None:
    assert fault(of_default, path).code in {"egress_refused", "invalid_configuration"}


def test_a_folder_of_default_does_not_lead_to_others(of_default: EgressPolicy) -> None:
    with local_folder(of_default, ".") as folder:
        assert "shop.db" in folder.names()
        assert not {"acme", "beta", "ACME"} & set(folder.names())
        for relative in ("acme/shop.db", "to-file", "beta", "sub/back/x.db"):
            with pytest.raises(ConnectorError) as caught:
                folder.judge(relative)
            assert caught.value.code == "not_found", relative
    with pytest.raises(ConnectorError) as caught, local_folder(of_default, "acme"):
        pass
    assert caught.value.code == "not_found"


def test_a_driver_that_opens_a_file_of_others_is_found_out(of_default: EgressPolicy, root: Path) -> None:
    opened = []
    with local_file(of_default, "shop.db") as file, pytest.raises(ConnectorError) as caught, file.watched():
        opened.append(open(root / "acme" / "shop.db", "rb"))  # noqa: SIM115 - held on to, as a driver does
    opened[0].close()
    assert caught.value.code == "not_found"


def test_a_companion_in_a_folder_of_others_is_not_there(of_default: EgressPolicy, root: Path) -> None:
    (root / "shop.db-wal").symlink_to("acme/shop.db")
    with local_file(of_default, "shop.db") as file, pytest.raises(ConnectorError) as caught:
        file.companion("-wal")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("shop.db", b"acme's shop"),
        ("acme/x.db", b"deep"),
        ("{root}/acme/shop.db", b"acme's shop"),
    ],
)
def test_another_tenant_reads_its_own_folder(of_acme: EgressPolicy, root: Path, path: str, wanted: bytes) -> None:
    assert content(of_acme, path.format(root=root)) == wanted


@pytest.mark.parametrize(
    "path",
    ["{root}/shop.db", "{root}/beta/x.db", "up", "beta/x.db", "../shop.db", "../beta/x.db", "{root}/acmeandmore/x.db"],
)
def test_another_tenant_reads_nothing_else(of_acme: EgressPolicy, root: Path, path: str) -> None:
    assert fault(of_acme, path.format(root=root)).code == "egress_refused"


def test_a_folder_that_is_not_there_is_named(root: Path) -> None:
    found = fault(EgressPolicy(files_root=str(root), files_folder="gamma"), "x.db")
    assert (found.code, "gamma" in found.message) == ("invalid_configuration", True)


@pytest.mark.parametrize("target", ["sub", "/etc", ".", "beta", "../files/sub"])
def test_a_link_is_no_folder_of_a_tenant(root: Path, target: str) -> None:
    """Somebody may have made it who may write to files of `default`, long before the tenant was there."""
    (root / "gamma").symlink_to(target)
    found = fault(EgressPolicy(files_root=str(root), files_folder="gamma"), "x.db")
    assert found.code == "invalid_configuration"
    assert "link" in found.message


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    policy = EgressPolicy(files_root=str(link), files_folder="acme")
    for path in ("shop.db", f"{link}/acme/shop.db", f"{root}/acme/shop.db"):
        assert content(policy, path) == b"acme's shop"


@walled
@pytest.mark.anyio
async def test_the_kernel_keeps_tenants_apart_as_well(
    faulty: ConnectorSandbox, root: Path, of_default: EgressPolicy, of_acme: EgressPolicy
) -> None:
    """Whatever a driver is tricked into."""

    async def reads(policy: EgressPolicy, path: str) -> bool:
        work = {"way": "read", "target": str(root / path)}
        code = (await faulty.check("misbehaving_with_files", work, {}, policy)).steps[3].code
        assert code in {"ok", "permission_denied"}
        return code == "ok"

    for path in ("shop.db", "sub/x.db", "linked/x.db", "acmeandmore/x.db"):
        assert (await reads(of_default, path), await reads(of_acme, path)) == (True, False), path
    for path in ("acme/shop.db", "to-file", "to-folder/shop.db", "sub/back/../shop.db"):
        assert (await reads(of_default, path), await reads(of_acme, path)) == (False, True), path
    for path in ("beta/x.db", "acme/beta/x.db"):
        assert (await reads(of_default, path), await reads(of_acme, path)) == (False, False), path
    assert await reads(EgressPolicy(files_root=str(root)), "acme/shop.db")
