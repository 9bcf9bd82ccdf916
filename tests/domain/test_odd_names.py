"""One thing that cannot be stored or read hides no other: odd names in the catalogue, and files that are no text."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.contract.objects import DiscoveredField, DiscoveredObject
from app.domain.source_work.catalogued_names import (
    MAX_FIELDS,
    MAX_QUALIFIED_BYTES,
    catalogued,
    catalogued_name,
    name_at_source,
)
from tests.conftest import Hub
from tests.connectors.servers.plain_answers import Answer, plain_answers
from tests.domain.sources import SOURCES, discovered, objects, registered
from tests.domain.test_discovery import Batches

pytestmark = [pytest.mark.anyio, pytest.mark.found("D2")]


@given(st.text(st.sampled_from('a\x000␀."é'), max_size=8), st.text(st.sampled_from("a\x000␀"), max_size=8))
def test_every_name_has_a_form_of_its_own_that_leads_back(one: str, other: str) -> None:
    assert name_at_source(catalogued_name(one)) == one
    assert "\x00" not in catalogued_name(one)
    assert (catalogued_name(one) == catalogued_name(other)) is (one == other)


def test_a_name_that_is_too_long_is_cut_and_told_apart() -> None:
    names = ["x" * 5_000, "x" * 5_001, "ü" * 1_500]
    kept = [catalogued(DiscoveredObject.at(("a", name), "table", ())) for name in names]
    assert len({one.qualified_name for one in kept}) == 3
    assert all(len(one.qualified_name.encode()) <= MAX_QUALIFIED_BYTES for one in kept)
    assert all("too long" in one.notes[0] for one in kept)


def test_fields_beyond_any_table_are_left_out_with_a_note() -> None:
    fields = [DiscoveredField(f"c{place}", "string", "text", True, place) for place in range(MAX_FIELDS + 5)]
    kept = catalogued(DiscoveredObject.at(("a",), "table", fields))
    assert len(kept.fields) == MAX_FIELDS
    assert kept.notes == ("Of 10,005 fields the first 10,000 are kept.",)


def odd(*path: str, field: str = "x", native: str = "text") -> DiscoveredObject:
    return DiscoveredObject.at(path, "table", [DiscoveredField(field, "string", native, True, 1)], ["a\x00note"])


async def test_odd_names_hide_no_others(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{SOURCES}/{(await registered(hub))['id']}"
    found = [
        odd("good"), odd("a\x00b"), odd("a␀0b"), odd("s", "f", field="n\x00l"), odd("t", native="n\x00"),
        odd("y" * 100_000), odd("twice"), odd("twice"), odd("\U0001f600" * 600),
    ]  # fmt: skip
    batches = Batches(found)
    batches.go_on.set()
    monkeypatch.setattr(hub.parts, "sandbox", batches)
    job = await discovered(hub, path)
    assert job["status"] == "succeeded", job
    kept = await objects(hub, path)
    assert {"good", "a␀0b", "a␀␀0b", "s.f", "t", "twice"} < set(kept)
    assert len(kept) == 8
    assert kept["s.f"]["fields"][0]["name"] == "n␀0l"
    assert kept["good"]["notes"] == ["a␀0note"]


FILES: dict[str, bytes] = {
    "good.csv": b"id,name\n1,x\n",
    "packed.csv": gzip.compress(b"id,name\n1,x\n"),
    "zip.csv": b"PK\x03\x04\x14\x00\x00\x00" + bytes(100),
    "wide.csv": "id,name\n1,x\n".encode("utf-16-le"),
    "null.json": b'[{"a\\u0000b": 1, "c": 2}]',
    "bad.ndjson": b'{"a": 1}\nno json\n',
    "damaged.parquet": b"PAR1 nothing PAR1",
    "picture.png": b"\x89PNG",
}


async def test_files_that_cannot_be_read_hide_no_others_and_say_why(hub: Hub) -> None:
    def answers(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        content = FILES.get(path.removeprefix("/"))
        return Answer(b"", 404) if content is None else Answer(content, headers={})

    with plain_answers(answers) as port:
        config: dict[str, Any] = {"url": f"http://127.0.0.1:{port}", "paths": [*FILES, "gone.csv"]}
        made = await registered(hub, type="http_file", config=config)
        path = f"{SOURCES}/{made['id']}"
        assert (await discovered(hub, path))["status"] == "succeeded"
        found = {one["name"]: one for one in (await objects(hub, path)).values()}
        preview = await hub.admin.post(f"{path}/preview", json={"object": '"null.json"', "columns": ["a␀0b"]})
        unknown = await hub.admin.post(f"{path}/preview", json={"object": '"null.json"', "columns": ["c", "a␀0x"]})
    assert {name: [field["name"] for field in one["fields"]] for name, one in found.items()} == {
        "good.csv": ["id", "name"], "packed.csv": ["id", "name"], "zip.csv": [], "wide.csv": ["id", "name"],
        "null.json": ["a␀0b", "c"], "bad.ndjson": [], "damaged.parquet": [], "picture.png": [], "gone.csv": [],
    }  # fmt: skip
    assert {name for name, one in found.items() if one["notes"]} == set(found) - {"good.csv", "null.json"}
    assert found["zip.csv"]["notes"] == ["The file is no text: it is a zip archive."]
    shown = preview.json()
    assert ([column["name"] for column in shown["columns"]], shown["rows"]) == (["a␀0b"], [[1]])
    assert [fault["path"] for fault in unknown.json()["errors"]] == ["columns[1]"]
