"""Objects by short names: taken where one is meant, and with the candidates where several may be."""

from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from app.connectors.contract.objects import qualify
from app.core.embedded import EmbeddedPostgres
from app.domain.tenants.models import DEFAULT_TENANT_ID
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import SOURCES, discovered_shop, faults, open_shop, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("D18")]

PATHS = (
    ("people.csv",),
    ("2024", "people.csv.gz"),
    ("public", "orders"),
    ("archive", "orders"),
    ("public", "customers"),
    ("main", "a.b", "c"),
    ("PUBLIC", "Über"),
    ("lists", "Mail"),
    ("lists", "mail"),
)
INSERT = """
INSERT INTO source_objects (id, tenant_id, data_source_id, name, path, qualified_name, kind, is_active, fields,
                            discovered_at)
VALUES ($1, $2, $3, $4, $5, $6, 'table', $7, '[]', now())
"""


@pytest.fixture(scope="module")
async def source(hub: Hub, records: Records) -> str:
    """With objects as discovery leaves them; `simulated` itself has none of them."""
    source_id = UUID((await registered(hub, type="simulated", config={}))["id"])
    for path, is_active in [*((path, True) for path in PATHS), (("old", "customers"), False)]:
        await records.run(INSERT, uuid4(), DEFAULT_TENANT_ID, source_id, path[-1], list(path), qualify(path), is_active)
    return f"{SOURCES}/{source_id}"


async def asked(hub: Hub, source: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The path that the connector was asked for, or the answer that came without asking it."""
    paths: list[tuple[str, ...]] = []
    preview = hub.parts.sandbox.preview

    async def noted(*arguments: Any, **options: Any) -> Any:
        paths.append(arguments[4].path)
        return await preview(*arguments, **options)

    monkeypatch.setattr(hub.parts.sandbox, "preview", noted)
    answer = await hub.admin.post(f"{source}/preview", json={"object": name})
    return paths[-1] if paths and answer.status_code != 400 else answer


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("people.csv", ("people.csv",)),
        ('"people.csv"', ("people.csv",)),
        ("people.csv.gz", ("2024", "people.csv.gz")),
        ("2024.people.csv.gz", ("2024", "people.csv.gz")),
        ("customers", ("public", "customers")),
        ("archive.orders", ("archive", "orders")),
        ("c", ("main", "a.b", "c")),
        ("a.b.c", ("main", "a.b", "c")),
        ('"a.b".c', ("main", "a.b", "c")),
        ("main.a.b.c", ("main", "a.b", "c")),
        ("new.table", ("new", "table")),
        ("b.c", ("b", "c")),
        ("2024/people.csv.gz", ("2024", "people.csv.gz")),
        ("PEOPLE.csv", ("people.csv",)),
        (' "People.CSV" ', ("people.csv",)),
        ("public.über", ("PUBLIC", "Über")),
        ("ÜBER", ("PUBLIC", "Über")),
        ("Archive.ORDERS", ("archive", "orders")),
        ("Main.A.B.C", ("main", "a.b", "c")),
        ("mail", ("lists", "mail")),
    ],
)
async def test_a_name_that_means_one_object_is_taken_for_it(
    hub: Hub, source: str, name: str, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await asked(hub, source, name, monkeypatch) == path


async def test_a_name_that_may_mean_several_is_refused_with_the_candidates(
    hub: Hub, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await asked(hub, source, "orders", monkeypatch)
    assert (answer.status_code, faults(answer)) == (400, {"object": "ambiguous_name"})
    assert [fault["message"] for fault in answer.json()["errors"]] == [
        "could be archive.orders", "could be public.orders",
    ]  # fmt: skip


async def test_so_is_one_in_letters_that_several_have(hub: Hub, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await asked(hub, source, "MAIL", monkeypatch)
    assert (answer.status_code, faults(answer)) == (400, {"object": "ambiguous_name"})
    assert [fault["message"] for fault in answer.json()["errors"]] == ["could be lists.Mail", "could be lists.mail"]


@pytest.mark.parametrize("name", ['"open', 'a"b', "." * 1999, "x." * 900])
async def test_what_is_no_name_is_not_found(hub: Hub, source: str, name: str) -> None:
    answer = await hub.admin.post(f"{source}/preview", json={"object": name})
    assert answer.status_code == 404


async def test_a_table_is_read_by_its_bare_name(hub: Hub, cluster: EmbeddedPostgres) -> None:
    path = await discovered_shop(hub, await open_shop(cluster))
    short = await hub.admin.post(f"{path}/preview", json={"object": "orders"})
    whole = await hub.admin.post(f"{path}/preview", json={"object": "public.orders"})
    assert short.status_code == 200, short.text
    assert msgspec.json.decode(short.content)["rows"] == msgspec.json.decode(whole.content)["rows"]
    odd = await hub.admin.post(f"{path}/preview", json={"object": 'odd.schema.a "b".c'})
    assert (odd.status_code, odd.json()["rows"]) == (200, [[7]])
