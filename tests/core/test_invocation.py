"""Sentences name the command as it can be typed where they are read."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.connectors import registry
from app.core import invocation
from app.core.invocation import typed_hub, typed_install
from tests.test_install import project

pytestmark = pytest.mark.found("U7")


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a `hub` in it; nothing tells of uv."""
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    (tmp_path / "hub").touch(mode=0o755)
    return tmp_path


def test_under_uv_it_is_uv_run(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    monkeypatch.setattr(sys, "argv", [str(bin_folder / "hub"), "serve"])
    assert typed_hub() == "uv run hub"


def test_on_the_path_it_is_hub(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.setattr(sys, "argv", [str(bin_folder / "hub")])
    assert typed_hub() == "hub"


def test_elsewhere_it_is_its_path(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "argv", [str(bin_folder / "hub")])
    assert typed_hub() == str(bin_folder / "hub")


def test_as_a_module_it_is_the_module(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(bin_folder / "app" / "__main__.py")])
    assert typed_hub() == "python -m app"


@pytest.mark.parametrize(
    ("variables", "typed"), [({}, "python -m app"), ({"UV_RUN_RECURSION_DEPTH": "1"}, "uv run hub")]
)
def test_help_and_sentences_say_it(variables: dict[str, str], typed: str, bin_folder: Path) -> None:
    for arguments, words in (
        (["--help"], f"usage: {typed} "),
        (["keys", "generate"], f"then run `{typed} keys rotate`"),
    ):
        command = [sys.executable, "-m", "app", *arguments]
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout
        assert words in said


# --- what installs an extra ---


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's repository, with an environment below it."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(invocation, "CLONE", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    return tmp_path


def test_in_a_clone_with_an_environment_of_uv_it_is_uv_sync(clone: Path) -> None:
    (clone / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.1\n")
    assert typed_install("delta_lake") == "uv sync --extra delta_lake"


def test_in_a_clone_with_another_environment_it_is_pip(clone: Path) -> None:
    (clone / ".venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    assert typed_install("kafka") == "pip install '.[kafka]'"


@pytest.mark.parametrize("extra", project()["project"]["optional-dependencies"])
def test_elsewhere_it_names_packages_that_an_index_has(clone: Path, extra: str) -> None:
    (clone / "pyproject.toml").unlink()
    program, action, *named = shlex.split(typed_install(extra))
    assert (program, action) == ("pip", "install")
    assert named
    assert not any(name.startswith("data-fusion-hub") for name in named)


def test_every_extra_that_a_type_names_is_one() -> None:
    assert {connector.extra for connector in registry.all() if connector.extra} <= project()["project"][
        "optional-dependencies"
    ].keys()
