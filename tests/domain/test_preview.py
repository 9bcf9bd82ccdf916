"""Previews: sample rows of an object, as JSON and as CSV, for those who may see them."""

import csv
import io
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from arro3.io import read_ipc_stream

from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, Shop, discovered_shop, faults, objects, open_shop, registered

pytestmark = pytest.mark.anyio

CSV = {"Accept": "text/csv"}


@pytest.fixture(scope="module")
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


@pytest.fixture(scope="module")
async def path(hub: Hub, shop: Shop) -> str:
    """The path of a source that was discovered."""
    return await discovered_shop(hub, shop)


async def preview(hub: Hub, path: str, body: Any, **headers: str) -> httpx.Response:
    return await hub.admin.post(f"{path}/preview", json=body, headers=headers)


async def test_a_preview_shows_columns_and_rows(hub: Hub, path: str) -> None:
    answer = await preview(hub, path, {"object": "public.orders", "columns": ["name", "total", "paid"], "limit": 2})
    shown = answer.json()
    assert set(shown) == {"columns", "rows", "truncated", "duration_ms", "notes"}
    assert shown["columns"] == [
        {"name": "name", "type": "string"}, {"name": "total", "type": "decimal"}, {"name": "paid", "type": "boolean"},
    ]  # fmt: skip
    assert shown["rows"] == [["order 1", "1.50", False], ["order 2", "3.00", True]]
    assert shown["truncated"] is True


@pytest.mark.parametrize(
    ("limit", "rows", "truncated"), [(1, 1, True), (29, 29, True), (30, 30, False), (1000, 30, False)]
)
async def test_a_limit_is_kept_and_truncation_told(hub: Hub, path: str, limit: int, rows: int, truncated: bool) -> None:
    shown = (await preview(hub, path, {"object": "public.orders", "limit": limit})).json()
    assert (len(shown["rows"]), shown["truncated"]) == (rows, truncated)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, {"object": "required"}),
        ({"object": "", "limit": 0}, {"object": "too_short", "limit": "too_small"}),
        ({"object": "a", "limit": 1001, "offset": 5}, {"limit": "too_large", "offset": "unknown_field"}),
        ({"object": "a", "limit": "5", "columns": []}, {"limit": "wrong_type", "columns": "too_short"}),
        ({"object": 5, "columns": [1]}, {"object": "wrong_type", "columns[0]": "wrong_type"}),
        ({"object": "a", "limit": 1.5}, {"limit": "wrong_type"}),
    ],
)
async def test_every_fault_of_a_preview_is_named(hub: Hub, path: str, body: Any, wanted: dict[str, str]) -> None:
    answer = await preview(hub, path, body)
    assert (answer.status_code, faults(answer)) == (400, wanted)


async def test_an_object_is_found_by_its_id_and_its_name(hub: Hub, path: str) -> None:
    found = await objects(hub, path)
    for name in ("public.orders", "public.recent", '"odd.schema"."a ""b"".c"'):
        by_name, by_id = [
            (await preview(hub, path, {"object": key, "limit": 1})).json() for key in (name, found[name]["id"])
        ]
        assert by_name["rows"] == by_id["rows"]
        assert len(by_name["rows"]) == 1


async def test_a_name_that_was_never_discovered_is_looked_for_at_the_source(hub: Hub, shop: Shop, path: str) -> None:
    await shop.run("CREATE TABLE late (id integer); INSERT INTO late VALUES (5)")
    assert (await preview(hub, path, {"object": "public.late"})).json()["rows"] == [[5]]


@pytest.mark.parametrize(
    "name",
    [
        "public.nope",
        "nope",
        "public",
        "public.orders.id",
        'public."orders',
        "public.orders; DROP TABLE orders",
        "..",
        "'",
    ],
)
async def test_an_object_that_is_not_there_is_a_404(hub: Hub, path: str, name: str) -> None:
    answer = await preview(hub, path, {"object": name})
    assert answer.status_code == 404, answer.text
    assert answer.json()["code"] in {"object_not_found", "not_found"}


