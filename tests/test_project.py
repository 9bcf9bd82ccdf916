"""What stands around the code says what the code does: README, container files, recipes, decisions."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import _parser
from app.connectors import registry
from app.settings import PROVIDER_PATTERN, Settings, load, variable
from tests.readme_tables import MEANINGS, README, number_of_types, with_tables

ROOT = Path(__file__).parents[1]
RECIPES = ["setup", "dev", "test", "lint", "types", "migrate", "new-migration", "docs", "demo", "bench", "check"]
RECIPES += ["services", "test-all", "test-connectors"]
TYPES = [connector for connector in registry.all() if not connector.is_rehearsal]
EXTRAS = {connector.extra for connector in TYPES if connector.extra}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


def containerfile() -> list[tuple[str, str]]:
    """Instructions with their arguments, continued lines joined."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line and not line.startswith("#")]


def takes(arguments: list[str]) -> bool:
    try:
        return callable(_parser().parse_args(arguments).run)
    except SystemExit:
        return False


def test_the_readme_has_the_tables_that_the_code_has() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run `just docs`"


def test_every_setting_has_a_meaning_in_the_readme() -> None:
    assert set(MEANINGS) == set(Settings.__struct_fields__)


def test_every_command_is_in_the_readme_and_exists() -> None:
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `hub ([a-z][a-z-]+)", text, re.MULTILINE))
    commands = next(action for action in _parser()._actions if action.choices)
    assert named == set(commands.choices or ())


def test_every_setting_named_in_a_text_exists(compose: dict[str, Any]) -> None:
    known = {variable(field) for field in Settings.__struct_fields__}
    for name in ("README.md", "CHANGELOG.md", "Containerfile", "app/connectors/contract/failures.py"):
        found = set(re.findall(r"HUB_[A-Z_]+[A-Z]", (ROOT / name).read_text(encoding="utf-8")))
        found = {each for each in found if not PROVIDER_PATTERN.fullmatch(each)}
        assert found - known <= {"HUB_OIDC", "HUB_SAML"}, name


def test_links_in_documents_lead_somewhere() -> None:
    documents = [README, *ROOT.glob("openspec/**/*.md"), ROOT / "bench/README.md"]
    for document in documents:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "openspec/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    for decision in folder.glob("[0-9]*.md"):
        title = decision.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert f"[{title}]({decision.name})" in index


@pytest.mark.parametrize("decision", ["0011-egress-pinning.md", "0015-proven-against.md"])
def test_every_type_has_a_line_in_the_decisions_on_types(decision: str) -> None:
    text = (ROOT / "openspec/decisions" / decision).read_text(encoding="utf-8")
    named = {
        name.strip() for cell in re.findall(r"^\| ([a-z0-9_, ]+) \|", text, re.MULTILINE) for name in cell.split(",")
    }
    assert {connector.type for connector in TYPES} <= named


def test_every_type_has_a_requirement() -> None:
    text = (ROOT / "openspec/specs/data-source-types/spec.md").read_text(encoding="utf-8")
    assert {connector.type for connector in TYPES} <= set(re.findall(r"`([a-z0-9_]+)`", text))


def test_every_driver_is_an_extra_and_part_of_all() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    def named(extra: str) -> set[str]:
        return {name for line in extras[extra] for name in line.partition("[")[2].rstrip("]").split(",")}

    assert set(extras) & named("drivers") >= EXTRAS
    assert named("all") >= {"drivers", "embedded", "otel"}


def test_compose_runs_commands_that_exist(compose: dict[str, Any]) -> None:
    others = {"database", "broker", "redis"}
    hubs = {name: service for name, service in compose["services"].items() if name not in others}
    assert set(hubs) == {"migrate", "hub", "worker"}
    for service in hubs.values():
        assert takes(service["command"]), service["command"]
    check = hubs["worker"]["healthcheck"]["test"]
    assert check[:2] == ["CMD", "hub"]
    assert takes(check[2:])


def test_compose_gives_settings_that_the_hub_takes(compose: dict[str, Any], tmp_path: Path) -> None:
    """With their defaults, and in production with what production asks for."""
    keys = tmp_path / "keys.pem"
    keys.touch()
    given = {"HUB_SECRET_KEYS": "k1:" + "A" * 43 + "=", "HUB_SIGNING_KEYS_FILE": str(keys)}
    for name in ("migrate", "hub", "worker"):
        environment = {key: _interpolated(value, {}) for key, value in compose["services"][name]["environment"].items()}
        assert load(environment, env_file=None).env == "development"
        assert load(environment | given | {"HUB_ENV": "production"}, env_file=None).registration == "closed"


def _interpolated(value: str, environment: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1]) or found[2], value)


def test_compose_migrates_under_another_role_before_anything_serves(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert "//hub_owner:" in services["migrate"]["environment"]["HUB_OWNER_DATABASE_URL"]
    for name in ("hub", "worker"):
        assert "HUB_OWNER_DATABASE_URL" not in services[name]["environment"]
        assert "//hub_app:" in services[name]["environment"]["HUB_DATABASE_URL"]
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_every_long_running_service_has_a_health_check(compose: dict[str, Any]) -> None:
    assert all("healthcheck" in service for name, service in compose["services"].items() if name != "migrate")


def test_the_containers_run_without_rights_on_a_read_only_root(compose: dict[str, Any]) -> None:
    for name in ("migrate", "hub", "worker"):
        service = compose["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert ("USER", "10001:10001") in containerfile()


def test_the_image_starts_a_command_that_exists() -> None:
    instructions = dict(containerfile())
    assert instructions["ENTRYPOINT"] == '["hub"]'
    assert takes(yaml.safe_load(instructions["CMD"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"]["hub"] == "app.cli:main"


def test_the_image_holds_every_driver_and_neither_a_compiler_nor_an_embedded_database() -> None:
    instructions = containerfile()
    stages = [number for number, (name, _) in enumerate(instructions) if name == "FROM"]
    final = instructions[stages[-1] :]
    assert all("slim" in argument for name, argument in instructions if name == "FROM")
    assert not any("apt" in argument or "pip" in argument for name, argument in final if name == "RUN")
    (installed,) = [argument for name, argument in instructions if "uv pip install" in argument]
    assert installed.endswith('[drivers,anchor,otel]"')


def test_the_recipes_exist() -> None:
    text = (ROOT / "justfile").read_text(encoding="utf-8")
    found = set(re.findall(r"^([a-z][a-z-]*)(?: [^:\n]*)?:", text, re.MULTILINE))
    assert set(RECIPES) <= found


def test_the_ci_script_is_good_bash() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)


@pytest.mark.found("U10")
def test_a_type_more_is_counted_by_the_tool_and_not_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    text = README.read_text(encoding="utf-8")
    for count, word in ((12, "twelve"), (19, "nineteen"), (20, "twenty"), (43, "forty-three")):
        monkeypatch.setattr("app.connectors.registry.all", lambda count=count: TYPES[:1] * count)
        assert number_of_types() == word
        assert f"sources of [{word} types](#data-source-types)" in with_tables(text)


@pytest.mark.found("U10")
def test_what_the_contract_asks_of_a_type_is_in_the_walk_through() -> None:
    walk = README.read_text(encoding="utf-8").partition("## Add a type of data source")[2].partition("\n## ")[0]
    for asked in (
        "`steps.server`",
        "`encryption`",
        "`destination_fields`",
        "`identity`",
        "`stopped_because`",
        "just docs",
    ):
        assert asked.strip("`") in walk, asked
