"""How values of a preview are written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.connectors.values.json_text import read_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("-0.0", -0.0),
        ("1.50", 1.5),
        ("1e5", 100000.0),
        ("9007199254740993", "9007199254740993"),
        ("9007199254740993.5", "9007199254740993.5"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("1e400", "1e400"),
        ("1e-400", "1e-400"),
        ("1e99999999999999999999", "1e99999999999999999999"),
        ('{"a": [12345678901234567890.5, {"b": 2.5}]}', {"a": ["12345678901234567890.5", {"b": 2.5}]}),
    ],
)
def test_a_number_in_a_json_text_keeps_every_digit(text: str, value: Any) -> None:
    assert read_json(text) == value
    assert msgspec.json.decode(msgspec.json.encode(read_json(text))) == value
