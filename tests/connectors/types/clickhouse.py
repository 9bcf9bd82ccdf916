"""ClickHouse, on Debian's 18.16: the oldest that people still run."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.starting import place, private_folder, program, running, tls_front, unprivileged
from tests.ports import free_port

NEEDS_SERVICES = True

PASSWORD = f"pw-{CANARY}"
ODD_PASSWORD = f" pw:{CANARY} ü€\t"

_CONFIG = """<yandex>
  <logger><level>error</level><console>1</console></logger>
  <http_port>{port}</http_port><listen_host>127.0.0.1</listen_host>
  <path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path><users_config>users.xml</users_config>
  <default_profile>default</default_profile><default_database>default</default_database>
  <mark_cache_size>5368709</mark_cache_size><timezone>Asia/Tokyo</timezone>
  <dictionaries_config>dictionaries.xml</dictionaries_config>
</yandex>"""
_USERS = """<yandex>
  <profiles>
    <default><allow_experimental_low_cardinality_type>1</allow_experimental_low_cardinality_type></default>
    <reads><readonly>1</readonly></reads><sets><readonly>2</readonly></sets>
    <cutting><max_result_rows>1</max_result_rows><result_overflow_mode>break</result_overflow_mode>
      <output_format_json_quote_64bit_integers>0</output_format_json_quote_64bit_integers>
      <extremes>1</extremes></cutting>
    <held><profile>cutting</profile><readonly>1</readonly></held>
    <blinkered><max_rows_to_read>100000</max_rows_to_read><read_overflow_mode>break</read_overflow_mode>
      <readonly>1</readonly></blinkered>
    <hasty><max_rows_to_read>1</max_rows_to_read></hasty>
  </profiles>
  <quotas><default/><none><interval><duration>3600</duration><queries>1</queries></interval></none></quotas>
  <users>
    <admin><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota></admin>
    {users}
  </users>
</yandex>"""
_USER = """<{name}><password>{password}</password><networks><ip>{network}</ip></networks><profile>{profile}</profile>
  <quota>default</quota><allow_databases><database>shop</database><database>odd.base</database></allow_databases>
</{name}>"""
_DICTIONARIES = """<yandex><dictionary><name>codes</name>
  <source><file><path>{folder}/codes.tsv</path><format>TabSeparated</format></file></source>
  <lifetime>0</lifetime><layout><flat/></layout>
  <structure><id><name>id</name></id>
    <attribute><name>name</name><type>String</type><null_value/></attribute></structure>
