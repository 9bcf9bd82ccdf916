"""DuckDB, on files made by the DuckDB of this interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.servers.starting import private_folder

KEY = f"key-{CANARY}"

_SHOP = """
CREATE TYPE mood AS ENUM ('sad', 'gl''ad');
CREATE TABLE everything (
    id INTEGER PRIMARY KEY, name VARCHAR NOT NULL, small TINYINT, big BIGINT, ubig UBIGINT, huge HUGEINT, vast BIGNUM,
    price DECIMAL(20, 4), rating DOUBLE, active BOOLEAN, photo BLOB, born DATE, seen TIMESTAMP, seen_ns TIMESTAMP_NS,
    seen_tz TIMESTAMPTZ, wakes TIME, wakes_tz TIMETZ, pause INTERVAL, key UUID, about JSON, mood mood, bits BIT,
    tags VARCHAR[], point INTEGER[2], pair STRUCT(price DECIMAL(5, 2), pause INTERVAL, photo BLOB),
    prices MAP(VARCHAR, DECIMAL(5, 2)), choice UNION(n INTEGER, t VARCHAR), any_value VARIANT, place GEOMETRY,
    twice BIGINT GENERATED ALWAYS AS (id * 2)
);
INSERT INTO everything VALUES
    (1, 'Zoë 李雷 🙂', -128, 9007199254740993, 18446744073709551615, -170141183460469231731687303715884105727,
     99999999999999999999999999999999999999999999, 10.5, 'nan', true, '\\x00\\xFF', '2024-01-02',
     '2024-01-02 03:04:05.5', '2024-01-02 03:04:05.123456789', '2024-01-02 03:04:05+02', '03:04:05', '03:04:05+02:30',
     INTERVAL '14 months 3 days 25 hours 1.5 seconds', '00000000-0000-0000-0000-000000000001',
     '{"tags": ["a", null], "n": 9007199254740993}', 'gl''ad', '0101', ['a', NULL, 'b'], [1, 2],
     {'price': 1.50, 'pause': INTERVAL '-1 month', 'photo': '\\xFF'::BLOB}, MAP {'a': 1.5, 'b': NULL}, 'text',
     {'a': [1, 2]}::VARIANT, 'POINT (1 2)'::GEOMETRY),
    (2, '', NULL, NULL, NULL, NULL, NULL, -0.1, 'infinity', false, '', 'infinity', '-infinity', NULL,
     '0044-01-01 (BC) 00:00:00+00', NULL, '03:04:05+00', INTERVAL 0 SECONDS, NULL, 'null', NULL, NULL, [], [NULL, 1],
     {'price': NULL, 'pause': INTERVAL '-0.000003 seconds', 'photo': NULL}, MAP {}, 7, 1::VARIANT, NULL);
