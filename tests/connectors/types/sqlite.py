"""SQLite, on files made by the SQLite of this interpreter."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.connectors.contract import Case, Kind, Ports, Start
from tests.connectors.servers.starting import private_folder

_SHOP = """
CREATE TABLE customers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, photo BLOB, balance DECIMAL(20, 4), rating REAL, active BOOLEAN,
    born DATE, seen DATETIME, seen_tz TIMESTAMPTZ, wakes TIME, about JSON, key UUID, visits BIGINT, code VARCHAR(10),
    anything, odd FANTASY, label TEXT GENERATED ALWAYS AS (upper(name)) STORED, twice AS (visits * 2) VIRTUAL
);
INSERT INTO customers VALUES
    (1, 'Zoë 李雷 🙂', x'00ff', 10.5, 1.5, 1, '2024-01-02', '2024-01-02 03:04:05', '2024-01-02 03:04:05+02:00', '03:04:05',
     '{"tags": ["a", null], "n": 9007199254740993}', '00000000-0000-0000-0000-000000000001', 9007199254740993, 'x', 7,
     'o'),
    (9223372036854775807, '', x'', -3, 9e999, 0, 20240102, 1704164645, NULL, NULL, 'no {json', NULL, NULL, 12, x'01',
     1.25),
    (-1, CAST(x'61ff62' AS TEXT), 'text', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE empty (a INT NOT NULL, b TEXT);
CREATE TABLE strict (a INTEGER PRIMARY KEY, b ANY, c INT NOT NULL, d TEXT) STRICT;
INSERT INTO strict VALUES (1, '007', 2, NULL), (2, 1.5, 3, 'd');
CREATE TABLE pairs (a TEXT, b INTEGER, note TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO pairs VALUES ('x', 1, NULL), ('x', 2, 'second');
CREATE TABLE "odd ""name"".t" ("a b" INT, "c""d" INT);
INSERT INTO "odd ""name"".t" VALUES (1, 2);
CREATE VIEW spenders AS SELECT id, name, length(name) AS n FROM customers WHERE balance > 0;
CREATE VIRTUAL TABLE words USING fts5 (body, tag);
INSERT INTO words VALUES ('hello world', 'greeting'), ('good bye', NULL);
CREATE VIRTUAL TABLE boxes USING rtree (id, low, high);
INSERT INTO boxes VALUES (1, 2, 3);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);
"""


@contextmanager
def folder() -> Iterator[Path]:
    """The files, one of them kept locked by another connection."""
    with private_folder() as root, closing(database(root / "shop.db", _SHOP)):
        whole = (root / "shop.db").read_bytes()
        (root / "text.db").write_text("id,name\n1,x\n" * 100)
        (root / "encrypted.db").write_bytes(bytes((place * 131 + 89) % 256 for place in range(8192)))
        (root / "cut-off.db").write_bytes(whole[:5000])
        (root / "short.db").write_bytes(whole[:50])
        (root / "overwritten.db").write_bytes(whole[:100] + b"\xaa" * (len(whole) - 100))
        (root / "folder.db").mkdir()
        (root / "to-system.db").symlink_to("/etc/passwd")
        with closing(database(root / "locked.db", "CREATE TABLE t (a)")) as owner:
            owner.execute("BEGIN EXCLUSIVE")
            yield root


def database(path: Path, script: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.executescript(script)
    return connection


def kind(start: Start, ports: Ports) -> Kind:
    root = start(folder)
    refused, damaged = ("resolve", "egress_refused"), ("connect", "response_invalid")
    other = ("connect", "protocol_mismatch")
    return Kind(
        "sqlite",
        {"path": "shop.db"},
        {},
        (
            Case("wrong_path", "resolve", "not_found", {"path": "nowhere.db"}),
            Case("wrong_folder", "resolve", "not_found", {"path": "shop.db/x"}),
            Case("a_folder", "resolve", "invalid_configuration", {"path": "folder.db"}),
            Case("above_the_root", *refused, {"path": "../shop.db"}),
            Case("outside", *refused, {"path": "/etc/passwd"}),
            Case("outside_and_missing", *refused, {"path": "/nowhere/x.db"}),
            Case("link_to_outside", *refused, {"path": "to-system.db"}),
            Case("memory_of_a_process", *refused, {"path": "/proc/self/environ"}),
            Case("in_memory", "resolve", "not_found", {"path": ":memory:"}),
            Case("as_a_uri", "resolve", "not_found", {"path": "file:shop.db?mode=rwc"}),
            Case("text", *other, {"path": "text.db"}),
            Case("encrypted", *other, {"path": "encrypted.db"}),
            Case("short", *damaged, {"path": "short.db"}),
            Case("cut_off", *damaged, {"path": "cut-off.db"}),
            Case("overwritten", *damaged, {"path": "overwritten.db"}),
            Case("locked", "connect", "timeout", {"path": "locked.db", "lock_timeout_s": 0.3}),
        ),
        {
            ("boxes",): (
                "virtual_table",
                (("id", "integer", "INT", True), ("low", "number", "REAL", True), ("high", "number", "REAL", True)),
            ),
            ("counted",): ("table", (("id", "integer", "INTEGER", False),)),
            ("customers",): (
                "table",
                (
                    ("id", "integer", "INTEGER", False),
                    ("name", "string", "TEXT", False),
                    ("photo", "binary", "BLOB", True),
                    ("balance", "decimal", "DECIMAL(20, 4)", True),
                    ("rating", "number", "REAL", True),
                    ("active", "boolean", "BOOLEAN", True),
                    ("born", "date", "DATE", True),
                    ("seen", "timestamp", "DATETIME", True),
                    ("seen_tz", "timestamp_tz", "TIMESTAMPTZ", True),
                    ("wakes", "time", "TIME", True),
                    ("about", "json", "JSON", True),
                    ("key", "uuid", "UUID", True),
                    ("visits", "integer", "BIGINT", True),
                    ("code", "string", "VARCHAR(10)", True),
                    ("anything", "unknown", "", True),
                    ("odd", "unknown", "FANTASY", True),
                    ("label", "string", "TEXT", True),
                    ("twice", "unknown", "", True),
                ),
            ),
            ("empty",): ("table", (("a", "integer", "INT", False), ("b", "string", "TEXT", True))),
            ('odd "name".t',): ("table", (("a b", "integer", "INT", True), ('c"d', "integer", "INT", True))),
            ("pairs",): (
                "table",
                (
                    ("a", "string", "TEXT", False),
                    ("b", "integer", "INTEGER", False),
                    ("note", "string", "TEXT", True),
                ),
            ),
            ("spenders",): (
                "view",
                (("id", "integer", "INTEGER", True), ("name", "string", "TEXT", True), ("n", "unknown", "", True)),
            ),
            ("strict",): (
                "table",
                (
                    ("a", "integer", "INTEGER", False),
                    ("b", "unknown", "ANY", True),
                    ("c", "integer", "INT", False),
                    ("d", "string", "TEXT", True),
                ),
            ),
            ("words",): ("virtual_table", (("body", "unknown", "", True), ("tag", "unknown", "", True))),
        },
        {
            ("customers",): [
                [-1, "a\\xffb", "dGV4dA==", *[None] * 13, "A\\xffB", None],
                [
                    1,
                    "Zoë 李雷 🙂",
                    "AP8=",
                    "10.5",
                    1.5,
                    True,
                    "2024-01-02",
                    "2024-01-02T03:04:05",
                    "2024-01-02T03:04:05+02:00",
                    "03:04:05",
                    {"tags": ["a", None], "n": "9007199254740993"},
                    "00000000-0000-0000-0000-000000000001",
                    "9007199254740993",
                    "x",
                    7,
                    "o",
                    "ZOë 李雷 🙂",
                    "18014398509481986",
                ],
                [
                    "9223372036854775807",
                    "",
                    "",
                    "-3",
                    "Infinity",
                    False,
                    20240102,
                    1704164645,
                    None,
                    None,
                    "no {json",
                    None,
                    None,
                    "12",
                    "AQ==",
                    1.25,
                    "",
                    None,
                ],
            ],
            ("pairs",): [["x", 1, None], ["x", 2, "second"]],
            ("strict",): [[1, "007", 2, None], [2, 1.5, 3, "d"]],
            ("spenders",): [[1, "Zoë 李雷 🙂", 8]],
            ("words",): [["hello world", "greeting"], ["good bye", None]],
            ("boxes",): [[1, 2.0, 3.0]],
            ('odd "name".t',): [[1, 2]],
            ("empty",): [],
            ("counted",): [],
        },
        statuses=("passed", "passed", "skipped", "skipped", "passed"),
        server={"product": "SQLite", "version": sqlite3.sqlite_version, "encryption": "none"},
        policy={"files_root": str(root)},
        dials=False,
    )
