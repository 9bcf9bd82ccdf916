"""Access tokens, ST1 to ST4: what is not exactly a token of ours, for us, of now, is a 401."""

import base64
import hmac
import json
import time
from typing import Any
from uuid import uuid4

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.core.errors import Unauthenticated
from app.core.security import Tokens, bearer_token
from app.core.signing_keys import SigningKey, generate_signing_key, read_signing_keys

ISSUER = "https://hub.test"
KEY = SigningKey(ed25519.Ed25519PrivateKey.generate())
OLDER = SigningKey(ec.generate_private_key(ec.SECP256R1()))
STRANGER = SigningKey(ed25519.Ed25519PrivateKey.generate())
PUBLIC_PEM = KEY.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def tokens() -> Tokens:
    return Tokens([KEY, OLDER], issuer=ISSUER)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    names = {name: str(uuid4()) for name in ("sub", "sid", "tid", "jti")}
    found = {"iss": ISSUER, "aud": "data-fusion-hub", "iat": now, "exp": now + 900, "scope": "api", **names, **changes}
    return {name: value for name, value in found.items() if value is not ...}


def signed(payload: dict[str, Any] | None = None, key: SigningKey = KEY, **header: Any) -> bytes:
    """A token that is ours but for what is changed; a header set to `...` is left out."""
    headers = {"typ": "at+jwt", "kid": key.kid, "alg": key.algorithm} | header
    return compact({name: value for name, value in headers.items() if value is not ...}, payload or claims(), key)


def compact(header: Any, payload: Any, key: SigningKey = KEY) -> bytes:
    message = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload))
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return message + b"." + base64.urlsafe_b64encode(algorithm.sign(message, key.private)).rstrip(b"=")


def code_of(token: bytes) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens().verify(token)
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    return caught.value.code


def test_a_token_of_ours_is_verified() -> None:
    subject, session, tenant = uuid4(), uuid4(), uuid4()
    found = tokens().verify(tokens().issue(subject=subject, session=session, tenant=tenant).encode())
    assert (found.sub, found.sid, found.tid) == (subject, session, tenant)
    assert tokens().verify(signed()).scope == "api"


def test_a_token_says_what_rfc_9068_asks_for() -> None:
    token = tokens().issue(subject=uuid4(), session=uuid4(), tenant=uuid4())
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": KEY.kid, "typ": "at+jwt"}
    found = jwt.decode(token, KEY.public, algorithms=["EdDSA"], audience="data-fusion-hub", issuer=ISSUER)
    assert {"iss", "aud", "sub", "sid", "tid", "jti", "iat", "exp", "scope", "client_id"} == set(found)
    assert found["exp"] - found["iat"] == 900


def test_a_rotated_key_still_verifies_and_no_longer_signs() -> None:
    assert tokens().verify(signed(key=OLDER)).scope == "api"
    assert [key["kid"] for key in tokens().jwks()["keys"]] == [KEY.kid, OLDER.kid]


def test_published_keys_are_public() -> None:
    for key in tokens().jwks()["keys"]:
        assert "d" not in key
        assert jwt.PyJWK(key).key_id in (KEY.kid, OLDER.kid)


# --- ST1: hostile headers ---

