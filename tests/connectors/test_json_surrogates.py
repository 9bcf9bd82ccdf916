"""One half of a surrogate pair in JSON, as a name or a value: it keeps nothing else from being listed and read."""

from __future__ import annotations

import msgspec
import pytest

from app.connectors.files.text_rows import read
from app.connectors.values.json_text import Digits, decode_json, read_json
from app.connectors.values.message_rows import read_bodies

pytestmark = pytest.mark.found("D2")


@pytest.mark.parametrize(
    "text",
    [
        r'{"\uD800": 1, "v": 1e400}',
        r'{"a": {"\udfff": ["\uDBFF"]}, "v": 1e400}',
        r'{"a": "\ud83d x", "\u0000": 2, "v": 1e400}',
        r'{"a": [[{"b": "\udc00\ud800"}]], "v": 1e400}',
    ],
)
def test_what_is_read_can_be_sent_and_no_number_loses_a_digit(text: str) -> None:
    for given in (text, text.encode()):
        assert isinstance(decode_json(given)["v"], Digits)
        assert rb"\\ud" in msgspec.json.encode(read_json(given))


def test_a_field_that_is_named_so_is_listed_and_read() -> None:
    line = rb'{"\ud800": "x", "b": 1}'
    for name, content in (("a.ndjson", line + b"\n"), ("a.json", b"[" + line + b"]")):
        table = read(name, content, is_whole=True)
        assert [field.name for field in table.fields] == [r"\ud800", "b"]
        assert table.rows == [["x", 1]]


def test_a_message_with_such_a_name_is_read() -> None:
    (row,) = read_bodies("value", [rb'{"\ud800": 1}']).values
    assert row[r"value.\ud800"] == 1


def test_whole_pairs_stay_characters() -> None:
    assert decode_json(r'["\ud83d\ude00", NaN]')[0] == "😀"
