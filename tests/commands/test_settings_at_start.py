"""What is wrong with the settings stops every command with one line each."""

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.sealing import KeyRing
from app.core.signing_keys import generate_signing_key
from tests.commands.hubs import run
from tests.ports import free_port
from tests.postgres import create_database, drop_database
from tests.sampling import sampled


@pytest.fixture(scope="module")
async def database(anyio_backend: str, cluster: EmbeddedPostgres, migrated: str) -> AsyncIterator[str]:
    """The name of a migrated one, which no test of this file changes."""
    name = await create_database(cluster, migrated)
    yield name
    await drop_database(cluster, name)


@pytest.mark.parametrize("command", sampled([["serve"], ["worker"], ["migrate"], ["keys", "list"], ["demo"]], every=5))
def test_every_fault_is_one_line_and_the_exit_code_2(data_dir: Path, command: list[str]) -> None:
    ended = run(data_dir, *command, HUB_POOL_SZIE="5", HUB_REQUEST_TIMEOUT_S="soon", HUB_ENV="staging")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["HUB_ENV", "HUB_POOL_SZIE", "HUB_REQUEST_TIMEOUT_S"]
    assert "HUB_POOL_SIZE" in ended.stderr
    assert not data_dir.exists()


def test_production_does_not_start_without_keys(data_dir: Path) -> None:
    ended = run(data_dir, "serve", HUB_ENV="production")
    assert ended.returncode == 2
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["HUB_SECRET_KEYS", "HUB_SIGNING_KEYS_FILE"]
    assert not data_dir.exists()


def test_a_database_that_is_away_is_one_line(data_dir: Path) -> None:
    ended = run(data_dir, "migrate", HUB_DATABASE_URL="postgresql://hub:secret@127.0.0.1:1/hub", HUB_ENV="development")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in ended.stderr
    assert "secret" not in ended.stderr


def test_a_server_whose_name_does_not_resolve_is_said_to_be_that(data_dir: Path) -> None:
    url = "postgresql://hub:secret@no-such-server.invalid:5432/hub"
    ended = run(data_dir, "migrate", HUB_DATABASE_URL=url, HUB_ENV="development")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "The name of the database's server does not resolve: postgresql://no-such-server.invalid:5432/hub."
    ]


def test_a_refused_owner_is_told_from_a_refused_application(data_dir: Path, cluster: EmbeddedPostgres) -> None:
    name = asyncio.run(create_database(cluster))
    wrong = f"postgresql://hub_owner:a-guess@127.0.0.1:{cluster.port}/{name}"
    ended = run(
        data_dir,
        "migrate",
        HUB_DATABASE_URL=cluster.url("hub_app", name),
        HUB_OWNER_DATABASE_URL=wrong,
        HUB_ENV="development",
    )
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("refuses the user or password of HUB_OWNER_DATABASE_URL.")


@pytest.mark.parametrize("command", sampled(["serve", "worker"], every=2))
@pytest.mark.parametrize("role", sampled(["hub_owner", "postgres"], every=2))
def test_production_does_not_start_with_a_role_that_no_policy_holds(
    data_dir: Path, tmp_path: Path, cluster: EmbeddedPostgres, database: str, command: str, role: str
) -> None:
    """In development it does: nobody else is there."""
    keys = tmp_path / "signing-keys.pem"
    keys.write_bytes(generate_signing_key())
    given: dict[str, str] = {
        "HUB_SECRET_KEYS": KeyRing.generate().encode().decode(),
        "HUB_SIGNING_KEYS_FILE": str(keys),
        "HUB_ENV": "production",
    }
    ended = run(data_dir, command, HUB_DATABASE_URL=cluster.url(role, database), **given)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{role} is the owner of tables, or may become it")
    assert "HUB_OWNER_DATABASE_URL" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_in_production_nobody_seals_with_a_key_that_was_not_given(
    data_dir: Path, tmp_path: Path, cluster: EmbeddedPostgres, database: str, command: str
) -> None:
    keys = tmp_path / "signing-keys.pem"
    keys.write_bytes(generate_signing_key())
    ended = run(
        data_dir,
        command,
        HUB_DATABASE_URL=cluster.url("hub_app", database),
        HUB_SECRET_KEYS=KeyRing.generate().encode().decode(),
        HUB_SIGNING_KEYS_FILE=str(keys),
    )
    assert (ended.returncode, ended.stderr) == (2, "HUB_SEALING_KEYS_FILE: is needed in production\n")


@pytest.mark.parametrize(
    ("name", "value"),
    sampled([("--port", "99999"), ("--port", "0"), ("--workers", "0"), ("--workers", "-1")], every=4),
)
def test_numbers_that_cannot_be_are_refused_before_anything_starts(data_dir: Path, name: str, value: str) -> None:
    ended = run(data_dir, "serve", name, value)
    assert ended.returncode == 2
    assert f"argument {name}: a whole number from 1 to" in ended.stderr
    assert not data_dir.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "variable"),
    [
        ("secret-keys", b"k1:canary", "HUB_SECRET_KEYS"),
        ("secret-keys", b"\xff\xfe", "HUB_SECRET_KEYS"),
        ("sealing-keys.pem", b"canary", "HUB_SEALING_KEYS_FILE"),
        (
            "signing-keys.pem",
            b"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
            "HUB_SIGNING_KEYS_FILE",
        ),
    ],
)
def test_generated_keys_that_were_damaged_are_one_line(
    data_dir: Path, name: str, content: bytes, variable: str
) -> None:
    data_dir.mkdir()
    (data_dir / name).write_bytes(content)
    ended = run(data_dir, "serve", "--port", str(free_port()))
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{variable}: ")
    assert name in line
    assert "canary" not in line


def test_the_version_is_told_whatever_the_settings_are(data_dir: Path) -> None:
    ended = run(data_dir, "--version", HUB_NONSENSE="1")
    assert (ended.returncode, ended.stdout) == (0, f"hub {version('data-fusion-hub')}\n")
