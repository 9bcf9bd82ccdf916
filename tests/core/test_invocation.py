"""Sentences name the command as it can be typed where they are read."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.core.invocation import typed_hub

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
