"""What comes with an install: by `uv run` in a fresh clone, and by pip from the wheel."""

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.connectors import registry
from tests.ports import free_port
from tests.postgres import discard, reachable_folder

ROOT = Path(__file__).parents[1]
READY_WITHIN_S = 300
"""Patience of the test: packages may have to be downloaded."""
LARGEST_INSTALL_MB = 500
FOR_DEVELOPMENT = {"pytest", "mypy", "ruff", "moto", "selenium", "schemathesis", "deltalake"}
OF_THE_CARRIERS = {"flask", "flask_openapi", "flask_openapi_redoc", "pydantic", "pydantic_core", "werkzeug"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """The files that git knows, as they are now."""
    parent = reachable_folder()
    folder = parent / "clone"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    yield folder
    discard(folder / ".hub")
    shutil.rmtree(parent)


def outside() -> dict[str, str]:
    """The environment of somebody who has activated nothing and set nothing."""
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if not part.startswith(sys.prefix))
    dropped = ("HUB_", "UV_RUN", "VIRTUAL_ENV", "UV_PROJECT", "UV_COMPILE", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PATH": path}


def installed_in(environment: Path) -> set[str]:
    (packages,) = environment.glob("lib/python*/site-packages")
    return {path.name.partition("-")[0].lower() for path in packages.iterdir()}


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1_000_000


@pytest.mark.found("U7")
@pytest.mark.slow
def test_a_fresh_clone_serves_with_every_driver_and_nothing_for_development(clone: Path) -> None:
    log = clone.parent / "serve.log"
    with log.open("wb") as output:
        hub = subprocess.Popen(
            ["uv", "run", "--python", sys.executable, "hub", "serve", "--port", str(free_port())],
            cwd=clone, env=outside(), stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while "Stop with Ctrl-C" not in (said := log.read_text()):
            assert hub.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        found = installed_in(clone / ".venv")
        assert found & (FOR_DEVELOPMENT | OF_THE_CARRIERS) == set()
        assert missing_drivers(clone) == []
        assert megabytes(clone / ".venv") < LARGEST_INSTALL_MB
    finally:
        os.killpg(hub.pid, signal.SIGINT)
        hub.wait(30)


def missing_drivers(clone: Path) -> list[str]:
    drivers = sorted({connector.driver for connector in registry.all() if connector.driver})
    script = f"from importlib.util import find_spec\nprint([d for d in {drivers} if find_spec(d) is None])"
    said = subprocess.run(
        [clone / ".venv/bin/python", "-c", script], cwd="/", capture_output=True, text=True, check=True
    ).stdout
    return [name for name in drivers if f"'{name}'" in said]


@pytest.mark.found("U15")
@pytest.mark.slow
def test_the_wheel_brings_its_pages_and_none_of_their_carriers(clone: Path, tmp_path: Path) -> None:
    def uv(*arguments: str | Path) -> None:
        subprocess.run(["uv", *arguments], cwd=clone, env=outside(), check=True)

    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path)
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "environment")
    (wheel,) = tmp_path.glob("*.whl")
    # Without the settings of pyproject.toml, as pip would: what is required is what counts.
    uv("pip", "install", "--quiet", "--no-config", "--python", tmp_path / "environment/bin/python", wheel)
    assert installed_in(tmp_path / "environment") & OF_THE_CARRIERS == set()
    (pages,) = (tmp_path / "environment").glob("lib/python*/site-packages/data_fusion_hub_pages")
    names = {path.name for path in pages.iterdir()}
    assert names >= {"redoc.js", "redoc.svg", "swagger.js", "swagger.css", "scalar.js"}
    assert names >= {"redoc.LICENSE.txt", "swagger.LICENSE.txt", "scalar.LICENSE.txt"}


@pytest.mark.found("U7")
def test_a_start_by_uv_asks_for_no_development_group_and_no_bytecode() -> None:
    settings, groups = project()["tool"]["uv"], project()["dependency-groups"]
    assert settings["default-groups"] == ["run"]
    assert "compile-bytecode" not in settings
    assert groups["run"] == ["data-fusion-hub[all]"]


@pytest.mark.found("U15")
def test_the_hub_requires_nothing_of_those_who_carry_its_pages() -> None:
    required = project()["project"]["dependencies"]
    assert not any(line.startswith(("flask", "pydantic")) for line in required)
    carriers = [line for line in project()["build-system"]["requires"] if line.startswith("flask-openapi-")]
    assert len(carriers) == 3
    assert all("==" in line for line in carriers)
