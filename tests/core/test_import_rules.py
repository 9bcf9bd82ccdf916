"""Who may import whom: `asgi, cli, worker -> api -> domain -> connectors -> core` (design: the house).

Above all layers stand the programs (`asgi`, `cli`, `commands`, `worker`, `runtime`). `settings` is a leaf: it reads values and, of
ours, only looks at `core`; `core` never imports it (values come in as parameters), nor do connectors.
"""

import ast
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from tests.core.imports import ROOT, imports_of, name_of, nodes_of

PROGRAMS = {"asgi", "cli", "commands", "worker", "runtime", "__main__", "__init__"}
MAY_IMPORT = {
    "core": {"core"},
    "connectors": {"connectors", "core"},
    "settings": {"settings", "core"},
    "domain": {"domain", "connectors", "core", "settings"},
    "api": {"api", "domain", "connectors", "core", "settings"},
}
CONNECTORS_USE_OF_CORE = {"errors", "egress", "tunnels"}
ROLES_OF_FILES = ("controllers", "services", "models", "schemas", "repositories")


@pytest.fixture(scope="module", autouse=True)
def the_last_test_forgets_the_sources() -> Iterator[None]:
    """They take a hundred megabytes."""
    yield
    nodes_of.cache_clear()


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "_db" not in path.parts)


def third_parties_of(path: Path) -> set[str]:
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
    return found


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def pairs() -> Iterator[tuple[str, str]]:
    """Importer and imported; the bare package, which is empty, is nobody's layer."""
    for path in modules():
        yield from ((name_of(path), imported) for imported in imports_of(path) if imported != "app")


def breaches(allowed: dict[str, set[str]]) -> list[str]:
    return [
        f"{one} imports {other}"
        for one, other in pairs()
        if layer(other) not in allowed.get(layer(one), {layer(other)})
    ]


def test_the_walk_sees_the_whole_application() -> None:
    assert len(modules()) > 60
    assert {layer(name_of(path)) for path in modules()} <= PROGRAMS | set(MAY_IMPORT)


def test_layers_import_downwards_only() -> None:
    assert breaches(MAY_IMPORT) == []


def test_a_breach_would_be_found() -> None:
    assert breaches(MAY_IMPORT | {"api": {"api"}})


def test_connectors_take_errors_and_egress_from_core_and_nothing_else() -> None:
    wrong = [
        f"{one} imports {other}"
        for one, other in pairs()
        if layer(one) == "connectors" and layer(other) == "core" and other.split(".")[2] not in CONNECTORS_USE_OF_CORE
    ]
    assert wrong == []


def test_connectors_know_no_database_and_no_web_framework_of_ours() -> None:
    for path in (ROOT / "connectors").rglob("*.py"):
        assert not third_parties_of(path) & {"sqlalchemy", "advanced_alchemy", "litestar", "alembic"}, path


def slice_and_file(module: str) -> tuple[str, str]:
    """`app.domain.users.services.UserService` to `users`, `services`."""
    parts = [*module.split("."), "", "", ""]
    return (parts[2], parts[3]) if parts[1] == "domain" else ("", "")


def test_nobody_imports_controllers_but_the_route_table_and_the_programs() -> None:
    allowed = {"app.api.v1", "app.api.openapi"}
    wrong = [
        f"{one} imports {other}"
        for one, other in pairs()
        if slice_and_file(other)[1] == "controllers" and one not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("file", "never"),
    [
        ("schemas", {"models", "repositories", "services", "controllers"}),
        ("models", {"repositories", "services", "controllers", "schemas"}),
        ("repositories", {"services", "controllers"}),
        ("services", {"controllers"}),
        ("controllers", {"models"}),
    ],
)
def test_within_the_domain_controllers_call_services_and_services_use_models(file: str, never: set[str]) -> None:
    wrong = [
        f"{one} imports {other}"
        for one, other in pairs()
        if slice_and_file(one)[1] == file and slice_and_file(other)[1] in never
    ]
    assert wrong == []


def test_the_rules_of_sources_know_nothing_of_the_work_at_them() -> None:
    """Registration dials nowhere: no test, preview, discovery or schedule, and no connector process."""
    never = (
        "app.domain.source_work",
        "app.domain.jobs",
        "app.connectors.processes.sandbox",
        "app.connectors.processes",
    )
    wrong = [
        f"{one} imports {other}"
        for one, other in pairs()
        if slice_and_file(one)[0] == "sources" and other.startswith(never)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["core", "connectors"])
def test_the_ground_reads_no_variables_of_the_hub(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert "HUB_" not in "".join(_strings_given_to_environ(path)), path


def _strings_given_to_environ(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.Subscript | ast.Call) and "environ" in ast.dump(node):
            yield from (
                inner.value
                for inner in ast.walk(node)
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
            )


KNOW_EACH_OTHER = {
    ("assignments", "roles"), ("auth", "parts"), ("auth", "users"), ("auth", "work"), ("dry_runs", "roles"),
    ("events", "parts"),
    ("groups", "users"),
    ("role_requests", "roles"), ("roles", "users"),
}  # fmt: skip
"""Another pair is a decision (openspec/decisions/0001)."""


def test_slices_that_know_each_other_both_ways_are_named() -> None:
    crossings = {
        (one.split(".")[2], other.split(".")[2]) for one, other in pairs() if _in_domain(one) and _in_domain(other)
    }
    both_ways = {(one, other) for one, other in crossings if one < other and (other, one) in crossings}
    assert both_ways == KNOW_EACH_OTHER


def _in_domain(module: str) -> bool:
    return module.startswith("app.domain.")


def test_no_file_of_the_domain_imports_in_a_circle() -> None:
    modules_of_domain = {name_of(path): path for path in modules() if _in_domain(name_of(path))}
    imported = {
        name: {found for one in imports_of(path) if (found := _module_of(one, modules_of_domain.keys()))} - {name}
        for name, path in modules_of_domain.items()
    }
    while leaves := [name for name, others in imported.items() if not others & imported.keys()]:
        for name in leaves:
            del imported[name]
    assert imported == {}


def _module_of(imported: str, names: Set[str]) -> str | None:
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in names), None)
