"""Bytes that are no UTF-8, in sources that promise it: shown as what they are, and said to be so."""

from __future__ import annotations

from pathlib import Path

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.contract.config import NoSecrets
from app.connectors.contract.objects import PreviewRequest
from app.connectors.types.sqlite import Sqlite, SqliteConfig
from app.connectors.values.bad_bytes import NOT_UTF8, ByteTexts, name_shown, name_shown_so
from app.core.egress import EgressPolicy
from tests.connectors.test_sqlite import made

pytestmark = [pytest.mark.anyio, pytest.mark.found("D12")]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"caf\xe9", "caf\\xe9"),
        ("Zoë".encode() + b"\xff", "Zoë\\xff"),
        ("€".encode()[:-1], "\\xe2\\x82"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        (b"\xc0\xaf", "\\xc0\\xaf"),
    ],
)
def test_bad_bytes_are_shown_in_every_way_of_reading(content: bytes, shown: str) -> None:
    texts, in_json, driver = ByteTexts(), ByteTexts(), ByteTexts()
    assert texts.shown(content) == shown
    assert in_json.shown(b'"' + content + b'"', in_json=True) == '"' + shown.replace("\\", "\\\\") + '"'
    assert content.decode("utf-8", driver.error_handler()) == shown
    assert {one.notes for one in (texts, in_json, driver)} == {(NOT_UTF8,)}


@given(st.text())
def test_good_texts_are_left_alone_and_need_no_note(text: str) -> None:
    texts = ByteTexts()
    content = text.encode("utf-8", "ignore")
    assert texts.shown(content).encode() == content
    assert texts.notes == ()


def test_bson_with_bad_bytes_is_read_by_its_driver() -> None:
    texts = ByteTexts()
    options: CodecOptions[dict[str, str]] = CodecOptions(unicode_decode_error_handler=texts.error_handler())
    document = bson.encode({"a": "caf#", "b": "é"}).replace(b"#", b"\xe9")
    assert bson.decode(document, options) == {"a": "caf\\xe9", "b": "é"}
    assert texts.notes == (NOT_UTF8,)


async def test_a_sqlite_file_with_bad_bytes_shows_them(tmp_path: Path) -> None:
    made(
        tmp_path / "a.db",
        "CREATE TABLE bad (t TEXT); INSERT INTO bad VALUES (CAST(x'636166e9' AS TEXT)), ('é');"
        "CREATE TABLE good (t TEXT); INSERT INTO good VALUES ('é');",
    ).close()
    connector = Sqlite(SqliteConfig(path="a.db"), NoSecrets(), EgressPolicy(files_root=str(tmp_path)))
    bad = await connector.preview(PreviewRequest(path=("bad",)))
    assert (bad.rows, bad.notes) == ([["caf\\xe9"], ["é"]], (NOT_UTF8,))
    good = await connector.preview(PreviewRequest(path=("good",)))
    assert (good.rows, good.notes) == ([["é"]], ())


@given(st.binary() | st.text(alphabet="\\\\x5ce9fé\x00").map(str.encode))
def test_every_name_is_shown_so_that_it_leads_back(name: bytes) -> None:
    assert name_shown_so(name_shown(name)) == name
    name_shown(name).encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"caf\xe9.csv", "caf\\xe9.csv"), (b"caf\\xe9", "caf\\x5cxe9"), (b"a\\b", "a\\b"), (b"\\x5c", "\\x5cx5c")],
)
def test_a_name_that_looks_like_a_byte_is_told_from_one(name: bytes, shown: str) -> None:
    assert name_shown(name) == shown