</dictionary></yandex>"""

SHOP = (
    "CREATE DATABASE shop",
    "CREATE DATABASE closed",
    "CREATE DATABASE `odd.base`",
    """CREATE TABLE shop.orders (
        id UInt64, name Nullable(String), total Decimal(12, 2), exact Decimal(38, 10), at DateTime('Europe/Berlin'),
        local DateTime, day Date, ratio Float64, single Nullable(Float32), raw FixedString(4),
        mood Enum8('glad' = 1, 'it\\'s, (bad' = -2), key UUID, small Int8,
        nums Array(Nullable(Int64)), prices Array(Decimal(12, 2)), grid Array(Array(Float64)),
        times Array(DateTime('Europe/Berlin')), pair Tuple(UInt64, String), named Tuple(left UInt8, right String),
        lines Nested(sku String, amount UInt8), tag LowCardinality(Nullable(String)),
        doubled Int16 MATERIALIZED small * 2, tripled Int16 ALIAS small * 3, hub_0 UInt8 DEFAULT 9
    ) ENGINE = MergeTree ORDER BY id""",
    """INSERT INTO shop.orders (id, name, total, exact, at, local, day, ratio, single, raw, mood, key, small, nums, prices,
        grid, times, pair, named, lines.sku, lines.amount, tag) VALUES
        (2, NULL, -0.10, 0, 0, 0, 0, 0/0, NULL, '', 'glad', '00000000-0000-0000-0000-000000000000', -1, [], [], [], [],
            (0, ''), (0, ''), [], [], NULL)""",
    """INSERT INTO shop.orders (id, name, total, exact, at, local, day, ratio, single, raw, mood, key, small, nums, prices,
        grid, times, pair, named, lines.sku, lines.amount, tag) VALUES
        (18446744073709551615, 'Zoë 李雷 🦆', 10.50, '12345678901234567890.0123456789', '2024-01-02 03:04:05',
            '2024-01-02 03:04:05', '2024-01-02', 0.1, 0.1, 'abc', 'it\\'s, (bad', '00000000-0000-0000-0000-000000000001',
            7, [1, NULL, 9007199254740993], [10.50, 3], [[1.5, 1/0], [0/0]], ['2024-07-02 03:04:05'],
            (9007199254740993, 'x'), (1, 'y'), ['a', 'b'], [1, 2], 'new')""",
    "OPTIMIZE TABLE shop.orders FINAL",
    "CREATE TABLE shop.empty (id UInt8) ENGINE = Memory",
    "CREATE TABLE shop.sums (id UInt8, seen AggregateFunction(sum, UInt64)) ENGINE = AggregatingMergeTree ORDER BY id",
    "INSERT INTO shop.sums SELECT 1, sumState(toUInt64(21))",
    "CREATE TABLE shop.codes (id UInt64, name String) ENGINE = Dictionary(codes)",
    "CREATE VIEW shop.recent AS SELECT id, named FROM shop.orders",
    """CREATE MATERIALIZED VIEW shop.totals ENGINE = SummingMergeTree ORDER BY name POPULATE
        AS SELECT name, sum(total) AS total FROM (SELECT ifNull(name, '') AS name, total FROM shop.orders)
        GROUP BY name""",
    r"CREATE TABLE `odd.base`.`a \`b\"'.c\\` (`x \`y\\` Int32, `100%s` String) ENGINE = Memory",
    r"INSERT INTO `odd.base`.`a \`b\"'.c\\` VALUES (7, '')",
    "CREATE TABLE closed.secret (id UInt8) ENGINE = Memory",
)


@dataclass(frozen=True)
class ClickhouseServer:
    port: int

    def run(self, query: str | bytes) -> str:
        headers = {"X-ClickHouse-User": "admin", "X-ClickHouse-Key": PASSWORD}
        content = query.encode() if isinstance(query, str) else query
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", content, headers)
        with urllib.request.urlopen(request) as answer:
            return str(answer.read().decode())


@contextmanager
def clickhouse() -> Iterator[ClickhouseServer]:
    """`reader` may set nothing, `setter` everything but that it reads only, `writer` everything; none may see the
    database `closed`. `stranger` may not come from here."""
    with private_folder() as folder:
        port = free_port()
        for name, content in _files(folder, port).items():
            place(folder / name, content.encode())
        command = [program("clickhouse-server"), f"--config-file={folder / 'config.xml'}"]
        with running(command, port, cwd=folder, **unprivileged()):
            yield ClickhouseServer(port)


def _files(folder: Path, port: int) -> dict[str, str]:
    profiles = {"reader": "reads", "setter": "sets", "writer": "default", "hasty": "hasty", "stranger": "default"}
    profiles |= {"cut": "cutting", "held": "held", "blinkered": "blinkered"}
    users = "".join(
        _USER.format(
            name=name, password=PASSWORD, profile=profile, network="10.9.8.7" if name == "stranger" else "127.0.0.1"
        )
        for name, profile in profiles.items()
    )
    odd = ODD_PASSWORD.replace("\t", "&#9;").replace(" ", "&#32;")
    users += _USER.format(name="odd", password=odd, profile="reads", network="127.0.0.1")
    return {
        "config.xml": _CONFIG.format(port=port, folder=folder),
        "users.xml": _USERS.format(password=PASSWORD, users=users),
        "dictionaries.xml": _DICTIONARIES.format(folder=folder),
        "codes.tsv": "1\tone\n2\ttwo\n",
    }


@contextmanager
def filled_clickhouse() -> Iterator[ClickhouseServer]:
    with clickhouse() as server:
        for statement in SHOP:
            server.run(statement)
        yield server


def kind(start: Start, ports: Ports) -> Kind:
    server = start(filled_clickhouse)
    tls_port = start(tls_front, server.port)
    own_ca = {"ca_certificate": authority().pem.decode()}
    tls = {"url": f"https://localhost:{tls_port}"}
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    admin = {"username": "admin"}
    wrong = {"password": f"wrong-{CANARY}"}
    return Kind(
        "clickhouse",
        {"url": f"http://localhost:{server.port}", "username": "reader"},
        {"password": PASSWORD},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_password_over_tls", "authenticate", "authentication_failed", {**tls, **own_ca}, wrong),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody_here"}),
            Case("no_password", "authenticate", "authentication_failed", {}, {"password": None}),
            Case("from_elsewhere", "authenticate", "permission_denied", {"username": "stranger"}),
            Case("wrong_database", "list", "not_found", {**admin, "database": "nowhere"}),
            Case("wrong_or_forbidden_database", "list", "permission_denied", {"database": "nowhere"}),
            Case("forbidden_database", "list", "permission_denied", {"database": "closed"}),
            Case("odd_database", "list", "not_found", {**admin, "database": "a`b'\\; DROP TABLE x"}),
            Case("too_little_allowed", "list", "response_too_large", {"username": "hasty"}),
            Case("closed_port", "connect", "connection_refused", {"url": f"http://localhost:{ports.closed}"}),
            Case("unknown_name", "resolve", "name_not_resolved", {"url": "http://nowhere.invalid:8123"}),
            Case("link_local", "resolve", "egress_refused", {"url": "http://169.254.169.254/latest"}),
            Case("silent", "connect", "timeout", {"url": f"http://localhost:{ports.silent}", **hasty}),
            Case("silent_tls", "tls", "timeout", {"url": f"https://localhost:{ports.silent}", **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", {"url": f"http://localhost:{ports.ssh}"}),
            Case("no_tls", "tls", "tls_unavailable", {"url": f"https://localhost:{server.port}"}),
            Case("unknown_ca", "tls", "tls_certificate_invalid", tls),
            Case("other_name", "tls", "tls_certificate_invalid", {**own_ca, "url": f"https://127.0.0.1:{tls_port}"}),
            Case("broken_ca", "tls", "invalid_configuration", {**tls, "ca_certificate": "-----BEGIN X\n"}),
        ),
        {
            ("odd.base", _ODD_NAME): (
                "table",
                (("x `y\\", "integer", "Int32", False), ("100%s", "string", "String", False)),
            ),
            ("shop", "codes"): (
                "dictionary",
                (("id", "integer", "UInt64", False), ("name", "string", "String", False)),
            ),
            ("shop", "empty"): ("table", (("id", "integer", "UInt8", False),)),
            ("shop", "orders"): ("table", _ORDERS),
            ("shop", "recent"): (
                "view",
                (
                    ("id", "integer", "UInt64", False),
                    ("named", "object", "Tuple(left UInt8, right String)", False),
                ),
            ),
            ("shop", "sums"): (
                "table",
                (
                    ("id", "integer", "UInt8", False),
                    ("seen", "unknown", "AggregateFunction(sum, UInt64)", False),
                ),
            ),
            ("shop", "totals"): (
                "materialized_view",
                (("name", "string", "String", False), ("total", "decimal", "Decimal(38, 2)", False)),
            ),
        },
        {
            ("shop", "orders"): [_SPARSE, _FULL],
            ("shop", "empty"): [],
            ("shop", "codes"): [[1, "one"], [2, "two"]],
            ("shop", "sums"): [[1, "21"]],
            ("shop", "totals"): [["", "-0.10"], ["Zoë 李雷 🦆", "10.50"]],
            ("odd.base", _ODD_NAME): [[7, ""]],
        },
        server={"encryption": "none", "product": "ClickHouse", "version": "18.16.1"},
    )


_ODD_NAME = "a `b\"'.c\\"
_ORDERS = (
    ("id", "integer", "UInt64", False),
    ("name", "string", "Nullable(String)", True),
    ("total", "decimal", "Decimal(12, 2)", False),
    ("exact", "decimal", "Decimal(38, 10)", False),
    ("at", "timestamp_tz", "DateTime('Europe/Berlin')", False),
    ("local", "timestamp_tz", "DateTime", False),
    ("day", "date", "Date", False),
    ("ratio", "number", "Float64", False),
    ("single", "number", "Nullable(Float32)", True),
    ("raw", "string", "FixedString(4)", False),
    ("mood", "string", "Enum8('it\\'s, (bad' = -2, 'glad' = 1)", False),
    ("key", "uuid", "UUID", False),
    ("small", "integer", "Int8", False),
    ("nums", "array", "Array(Nullable(Int64))", False),
    ("prices", "array", "Array(Decimal(12, 2))", False),
    ("grid", "array", "Array(Array(Float64))", False),
    ("times", "array", "Array(DateTime('Europe/Berlin'))", False),
    ("pair", "array", "Tuple(UInt64, String)", False),
    ("named", "object", "Tuple(left UInt8, right String)", False),
    ("lines.sku", "array", "Array(String)", False),
    ("lines.amount", "array", "Array(UInt8)", False),
    ("tag", "string", "LowCardinality(Nullable(String))", True),
    ("hub_0", "integer", "UInt8", False),
    ("doubled", "integer", "Int16", False),
    ("tripled", "integer", "Int16", False),
)
_SPARSE = [
    *(2, None, "-0.10", "0.0000000000", "0000-00-00 00:00:00", "0000-00-00 00:00:00", "0000-00-00", "NaN", None),
    *("\0\0\0\0", "glad", "00000000-0000-0000-0000-000000000000", -1, [], [], [], [], [0, ""]),
    *({"left": 0, "right": ""}, [], [], None, 9, -2, -3),
]
_FULL = [
    *("18446744073709551615", "Zoë 李雷 🦆", "10.50", "12345678901234567890.0123456789", "2024-01-02T02:04:05Z"),
    *("2024-01-01T18:04:05Z", "2024-01-02", 0.1, 0.1, "abc\0", "it's, (bad"),
    *("00000000-0000-0000-0000-000000000001", 7, [1, None, "9007199254740993"], ["10.50", "3.00"]),
    *([[1.5, "Infinity"], ["NaN"]], ["2024-07-02T01:04:05Z"], ["9007199254740993", "x"]),
    *({"left": 1, "right": "y"}, ["a", "b"], [1, 2], "new", 9, 14, 21),
]
