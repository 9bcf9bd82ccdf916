"""Three makers' generators read the document, and the client that each makes runs the README's tour against a hub.

What is generated is never kept: the makers are pinned (the dependency group `clients`, `typescript/package.json`), and
what they make of the document of this moment is made, checked, run and thrown away.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import npm
from tests.serving import ADMIN_EMAIL, PASSWORD, Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.found("U5")]

HERE = Path(__file__).parent
SHOP = "shop.db"
WITHIN_S = 300
EXPECTED_WARNINGS = (
    "OpenAPI 3.1 support is still in beta",
    "Codegen property is null (e.g. map/dict of undefined type)",  # a config of any form, a cell of any type
    "Failed to get the schema name: null",
    "From (reserved word) cannot be used as model name",  # the query parameter `from`
)
"""Of OpenAPI Generator, about itself or about what is meant to be open."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("files")
    folder.chmod(0o755)
    with sqlite3.connect(folder / SHOP) as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        shop.executemany("INSERT INTO orders VALUES (?, ?)", [(1, "a lamp"), (2, "a kettle"), (3, "a chair")])
    with serving(HUB_FILES_ROOT=str(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("document") / "openapi.json"
    run([sys.executable, "-m", "app", "openapi", "--out", str(out)])
    return out


def run(command: list[str], *, cwd: Path | None = None, path: Path | None = None) -> str:
    """What it printed. Fails where the command does; `path` is where it finds the generated client."""
    beside = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "*"}
    if path is not None:
        environment |= {"PYTHONPATH": str(path), "MYPYPATH": str(path)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def needs(what: str, found: object) -> None:
    """Fails in CI, and skips elsewhere, where a maker is not installed."""
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not installed")


IN_XML = ("/api/v1/auth/saml/{provider_name}/metadata",)
"""Answers that openapi-python-client leaves out of what it makes: it knows no XML."""


def tour(served: Served) -> list[str]:
    return [served.url, ADMIN_EMAIL, PASSWORD, SHOP]


def test_openapi_python_client(served: Served, document: Path, tmp_path: Path) -> None:
    needs("openapi-python-client (uv sync --group clients)", find_spec("openapi_python_client"))
    made = tmp_path / "made"
    said = run(["openapi-python-client", "generate", "--path", str(document), "--output-path", str(made)])
    warnings = [line.partition("WARNING ")[2] for line in said.splitlines() if "WARNING" in line]
    assert warnings == [f"parsing GET {each} within auth." for each in IN_XML], said
    assert "Unable" not in said, said
    script = HERE / "tour_openapi_python_client.py"
    run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(script)], path=made)
    run([sys.executable, str(script), *tour(served)], path=made)


def test_openapi_generator(served: Served, document: Path, tmp_path: Path) -> None:
    needs("openapi-generator-cli (uv sync --group clients)", find_spec("openapi_generator_cli"))
    needs("java", shutil.which("java"))
    made = tmp_path / "made"
    options = ["-g", "python", "-i", str(document), "-o", str(made), "--package-name", "hub_client"]
    said = run(["openapi-generator-cli", "generate", *options])
    warnings = [line for line in said.splitlines() if re.search(r"\b(WARN|ERROR)\b", line)]
    assert [line for line in warnings if not any(known in line for known in EXPECTED_WARNINGS)] == []
    run([sys.executable, "-m", "compileall", "-q", str(made / "hub_client")])
    run([sys.executable, str(HERE / "tour_openapi_generator.py"), *tour(served)], path=made)


def test_openapi_typescript(served: Served, document: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    npm.install(HERE / "typescript", made)
    said = run(["npx", "--no-install", "openapi-typescript", str(document), "-o", "schema.d.ts"], cwd=made)
    assert not re.search(r"warn|error", said, re.IGNORECASE), said
    run(["npx", "--no-install", "tsc"], cwd=made)
    run(["node", "built/tour.js", *tour(served)], cwd=made)
