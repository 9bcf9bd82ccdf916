"""Snowflake: fakesnow, an emulator on DuckDB, behind a sign-in of its own.

fakesnow lets everybody in. `sign_in` stands before it and answers login requests as Snowflake does, from what is
documented of its protocol: it knows a password, a public key, an OAuth token and a programmatic access token, and
refuses everything else with Snowflake's codes. Whatever comes after goes to fakesnow as it is.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.starting import private_folder, program, running, scripted_server, tls_front
from tests.ports import free_port

NEEDS_SERVICES = True

ACCOUNT, USER = "myorg-shop", "reader"
PASSWORD, OAUTH_TOKEN, ACCESS_TOKEN = f"pw-{CANARY}", f"oauth-{CANARY}", f"pat-{CANARY}"
PASSPHRASE = f"phrase-{CANARY}"

_SHOP = (
    """CREATE TABLE everything (
        id INTEGER NOT NULL, name VARCHAR(50), price NUMBER(20, 4), big NUMBER(38, 0), rating FLOAT, active BOOLEAN,
        photo BINARY, born DATE, wakes TIME, seen TIMESTAMP_NTZ, seen_tz TIMESTAMP_TZ, about VARIANT, tags ARRAY
    )""",
    """INSERT INTO everything SELECT 1, 'Zoë 李雷 🙂', 10.5, 9007199254740993, 1.5, true, TO_BINARY('00ff', 'HEX'),
        '2024-01-02', '03:04:05', '2024-01-02 03:04:05.5', '2024-01-02 03:04:05+02:00',
        PARSE_JSON('{"tags": ["a", null], "n": 9007199254740993}'), ARRAY_CONSTRUCT(1, 'x')""",
    "INSERT INTO everything (id, name, price, active) VALUES (2, '', -0.1, false)",
    "CREATE TABLE empty (a INTEGER NOT NULL, b VARCHAR)",
    "CREATE VIEW names AS SELECT id, name FROM everything",
    'CREATE SCHEMA "Odd Schema"',
    'CREATE TABLE "Odd Schema"."a ""b"".c" ("x y" INTEGER, "it\'s" INTEGER)',
    'INSERT INTO "Odd Schema"."a ""b"".c" VALUES (1, 2)',
)


@contextmanager
def emulator() -> Iterator[int]:
    """fakesnow as a server, its databases in memory; yields the port."""
    port = free_port()
    with private_folder() as folder, running([program("fakesnow"), "-s", "-p", str(port)], port, cwd=folder):
        _fill(port)
        yield port


def _fill(port: int) -> None:
    from snowflake.connector import SnowflakeConnection

    connection = SnowflakeConnection(
        account="fakesnow",
        user="setup",
        password="setup",
        host="127.0.0.1",
        port=port,
        protocol="http",
        database="SHOP",
        schema="PUBLIC",
        platform_detection_timeout_seconds=0.0,
    )
    for statement in _SHOP:
        connection.cursor().execute(statement)
    connection.close()


# The sign-in ----------------------------------------------------------------------------------------------------------


@cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey, passphrase: str | None = None) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase.encode())
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return content.decode("ascii")


def fingerprint(key: rsa.RSAPublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"SHA256:{base64.b64encode(hashlib.sha256(der).digest()).decode()}"


def refusal(body: dict[str, Any], query: dict[str, list[str]]) -> str | None:
    """The code with which Snowflake refuses a login request, or None if it lets the user in."""
    way = body.get("AUTHENTICATOR", "SNOWFLAKE")
    if query.get("roleName") == ['"NOBODY"']:
        return "390189"
    if query.get("warehouse") == ['"MISSING"']:
        return "390201"
    if way == "SNOWFLAKE":
        is_known = (body.get("LOGIN_NAME"), body.get("PASSWORD")) == (USER, PASSWORD)
        return None if is_known else "390100"
    if way == "SNOWFLAKE_JWT":
        return None if _is_signed(body.get("TOKEN", "")) else "390144"
    if way == "OAUTH":
        return None if body.get("TOKEN") == OAUTH_TOKEN else "390303"
    return None if (way, body.get("TOKEN")) == ("PROGRAMMATIC_ACCESS_TOKEN", ACCESS_TOKEN) else "394400"


def _is_signed(token: str) -> bool:
    key = private_key().public_key()
    subject = f"{ACCOUNT}.{USER}".upper()
    try:
        claims = jwt.decode(token, key, algorithms=["RS256"], options={"require": ["exp", "iat", "iss", "sub"]})
    except jwt.InvalidTokenError:
        return False
    return (claims["sub"], claims["iss"]) == (subject, f"{subject}.{fingerprint(key)}")


class SignIn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    emulator_port: int
    stage_url: str | None = None
    """Where results are put aside for the client to fetch; None: they are part of the answer."""
    staged: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(404, b"")

    def do_GET(self) -> None:
        content = self.staged.get(self.path)
        self._answer(200 if content is not None else 404, content or b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        if parts.path == "/session/v1/login-request":
            data = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)["data"]
            if code := refusal(data, parse_qs(parts.query)):
                answer = {"data": {}, "code": code, "message": f"Refused, {CANARY}.", "success": False, "headers": None}
                self._answer(200, json.dumps(answer).encode())
                return
        status, answer_body = self._forwarded(body)
        if parts.path == "/queries/v1/query-request" and self.stage_url:
            answer_body = self._put_aside(answer_body)
        self._answer(status, answer_body)

    def _forwarded(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.emulator_port, timeout=20)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_HOP}
        connection.request("POST", self.path, body, kept)
        response = connection.getresponse()
        try:
            return response.status, response.read()
        finally:
            connection.close()

    def _put_aside(self, answer_body: bytes) -> bytes:
        """As Snowflake does with rows that are too many for an answer."""
        answer = json.loads(answer_body)
        data = answer.get("data") or {}
        if not data.get("rowsetBase64") or not data.get("total"):
            return answer_body
        content = base64.b64decode(data["rowsetBase64"])
        path = f"/stage/{secrets.token_hex(8)}"
        self.staged[path] = content
        size = {"compressedSize": len(content), "uncompressedSize": len(content)}
        data["chunks"] = [{"url": f"{self.stage_url}{path}", "rowCount": data["total"], **size}]
        data["rowsetBase64"] = ""
        return json.dumps(answer).encode()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


_OF_THE_HOP = {"host", "connection", "accept-encoding", "content-length", "transfer-encoding"}


@contextmanager
def sign_in(emulator_port: int, stage_url: str | None = None) -> Iterator[int]:
    """Stands before the emulator. `stage_url` may hold `{port}`, which is this server's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SignIn)
    port = int(server.server_address[1])
    members = {"emulator_port": emulator_port, "staged": {}, "stage_url": stage_url and stage_url.format(port=port)}
    server.RequestHandlerClass = type("SignInHere", (SignIn,), members)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def other_website() -> Iterator[int]:
    """Speaks HTTP, and is not Snowflake."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"

    def greet(connection: Any) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with scripted_server(greet) as port:
        yield port


# The contract ---------------------------------------------------------------------------------------------------------


def good_config(port: int) -> dict[str, Any]:
    return {
        "account": ACCOUNT,
        "username": USER,
        "database": "shop",
        "warehouse": "wh",
        "endpoint_url": f"http://localhost:{port}",
    }


def kind(start: Start, ports: Ports) -> Kind:
    port = start(sign_in, start(emulator))
    website, tls_port = start(other_website), start(tls_front, port)
    wrong, key_pair = f"wrong-{CANARY}", {"auth": "key_pair"}
    refused = ("authenticate", "authentication_failed")
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    strange_key = pem(rsa.generate_private_key(65537, 2048))

    def at(url: str) -> dict[str, str]:
        return {"endpoint_url": url}

    return Kind(
        "snowflake",
        good_config(port),
        {"password": PASSWORD},
        (
            Case("wrong_password", *refused, {}, {"password": wrong}),
            Case("wrong_user", *refused, {"username": "stranger"}),
            Case("wrong_key", *refused, key_pair, {"private_key": strange_key}),
            Case(
                "wrong_account_for_the_key",
                *refused,
                {**key_pair, "account": "other"},
                {"private_key": pem(private_key())},
            ),
            Case("no_key", "authenticate", "invalid_configuration", key_pair, {"private_key": wrong}),
            Case(
                "wrong_passphrase",
                "authenticate",
                "invalid_configuration",
                key_pair,
                {"private_key": pem(private_key(), PASSPHRASE), "private_key_passphrase": wrong},
            ),
            Case("wrong_oauth_token", *refused, {"auth": "oauth"}, {"token": wrong}),
            Case("wrong_access_token", *refused, {"auth": "programmatic_access_token"}, {"token": OAUTH_TOKEN}),
            Case("forbidden_role", "authenticate", "permission_denied", {"role": "nobody"}),
            Case("wrong_warehouse", "authenticate", "not_found", {"warehouse": "missing"}),
            Case("wrong_database", "list", "not_found", {"database": "nowhere"}),
            Case("database_in_other_case", "list", "not_found", {"database": '"nowhere"'}),
            Case("closed_port", "connect", "connection_refused", at(f"http://localhost:{ports.closed}")),
            Case("unknown_name", "resolve", "name_not_resolved", at("https://nowhere.invalid")),
            Case("link_local", "resolve", "egress_refused", at("https://169.254.169.254")),
            Case("silent", "connect", "timeout", {**at(f"http://localhost:{ports.silent}"), **hasty}),
            Case("silent_tls", "tls", "timeout", {**at(f"https://localhost:{ports.silent}"), **hasty}),
            Case("other_protocol", "connect", "protocol_mismatch", at(f"http://localhost:{ports.ssh}")),
            Case("other_website", "authenticate", "protocol_mismatch", at(f"http://localhost:{website}")),
            Case("no_tls", "tls", "tls_unavailable", at(f"https://localhost:{port}")),
            Case("unknown_ca", "tls", "tls_certificate_invalid", at(f"https://localhost:{tls_port}")),
            Case(
                "broken_ca",
                "tls",
                "invalid_configuration",
                {**at(f"https://localhost:{tls_port}"), "ca_certificate": "-----BEGIN CERTIFICATE-----\nno\n"},
            ),
        ),
        {
            ("PUBLIC", "EMPTY"): (
                "table",
                (("A", "integer", "NUMBER(38,0)", False), ("B", "string", "TEXT(16777216)", True)),
            ),
            ("PUBLIC", "EVERYTHING"): (
                "table",
                (
                    ("ID", "integer", "NUMBER(38,0)", False),
                    ("NAME", "string", "TEXT(50)", True),
                    ("PRICE", "decimal", "NUMBER(20,4)", True),
                    ("BIG", "integer", "NUMBER(38,0)", True),
                    ("RATING", "number", "FLOAT", True),
                    ("ACTIVE", "boolean", "BOOLEAN", True),
                    ("PHOTO", "binary", "BINARY", True),
                    ("BORN", "date", "DATE", True),
                    ("WAKES", "time", "TIME", True),
                    ("SEEN", "timestamp", "TIMESTAMP_NTZ", True),
                    ("SEEN_TZ", "timestamp_tz", "TIMESTAMP_TZ", True),
                    ("ABOUT", "json", "VARIANT", True),
                    ("TAGS", "json", "VARIANT", True),
                ),
            ),
            ("PUBLIC", "NAMES"): (
                "view",
                (("ID", "integer", "NUMBER(38,0)", True), ("NAME", "string", "TEXT", True)),
            ),
            ("Odd Schema", 'a "b".c'): (
                "table",
                (("x y", "integer", "NUMBER(38,0)", True), ("it's", "integer", "NUMBER(38,0)", True)),
            ),
        },
        {
            ("PUBLIC", "EVERYTHING"): [
                [
                    1,
                    "Zoë 李雷 🙂",
                    "10.5000",
                    "9007199254740993",
                    1.5,
                    True,
                    "AP8=",
                    "2024-01-02",
                    "03:04:05",
                    "2024-01-02T03:04:05.5",
                    "2024-01-02T01:04:05Z",
                    {"tags": ["a", None], "n": "9007199254740993"},
                    [1, "x"],
                ],
                [2, "", "-0.1000", None, None, False, *[None] * 7],
            ],
            ("PUBLIC", "NAMES"): [[1, "Zoë 李雷 🙂"], [2, ""]],
            ("PUBLIC", "EMPTY"): [],
            ("Odd Schema", 'a "b".c'): [[1, 2]],
        },
        server={"product": "Snowflake", "encryption": "none"},
    )
