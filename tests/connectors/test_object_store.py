"""How keys become datasets, and what the object stores do alike."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import msgspec
import pytest

from app.connectors import registry
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.files.datasets import Dataset, Datasets, Scope, fixed_part, is_data, matches_path
from app.connectors.files.tables import described, preview_of
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.values.describing import Describer
from app.connectors.values.preview import Preview
from app.core.egress import EgressPolicy
from tests.connectors.contract import Ports, Start
from tests.connectors.servers.shop_bucket import ODD_BUCKET, ODD_CONTROLS, ODD_MARKS, ODD_PARTS, odd_content
from tests.connectors.servers.shop_bucket import content as shop_content
from tests.connectors.types import KINDS

PLACES = {"s3": {"bucket": "abc"}, "gcs": {"bucket": "abc"}, "azure_blob": {"account_name": "abc", "container": "abc"}}


def test_a_hundred_thousand_keys_are_a_few_datasets() -> None:
    datasets = Datasets()
    tracemalloc.start()
    for number in range(100_000):
        datasets.add(f"sales/year={2000 + number % 20}/day={number % 365}/part-{number:06d}.csv", 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (only,) = datasets
    assert only.path == ("sales", "year=*", "day=*", "part-*.csv")
    assert only.files == 100_000
    assert peak < 1_000_000


def test_many_names_in_one_folder_are_one_dataset_and_few_are_not() -> None:
    few, many = Datasets(), Datasets()
    words = [a + b for a in "abcdefgh" for b in "klmnop"]
    for word in words[:5]:
        few.add(f"in/{word}.csv", 1)
    for word in words:
        many.add(f"in/{word}.csv", 1)
    assert [dataset.path for dataset in few] == [("in", f"{word}.csv") for word in sorted(words[:5])]
    assert [(dataset.path, dataset.files) for dataset in many] == [(("in", "*.csv"), len(words))]


def test_datasets_are_bounded_however_many_folders_there_are() -> None:
    datasets = Datasets()
    for number in range(20_000):
        datasets.add(f"{''.join(chr(103 + int(digit)) for digit in str(number))}/x.csv", 1)
    assert len(list(datasets)) == 5_000
    assert datasets.is_full


def test_datasets_of_many_files_are_whole() -> None:
    datasets = Datasets()
    for number in range(5_000):
        for file in range(2):
            datasets.add(f"{''.join(chr(103 + int(digit)) for digit in str(number))}/part-{file}.csv", 1)
    assert len(list(datasets)) == 5_000
    assert not datasets.is_full


def test_a_file_with_a_star_in_its_name_is_a_file() -> None:
    datasets = Datasets()
    datasets.add("a/st*r.csv", 1)
    (only,) = datasets
    assert (only.path, only.kind) == (("a", "st*r.csv"), "file")


def test_a_dataset_is_known_by_the_first_of_its_files_that_is_not_empty() -> None:
    datasets, many = Datasets(), Datasets()
    for number, size in enumerate((0, 7, 8)):
        datasets.add(f"in/part-{number}.csv", size)
    (only,) = datasets
    assert (only.sample, only.sample_size, only.files) == ("in/part-1.csv", 7, 3)
    for place in range(30):
        many.add(f"in/{'abcdefghijklmnopqrstuvwxyzäöüß'[place]}.csv", 9 if place > 2 else 0)
    (only,) = many
    assert (only.sample, only.sample_size, only.files) == ("in/d.csv", 9, 30)


@pytest.mark.anyio
async def test_without_its_driver_a_parquet_file_hides_no_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stores themselves need none: an install without extras reads all other formats."""

    class Shelf:
        async def read(self, key: str, start: int, end: int) -> bytes:
            content = {"a.csv": b"n\n1\n", "b.parquet": shop_content()["orders/day=2024-01-02/0.parquet"]}[key]
            return content[start:end]

    size = len(shop_content()["orders/day=2024-01-02/0.parquet"])
    datasets = [Dataset(("a.csv",), "a.csv", 4), Dataset(("b.parquet",), "b.parquet", size)]
    assert [bool(item.fields) for item in await described(Shelf(), datasets, Describer(2))] == [True, True]
    monkeypatch.setitem(sys.modules, "arro3.io", None)
    assert [bool(item.fields) for item in await described(Shelf(), datasets, Describer(2))] == [True, False]
    with pytest.raises(ConnectorError) as caught:
        await preview_of(Shelf(), "b.parquet", size, Preview(PreviewRequest(path=("b.parquet",))))
    assert caught.value.code == "driver_missing"


@pytest.mark.parametrize(
    ("key", "size"),
    [
        ("sales/", 0),
        ("sales", 0),
        ("sales/_SUCCESS", 0),
        ("sales/.part-1.csv.crc", 8),
        ("t/_delta_log/00000000000000000000.json", 8),
        ("t/_temporary/0/part-1.csv", 8),
        (".git/config", 8),
    ],
)
def test_markers_and_the_tools_own_files_are_no_data(key: str, size: int) -> None:
    assert not is_data(key, size)


