"""SS5: a sealed value opens in its own place and nowhere else, under its own key and no other."""

import base64
import os
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.core.sealing import KeyRing, SealingError

TENANT, ROW = uuid4(), uuid4()
PLACE: dict[str, Any] = {"tenant_id": TENANT, "row_id": ROW, "field": "password"}


def ring_of(*ids: str) -> KeyRing:
    return KeyRing((key_id, key_id.encode().ljust(32, b".")) for key_id in ids)


@pytest.mark.parametrize("plaintext", [b"", b"\x00", b"s3cret", os.urandom(100_000)])
def test_a_value_opens_where_it_was_sealed(plaintext: bytes) -> None:
    assert ring_of("k1").open(ring_of("k1").seal(plaintext, **PLACE), **PLACE) == plaintext


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"tenant_id": uuid4()},
        {"row_id": uuid4()},
        {"field": "passwor"},
        {"field": "password "},
        {"field": ""},
        {"tenant_id": ROW, "row_id": TENANT},
        {"row_id": UUID(int=ROW.int ^ 1)},
    ],
)
def test_a_value_copied_elsewhere_does_not_open(elsewhere: dict[str, object]) -> None:
    sealed = ring_of("k1").seal(b"s3cret", **PLACE)
    with pytest.raises(SealingError) as caught:
        ring_of("k1").open(sealed, **(PLACE | elsewhere))
    assert "s3cret" not in str(caught.value)


def test_no_byte_can_be_changed() -> None:
    sealed = ring_of("k1").seal(b"s3cret", **PLACE)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 0x01
        with pytest.raises(SealingError):
            ring_of("k1").open(bytes(altered), **PLACE)


def test_no_part_opens() -> None:
    sealed = ring_of("k1").seal(b"s3cret", **PLACE)
    for length in range(len(sealed)):
        with pytest.raises(SealingError):
            ring_of("k1").open(sealed[:length], **PLACE)
    with pytest.raises(SealingError):
        ring_of("k1").open(sealed + b"x", **PLACE)


def test_the_same_value_is_never_sealed_alike() -> None:
    assert len({ring_of("k1").seal(b"s3cret", **PLACE) for _ in range(100)}) == 100


def test_the_first_key_seals_and_every_key_opens() -> None:
    old = ring_of("old").seal(b"s3cret", **PLACE)
    both = ring_of("new", "old")
    assert both.open(old, **PLACE) == b"s3cret"
    new = both.seal(b"s3cret", **PLACE)
    assert ring_of("new").open(new, **PLACE) == b"s3cret"
    with pytest.raises(SealingError):
        ring_of("old").open(new, **PLACE)


def test_a_key_of_the_same_name_is_not_the_same_key() -> None:
    sealed = ring_of("k1").seal(b"s3cret", **PLACE)
    with pytest.raises(SealingError):
        KeyRing([("k1", b"x" * 32)]).open(sealed, **PLACE)


def test_derived_keys_differ_by_purpose_and_key() -> None:
    ring = ring_of("a", "b")
    keys = {ring.derive("x"), ring.derive("y"), ring.derive("x", "b")}
    assert len(keys) == 3
    assert all(len(key) == 32 for key in keys)
    with pytest.raises(SealingError):
        ring.derive("x", "gone")


def test_a_generated_ring_is_read_again() -> None:
    text = KeyRing.generate("k9")
    assert KeyRing.parse(text).ids == ("k9",)
    assert KeyRing.parse(f" {text} , {KeyRing.generate('k8')} ").ids == ("k9", "k8")


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing.parse(f"k:{base64.b64encode(b'x' * size).decode()}")


def test_two_keys_of_one_name_are_refused() -> None:
    """One of them would be lost silently, and with it what it sealed."""
    with pytest.raises(ValueError, match="keys"):
        KeyRing.parse(f"{KeyRing.generate('k')},{KeyRing.generate('k')}")


@pytest.mark.parametrize(
    "text", ["", ",", "k1", "k1:", ":x", "k1:%%%", "k1:" + "A" * 44, "é" * 40 + ":" + "A" * 43 + "="]
)
def test_a_ring_that_cannot_be_read_shows_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="give keys as") as caught:
        KeyRing.parse(text)
    assert "AAAA" not in str(caught.value)