HEADERS: dict[str, dict[str, Any]] = {
    "none": {"alg": "none"},
    "none in capitals": {"alg": "NONE"},
    "none oddly": {"alg": "nOnE"},
    "no algorithm": {"alg": ...},
    "null": {"alg": None},
    "a list": {"alg": ["EdDSA"]},
    "the other key's algorithm": {"alg": "ES256"},
    "a shared secret": {"alg": "HS256"},
    "RSA": {"alg": "RS256"},
    "another case": {"alg": "EDDSA"},
    "the curve's name": {"alg": "Ed25519"},
    "a key of its own": {"jwk": STRANGER.jwk | {"kid": KEY.kid}},
    "a key elsewhere": {"jku": "https://evil.example/jwks.json"},
    "a certificate": {"x5c": ["MIIB"]},
    "a certificate elsewhere": {"x5u": "https://evil.example/c.pem"},
    "a thumbprint": {"x5t": "AAAA"},
    "something critical": {"crit": ["exp"], "exp": 1},
    "nothing critical": {"crit": []},
    "an unencoded payload": {"b64": False, "crit": ["b64"]},
    "compressed": {"zip": "DEF"},
    "encrypted": {"enc": "A256GCM"},
    "a content type": {"cty": "JWT"},
    "no key id": {"kid": ...},
    "an empty key id": {"kid": ""},
    "another key id": {"kid": "k2"},
    "a path": {"kid": "../../../../dev/null"},
    "SQL": {"kid": "' UNION SELECT 'x"},
    "a number": {"kid": 0},
    "a null key id": {"kid": None},
    "a nested key id": {"kid": {"kid": KEY.kid}},
    "the older key's id": {"kid": OLDER.kid},
    "a key id with a NUL": {"kid": KEY.kid + "\0"},
    "no type": {"typ": ...},
    "an ID token": {"typ": "JWT"},
    "a refresh token": {"typ": "rt+jwt"},
    "a logout token": {"typ": "logout+jwt"},
    "a type in capitals": {"typ": "AT+JWT"},
    "a long type": {"typ": "application/at+jwt"},
    "a list of types": {"typ": ["at+jwt"]},
    "a type with a space": {"typ": "at+jwt "},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_hostile_header_is_refused(header: dict[str, Any]) -> None:
    assert code_of(signed(**header)) == "invalid_token"


@pytest.mark.parametrize("header", [None, 5, "at+jwt", [], ["alg"], {}, {"alg": "EdDSA"}])
def test_a_header_that_is_none_is_refused(header: Any) -> None:
    assert code_of(compact(header, claims())) == "invalid_token"


@pytest.mark.parametrize(
    "secret",
    [PUBLIC_PEM, PUBLIC_PEM.strip(), KEY.jwk["x"].encode(), KEY.kid.encode(), json.dumps(KEY.jwk).encode(), b""],
    ids=["pem", "stripped", "x", "kid", "jwk", "nothing"],
)
@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
def test_the_public_key_is_no_secret_to_sign_with(secret: bytes, algorithm: str) -> None:
    header = {"typ": "at+jwt", "kid": KEY.kid, "alg": algorithm}
    message = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims()))
    signature = hmac.new(secret, message, f"sha{algorithm[2:]}").digest()
    assert code_of(message + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")) == "invalid_token"


def test_a_signature_of_somebody_else_is_refused() -> None:
    assert code_of(signed(key=STRANGER, kid=KEY.kid)) == "invalid_token"


def test_an_algorithm_is_pinned_to_its_key() -> None:
    assert code_of(compact({"typ": "at+jwt", "kid": KEY.kid, "alg": "ES256"}, claims(), OLDER)) == "invalid_token"
    assert code_of(compact({"typ": "at+jwt", "kid": OLDER.kid, "alg": "EdDSA"}, claims(), KEY)) == "invalid_token"


# --- ST2: every claim ---

CLAIMS: dict[str, dict[str, Any]] = {
    **{f"no {name}": {name: ...} for name in ("iss", "aud", "sub", "sid", "tid", "jti", "iat", "exp", "scope")},
    **{f"null {name}": {name: None} for name in ("iss", "aud", "sub", "sid", "tid", "jti", "iat", "exp", "scope")},
    "another issuer": {"iss": "https://hub.test.evil.example"},
    "an issuer with a slash": {"iss": ISSUER + "/"},
    "issuers": {"iss": [ISSUER]},
    "another audience": {"aud": "data-fusion-hub-2"},
    "an empty audience": {"aud": []},
    "an audience in parts": {"aud": list("data-fusion-hub")},
    "expired": {"exp": int(time.time()) - 11},
    "an expiry as text": {"exp": "9999999999"},
    "an endless expiry": {"exp": float("inf")},
    "an expiry of no number": {"exp": float("nan")},
    "an expiry of truth": {"exp": True},
    "issued in the future": {"iat": int(time.time()) + 3600},
    "not yet": {"nbf": int(time.time()) + 3600},
    "a subject that is no id": {"sub": "admin"},
    "a subject as number": {"sub": 1},
    "a session that is no id": {"sid": "*"},
    "a tenant that is no id": {"tid": "default"},
    "a token id as number": {"jti": 5},
    "scopes": {"scope": ["api"]},
}


@pytest.mark.parametrize("changes", CLAIMS.values(), ids=CLAIMS)
def test_a_claim_that_does_not_hold_is_refused(changes: dict[str, Any]) -> None:
    assert code_of(signed(claims(**changes))) in ("invalid_token", "token_expired")


@pytest.mark.parametrize("payload", [[], "x", 5, None, [claims()]])
def test_claims_are_an_object(payload: Any) -> None:
    assert code_of(compact({"typ": "at+jwt", "kid": KEY.kid, "alg": "EdDSA"}, payload)) == "invalid_token"


def test_clocks_may_differ_by_ten_seconds() -> None:
    now = int(time.time())
    assert tokens().verify(signed(claims(exp=now - 5))).exp == now - 5
    assert tokens().verify(signed(claims(iat=now + 5))).iat == now + 5


def test_a_token_verified_before_expires_all_the_same() -> None:
    verifier = tokens()
    token = signed(claims(exp=int(time.time()) + 5))
    found = verifier.verify(token)
    verifier._remember(token, msgspec.structs.replace(found, exp=int(time.time()) - 11))
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


# --- ST5: the raw string ---


def spelled_otherwise(token: bytes) -> dict[str, bytes]:
    head, body, signature = token.split(b".")
    return {
        "padded": token + b"=",
        "padded twice": token + b"==",
        "padded within": head + b"=." + body + b"." + signature,
        "a line break": token + b"\n",
        "a space": b" " + token,
        "a tab within": head + b".\t" + body + b"." + signature,
        "standard base64": token.replace(b"-", b"+").replace(b"_", b"/") + b"/",
        "a dot at the end": token + b".",
        "two dots": head + b".." + body + b"." + signature,
        "no signature": head + b"." + body + b".",
        "half a signature": token[:-20],
        "trailing bits": token[:-1] + bytes([token[-1] ^ 1 if token[-1:] not in b"-_" else token[-1]]),
        "only dots": b"..",
        "nothing": b"",
        "a NUL": token + b"\0",
        "no ASCII": token + "é".encode(),
        "very long": head + b"." + body * 50 + b"." + signature,
        "JSON": b'{"payload":"","signatures":[]}',
        "five parts": token + b".a.b",
    }


SPELLINGS = spelled_otherwise(signed())


@pytest.mark.parametrize("token", SPELLINGS.values(), ids=SPELLINGS)
def test_a_token_is_spelled_in_one_way(token: bytes) -> None:
    code_of(token)


def test_deep_json_is_refused() -> None:
    deep = base64.urlsafe_b64encode(b'{"a":' * 600 + b"1" + b"}" * 600).rstrip(b"=")
    assert code_of(deep + b"." + deep + b".AAAA") == "invalid_token"


# --- ST4: only Authorization: Bearer ---


@pytest.mark.parametrize("header", [b"Bearer abc", b"bearer abc", b"BEARER abc"])
def test_the_scheme_is_read_in_any_case(header: bytes) -> None:
    assert bearer_token(header) == b"abc"


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic YTpi",
        b"abc",
        b"Token abc",
        b"DPoP abc",
        b"Bearer\tabc",
        b"Bearer:abc",
        b" Bearer abc",
    ],
)
def test_other_schemes_are_refused(header: bytes | None) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(header)


# --- keys ---


def test_a_generated_key_is_read_again(tmp_path: Any) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(generate_signing_key() + generate_signing_key())
    keys = read_signing_keys(path)
    assert len({key.kid for key in keys}) == 2
    assert {key.algorithm for key in keys} == {"EdDSA"}


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["P-384", "RSA"]
)
def test_keys_of_other_kinds_are_refused(tmp_path: Any, key: Any) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="neither Ed25519 nor P-256"):
        read_signing_keys(path)