async def test_an_object_of_another_source_is_like_a_random_id(hub: Hub, shop: Shop, path: str) -> None:
    other = await registered(hub, config=shop.config, secrets={"password": shop.password})
    foreign = (await objects(hub, path))["public.orders"]["id"]
    answers = [await preview(hub, f"{SOURCES}/{other['id']}", {"object": key}) for key in (foreign, str(uuid4()))]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() | {"request_id": ""} == answers[1].json() | {"request_id": ""}


async def test_unknown_columns_are_a_400_that_names_them(hub: Hub, path: str) -> None:
    answer = await preview(
        hub, path, {"object": "public.orders", "columns": ["id", "nope", 'id"; DROP TABLE orders; --']}
    )
    assert answer.status_code == 400, answer.text
    assert faults(answer) == {"columns[1]": "unknown_column", "columns[2]": "unknown_column"}


async def test_columns_come_in_the_order_asked_for(hub: Hub, path: str) -> None:
    shown = (await preview(hub, path, {"object": "public.orders", "columns": ["total", "id"], "limit": 1})).json()
    assert shown["rows"] == [["1.50", 1]]


async def test_a_value_that_is_too_long_is_cut_and_told(hub: Hub, shop: Shop, path: str) -> None:
    await shop.run(
        "CREATE TABLE long (doc text); INSERT INTO long SELECT repeat('x', 3000000) FROM generate_series(1, 40)"
    )
    answer = await preview(hub, path, {"object": "public.long", "limit": 1000})
    assert answer.json()["truncated"] is True
    assert len(answer.content) < 1_200_000


async def test_a_source_that_fails_is_a_409_that_says_why(hub: Hub, shop: Shop, closed_port: int) -> None:
    """Never a 5xx: the hub is well, and what is wrong is in the source or between."""
    cases = [
        (shop.config | {"port": closed_port}, "source_connection_refused"),
        (NOWHERE, "source_name_not_resolved"),
        (shop.config | {"username": "nobody"}, "source_authentication_failed"),
        (shop.config | {"host": "169.254.169.254"}, "source_egress_refused"),
    ]
    for config, code in cases:
        made = await registered(hub, config=config, secrets={"password": "pw"})
        answer = await preview(hub, f"{SOURCES}/{made['id']}", {"object": "a"})
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        retry_helps = code in {"source_connection_refused", "source_name_not_resolved"}
        assert ("retry-after" in answer.headers) is retry_helps


async def test_a_preview_is_on_record(hub: Hub, path: str, records: Records) -> None:
    answer = await preview(hub, path, {"object": "public.orders", "limit": 1})
    use, row = sorted(await records.audit(answer), key=lambda each: str(each["action"]), reverse=True)
    assert (use["action"], use["detail"]) == ("secret.use", "preview: password v1")
    assert (row["action"], row["after"]) == ("data_source.preview", {"object": "public.orders"})


async def test_a_preview_needs_its_own_permission(hub: Hub, path: str) -> None:
    body = {"object": "public.orders", "limit": 1}
    may_not = await hub.user_with("data-sources:read", "data-sources:write", "data-sources:test")
    may = await hub.user_with("data-sources:preview")
    assert (await may_not.post(f"{path}/preview", json=body)).status_code == 403
    assert (await may.post(f"{path}/preview", json=body)).status_code == 200


# --- CSV ---


async def test_csv_has_a_header_and_the_rows(hub: Hub, path: str) -> None:
    body = {"object": "public.orders", "columns": ["id", "name", "paid"], "limit": 2}
    answer = await preview(hub, path, body, **CSV)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text == "id,name,paid\r\n1,order 1,false\r\n2,order 2,true\r\n"


CELLS = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\r=1",
    "＝1+1": "'＝1+1",
    "-5": "-5",
    "+1.5e3": "+1.5e3",
    "plain, \"quoted\"\nand broken": "plain, \"quoted\"\nand broken",
    "a=b": "a=b",
    "": "",
}  # fmt: skip


