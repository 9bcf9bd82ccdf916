"""The others of the bench answer the same fields as the hub: one that answers less would be quicker for it."""

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from uuid import uuid4

import pytest

from app.domain.roles.schemas import RoleOut
from app.domain.sources.schemas import DataSourceOut

VARIABLES = {
    "BENCH_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "BENCH_POOL_SIZE": "1",
    "BENCH_TENANT_ID": str(uuid4()),
    "BENCH_ACTOR_ID": str(uuid4()),
    "BENCH_JWT_SECRET": "of nobody",
}


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    yield import_module("bench.f1")
    del sys.modules["bench.f1"]


@pytest.mark.parametrize(("name", "shown"), [("Role", RoleOut), ("DataSource", DataSourceOut)])
def test_the_floor_answers_what_the_hub_answers(floor: ModuleType, name: str, shown: type) -> None:
    assert set(getattr(floor, name).__struct_fields__) == set(shown.__struct_fields__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "shown"), [("RoleOut", RoleOut), ("DataSourceOut", DataSourceOut)])
def test_what_one_would_build_instead_answers_it_too(monkeypatch: pytest.MonkeyPatch, name: str, shown: type) -> None:
    """Needs what only the bench installs."""
    pytest.importorskip("sqlmodel", reason="the group `bench` is not installed")
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    p1 = import_module("bench.p1")
    assert set(getattr(p1, name).model_fields) == set(shown.__struct_fields__)  # type: ignore[attr-defined]
