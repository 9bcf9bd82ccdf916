"""What Delta's protocol asks of a reader, and what logs must not lead to."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from arro3.core import DataType, Field, Schema
from arro3.io import read_parquet, write_parquet
from deltalake import DeltaTable, write_deltalake

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.types.delta_lake.connector import DeltaLake, DeltaLakeConfig, DeltaLakeSecrets
from app.core.egress import EgressPolicy
from tests.connectors.servers.delta_tables import NUMBERS, Action, rewrite, table, write_numbers

SAFE = "00000000-0000-0000-0000-000000000001"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A table of one commit and one file, `n` from 0 to 9."""
    folder = tmp_path / "root" / "numbers"
    write_deltalake(str(folder), table(NUMBERS, [{"n": n} for n in range(10)]))
    return folder


def connector(folder: Path, **config: Any) -> DeltaLake:
    whole = msgspec.convert({"location": folder.name, **config}, DeltaLakeConfig)
    return DeltaLake(whole, DeltaLakeSecrets(), EgressPolicy(files_root=str(folder.parent)))


def preview(folder: Path, **request: Any) -> PreviewResult:
    return asyncio.run(connector(folder).preview(PreviewRequest(path=(folder.name,), **request)))


def fields(folder: Path) -> list[tuple[str, str, str]]:
    async def discover() -> list[tuple[str, str, str]]:
        found = [item async for batch in connector(folder).discover() for item in batch]
        return [(field.name, field.type, field.native_type) for item in found for field in item.fields]

    return asyncio.run(discover())


def refusal(folder: Path, **request: Any) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        preview(folder, **request)
    return caught.value


def on_adds(change: dict[str, Any]) -> Callable[[Action], Action]:
    return lambda action: {"add": {**action["add"], **change}} if "add" in action else action


def with_protocol(*features: str, reader: int = 3) -> Callable[[Action], Action]:
    protocol = {"minReaderVersion": reader, "minWriterVersion": 7}
    listed = {"readerFeatures": list(features), "writerFeatures": list(features)} if reader >= 3 else {}
    return lambda action: {"protocol": {**protocol, **listed}} if "protocol" in action else action


# Out of the folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../outside/part.parquet",
        "%2e%2e/outside/part.parquet",
        "a/../../outside/part.parquet",
        "part%2F..%2F..%2Foutside%2Fpart.parquet",
        "./../outside/part.parquet",
        "a//part.parquet",
        "",
    ],
)
def test_a_file_above_the_table_is_not_read(numbers: Path, path: str) -> None:
    rewrite(numbers, on_adds({"path": path}))
    assert refusal(numbers).code == "egress_refused"


@pytest.mark.parametrize("path", ["/etc/hostname", "file:///etc/hostname", "s3://other/part.parquet", "C:\\x.parquet"])
def test_an_absolute_file_is_not_read(numbers: Path, path: str) -> None:
    rewrite(numbers, on_adds({"path": path}))
    assert refusal(numbers).code == "unsupported"


def test_a_file_that_is_a_link_out_of_the_table_is_not_read(numbers: Path) -> None:
    (file,) = numbers.glob("*.parquet")
    beside = file.rename(numbers.parent / "beside.parquet")
    file.symlink_to(beside)
    assert refusal(numbers).code == "egress_refused"


def test_a_commit_that_is_a_link_out_of_the_table_is_not_read(numbers: Path) -> None:
    commit = numbers / "_delta_log" / f"{0:020d}.json"
    beside = commit.rename(numbers.parent / "commit.json")
    commit.symlink_to(beside)
    assert refusal(numbers).code == "egress_refused"


@pytest.mark.parametrize("path", ["file:///tmp/side.parquet", "/tmp/side.parquet", "../../side.parquet", "a/b.parquet"])
def test_a_sidecar_elsewhere_is_not_read(numbers: Path, path: str) -> None:
    as_v2_checkpoint(numbers)
    checkpoint = next((numbers / "_delta_log").glob("*.checkpoint.*.json"))
    checkpoint.write_text(checkpoint.read_text().replace("side.parquet", path))
    assert refusal(numbers).code == "egress_refused"


def test_a_deletion_vector_elsewhere_is_not_read(numbers: Path, tmp_path: Path) -> None:
    content = bitmap_array(array_of([1]))
    (tmp_path / "vector.bin").write_bytes(in_a_file(content))
    for kind, place in (("p", f"file://{tmp_path}/vector.bin"), ("p", f"{tmp_path}/vector.bin")):
        delete_by(numbers, {"storageType": kind, "pathOrInlineDv": place, "offset": 1, "sizeInBytes": len(content)})
        assert refusal(numbers).code == "unsupported"
    outside = {"storageType": "u", "pathOrInlineDv": "../" + z85(uuid.UUID(SAFE).bytes), "offset": 1}
    delete_by(numbers, {**outside, "sizeInBytes": len(content)})
    assert refusal(numbers).code == "egress_refused"