CREATE TABLE empty (a INTEGER NOT NULL, b VARCHAR);
CREATE SCHEMA "odd.schema";
CREATE TABLE "odd.schema"."a ""b"".c" ("x y" INTEGER, "c""d" INTEGER);
INSERT INTO "odd.schema"."a ""b"".c" VALUES (1, 2);
CREATE MACRO doubled(a) AS a * 2;
CREATE VIEW names AS SELECT id, name, doubled(id) AS n FROM shop.main.everything ORDER BY id DESC;
"""


@contextmanager
def folder() -> Iterator[Path]:
    """The files, one of them kept locked by this process."""
    with private_folder() as root:
        make(root / "shop.duckdb", _SHOP)
        make(root / "encrypted.duckdb", "CREATE TABLE t AS SELECT 1 AS a", KEY)
        whole = (root / "shop.duckdb").read_bytes()
        (root / "text.duckdb").write_text("id,name\n1,x\n" * 1000)
        (root / "sqlite.duckdb").write_bytes(b"SQLite format 3\x00" + bytes(8192))
        (root / "empty.duckdb").touch()
        (root / "short.duckdb").write_bytes(whole[:50])
        (root / "cut-off.duckdb").write_bytes(whole[:5000])
        (root / "overwritten.duckdb").write_bytes(whole[:4096] + b"\xaa" * (len(whole) - 4096))
        (root / "newer.duckdb").write_bytes(of_version(whole, 5000))
        (root / "older.duckdb").write_bytes(of_version(whole, 39))
        (root / "folder.duckdb").mkdir()
        (root / "to-system.duckdb").symlink_to("/etc/passwd")
        owner = duckdb.connect(root / "locked.duckdb")
        yield root
        owner.close()


def make(path: Path, script: str, key: str | None = None) -> None:
    database = duckdb.connect()
    database.execute("SET force_mbedtls_unsafe = 'true'")  # The safer cipher comes with an extension.
    option = f"(ENCRYPTION_KEY '{key}')" if key else ""
    database.execute(f"ATTACH '{path}' AS {path.stem} {option}; USE {path.stem}; {script}")
    database.close()


def of_version(content: bytes, version: int) -> bytes:
    """The same file, said to be of another storage version."""
    header = bytearray(content[:4096])
    header[12:20] = version.to_bytes(8, "little")
    checksum = 5381
    for place in range(8, len(header), 8):
        word = int.from_bytes(header[place : place + 8], "little")
        checksum ^= word * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    header[:8] = checksum.to_bytes(8, "little")
    return bytes(header) + content[4096:]


def kind(start: Start, ports: Ports) -> Kind:
    root = start(folder)
    refused, damaged = ("resolve", "egress_refused"), ("connect", "response_invalid")
    other, locked_out = ("connect", "protocol_mismatch"), ("authenticate", "authentication_failed")
    encrypted = {"path": "encrypted.duckdb"}
    return Kind(
        "duckdb",
        {"path": "shop.duckdb"},
        {},
        (
            Case("wrong_path", "resolve", "not_found", {"path": "nowhere.duckdb"}),
            Case("a_folder", "resolve", "invalid_configuration", {"path": "folder.duckdb"}),
            Case("above_the_root", *refused, {"path": "../shop.duckdb"}),
            Case("outside", *refused, {"path": "/etc/passwd"}),
            Case("link_to_outside", *refused, {"path": "to-system.duckdb"}),
            Case("memory_of_a_process", *refused, {"path": "/proc/self/environ"}),
            Case("in_memory", "resolve", "not_found", {"path": ":memory:"}),
            Case("in_a_cloud", "resolve", "not_found", {"path": "md:shop"}),
            Case("at_a_url", "resolve", "not_found", {"path": "https://nowhere.invalid/shop.duckdb"}),
            Case("text", *other, {"path": "text.duckdb"}),
            Case("of_sqlite", *other, {"path": "sqlite.duckdb"}),
            Case("empty", *other, {"path": "empty.duckdb"}),
            Case("short", *damaged, {"path": "short.duckdb"}),
            Case("cut_off", *damaged, {"path": "cut-off.duckdb"}),
            Case("overwritten", *damaged, {"path": "overwritten.duckdb"}),
            Case("newer", *other, {"path": "newer.duckdb"}),
            Case("older", *other, {"path": "older.duckdb"}),
            Case("locked", "connect", "timeout", {"path": "locked.duckdb", "lock_timeout_s": 0.3}),
            Case("without_key", *locked_out, encrypted),
            Case("wrong_key", *locked_out, encrypted, {"encryption_key": f"wrong-{CANARY}"}),
            Case("key_for_nothing", "authenticate", "invalid_configuration", {}, {"encryption_key": KEY}),
        ),
        {
            ("main", "empty"): ("table", (("a", "integer", "INTEGER", False), ("b", "string", "VARCHAR", True))),
            ("main", "everything"): (
                "table",
                (
                    ("id", "integer", "INTEGER", False),
                    ("name", "string", "VARCHAR", False),
                    ("small", "integer", "TINYINT", True),
                    ("big", "integer", "BIGINT", True),
                    ("ubig", "integer", "UBIGINT", True),
                    ("huge", "integer", "HUGEINT", True),
                    ("vast", "integer", "BIGNUM", True),
                    ("price", "decimal", "DECIMAL(20,4)", True),
                    ("rating", "number", "DOUBLE", True),
                    ("active", "boolean", "BOOLEAN", True),
                    ("photo", "binary", "BLOB", True),
                    ("born", "date", "DATE", True),
                    ("seen", "timestamp", "TIMESTAMP", True),
                    ("seen_ns", "timestamp", "TIMESTAMP_NS", True),
                    ("seen_tz", "timestamp_tz", "TIMESTAMP WITH TIME ZONE", True),
                    ("wakes", "time", "TIME", True),
                    ("wakes_tz", "time", "TIME WITH TIME ZONE", True),
                    ("pause", "interval", "INTERVAL", True),
                    ("key", "uuid", "UUID", True),
                    ("about", "json", "JSON", True),
                    ("mood", "string", "ENUM('sad', 'gl''ad')", True),
                    ("bits", "string", "BIT", True),
                    ("tags", "array", "VARCHAR[]", True),
                    ("point", "array", "INTEGER[2]", True),
                    ("pair", "object", "STRUCT(price DECIMAL(5,2), pause INTERVAL, photo BLOB)", True),
                    ("prices", "object", "MAP(VARCHAR, DECIMAL(5,2))", True),
                    ("choice", "unknown", "UNION(n INTEGER, t VARCHAR)", True),
                    ("any_value", "json", "VARIANT", True),
                    ("place", "geometry", "GEOMETRY", True),
                    ("twice", "integer", "BIGINT", True),
                ),
            ),
            ("main", "names"): (
                "view",
                (
                    ("id", "integer", "INTEGER", True),
                    ("name", "string", "VARCHAR", True),
                    ("n", "integer", "INTEGER", True),
                ),
            ),
            ("odd.schema", 'a "b".c'): (
                "table",
                (("x y", "integer", "INTEGER", True), ('c"d', "integer", "INTEGER", True)),
            ),
        },
        {
            ("main", "everything"): [
                [
                    1,
                    "Zoë 李雷 🙂",
                    -128,
                    "9007199254740993",
                    "18446744073709551615",
                    "-170141183460469231731687303715884105727",
                    "99999999999999999999999999999999999999999999",
                    "10.5000",
                    "NaN",
                    True,
                    "AP8=",
                    "2024-01-02",
                    "2024-01-02T03:04:05.5",
                    "2024-01-02T03:04:05.123456789",
                    "2024-01-02T01:04:05Z",
                    "03:04:05",
                    "03:04:05+02:30",
                    "P1Y2M3DT25H1.5S",
                    "00000000-0000-0000-0000-000000000001",
                    {"tags": ["a", None], "n": "9007199254740993"},
                    "gl'ad",
                    "0101",
                    ["a", None, "b"],
                    [1, 2],
                    {"price": "1.50", "pause": "P-1M", "photo": "/w=="},
                    {"a": "1.50", "b": None},
                    "text",
                    {"a": [1, 2]},
                    "POINT (1 2)",
                    2,
                ],
                [
                    2,
                    "",
                    *[None] * 5,
                    "-0.1000",
                    "Infinity",
                    False,
                    "",
                    "infinity",
                    "-infinity",
                    None,
                    "0044-01-01 (BC) 00:00:00+00",
                    None,
                    "03:04:05+00:00",
                    "PT0S",
                    None,
                    None,
                    None,
                    None,
                    [],
                    [None, 1],
                    {"price": None, "pause": "PT-0.000003S", "photo": None},
                    {},
                    7,
                    1,
                    None,
                    4,
                ],
            ],
            ("main", "names"): [[2, "", 4], [1, "Zoë 李雷 🙂", 2]],
            ("main", "empty"): [],
            ("odd.schema", 'a "b".c'): [[1, 2]],
        },
        statuses=("passed", "passed", "skipped", "skipped", "passed"),
        server={"product": "DuckDB", "version": duckdb.__version__, "encryption": "none"},
        policy={"files_root": str(root)},
        dials=False,
    )
