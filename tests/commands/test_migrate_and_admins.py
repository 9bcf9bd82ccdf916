"""`hub migrate`, `hub create-admin` and `hub reset-password`."""

from pathlib import Path

import pytest

from app.core import migrations
from tests.commands.hubs import run
from tests.conftest import PASSWORD


def test_migrate_goes_up_down_and_says_where_it_is(data_dir: Path) -> None:
    up = run(data_dir, "migrate")
    assert (up.returncode, up.stdout.split()[0]) == (0, migrations.head())
    assert run(data_dir, "migrate", "status").returncode == 0
    down = run(data_dir, "migrate", "down")
    assert down.returncode == 0
    assert down.stdout.split()[0] != migrations.head()
    assert run(data_dir, "migrate", "status").returncode == 1
    assert run(data_dir, "migrate", "up").returncode == 0


def test_a_weak_password_makes_no_admin(used_folder: Path) -> None:
    ended = run(
        used_folder, "create-admin", "--email", "weak@example.org", "--password-stdin", text="password12345678\n"
    )
    assert ended.returncode == 1
    assert "password" in ended.stderr
    assert "Traceback" not in ended.stderr


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