@pytest.mark.parametrize(
    "location", ["file:///etc", "https://x/y", "gs://bucket/x", "s3://", "s3://ab/x", "a/../b", "s3://bucket/../x"]
)
def test_other_locations_are_refused(location: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"location": location}, DeltaLakeConfig)
    assert isinstance(caught.value.__cause__, InvalidField)


# Deletion vectors -----------------------------------------------------------------------------------------------------


def z85(content: bytes) -> str:
    return base64.b85encode(content).decode().translate(str.maketrans(_B85, _Z85))


def array_of(rows: list[int]) -> bytes:
    head = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
    return head + struct.pack(f"<{len(rows)}H", *rows)


def bits_of(rows: list[int]) -> bytes:
    words = [sum(1 << row % 64 for row in rows if row // 64 == place) for place in range(1024)]
    return struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack("<1024Q", *words)


def runs_of(runs: list[tuple[int, int]]) -> bytes:
    """Each a first row and how many follow."""
    head = struct.pack("<I", 12347) + b"\x01" + struct.pack("<HH", 0, sum(more + 1 for _, more in runs) - 1)
    return head + struct.pack("<H", len(runs)) + b"".join(struct.pack("<HH", *run) for run in runs)


def bitmap_array(*bitmaps: bytes) -> bytes:
    return struct.pack("<IQ", 1681511377, len(bitmaps)) + b"".join(
        struct.pack("<I", key) + bitmap for key, bitmap in enumerate(bitmaps)
    )


def in_a_file(content: bytes) -> bytes:
    return b"\x01" + struct.pack(">I", len(content)) + content + struct.pack(">I", zlib.crc32(content))


def inline(content: bytes) -> Action:
    padded = content + bytes(-len(content) % 4)
    return {"storageType": "i", "pathOrInlineDv": z85(padded), "sizeInBytes": len(content)}


def delete_by(folder: Path, vector: Action) -> None:
    rewrite(folder, with_protocol("deletionVectors"))
    rewrite(folder, on_adds({"deletionVector": {"cardinality": 1, **vector}}))


def scanned(folder: Path) -> list[list[int]]:
    """By delta-rs."""
    return [[n] for batch in DeltaTable(str(folder)).scan() for n in batch.column(0).to_pylist()]


@pytest.mark.parametrize(
    ("bitmap", "left"),
    [
        (array_of([1, 8]), [0, 2, 3, 4, 5, 6, 7, 9]),
        (runs_of([(0, 3), (6, 0)]), [4, 5, 7, 8, 9]),
        (bits_of([0, 2, *range(64, 5000)]), [1, 3, 4, 5, 6, 7, 8, 9]),
    ],
    ids=["array", "runs", "bits"],
)
def test_deleted_rows_are_not_shown(numbers: Path, bitmap: bytes, left: list[int]) -> None:
    delete_by(numbers, inline(bitmap_array(bitmap)))
    shown = preview(numbers)
    assert shown.rows == [[n] for n in left]
    assert not shown.truncated
    assert scanned(numbers) == shown.rows


def test_a_limit_counts_rows_that_are_left(numbers: Path) -> None:
    delete_by(numbers, inline(bitmap_array(array_of([0, 1, 4]))))
    shown = preview(numbers, limit=3)
    assert shown.rows == [[2], [3], [5]]
    assert shown.truncated


@pytest.mark.parametrize("folder", ["", "ab"])
def test_a_deletion_vector_in_a_file_of_the_table_is_obeyed(numbers: Path, folder: str) -> None:
    content = bitmap_array(array_of([9]))
    (numbers / folder).mkdir(exist_ok=True)
    (numbers / folder / f"deletion_vector_{SAFE}.bin").write_bytes(in_a_file(content))
    vector = {"storageType": "u", "pathOrInlineDv": folder + z85(uuid.UUID(SAFE).bytes), "offset": 1}
    delete_by(numbers, {**vector, "sizeInBytes": len(content)})
    assert preview(numbers).rows == scanned(numbers) == [[n] for n in range(9)]


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, bitmap_array(b"\x01\x02\x03\x04")])
def test_a_damaged_deletion_vector_shows_no_rows(numbers: Path, damage: bytes) -> None:
    delete_by(numbers, inline(damage))
    assert refusal(numbers).code == "response_invalid"


def test_a_deletion_vector_with_a_wrong_checksum_shows_no_rows(numbers: Path) -> None:
    content = bitmap_array(array_of([9]))
    (numbers / f"deletion_vector_{SAFE}.bin").write_bytes(in_a_file(content)[:-1] + b"\x00")
    vector = {"storageType": "u", "pathOrInlineDv": z85(uuid.UUID(SAFE).bytes), "offset": 1}
    delete_by(numbers, {**vector, "sizeInBytes": len(content)})
    assert refusal(numbers).code == "response_invalid"