async def test_csv_cells_are_no_formulas(hub: Hub, shop: Shop, path: str) -> None:
    """Spreadsheets run what begins like a formula; whoever writes into a source must not reach whoever opens its preview."""
    await shop.run("TRUNCATE cells")
    rows = ", ".join(f"({place}, E'{_literal(text)}', -1.50, '{{\"a\": 1}}')" for place, text in enumerate(CELLS))
    await shop.run(f"INSERT INTO cells VALUES {rows}; INSERT INTO cells VALUES (99, NULL, NULL, NULL)")
    body = {"object": "public.cells", "limit": 100}
    found = list(csv.reader(io.StringIO((await preview(hub, path, body, **CSV)).text, newline="")))
    assert found[0] == ["id", "cell", "amount", "doc"]
    assert {row[1]: row[2:] for row in found[1:-1]} == {text: ["-1.50", '{"a":1}'] for text in CELLS.values()}
    assert found[-1] == ["99", "", "", ""]
    exact = (await preview(hub, path, body)).json()["rows"]
    assert [row[1] for row in exact[:-1]] == list(CELLS)


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


async def test_csv_headings_are_no_formulas(hub: Hub, shop: Shop, path: str) -> None:
    await shop.run('CREATE TABLE heads ("=1+1" integer, "a,b" integer); INSERT INTO heads VALUES (1, 2)')
    answer = await preview(hub, path, {"object": "public.heads"}, **CSV)
    assert answer.text == '\'=1+1,"a,b"\r\n1,2\r\n'


async def test_a_failed_preview_is_an_error_whatever_was_asked_for(hub: Hub, path: str) -> None:
    answer = await preview(hub, path, {"object": "public.nope"}, **CSV)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


# --- Arrow ---

ARROW = {"Accept": "application/vnd.apache.arrow.stream"}


async def test_arrow_has_the_types_and_the_rows(hub: Hub, shop: Shop, path: str) -> None:
    await shop.run(
        "CREATE TABLE arrows (id bigint, total numeric(12,3), at timestamptz, local timestamp, day date, ok boolean,"
        " ratio double precision, raw bytea, doc jsonb, name text);"
        "INSERT INTO arrows VALUES (9007199254740993, 10.5, '2024-01-02 03:04:05.678901+02', '2024-01-02 03:04:05',"
        " '2024-01-02', true, 'NaN', '\\x00ff', '{\"a\": [1]}', 'Zoë'),"
        " (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    answer = await preview(hub, path, {"object": "public.arrows"}, **ARROW)
    assert answer.headers["content-type"] == ARROW["Accept"]
    table = read_ipc_stream(io.BytesIO(answer.content)).read_all()
    assert [str(field.type).strip() for field in (table.schema.field(name) for name in table.column_names)] == [
        f"arro3.core.DataType<{name}>"
        for name in (
            *("Int64", "Decimal128(38, 3)", 'Timestamp(µs, "UTC")', "Timestamp(µs)", "Date32", "Boolean"),
            *("Float64", "Binary", "Utf8", "Utf8"),
        )
    ]
    first, second = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    assert first[0] == 9007199254740993
    assert first[1] == Decimal("10.500")
    assert first[2] == datetime(2024, 1, 2, 1, 4, 5, 678901, tzinfo=UTC)
    assert first[5:6] + first[7:] == (True, b"\x00\xff", '{"a":[1]}', "Zoë")
    assert math.isnan(first[6])
    assert second == (None,) * 10


async def test_arrow_loses_no_value_that_does_not_fit_its_type(hub: Hub, shop: Shop, path: str) -> None:
    await shop.run("CREATE TABLE ends (at timestamptz); INSERT INTO ends VALUES ('infinity'), ('2024-01-02Z')")
    answer = await preview(hub, path, {"object": "public.ends"}, **ARROW)
    table = read_ipc_stream(io.BytesIO(answer.content)).read_all()
    assert table["at"].to_pylist() == ["infinity", "2024-01-02T00:00:00Z"]


async def test_an_empty_object_is_an_arrow_stream_without_rows(hub: Hub, shop: Shop, path: str) -> None:
    await shop.run("CREATE TABLE nothing (id integer, name text)")
    answer = await preview(hub, path, {"object": "public.nothing"}, **ARROW)
    table = read_ipc_stream(io.BytesIO(answer.content)).read_all()
    assert (table.column_names, table.num_rows) == (["id", "name"], 0)
