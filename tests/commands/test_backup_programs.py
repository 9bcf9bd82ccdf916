"""Which client programs a backup takes, and that no password is in their arguments."""

import pytest

from app.commands.backup import _programs_for, _without_password
from app.commands.database import CommandFailed
from app.core.embedded import find_installation

pytestmark = pytest.mark.found("U11")


@pytest.mark.parametrize("server", [18, 15, 10])
def test_without_others_the_embedded_programs_serve(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert _programs_for(server) == find_installation() / "bin"


def test_a_server_that_is_newer_than_all_of_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CommandFailed, match=r"The server is PostgreSQL 99.*has 18.*postgresql-client-99"):
        _programs_for(99)


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("postgresql://u:pw@h:5432/hub", "postgresql://u@h:5432/hub", "pw"),
        ("postgresql://u:p%40%3A%2F@h/hub?sslmode=require", "postgresql://u@h/hub?sslmode=require", "p@:/"),
        ("postgresql://u@h/hub?password=pw&sslmode=require", "postgresql://u@h/hub?sslmode=require", "pw"),
        ("postgresql://u:pw@h1:1,h2:2/hub", "postgresql://u@h1:1,h2:2/hub", "pw"),
        ("postgresql://u:pw@[::1]:5432/hub", "postgresql://u@[::1]:5432/hub", "pw"),
        ("postgresql://u@h/hub", "postgresql://u@h/hub", None),
    ],
)
def test_a_password_goes_by_the_environment(url: str, shown: str, password: str | None) -> None:
    assert _without_password(url) == (shown, password)