# The protocol ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol",
    [with_protocol("fromTheFuture"), with_protocol("variantType"), with_protocol(reader=4), with_protocol(reader=0)],
)
def test_what_a_table_asks_for_and_the_hub_lacks_is_unsupported(
    numbers: Path, protocol: Callable[[Action], Action]
) -> None:
    rewrite(numbers, protocol)
    assert refusal(numbers).code == "unsupported"

    async def check() -> str:
        steps = Steps()
        with pytest.raises(ConnectorError):
            await connector(numbers).check(steps)
        return steps.result(1).status

    assert asyncio.run(check()) == "unsupported"


def test_the_newest_version_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "numbers"
    write_numbers(folder)
    write_deltalake(str(folder), table(NUMBERS, [{"n": 7}]), mode="overwrite", schema_mode="overwrite")
    assert preview(folder, columns=("n",)).rows == [[7]]
    DeltaTable(str(folder)).restore(3)
    assert sorted(row[0] for row in preview(folder).rows) == [1, 2, 4, 5]


def test_a_wrong_hint_of_the_last_checkpoint_is_seen_through(tmp_path: Path) -> None:
    folder = tmp_path / "numbers"
    write_numbers(folder)
    for hint in ('{"version": 99}', "no json", '{"version": "1"}', "[]"):
        (folder / "_delta_log" / "_last_checkpoint").write_text(hint)
        assert len(preview(folder).rows) == 4


def test_a_table_whose_first_commits_are_cleaned_away_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "numbers"
    write_numbers(folder)
    for version in (0, 1):
        (folder / "_delta_log" / f"{version:020d}.json").unlink()
    assert len(preview(folder).rows) == 4
    (folder / "_delta_log" / f"{1:020d}.checkpoint.parquet").unlink()
    assert refusal(folder).code == "response_invalid"


def as_v2_checkpoint(folder: Path) -> None:
    """Puts the files of a checkpoint into a sidecar, and takes the commit away."""
    DeltaTable(str(folder)).create_checkpoint()
    log = folder / "_delta_log"
    classic = log / f"{0:020d}.checkpoint.parquet"
    whole = read_parquet(str(classic)).read_all()
    (log / "_sidecars").mkdir()
    write_parquet(whole.select(["add"]), str(log / "_sidecars" / "side.parquet"))
    actions = [json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines()]
    kept = [with_protocol("v2Checkpoint")(action) for action in actions if {"metaData", "protocol"} & action.keys()]
    size = (log / "_sidecars" / "side.parquet").stat().st_size
    sidecar = {"path": "side.parquet", "sizeInBytes": size, "modificationTime": 1}
    lines = [{"checkpointMetadata": {"version": 0}}, *kept, {"sidecar": sidecar}]
    (log / f"{0:020d}.checkpoint.{SAFE}.json").write_text("\n".join(map(json.dumps, lines)))
    for name in (classic, log / "_last_checkpoint", log / f"{0:020d}.json"):
        name.unlink()


def test_checkpoints_with_sidecars_are_read(numbers: Path) -> None:
    as_v2_checkpoint(numbers)
    assert preview(numbers).rows == [[n] for n in range(10)]


def test_columns_are_found_under_their_physical_names(tmp_path: Path) -> None:
    folder = tmp_path / "mapped"
    inner = DataType.struct([Field("col-3", DataType.int64()), Field("left", DataType.int64())])
    schema = Schema([Field("col-1", DataType.int64()), Field("col-2", inner), Field("col-4", DataType.string())])
    rows = [{"col-1": 1, "col-2": {"col-3": 2, "left": 9}, "col-4": "de"}]
    write_deltalake(str(folder), table(schema, rows), partition_by=["col-4"])

    def named(name: str, kind: Any, physical: str) -> Action:
        mapping = {"delta.columnMapping.physicalName": physical, "delta.columnMapping.id": 1}
        return {"name": name, "type": kind, "nullable": True, "metadata": mapping}

    inside = {"type": "struct", "fields": [named("deep", "long", "col-3"), named("late", "string", "col-9")]}
    columns = [named("renamed", "long", "col-1"), named("nested", inside, "col-2"), named("part", "string", "col-4")]

    def rename(action: Action) -> Action:
        if "metaData" not in action:
            return with_protocol("columnMapping")(action)
        schema_string = json.dumps({"type": "struct", "fields": columns})
        configuration = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "4"}
        changed = {"schemaString": schema_string, "partitionColumns": ["part"], "configuration": configuration}
        return {"metaData": {**action["metaData"], **changed}}

    rewrite(folder, rename)
    assert preview(folder).rows == [[1, {"deep": 2, "late": None}, "de"]]
    assert [name for name, *_ in fields(folder)] == ["renamed", "nested", "part"]


