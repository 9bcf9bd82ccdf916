"""Azure Blob Storage, on Azurite."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.shop_bucket import (
    BUCKET,
    MISSING_BUCKET,
    OBJECTS,
    ODD_BUCKET,
    ODD_MARKS,
    ODD_PARTS,
    PREVIEWS,
    content,
    odd_content,
)
from tests.connectors.servers.starting import private_folder, program, running, tls_front, unprivileged
from tests.connectors.types.s3 import endpoint_cases
from tests.ports import free_port

NEEDS_SERVICES = True

ACCOUNT = "shopaccount"
ACCOUNT_KEY = base64.b64encode(f"{CANARY}-azure".encode()).decode()
_VERSION = "2021-12-02"


@dataclass(frozen=True)
class BlobServer:
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}/{ACCOUNT}"


@contextmanager
def blob_server(*options: str) -> Iterator[BlobServer]:
    """Azurite with one account of ours. It checks keys and signatures; tokens it reads only with `--oauth basic`."""
    port = free_port()
    command = [
        *(program("azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"),
        *("--skipApiVersionCheck", "--silent", "--disableTelemetry", *options),
    ]
    settings = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    with private_folder() as folder, running(command, port, cwd=folder, env=settings, **unprivileged()):
        yield BlobServer(port, "https" if "--cert" in options else "http")


@contextmanager
def filled_blob_server(*options: str) -> Iterator[BlobServer]:
    with blob_server(*options) as server:
        for container, files in {BUCKET: content(), ODD_BUCKET: odd_content(*ODD_PARTS, *ODD_MARKS)}.items():
            put(server, f"/{container}", {"restype": "container"})
            for key, file in files.items():
                put(server, f"/{container}/{quote(key, safe='')}", {}, file, {"x-ms-blob-type": "BlockBlob"})
        yield server


def put(
    server: BlobServer, path: str, query: Mapping[str, str], body: bytes = b"", headers: Mapping[str, str] | None = None
) -> None:
    """Signed as "Authorize with Shared Key" of the Azure Storage REST API asks."""
    now = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    named = {"x-ms-date": now, "x-ms-version": _VERSION, **(headers or {})}
    canonical_headers = "".join(f"{name}:{value}\n" for name, value in sorted(named.items()))
    resource = f"/{ACCOUNT}/{ACCOUNT}{path}" + "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
    length = str(len(body)) if body else ""
    to_sign = f"PUT\n\n\n{length}\n\napplication/octet-stream\n\n\n\n\n\n\n{canonical_headers}{resource}"
    sent = {
        **named,
        "Content-Type": "application/octet-stream",
        "Authorization": f"SharedKey {ACCOUNT}:{_sign(to_sign)}",
    }
    trust = ssl.create_default_context(cadata=authority().pem.decode())
    url = f"{server.url}{path}?{urlencode(query)}"
    urlopen(Request(url, data=body, method="PUT", headers=sent), context=trust).close()


def account_sas(
    *,
    permissions: str = "rl",
    resource_types: str = "co",
    ends: str = "2099-01-01T00:00:00Z",
    protocols: str = "https,http",
) -> str:
    """A signature of the account for its blobs ("Create an account SAS" of the Azure Storage REST API)."""
    to_sign = "\n".join((ACCOUNT, permissions, "b", resource_types, "", ends, "", protocols, _VERSION, "", ""))
    named = {"sv": _VERSION, "ss": "b", "srt": resource_types, "sp": permissions, "se": ends, "spr": protocols}
    return urlencode({**named, "sig": _sign(to_sign)})


def _sign(text: str) -> str:
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def kind(start: Start, ports: Ports) -> Kind:
    server = start(filled_blob_server)
    return Kind(
        "azure_blob",
        {"account_name": ACCOUNT, "container": BUCKET, "endpoint_url": server.url},
        {"account_key": ACCOUNT_KEY},
        (
            *_sign_in_cases(),
            Case("wrong_container", "list", "not_found", {"container": MISSING_BUCKET}),
            *endpoint_cases(ports, server.port, start(tls_front, server.port)),
        ),
        OBJECTS,
        PREVIEWS,
    )


def _sign_in_cases() -> tuple[Case, ...]:
    refused = ("authenticate", "authentication_failed")
    wrong_key = base64.b64encode(f"wrong-{CANARY}".encode()).decode()
    return (
        Case("wrong_key", *refused, {}, {"account_key": wrong_key}),
        Case("key_that_is_none", "authenticate", "invalid_configuration", {}, {"account_key": f"?{CANARY}"}),
        Case("no_auth", *refused, {"auth": "none"}, {"account_key": None}),
        _sas_case("wrong_sas", *refused, account_sas().replace("sig=", "sig=A")),
        _sas_case("sas_that_is_none", "authenticate", "invalid_configuration", f"sp=r&{CANARY}"),
        _sas_case("expired_sas", *refused, account_sas(ends="2020-01-01T00:00:00Z")),
        _sas_case("sas_that_may_not_list", "list", "permission_denied", account_sas(permissions="r")),
        _sas_case("sas_for_objects_only", "list", "permission_denied", account_sas(resource_types="o")),
        _sas_case("sas_for_https_only", "list", "permission_denied", account_sas(protocols="https")),
    )


def _sas_case(name: str, step: str, code: str, token: str) -> Case:
    return Case(name, step, code, {"auth": "sas_token"}, {"account_key": None, "sas_token": token})
