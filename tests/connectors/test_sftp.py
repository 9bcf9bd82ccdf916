"""SFTP beyond the contract: host keys, credentials, links, caps, and a machine whose own SSH settings count for nothing."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import Steps, TestResult
from app.connectors.network.ssh import HostKey
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.sftp import Sftp, SftpConfig, SftpSecrets
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.sftp_server import PASSWORD
from tests.connectors.servers.shop_bucket import OBJECTS
from tests.connectors.servers.starting import pipe, scripted_server
from tests.connectors.types.sftp import OLD, PASSPHRASE, SshServer, openssh
from tests.connectors.types.sftp__asyncssh import AsyncsshServer, asyncssh_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def sshd(start: Start) -> SshServer:
    return start(openssh)


@pytest.fixture
def server(start: Start) -> AsyncsshServer:
    return start(asyncssh_server)


def sftp(config: dict[str, Any], secrets: dict[str, str], policy: EgressPolicy) -> Sftp:
    given = {name: value for name, value in config.items() if value is not None}
    return Sftp(msgspec.convert(given, SftpConfig), msgspec.convert(secrets, SftpSecrets), policy)


async def checked(connector: Sftp) -> TestResult:
    steps = Steps()
    try:
        await connector.check(steps)
    except ConnectorError as error:
        assert CANARY not in error.message
    return steps.result(0)


def failure(result: TestResult) -> tuple[str, str]:
    (failed,) = [step for step in result.steps if step.status == "failed"]
    return failed.name, failed.code


async def paths(connector: Sftp) -> set[str]:
    return {"/".join(item.path) async for batch in connector.discover() for item in batch}


# Host keys ------------------------------------------------------------------------------------------------------------


def forms_of(server: SshServer, kind: str) -> list[str]:
    line, fingerprint = server.host_keys[kind], server.fingerprints[kind]
    return [
        line,
        f"files.example.org,10.0.0.1 {line} a comment",
        f"|1|c2FsdA==|aGFzaA== {line}",
        fingerprint,
        f"{fingerprint}=",
    ]


@pytest.mark.services
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("form", range(5))
async def test_any_key_of_the_server_can_be_pinned_in_any_form(
    sshd: SshServer, loopback: EgressPolicy, kind: str, form: int
) -> None:
    """Whichever key the server would rather show."""
    config = {**sshd.config, "host_key": forms_of(sshd, kind)[form]}
    result = await checked(sftp(config, {"private_key": sshd.private_key}, loopback))
    assert result.status == "passed", result


@pytest.mark.services
@pytest.mark.parametrize("pinned", [None, "SHA256:" + "A" * 43])
async def test_an_unknown_key_is_shown_so_that_it_can_be_pinned(
    sshd: SshServer, loopback: EgressPolicy, pinned: str | None
) -> None:
    result = await checked(sftp({**sshd.config, "host_key": pinned}, {"private_key": sshd.private_key}, loopback))
    assert failure(result) == ("tls", "invalid_configuration")
    assert all(fingerprint in result.steps[2].message for fingerprint in sshd.fingerprints.values())
    assert result.steps[3].code == "not_reached"


@pytest.mark.services
async def test_a_pinned_type_that_the_server_does_not_have_is_another_key(
    start: Start, sshd: SshServer, loopback: EgressPolicy
) -> None:
    other = start(openssh, "HostKeyAlgorithms rsa-sha2-512")
    config = {**other.config, "host_key": sshd.host_keys["ed25519"]}
    result = await checked(sftp(config, {"private_key": other.private_key}, loopback))
    assert failure(result) == ("tls", "invalid_configuration")
    assert other.fingerprints["rsa"] in result.steps[2].message


async def test_a_server_with_another_key_learns_nothing_of_the_user(
    server: AsyncsshServer, loopback: EgressPolicy
) -> None:
    stranger = f"user-{CANARY}"
    config = {**server.config, "username": stranger, "host_key": None}
    await checked(sftp(config, {"password": PASSWORD}, loopback))
    await checked(sftp({**config, "host_key": "SHA256:" + "B" * 43}, {"password": PASSWORD}, loopback))
    assert server.attempts(stranger) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
        "SHA256:short",
        "SHA1:" + "A" * 43,
        "ssh-ed25519 AAAA",
        "ssh-ed25519 not!base64",
        "ssh-ed25519 " + base64.b64encode(b"\x00\x00\x00\x07ssh-rsa").decode(),
        "@cert-authority * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "localhost",
    ],
)
def test_what_is_no_host_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host_key"):
        HostKey.parse(text)
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"host": "a", "username": "b", "host_key": text or "@"}, SftpConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path == ("host_key",)


# Algorithms -----------------------------------------------------------------------------------------------------------


@pytest.mark.services
@pytest.mark.parametrize("setting", [*OLD, "MACs umac-64@openssh.com\nCiphers aes128-ctr"])
async def test_old_algorithms_are_used_only_where_they_are_allowed(
    start: Start, loopback: EgressPolicy, setting: str
) -> None:
    old = start(openssh, *setting.splitlines(), *(["Ciphers aes128-ctr"] if setting.startswith("MACs") else []))
    config, secrets = {**old.config, "host_key": old.host_keys["rsa"]}, {"private_key": old.private_key}
    result = await checked(sftp(config, secrets, loopback))
    assert failure(result) == ("tls", "tls_failed")
    assert "allow_weak_algorithms" in result.steps[2].message
    result = await checked(sftp({**config, "allow_weak_algorithms": True}, secrets, loopback))
    assert result.status == "passed", result


# Credentials ----------------------------------------------------------------------------------------------------------


@pytest.mark.services
async def test_encrypted_keys_open_with_their_passphrase(sshd: SshServer, loopback: EgressPolicy) -> None:
    secrets = {"private_key": sshd.encrypted_key, "passphrase": PASSPHRASE}
    assert (await checked(sftp(sshd.config, secrets, loopback))).status == "passed"


@pytest.mark.services
async def test_keys_that_openssh_encrypted_need_bcrypt(sshd: SshServer, loopback: EgressPolicy, tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "key"
    path.write_text(sshd.private_key)
    path.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", PASSPHRASE, "-f", str(path)], check=True, capture_output=True)
    secrets = {"private_key": path.read_text(), "passphrase": PASSPHRASE}
    result = await checked(sftp(sshd.config, secrets, loopback))
    if find_spec("bcrypt"):
        assert result.status == "passed", result
        wrong = {**secrets, "passphrase": f"wrong-{CANARY}"}
        assert failure(await checked(sftp(sshd.config, wrong, loopback))) == ("authenticate", "authentication_failed")
    else:
        assert failure(result) == ("authenticate", "driver_missing")


@pytest.mark.parametrize(
    ("username", "auth", "expected"),
    [
        ("reader", "password", ["name", "password"]),
        ("asked", "password", ["name", "answers"]),
        ("asked", "keyboard_interactive", ["name", "answers"]),
        ("careful", "private_key_and_password", ["name", "key", "password"]),
    ],
)
async def test_each_way_of_signing_in(
    start: Start, loopback: EgressPolicy, username: str, auth: str, expected: list[str]
) -> None:
    server = start(asyncssh_server)
    before = len(server.attempts(username))
    config = {**server.config, "username": username, "auth": auth}
    secrets = {"password": PASSWORD, "private_key": server.private_key}
    assert (await checked(sftp(config, secrets, loopback))).status == "passed"
    assert server.attempts(username)[before:] == expected


@pytest.mark.parametrize("username", ["reader", "asked"])
async def test_a_wrong_password_is_tried_once(server: AsyncsshServer, loopback: EgressPolicy, username: str) -> None:
    """Servers lock users out after a few."""
    before = len(server.attempts(username))
    config = {**server.config, "username": username}
    result = await checked(sftp(config, {"password": f"wrong-{CANARY}"}, loopback))
    assert failure(result) == ("authenticate", "authentication_failed")
    assert len(server.attempts(username)[before:]) == 2


async def test_what_is_wrong_with_a_sign_in_is_said(server: AsyncsshServer, loopback: EgressPolicy) -> None:
    expired = await checked(sftp({**server.config, "username": "expired"}, {"password": PASSWORD}, loopback))
    assert "has expired" in expired.steps[3].message
    key = {"private_key": server.private_key}
    not_taken = await checked(sftp({**server.config, "auth": "private_key"}, key, loopback))
    assert "does not take private_key" in not_taken.steps[3].message


def test_secrets_belong_to_the_way_of_signing_in() -> None:
    config = SftpConfig(host="a", username="b", auth="private_key_and_password")
    for secrets, missing in ((SftpSecrets(password="x"), "private_key"), (SftpSecrets(private_key="x"), "password")):
        with pytest.raises(InvalidField) as caught:
            Sftp.validate(config, secrets)
        assert caught.value.path == ("secrets", missing)


@pytest.mark.services
async def test_no_ssh_settings_of_this_machine_are_used(
    sshd: SshServer, sandbox: ConnectorSandbox, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The good key, a known host, and a configuration that would start a program and jump elsewhere lie in the home
    folder. The source has no key, so it does not get in; the program is not started."""
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "id_ed25519").write_text(sshd.private_key)
    (folder / "id_ed25519").chmod(0o600)
    (folder / "known_hosts").write_text(f"* {sshd.host_keys['ed25519']}\n")
    (folder / "config").write_text(
        f"Host *\n  ProxyCommand touch {tmp_path}/started\n  Port 1\n  IdentityFile {folder}/id_ed25519\n"
    )
    for name in ("HOME", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, str(tmp_path))
    good = await sandbox.check("sftp", sshd.config, {"private_key": sshd.private_key}, loopback)
    assert good.status == "passed"
    without_key = await sandbox.check("sftp", {**sshd.config, "auth": "none"}, {}, loopback)
    assert failure(without_key) == ("authenticate", "authentication_failed")
    config = {name: value for name, value in sshd.config.items() if name != "host_key"}
    unpinned = await sandbox.check("sftp", config, {"private_key": sshd.private_key}, loopback)
    assert failure(unpinned) == ("tls", "invalid_configuration")
    assert not (tmp_path / "started").exists()


