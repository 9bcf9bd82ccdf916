"""Signing keys are taken in and out while a hub runs: no token goes to a process that does not know its key."""

import time
from pathlib import Path
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.core import security
from app.core.errors import Unauthenticated
from app.core.security import Tokens
from app.core.signing_keys import SigningKey, SigningKeyFile, generate_signing_key, read_signing_keys

OLD, NEW = SigningKey(Ed25519PrivateKey.generate()), SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
def tokens() -> Tokens:
    return Tokens([OLD], issuer="https://hub.example.org")


def issued(tokens: Tokens) -> str:
    return tokens.issue(subject=uuid4(), session=uuid4(), tenant=uuid4())


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


def shown(tokens: Tokens) -> list[str]:
    return [key["kid"] for key in tokens.jwks()["keys"]]


def test_a_key_at_the_end_is_shown_and_verifies_and_does_not_sign(tokens: Tokens) -> None:
    before = issued(tokens)
    tokens.take([OLD, NEW])
    assert shown(tokens) == [OLD.kid, NEW.kid]
    assert kid_of(issued(tokens)) == OLD.kid
    tokens.verify(before.encode())
    tokens.verify(issued(Tokens([NEW], issuer=tokens.issuer)).encode())


def test_a_key_that_was_known_signs_as_soon_as_it_is_first(tokens: Tokens) -> None:
    tokens.take([OLD, NEW])
    before = issued(tokens)
    tokens.take([NEW, OLD])
    assert kid_of(issued(tokens)) == NEW.kid
    tokens.verify(before.encode())


def test_a_key_that_was_not_known_signs_a_little_later(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens.take([NEW, OLD])
    assert shown(tokens) == [NEW.kid, OLD.kid]
    assert kid_of(issued(tokens)) == OLD.kid
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + security.SIGNS_AFTER_S + 0.1)
    assert kid_of(issued(tokens)) == NEW.kid


def test_nothing_is_signed_with_a_key_that_is_gone(tokens: Tokens) -> None:
    before = issued(tokens)
    tokens.verify(before.encode())
    tokens.take([NEW])
    assert kid_of(issued(tokens)) == NEW.kid
    with pytest.raises(Unauthenticated):
        tokens.verify(before.encode())


def test_a_file_is_taken_when_two_looks_have_found_the_same(tmp_path: Path) -> None:
    taken: list[list[str]] = []
    path = tmp_path / "signing-keys.pem"
    file = SigningKeyFile(path, lambda keys: taken.append([key.kid for key in keys]))
    one, other = generate_signing_key(), generate_signing_key()
    for content in (one, one + other[:40], one + other, one + other, one + other):
        file.take(content)
    path.write_bytes(one + other)
    assert taken == [[key.kid for key in read_signing_keys(path)]]


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_file_changes_nothing_and_is_told_once(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[object] = []
    file = SigningKeyFile(tmp_path / "signing-keys.pem", taken.append)
    for _ in range(5):
        file.take(content)
    assert taken == []
    assert [record.getMessage()[:37] for record in caplog.records] == [
        "the signing keys stay as they are: " + str(tmp_path)[:2]
    ]
