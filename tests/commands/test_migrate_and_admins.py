"""`hub migrate`, `hub create-admin` and `hub reset-password`."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from app.core import migrations
from app.core.embedded import EmbeddedPostgres
from tests.commands.hubs import environment, fresh_folder, run
from tests.conftest import PASSWORD
from tests.postgres import create_database


@pytest.mark.slow
def test_migrate_goes_up_down_and_says_where_it_is(data_dir: Path) -> None:
    up = run(data_dir, "migrate")
    assert (up.returncode, up.stdout.split()[0]) == (0, migrations.head())
    assert run(data_dir, "migrate", "status").returncode == 0
    asked = run(data_dir, "migrate", "down")
    assert asked.returncode == 1
    assert "--yes" in asked.stderr
    assert run(data_dir, "migrate", "status").returncode == 0
    down = run(data_dir, "migrate", "down", "--yes")
    assert down.returncode == 0
    assert down.stdout.split()[0] != migrations.head()
    assert run(data_dir, "migrate", "status").returncode == 1
    assert run(data_dir, "migrate", "up").returncode == 0


@pytest.mark.slow
@pytest.mark.found("U2")
def test_down_says_what_goes_until_nothing_is_left(data_dir: Path) -> None:
    run(data_dir, "migrate")
    said: list[str] = []
    while (asked := run(data_dir, "migrate", "down")).stderr.startswith("From "):
        said.append(asked.stderr)
        assert run(data_dir, "migrate", "down", "--yes").returncode == 0
    assert len(said) == int(migrations.head())
    assert "secrets that are given by reference" in "".join(said)
    assert "everything in the database" in said[-1]
    for arguments in (("down",), ("down", "--yes")):
        empty = run(data_dir, "migrate", *arguments)
        assert (empty.returncode, empty.stdout) == (1, "")
        assert empty.stderr == "The database is empty: there is no revision to go back from.\n"


@pytest.mark.found("U2")
def test_a_database_that_never_was_migrated_has_nothing_to_go_back_from() -> None:
    with fresh_folder() as folder:
        ended = run(folder, "migrate", "down", "--yes")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "empty" in ended.stderr


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.found("U2")
async def test_down_is_refused_while_a_hub_or_worker_is_connected(
    cluster: EmbeddedPostgres, migrated: str, tmp_path: Path
) -> None:
    name = await create_database(cluster, migrated)
    urls = {"HUB_DATABASE_URL": cluster.url("hub_app", name), "HUB_OWNER_DATABASE_URL": cluster.url("hub_owner", name)}

    async def down_beside(application_name: str) -> "subprocess.CompletedProcess[str]":
        settings = {"application_name": application_name}
        connection = await asyncpg.connect(urls["HUB_DATABASE_URL"], server_settings=settings)
        try:
            return run(tmp_path, "migrate", "down", "--yes", HUB_ENV="development", **urls)
        finally:
            await connection.close()

    for application_name in ("hub", "hub reads", "hub listener", "hub probe"):
        refused = await down_beside(application_name)
        assert refused.returncode == 1
        assert "stop them first" in refused.stderr
        assert await migrations.current(urls["HUB_DATABASE_URL"]) == migrations.head()
    assert (await down_beside("psql")).returncode == 0


@pytest.mark.slow
def test_a_weak_password_makes_no_admin(used_folder: Path) -> None:
    ended = run(
        used_folder, "create-admin", "--email", "weak@example.org", "--password-stdin", text="password12345678\n"
    )
    assert ended.returncode == 1
    assert "password" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_another_admin_can_be_made_once(used_folder: Path) -> None:
    arguments = ("create-admin", "--email", "grace@example.org", "--password-stdin")
    assert run(used_folder, *arguments, text="lanterns drift over quiet water\n").returncode == 0
    again = run(used_folder, *arguments, text="lanterns drift over quiet water\n")
    assert again.returncode == 1
    assert "Traceback" not in again.stderr


def test_without_a_terminal_a_password_comes_from_standard_input_or_not_at_all(tmp_path: Path) -> None:
    ended = run(tmp_path / "hub", "create-admin", "--email", "grace@example.org")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "There is no terminal to ask for the password: send it with `--password-stdin`."
    ]
    assert not (tmp_path / "hub").exists()


@pytest.mark.slow
@pytest.mark.found("U6")
def test_a_lost_password_is_replaced(used_folder: Path) -> None:
    made = run(used_folder, "create-admin", "--email", "ida@example.org", "--password-stdin", text=f"{PASSWORD}\n")
    assert made.returncode == 0
    arguments = ("reset-password", "--email", "ida@example.org", "--password-stdin")
    done = run(used_folder, *arguments, text="paper boats under a copper moon\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "new password" in done.stdout
    weak = run(used_folder, *arguments, text="password password\n")
    unknown = run(
        used_folder, *arguments[:2], "nobody@example.org", "--password-stdin", text="paper boats under a moon\n"
    )
    assert (weak.returncode, unknown.returncode) == (1, 1)
    assert "Nobody has the address nobody@example.org." in unknown.stderr
    assert "Traceback" not in weak.stderr + unknown.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "email", "said"),
    [
        ("create-admin", "nomail", "email: is not an email address"),
        ("create-admin", "a@b@example.org", "email: is not an email address"),
        ("create-admin", "pаul@example.org", "email: "),  # a Cyrillic letter among Latin ones
        ("create-admin", "Taken@example.org", "Somebody already uses this email address."),
        ("reset-password", "nobody@example.org", "Nobody has the address nobody@example.org."),
    ],
)
def test_an_address_is_refused_before_a_password_is_asked_for(
    used_folder: Path, command: str, email: str, said: str
) -> None:
    run(used_folder, "create-admin", "--email", "taken@example.org", "--password-stdin", text=f"{PASSWORD}\n")
    ended = at_terminal(used_folder, command, "--email", email)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Password:" not in ended.stderr


def at_terminal(data_dir: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """One command whose standard input is a terminal at which nobody types."""
    terminal, end = pty.openpty()
    try:
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments], stdin=end, capture_output=True, text=True, timeout=60,
            env=environment(data_dir), start_new_session=True, check=False,
        )  # fmt: skip
    finally:
        os.close(terminal)
        os.close(end)