async def test_a_user_id_without_a_name_can_use_sftp(
    server: AsyncsshServer, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs under an arbitrary one."""
    import pwd

    def unknown(_: int) -> Any:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert (await checked(sftp(server.config, {"password": PASSWORD}, loopback))).status == "passed"


async def test_a_rebinding_name_stays_what_it_was(
    server: AsyncsshServer, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "ssh.rebind.example":
            return real(host, port, *rest, **more)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    connector = sftp({**server.config, "host": "ssh.rebind.example"}, {"password": PASSWORD}, loopback)
    assert (await checked(connector)).status == "passed"
    assert len(await paths(connector)) == len(OBJECTS)
    assert asked == ["ssh.rebind.example"]


# Folders and files ----------------------------------------------------------------------------------------------------


@pytest.mark.services
@pytest.mark.parametrize(
    "path",
    [
        ("outside.csv",),
        ("absolute.csv",),
        ("gone.csv",),
        ("circle.csv",),
        ("pipe.csv",),
        ("events",),
        ("..", "sshd_config"),
        ("events", "..", "customers.csv"),
        ("events/../customers.csv",),
        ("events", "around", "..", "..", "sshd_config"),
        (".", "customers.csv"),
        ("", "customers.csv"),
        ("closed", "x.csv"),
        ("closed", "*.csv"),
        ("a\x00.csv",),
        ("..", "*.csv"),
        ("**", "..", "*"),
    ],
)
async def test_what_is_no_file_below_the_folder_is_not_shown(
    sshd: SshServer, loopback: EgressPolicy, path: tuple[str, ...]
) -> None:
    """The link named `around` leads back to the folder itself: nothing below it leaves the folder either."""
    connector = sftp(sshd.config, {"private_key": sshd.private_key}, loopback)
    with pytest.raises(ConnectorError) as caught:
        await connector.preview(PreviewRequest(path=path))
    assert caught.value.code in {"not_found", "permission_denied"}
    assert "/" not in caught.value.message


@pytest.mark.services
@pytest.mark.found("D2", "D12")
async def test_names_that_are_no_utf_8_are_shown_and_lead_to_their_files(
    sshd: SshServer, loopback: EgressPolicy
) -> None:
    """Of files and of folders above them; a name that looks like one of them is no other."""
    root = os.fsencode(f"{sshd.folder}/files") + b"/odd\xe9"
    os.makedirs(root + b"/in\xfe")
    for name, content in ((b"a\xe9.csv", b"n\n1\n"), (b"in\xfe/caf\xe9.csv", b"n\n2\n"), (b"b.csv", b"n\n3\n")):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(content)
    try:
        connector = sftp(sshd.config, {"private_key": sshd.private_key}, loopback)
        shown = {path for path in await paths(connector) if path.startswith("odd\\")}
        assert shown == {"odd\\xe9/a\\xe9.csv", "odd\\xe9/in\\xfe/caf\\xe9.csv", "odd\\xe9/b.csv"}
        for path, value in (("a\\xe9.csv", 1), ("in\\xfe/caf\\xe9.csv", 2)):
            request = PreviewRequest(path=("odd\\xe9", *path.split("/")))
            assert (await connector.preview(request)).rows == [[value]]
    finally:
        shutil.rmtree(root)


@pytest.mark.services
async def test_a_folder_that_is_a_link_itself_can_be_the_source(sshd: SshServer, loopback: EgressPolicy) -> None:
    config = {**sshd.config, "folder": f"{sshd.folder}/files/events/around"}
    connector = sftp(config, {"private_key": sshd.private_key}, loopback)
    assert len((await connector.preview(PreviewRequest(path=("customers.csv",)))).rows) == 2


async def test_the_folder_of_the_login_is_what_a_source_shows_unless_told_otherwise(
    server: AsyncsshServer, loopback: EgressPolicy
) -> None:
    assert server.config.get("folder") is None
    connector = sftp({**server.config, "folder": "/sales"}, {"password": PASSWORD}, loopback)
    assert await paths(connector) == {"year=*/part-*.csv"}


async def test_files_can_be_included_and_excluded(server: AsyncsshServer, loopback: EgressPolicy) -> None:
    for scope, expected in (
        ({"include_files": ["*.csv"], "exclude_files": ["sales/*", "odd*"]}, {"customers.csv", "empty.csv"}),
        ({"include_files": ["events/2024/01/*"]}, {"events/2024/01/part-0001.ndjson"}),
        ({"exclude_files": ["*"]}, set()),
    ):
        assert await paths(sftp({**server.config, **scope}, {"password": PASSWORD}, loopback)) == expected
    hidden = sftp({**server.config, "exclude_files": ["customers.csv"]}, {"password": PASSWORD}, loopback)
    with pytest.raises(ConnectorError) as caught:
        await hidden.preview(PreviewRequest(path=("customers.csv",)))
    assert caught.value.code == "not_found"


async def test_discovery_keeps_to_its_depth_and_its_entries(server: AsyncsshServer, loopback: EgressPolicy) -> None:
    for caps, expected in (
        ({"max_depth": 0}, {"customers.csv", "empty.csv", "photo.jpg"}),
        (
            {"max_depth": 1},
            {"customers.csv", "empty.csv", "photo.jpg", "clicks/part-*.json", "odd names/50% über #1?.csv"},
        ),
    ):
        assert await paths(sftp({**server.config, **caps}, {"password": PASSWORD}, loopback)) == expected


async def test_a_discovery_says_whether_it_saw_every_entry(server: AsyncsshServer, loopback: EgressPolicy) -> None:
    async def found(max_entries: int) -> tuple[set[str], str | None]:
        source = sftp({**server.config, "max_entries": max_entries}, {"password": PASSWORD}, loopback)
        return await paths(source), source.stopped_because

    everything, nothing_stopped_it = await found(100_000)
    assert nothing_stopped_it is None
    entries = 1
    while (await found(entries))[1] is not None:
        entries += 1
    assert await found(entries) == (everything, None)
    few, stopped_because = await found(3)
    assert len(few) <= 3
    assert stopped_because == "There are more files and folders than max_entries (3)."


@pytest.mark.services
async def test_a_file_that_may_not_be_read_is_there_without_fields(start: Start, loopback: EgressPolicy) -> None:
    server = start(openssh, "Banner none")
    path = Path(server.folder) / "files" / "private.csv"
    path.write_bytes(b"n\n1\n")
    path.chmod(0)
    connector = sftp({**server.config, "include_files": ["private.csv"]}, {"private_key": server.private_key}, loopback)
    (found,) = [item async for batch in connector.discover() for item in batch]
    if found.fields:
        pytest.fail("the server may read what nobody may")
    with pytest.raises(ConnectorError) as caught:
        await connector.preview(PreviewRequest(path=("private.csv",)))
    assert caught.value.code == "permission_denied"


async def test_a_server_that_waits_and_speaks_ssh_at_last_is_met_again(
    server: AsyncsshServer, loopback: EgressPolicy
) -> None:
    """The first connection is used up by asking, the second by looking at what it is that waits; the third one is
    answered at once."""
    visits: list[int] = []

    def shy(connection: socket.socket) -> None:
        visits.append(1)
        if len(visits) == 1:
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-Shy\r\n")
            return
        pipe(connection, server.port)

    with scripted_server(shy) as port:
        config = {**server.config, "port": port, "read_timeout_s": 4.0}
        assert (await checked(sftp(config, {"password": PASSWORD}, loopback))).status == "passed"
    assert len(visits) == 3


async def test_a_server_that_freezes_is_left(loopback: EgressPolicy) -> None:
    """It does not even close the folder that it was asked to list."""
    with asyncssh_server() as frozen:
        config = {**frozen.config, "username": "frozen", "read_timeout_s": 0.5}
        started = time.monotonic()
        result = await checked(sftp(config, {"password": PASSWORD}, loopback))
        assert failure(result) == ("list", "timeout")
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("sentence", [b"Exceeded MaxStartups\r\n", b"Not allowed at this time\r\n"])
async def test_a_server_that_is_crowded_asks_for_patience(loopback: EgressPolicy, sentence: bytes) -> None:
    with scripted_server(lambda connection: connection.sendall(sentence)) as port:
        config = {"host": "localhost", "port": port, "username": "reader", "host_key": None}
        result = await checked(sftp(config, {"password": PASSWORD}, loopback))
    assert failure(result) == ("connect", "rate_limited")


async def test_an_identification_may_come_in_pieces_behind_other_lines(
    server: AsyncsshServer, loopback: EgressPolicy
) -> None:
    def chatter(connection: socket.socket) -> None:
        connection.sendall(b"Welcome to the files\r\nof ")
        time.sleep(0.1)
        connection.sendall(b"the shop\r\n")
        pipe(connection, server.port)

    with scripted_server(chatter) as port:
        result = await checked(sftp({**server.config, "port": port}, {"password": PASSWORD}, loopback))
    assert result.status == "passed", result
