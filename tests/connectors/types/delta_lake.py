"""Delta Lake, on tables of delta-rs in the hub's folder for files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.connectors.contract import Case, Kind, Ports, Start
from tests.connectors.servers.delta_tables import OBJECTS, PREVIEWS, TABLES, rewrite, write_numbers, write_tables
from tests.connectors.servers.starting import private_folder


@contextmanager
def lake() -> Iterator[Path]:
    """`lake` is good; what is wrong about the other folders is in their names."""
    with private_folder() as outside, private_folder() as root:
        write_tables(root / "lake")
        for name in ("gap", "garbage", "no-schema"):
            write_numbers(root / name)
            (root / name / "_delta_log" / "_last_checkpoint").unlink()
            (root / name / "_delta_log" / f"{1:020d}.checkpoint.parquet").unlink()
        (root / "gap" / "_delta_log" / f"{2:020d}.json").unlink()
        (root / "garbage" / "_delta_log" / f"{1:020d}.json").write_text("no JSON\n")
        rewrite(root / "no-schema", lambda action: None if "metaData" in action else action)
        rewrite(root / "no-schema", lambda action: None if "metaData" in action else action, version=3)
        write_numbers(outside / "elsewhere")
        (root / "link").symlink_to(outside / "elsewhere")
        (root / "linked-log").mkdir()
        (root / "linked-log" / "_delta_log").symlink_to(outside / "elsewhere" / "_delta_log")
        (root / "plain").mkdir()
        (root / "file.csv").write_text("id\n1\n")
        yield root


def kind(start: Start, ports: Ports) -> Kind:
    root = start(lake)
    one = {"tables": None}
    refused, damaged = ("resolve", "egress_refused"), ("list", "response_invalid")
    return Kind(
        "delta_lake",
        {"location": "lake", "tables": TABLES},
        {},
        (
            Case("wrong_path", "resolve", "not_found", {"location": "nowhere"}),
            Case("wrong_table", "list", "not_found", {"tables": ["orders", "nowhere"]}),
            Case("no_table", "list", "not_found", {"location": "plain", **one}),
            Case("above_a_table", "list", "not_found", one),
            Case("a_file", "resolve", "invalid_configuration", {"location": "file.csv", **one}),
            Case("outside", *refused, {"location": "/etc", **one}),
            Case("link_to_outside", *refused, {"location": "link", **one}),
            Case("log_is_a_link_to_outside", "list", "egress_refused", {"location": "linked-log", **one}),
            Case("commit_is_missing", *damaged, {"location": "gap", **one}),
            Case("garbage", *damaged, {"location": "garbage", **one}),
            Case("no_schema", *damaged, {"location": "no-schema", **one}),
        ),
        OBJECTS,
        PREVIEWS,
        statuses=("passed", "passed", "skipped", "skipped", "passed"),
        server={"product": "Delta Lake", "encryption": "none"},
        policy={"files_root": str(root)},
        dials=False,
    )
