"""What an Azure Blob Storage source does beyond the contract."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import jwt
import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.azure_blob import AzureBlob, AzureBlobConfig, AzureBlobSecrets
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Ports, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.http_front import http_front
from tests.connectors.servers.shop_bucket import BUCKET
from tests.connectors.servers.starting import place_certificate, private_folder, tls_front
from tests.connectors.types.azure_blob import (
    ACCOUNT,
    ACCOUNT_KEY,
    BlobServer,
    account_sas,
    filled_blob_server,
)

pytestmark = pytest.mark.anyio

CUSTOMERS = PreviewRequest(path=("customers.csv",))
PLACE = {"account_name": ACCOUNT, "container": BUCKET}


@pytest.mark.parametrize(
    ("endpoint_url", "url"),
    [
        (None, "https://shopaccount.blob.core.windows.net"),
        ("https://shopaccount.blob.core.chinacloudapi.cn/", "https://shopaccount.blob.core.chinacloudapi.cn"),
        ("https://data.example.org", "https://data.example.org"),
        ("http://127.0.0.1:10000/shopaccount", "http://127.0.0.1:10000/shopaccount"),
        ("http://127.0.0.1:10000", "http://127.0.0.1:10000/shopaccount"),
        ("http://[::1]:10000/", "http://[::1]:10000/shopaccount"),
        ("http://azurite:10000", "http://azurite:10000/shopaccount"),
    ],
)
def test_the_account_stands_where_its_server_looks_for_it(endpoint_url: str | None, url: str) -> None:
    config = msgspec.convert({**PLACE, "endpoint_url": endpoint_url}, AzureBlobConfig)
    assert AzureBlob(config, AzureBlobSecrets(), EgressPolicy()).url == url


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"endpoint_url": "http://127.0.0.1:10000/another"}, "endpoint_url"),
        ({"auth": "client_secret", "client_id": "x"}, "tenant_id"),
        ({"auth": "client_secret", "tenant_id": "x"}, "client_id"),
        ({"authority_host": "https://login.example/tenant"}, "authority_host"),
        (
            {"auth": "client_secret", "tenant_id": "x", "client_id": "x", "authority_host": "http://login.example"},
            "authority_host",
        ),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({**PLACE, **values}, AzureBlobConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path == (field,)


@pytest.mark.parametrize("tenant", ["../x", "a/b", "a?b", ".."])
def test_a_tenant_leads_nowhere_else_on_the_sign_in_server(tenant: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**PLACE, "tenant_id": tenant}, AzureBlobConfig)


@pytest.mark.parametrize(
    ("auth", "secrets", "field"),
    [
        ("account_key", {}, "account_key"),
        ("account_key", {"account_key": "no base64"}, "account_key"),
        ("sas_token", {"account_key": ACCOUNT_KEY}, "sas_token"),
        ("sas_token", {"sas_token": "sv=2021&sp=r"}, "sas_token"),
    ],
)
def test_each_way_of_signing_in_has_its_secret(auth: Any, secrets: dict[str, str], field: str) -> None:
    config = msgspec.convert({**PLACE, "auth": auth}, AzureBlobConfig)
    with pytest.raises(InvalidField) as caught:
        AzureBlob.validate(config, AzureBlobSecrets(**secrets))
    assert caught.value.path == ("secrets", field)
    assert all(secret not in caught.value.message for secret in secrets.values())


@pytest.mark.services
@pytest.mark.parametrize("question_mark", ["", "?"])
async def test_a_shared_access_signature_is_taken(
    question_mark: str, start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {**PLACE, "endpoint_url": start(filled_blob_server).url, "auth": "sas_token"}
    secrets = {"sas_token": question_mark + account_sas()}
    assert (await sandbox.check("azure_blob", config, secrets, loopback)).status == "passed"
    assert len((await sandbox.preview("azure_blob", config, secrets, loopback, CUSTOMERS)).rows) == 2


@pytest.mark.services
async def test_an_expired_signature_is_said_to_be_expired(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {**PLACE, "endpoint_url": start(filled_blob_server).url, "auth": "sas_token"}
    secrets = {"sas_token": account_sas(ends="2020-01-01T00:00:00Z")}
    result = await sandbox.check("azure_blob", config, secrets, loopback)
    assert result.steps[3].message.startswith("The sas_token has expired.")


# The service principal ------------------------------------------------------------------------------------------------

TENANT, CLIENT, CLIENT_SECRET = "5f0c2b0e-tenant", "0b1d-client", f"{CANARY}-client+secret &="


@contextmanager
def encrypted_blob_server() -> Iterator[BlobServer]:
    """Azurite over TLS, which it asks for where tokens are sent. It reads their times, issuer and audience, and leaves
    the signature to others."""
    with private_folder() as folder:
        certificate, key = place_certificate(folder)
        options = ("--cert", str(certificate), "--key", str(key), "--oauth", "basic")
        with filled_blob_server(*options) as server:
            yield server


@contextmanager
def sign_in_server() -> Iterator[int]:
    """Yields the port of Microsoft's part in it, as far as a service principal sees that."""

    def sign_in(path: str, form: dict[str, str]) -> str | None:
        client = {"client_id": CLIENT, "client_secret": CLIENT_SECRET}
        expected = {**client, "grant_type": "client_credentials", "scope": "https://storage.azure.com/.default"}
        if path != f"/{TENANT}/oauth2/v2.0/token" or form != expected:
            return None
        now = int(time.time())
        times = {"iat": now - 5, "nbf": now - 5, "exp": now + 3600}
        claims = {"iss": f"https://sts.windows.net/{TENANT}/", "aud": "https://storage.azure.com", **times}
        return jwt.encode(claims, "any key that has a fair length to it")

    with http_front(sign_in) as port:
        yield port