def with_types(folder: Path, *kinds: tuple[str, str]) -> None:
    """Declares the columns anew, whatever the files hold."""
    declared = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in kinds]

    def declare(action: Action) -> Action:
        if "metaData" not in action:
            return with_protocol("typeWidening", "timestampNtz")(action)
        return {"metaData": {**action["metaData"], "schemaString": json.dumps({"type": "struct", "fields": declared})}}

    rewrite(folder, declare)


def test_values_have_the_types_that_the_table_was_widened_to(tmp_path: Path) -> None:
    folder = tmp_path / "widened"
    schema = Schema(
        [
            Field("a", DataType.int32()),
            Field("b", DataType.date32()),
            Field("c", DataType.decimal128(5, 1)),
            Field("d", DataType.int8()),
            Field("e", DataType.timestamp("us", tz="UTC")),
        ]
    )
    row = {"a": 1, "b": "2024-01-02", "c": "1.5", "d": 2, "e": "2024-01-02T03:04:05Z"}
    write_deltalake(str(folder), table(schema, [row]))
    with_types(
        folder, ("a", "double"), ("b", "timestamp_ntz"), ("c", "decimal(12,3)"), ("d", "long"), ("e", "timestamp")
    )
    (shown,) = preview(folder).rows
    assert shown == [1.0, "2024-01-02T00:00:00", "1.500", 2, "2024-01-02T03:04:05Z"]
    assert isinstance(shown[0], float)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("integer", "-3", -3),
        ("long", "9007199254740993", "9007199254740993"),
        ("double", "1.5", 1.5),
        ("boolean", "true", True),
        ("decimal(5,2)", "1.50", "1.50"),
        ("date", "2024-01-02", "2024-01-02"),
        ("timestamp", "2024-01-02 03:04:05.123456", "2024-01-02T03:04:05.123456Z"),
        ("timestamp", "2024-01-02T03:04:05.123456Z", "2024-01-02T03:04:05.123456Z"),
        ("timestamp_ntz", "2024-01-02 03:04:05", "2024-01-02T03:04:05"),
        ("binary", "\x00a", "AGE="),
        ("string", "a/b ü", "a/b ü"),
        ("string", "", None),
        ("string", None, None),
    ],
)
def test_partition_values_have_their_types(numbers: Path, kind: str, text: str | None, value: Any) -> None:
    with_types(numbers, ("n", "long"), ("part", kind))
    rewrite(numbers, lambda a: {"metaData": {**a["metaData"], "partitionColumns": ["part"]}} if "metaData" in a else a)
    rewrite(numbers, on_adds({"partitionValues": {"part": text}}))
    assert preview(numbers, columns=("part",), limit=1).rows == [[value]]
    assert preview(numbers, limit=2).rows == [[0, value], [1, value]]


def test_a_partition_value_of_another_type_is_a_damaged_log(numbers: Path) -> None:
    with_types(numbers, ("n", "long"), ("part", "integer"))
    rewrite(numbers, lambda a: {"metaData": {**a["metaData"], "partitionColumns": ["part"]}} if "metaData" in a else a)
    rewrite(numbers, on_adds({"partitionValues": {"part": "x"}}))
    assert refusal(numbers).code == "response_invalid"


def test_of_several_tables_one_that_cannot_be_read_has_no_fields(numbers: Path) -> None:
    broken = numbers.parent / "broken"
    write_deltalake(str(broken), table(NUMBERS, [{"n": 1}]))
    rewrite(broken, with_protocol("fromTheFuture"))
    source = DeltaLake(
        DeltaLakeConfig(location=str(numbers.parent), tables=("broken", "numbers")),
        DeltaLakeSecrets(),
        EgressPolicy(files_root=str(numbers.parent)),
    )

    async def discover() -> dict[str, int]:
        return {item.name: len(item.fields) for batch in [b async for b in source.discover()] for item in batch}

    assert asyncio.run(discover()) == {"broken": 0, "numbers": 1}


def test_a_table_of_many_files_is_read_as_far_as_it_is_shown(tmp_path: Path) -> None:
    """The files behind the first ones are not even there."""
    folder = tmp_path / "many"
    write_deltalake(str(folder), table(NUMBERS, [{"n": n} for n in range(10)]))
    missing = {"partitionValues": {}, "size": 1000, "modificationTime": 1, "dataChange": True}

    def multiply(action: Action) -> list[Action]:
        more = [{"add": {**missing, "path": f"missing-{n}.parquet"}} for n in range(1000)]
        return [action, *more] if "add" in action else [action]

    rewrite(folder, multiply)
    shown = preview(folder, limit=5)
    assert shown.rows == [[n] for n in range(5)]
    assert shown.truncated
    assert refusal(folder, limit=500).code == "not_found"