@pytest.mark.parametrize(("key", "size"), [("empty.csv", 0), ("README", 3), ("t/_year=2024/part-1.csv", 8)])
def test_empty_files_and_partitions_are_data(key: str, size: int) -> None:
    assert is_data(key, size)


def test_a_scope_shows_what_is_below_its_folder_included_and_not_excluded() -> None:
    scope = Scope("sales", ("*.csv", "*/2024/*"), ("*/tmp/*",))
    keys = ["sales/a.csv", "sales/2024/b.json", "sales/tmp/c.csv", "sales/d.json", "salesman/e.csv", "other/f.csv"]
    assert [key for key in keys if scope.shows(key)] == ["sales/a.csv", "sales/2024/b.json"]
    assert Scope("").shows("anything")


def test_a_path_is_matched_name_by_name() -> None:
    assert matches_path("a/year=1/x.csv", ("a", "year=*", "*.csv"))
    assert not matches_path("a/year=1/b/x.csv", ("a", "year=*", "*.csv"))


def test_the_search_for_a_pattern_starts_where_it_may_be_found() -> None:
    assert fixed_part(("a", "b", "year=*", "x-*.csv")) == ("a/b", "year=")
    assert fixed_part(("*.csv",)) == ("", "")


@pytest.mark.parametrize("type_name", sorted(PLACES))
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint_url", "http://a/path"),
        ("endpoint_url", "http://a/?query"),
        ("endpoint_url", "http://user:password@a"),
        ("endpoint_url", "http://a:99999"),
        ("prefix", "a\x00b"),
        ("include_keys", ["a\nb"]),
    ],
)
def test_a_wrong_field_is_named(type_name: str, field: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({**PLACES[type_name], field: value}, registry.get(type_name).config_type)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path == (field,)


@pytest.mark.parametrize("type_name", sorted(PLACES))
@pytest.mark.parametrize("url", ["file:///etc/passwd", "s3://bucket", "unix:///tmp/x", "gopher://a", "//a", "http:///"])
def test_only_http_endpoints_make_a_source(type_name: str, url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**PLACES[type_name], "endpoint_url": url}, registry.get(type_name).config_type)


# Keys that are no paths -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind_name", "field", "keys"),
    [
        ("s3", "bucket", (*ODD_PARTS, *ODD_CONTROLS, *ODD_MARKS)),
        # It keeps objects as files, and writes keys into its XML as they are.
        pytest.param("s3__s3rver", "bucket", (*ODD_CONTROLS, *ODD_MARKS), marks=pytest.mark.services),
        # Its own listing fails on control characters.
        pytest.param("azure_blob", "container", (*ODD_PARTS, *ODD_MARKS), marks=pytest.mark.services),
    ],
)
async def test_no_key_is_too_odd_to_be_found_and_read(
    kind_name: str,
    field: str,
    keys: tuple[str, ...],
    start: Start,
    ports: Ports,
    sandbox: ConnectorSandbox,
    loopback: EgressPolicy,
) -> None:
    kind = KINDS[kind_name].kind(start, ports)
    config, secrets = {**kind.config, field: ODD_BUCKET}, kind.secrets
    assert (await sandbox.check(kind.type, config, secrets, loopback)).status == "passed"
    found = [item.path async for batch in sandbox.discover(kind.type, config, secrets, loopback) for item in batch]
    files = {tuple(key.split("/")): file for key, file in odd_content(*keys).items() if not key.endswith("/")}
    assert sorted(found) == sorted(files)
    for path, file in files.items():
        shown = await sandbox.preview(kind.type, config, secrets, loopback, PreviewRequest(path=path))
        assert shown.rows == [[file.decode().split()[1]]], path


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path", [("a", "b.csv"), ("leading.csv",), ("y.csv",), ("up.csv",), ("percent/.csv",), ("a", "")]
)
async def test_a_key_is_no_other_that_looks_alike(
    path: tuple[str, ...], start: Start, ports: Ports, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    kind = KINDS["s3"].kind(start, ports)
    config = {**kind.config, "bucket": ODD_BUCKET}
    with pytest.raises(ConnectorError) as caught:
        await sandbox.preview("s3", config, kind.secrets, loopback, PreviewRequest(path=path))
    assert caught.value.code == "not_found"


@pytest.mark.anyio
@pytest.mark.parametrize("path", [("", "lead*.csv"), ("", "", "*.csv"), ("a", "", "*.csv"), ("x", "..", "*.csv")])
async def test_a_pattern_is_found_below_folders_without_a_name(
    path: tuple[str, ...], start: Start, ports: Ports, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    kind = KINDS["s3"].kind(start, ports)
    config = {**kind.config, "bucket": ODD_BUCKET}
    assert len((await sandbox.preview("s3", config, kind.secrets, loopback, PreviewRequest(path=path))).rows) == 1