def principal(start: Start) -> dict[str, Any]:
    return {
        **PLACE,
        **{"endpoint_url": f"https://localhost:{start(encrypted_blob_server).port}/{ACCOUNT}"},
        **{"auth": "client_secret", "tenant_id": TENANT, "client_id": CLIENT},
        **{"authority_host": f"https://localhost:{start(tls_front, start(sign_in_server))}"},
        **{"ca_certificate": authority().pem.decode(), "connect_timeout_s": 2.0, "read_timeout_s": 2.0},
    }


@pytest.mark.services
async def test_a_service_principal_signs_in_over_tls(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config, secrets = principal(start), {"client_secret": CLIENT_SECRET}
    result = await sandbox.check("azure_blob", config, secrets, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5, result
    assert result.server["encryption"] == "TLSv1.3"
    assert len((await sandbox.preview("azure_blob", config, secrets, loopback, CUSTOMERS)).rows) == 2


@pytest.mark.services
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"client_id": "another"}, "authentication_failed"),
        ({"tenant_id": "another"}, "authentication_failed"),
        ({"authority_host": "https://169.254.169.254"}, "egress_refused"),
        ({"authority_host": "https://nowhere.invalid"}, "name_not_resolved"),
        ({"authority_host": "https://localhost:{closed}"}, "connection_refused"),
        ({"authority_host": "https://localhost:{silent}"}, "connect_timeout"),
        ({"authority_host": "https://localhost:{ssh}"}, "tls_unavailable"),
        ({"authority_host": "https://127.0.0.1:{front}"}, "tls_certificate_invalid"),
    ],
)
async def test_a_service_principal_that_cannot_sign_in_fails_there(
    change: dict[str, str], code: str, start: Start, ports: Ports, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = principal(start)
    front = urlsplit(config["authority_host"]).port
    known = {"closed": ports.closed, "silent": ports.silent, "ssh": ports.ssh, "front": front}
    config |= {name: value.format(**known) for name, value in change.items()}
    result = await sandbox.check("azure_blob", config, {"client_secret": CLIENT_SECRET}, loopback)
    assert [(step.name, step.code) for step in result.steps if step.status == "failed"] == [("authenticate", code)]
    assert CANARY not in msgspec.json.encode(result).decode()


@pytest.mark.services
async def test_a_wrong_client_secret_is_refused_and_not_repeated(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await sandbox.check("azure_blob", principal(start), {"client_secret": f"wrong-{CANARY}"}, loopback)
    assert (result.steps[3].status, result.steps[3].code) == ("failed", "authentication_failed")
    assert CANARY not in msgspec.json.encode(result).decode()
