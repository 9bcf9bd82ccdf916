"""What is alike is one object, whatever order a server lists it in; what only looks alike stays what it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.files.datasets import (
    MAX_NAMES_IN_A_FOLDER,
    Datasets,
    SampleSearch,
    generalised,
    partitions,
)
from app.connectors.files.tables import read_table
from app.connectors.types.delta_lake.schema import Column
from app.connectors.types.redis.key_patterns import MAX_NAMES, KeyPatterns
from app.connectors.values.grouping import Groups

UUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"


def datasets(*keys: str) -> dict[str, int]:
    found = Datasets()
    for key in keys:
        found.add(key, len(key))
    return {"/".join(one.path): one.files for one in found}


@pytest.mark.found("D1")
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["orders.csv", "1.csv"], {"orders.csv": 1, "1.csv": 1}),
        (["orders.csv", "1.csv", "2.csv"], {"orders.csv": 1, "*.csv": 2}),
        (["orders.csv", "2024-01-01.csv", "2024-01-02.csv"], {"orders.csv": 1, "*.csv": 2}),
        (["orders.csv", f"{UUID}.csv", "x/1.csv"], {"orders.csv": 1, f"{UUID}.csv": 1, "x/1.csv": 1}),
        (["a/orders.csv", "1/orders.csv", "2/orders.csv"], {"a/orders.csv": 1, "*/orders.csv": 2}),
        (["orders.csv", "1.csv", "orders.json", "2.json", "3.json"], {"orders.csv": 1, "1.csv": 1, "orders.json": 1, "*.json": 2}),
        (["1.csv", "2.csv", "*.csv"], {"*.csv": 3}),
    ],
)  # fmt: skip
def test_files_beside_numbered_ones_stay(keys: list[str], expected: dict[str, int]) -> None:
    for _ in range(10):
        assert datasets(*keys) == expected
        random.shuffle(keys)


WORDS = [f"{a}{b}" for a in "abcdef" for b in "klmnop"]
NAME = st.one_of(
    st.sampled_from(WORDS),
    st.integers(0, 99).map(str),
    st.sampled_from(["2024-01-01", "2024-01-02", UUID, "part-00001", "part-00002", "*"]),
)
KEY = st.tuples(
    st.sampled_from(["", "in/", "2024/", "day=1/", "day=2/", "in/2024/"]), NAME, st.sampled_from([".csv", ".json", ""])
).map("".join)


@pytest.mark.found("D1")
@given(st.lists(KEY, max_size=80, unique=True), st.randoms(use_true_random=False))
def test_files_are_grouped_alike_in_whatever_order_they_come(keys: list[str], shuffled: random.Random) -> None:
    def found(order: list[str]) -> list[tuple[object, ...]]:
        all_of_it = Datasets()
        for key in order:
            all_of_it.add(key, len(key) % 3)
        return [(one.path, one.sample, one.sample_size, one.files) for one in all_of_it]

    in_order = found(sorted(keys))
    shuffled.shuffle(keys)
    assert found(keys) == in_order
    paths = [one[0] for one in in_order]
    assert len(set(paths)) == len(paths)


@pytest.mark.found("D1")
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "user:", "cart:item:"]), NAME, st.sampled_from(["hash", "string"])), max_size=80
    ),
    st.randoms(use_true_random=False),
)
def test_keys_are_grouped_alike_in_whatever_order_they_come(
    keys: list[tuple[str, str, str]], shuffled: random.Random
) -> None:
    def found(order: list[tuple[str, str, str]]) -> list[tuple[object, ...]]:
        patterns = KeyPatterns(":")
        for above, name, kind in order:
            patterns.add(f"{above}{name}".encode(), kind)
        return [(one.glob, one.kind, one.keys, one.samples) for one in patterns]

    in_order = found(sorted(keys))
    shuffled.shuffle(keys)
    assert found(keys) == in_order


@pytest.mark.found("D1")
def test_a_key_beside_numbered_ones_stays() -> None:
    for keys in (["user:1", "user:2", "user:settings"], ["user:settings", "user:2", "user:1"]):
        patterns = KeyPatterns(":")
        for key in keys:
            patterns.add(key.encode(), "hash")
        assert [(one.glob, one.keys) for one in patterns] == [("user:*", 2), ("user:settings", 1)]
    crowded = KeyPatterns(":")
    for number in range(MAX_NAMES + 1):
        crowded.add(f"user:{'abcdefghijklmnopqrstuvwxyz'[number]}".encode(), "hash")
    assert [(one.glob, one.keys) for one in crowded] == [("user:*", MAX_NAMES + 1)]


class Count:
    def __init__(self) -> None:
        self.count = 1

    def absorb(self, other: Count) -> None:
        self.count += other.count


@pytest.mark.found("D1")
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abcd")), max_size=200), st.randoms(use_true_random=False)
)
def test_what_is_left_out_for_want_of_room_does_not_depend_on_the_order(
    names: list[tuple[int, str]], shuffled: random.Random
) -> None:
    def found(order: list[tuple[int, str]]) -> tuple[bool, list[tuple[object, ...]]]:
        groups: Groups[Count] = Groups(5, lambda _: 2)
        for place, pattern in order:
            groups.add((place,), pattern, Count())
        return groups.is_full, [(place, pattern, one.count) for place, pattern, one in groups]

    in_order = found(sorted(names))
    shuffled.shuffle(names)
    assert found(names) == in_order
    assert len(in_order[1]) <= 5


@pytest.mark.found("D1")
@pytest.mark.parametrize(
    ("keys", "path", "expected"),
    [
        (["customers.csv", f"{UUID}.csv", f"f{UUID[1:]}.csv"], ("*.csv",), f"{UUID}.csv"),
        (["customers.csv", f"f{UUID[1:]}.csv"], ("*.csv",), f"f{UUID[1:]}.csv"),
        (["0.csv", "1.csv", "a.csv"], ("*.csv",), "1.csv"),
        (["archive/x.csv", "2023/x.csv", "2024/x.csv"], ("*", "x.csv"), "2023/x.csv"),
        ([f"{word}.csv" for word in WORDS], ("*.csv",), "ak.csv"),
        (["a.csv", "b.csv"], ("*.csv",), "a.csv"),
        (["a*.csv", "ab.csv"], ("a*.csv",), "a*.csv"),
        (["a.csv"], ("*.json",), None),
    ],
)
def test_a_preview_of_a_pattern_shows_one_of_its_own_files(
    keys: list[str], path: tuple[str, ...], expected: str | None
) -> None:
    search = SampleSearch(path)
    for key in sorted(keys):
        if not search.is_over:
            search.look_at(key, 0 if key.startswith("0") else 5)
    assert (search.found.sample if search.found else None) == expected


@pytest.mark.found("D1")
@given(st.lists(KEY, min_size=1, max_size=60, unique=True))
def test_each_dataset_leads_back_to_one_of_its_files(keys: list[str]) -> None:
    all_of_it = Datasets()
    for key in keys:
        all_of_it.add(key, 5)
    for one in all_of_it:
        if not any("*" in name for name in one.path):
            continue
        search = SampleSearch(one.path)
        for key in sorted(keys):
            search.look_at(key, 5)
        assert search.found is not None
        own = generalised(search.found.sample)
        assert own == one.path or one.path[:-1] == own[:-1] or search.found.sample == "/".join(one.path)


def test_a_crowded_folder_is_one_dataset() -> None:
    assert datasets(*(f"{word}.csv" for word in WORDS[: MAX_NAMES_IN_A_FOLDER + 1]), "1.csv") == {
        "*.csv": MAX_NAMES_IN_A_FOLDER + 2
    }


@pytest.mark.found("D9")
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("t/country=a%2Fb/x.csv", [("country", "a/b")]),
        ("t/country=__HIVE_DEFAULT_PARTITION__/x.csv", [("country", None)]),
        ("t/at=2024-01-01 00%3A00%3A00/x.csv", [("at", "2024-01-01 00:00:00")]),
        ("t/a%20b=1/größe=2/x.csv", [("a b", "1"), ("größe", "2")]),
        ("t/a=/b=x=y/x.csv", [("a", ""), ("b", "x=y")]),
        ("t/a=100%/b=%zz/c=%FF/x.csv", [("a", "100%"), ("b", "%zz"), ("c", "%FF")]),
        ("t/a=a+b/x.csv", [("a", "a+b")]),
        ("t/=x/1=x/x=1.csv", []),
    ],
)
def test_folders_of_partitions_are_read_as_hive_writes_them(key: str, expected: list[tuple[str, str | None]]) -> None:
    assert partitions(key) == expected


@pytest.mark.found("D9")
@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("__HIVE_DEFAULT_PARTITION__", "string", None),
        ("__HIVE_DEFAULT_PARTITION__", "integer", None),
        ("", "string", None),
        (None, "date", None),
        ("a%2Fb", "string", "a%2Fb"),
        ("a/b", "string", "a/b"),
        ("5", "integer", 5),
    ],
)
def test_partition_values_of_a_delta_log_are_not_escaped(text: str | None, kind: str, value: object) -> None:
    column = Column("c", "c", kind, True, True)
    assert column.partition_value({"c": text}) == value


@pytest.mark.anyio
@pytest.mark.found("D9")
async def test_partitions_stand_behind_the_columns_of_a_file() -> None:
    class Shelf:
        async def read(self, key: str, start: int, end: int) -> bytes:
            return b"n,c\n1,x\n"[start:end]

    async def shown(key: str) -> tuple[list[tuple[str, bool]], list[list[object]]]:
        table = await read_table(Shelf(), key, 8, 10)
        return [(field.name, field.is_nullable) for field in table.fields[2:]], table.rows

    assert await shown("country=a%2Fb/day=__HIVE_DEFAULT_PARTITION__/x.csv") == (
        [("country", False), ("day", True)], [[1, "x", "a/b", None]],
    )  # fmt: skip
    assert await shown("c=own/a=1/a=2/x.csv") == ([("a", False), ("a_4", False)], [[1, "x", "1", "2"]])
