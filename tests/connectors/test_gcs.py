"""What a Google Cloud Storage source does beyond the contract."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.steps import Steps
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.gcs import Gcs, GcsConfig, GcsSecrets
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import authority
from tests.connectors.servers.http_front import http_front
from tests.connectors.servers.shop_bucket import BUCKET
from tests.connectors.servers.starting import tls_front
from tests.connectors.types.gcs import fake_gcs, google, service_account

pytestmark = pytest.mark.anyio

CUSTOMERS = PreviewRequest(path=("customers.csv",))
TOKENS = "https://oauth2.googleapis.com/token"


def test_google_is_where_a_bucket_lies_by_default() -> None:
    assert Gcs(GcsConfig(bucket="sales"), GcsSecrets(), EgressPolicy()).url == "https://storage.googleapis.com"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_email": None},
        {"client_email": "no address"},
        {"client_email": f"{CANARY}\r\nx@y"},
        {"private_key": None},
        {"private_key": CANARY},
        {"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"},
        {"private_key": "/etc/hub/key.pem"},
        {"type": "authorized_user"},
        {"type": "external_account", "credential_source": {"file": "/etc/passwd"}},
        {"token_uri": "file:///etc/passwd"},
        {"token_uri": f"https://{CANARY}@oauth2.googleapis.com/token"},
        {"token_uri": "http://oauth2.googleapis.com/token"},
        {"token_uri": "unix:///run/tokens"},
        {"token_uri": 5},
    ],
)
def test_a_key_that_cannot_be_used_is_refused_and_not_repeated(changes: dict[str, Any]) -> None:
    secrets = GcsSecrets(service_account_json=service_account(TOKENS, **changes))
    with pytest.raises(InvalidField) as caught:
        Gcs.validate(GcsConfig(bucket="sales"), secrets)
    assert caught.value.path == ("secrets", "service_account_json")
    assert CANARY not in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 5000, "{" + '"a":{' * 5000])
def test_a_key_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        Gcs.validate(GcsConfig(bucket="sales"), GcsSecrets(service_account_json=text))


def test_a_key_as_google_gives_it_is_taken() -> None:
    Gcs.validate(GcsConfig(bucket="sales"), GcsSecrets(service_account_json=service_account(TOKENS)))
    minimal = service_account(TOKENS, type=None, private_key_id=None, token_uri=None)
    Gcs.validate(GcsConfig(bucket="sales"), GcsSecrets(service_account_json=minimal))


def test_tokens_are_asked_for_without_encryption_only_where_the_store_has_none() -> None:
    secrets = GcsSecrets(service_account_json=service_account("http://emulator:9000/token"))
    Gcs.validate(GcsConfig(bucket="sales", endpoint_url="http://emulator:9000"), secrets)
    with pytest.raises(InvalidField):
        Gcs.validate(GcsConfig(bucket="sales", endpoint_url="https://emulator:9000"), secrets)


async def test_it_works_over_tls_with_an_own_authority(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    server = start(google, start(fake_gcs))
    endpoint = f"https://localhost:{start(tls_front, server.port)}"
    server.audiences.add(f"{endpoint}/token")
    config = {"bucket": BUCKET, "endpoint_url": endpoint, "ca_certificate": authority().pem.decode()}
    secrets = {"service_account_json": service_account(f"{endpoint}/token")}
    result = await sandbox.check("gcs", config, secrets, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5, result
    assert len((await sandbox.preview("gcs", config, secrets, loopback, CUSTOMERS)).rows) == 2


async def test_a_public_bucket_is_read_by_anybody(
    start: Start, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {"bucket": BUCKET, "endpoint_url": f"http://localhost:{start(fake_gcs)}", "auth": "none"}
    result = await sandbox.check("gcs", config, {}, loopback)
    assert result.status == "passed"
    assert result.steps[3].message == "No sign-in needed."
    assert len((await sandbox.preview("gcs", config, {}, loopback, CUSTOMERS)).rows) == 2


async def test_keys_below_a_folder_are_asked_for_page_by_page(loopback: EgressPolicy) -> None:
    asked: list[str] = []

    def judge(path: str, headers: Any) -> tuple[int, dict[str, Any]]:
        asked.append(path)
        if "pageToken=second+page" in path:
            return 200, {"items": [{"name": "sales/2.csv", "size": "3"}]}
        return 200, {"items": [{"name": "sales/1.csv", "size": "3"}], "nextPageToken": "second page"}

    with http_front(lambda *_: None, judge) as port:
        values = {"bucket": BUCKET, "endpoint_url": f"http://localhost:{port}", "auth": "none", "prefix": "/sales"}
        config = msgspec.convert({**values, "billing_project": "payer"}, GcsConfig)
        batches = [batch async for batch in Gcs(config, GcsSecrets(), loopback).discover()]
    assert [item.path for batch in batches for item in batch] == [("sales", "*.csv")]
    assert all("prefix=sales%2F" in path and "userProject=payer" in path for path in asked[:2])


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_listing_outlives_a_moment_of_haste(status: int, loopback: EgressPolicy) -> None:
    answers = [(status, {}), (200, {"items": [{"name": "photo.jpg", "size": "3"}]})]
    with http_front(lambda *_: None, lambda *_: answers.pop(0)) as port:
        config = GcsConfig(bucket=BUCKET, endpoint_url=f"http://localhost:{port}", auth="none")
        found = [item.path async for batch in Gcs(config, GcsSecrets(), loopback).discover() for item in batch]
    assert (found, answers) == ([("photo.jpg",)], [])


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ((403, {"error": {"errors": [{"reason": "rateLimitExceeded"}]}}), "rate_limited"),
        ((429, {}), "rate_limited"),
        ((400, {"error": {"errors": [{"reason": "userProjectMissing"}]}}), "invalid_configuration"),
        ((403, {"error": {"errors": CANARY}}), "permission_denied"),
        ((400, {"error": {"message": CANARY, "errors": [{"reason": CANARY}]}}), "server_error"),
        ((500, {"error": {"code": 500, "message": CANARY}}), "server_error"),
        ((500, {}), "protocol_mismatch"),
        ((200, {"items": [{"name": 5}]}), "response_invalid"),
        ((200, {"items": [{"name": "a", "size": "-1"}]}), "response_invalid"),
    ],
)
async def test_an_answer_that_is_no_list_of_keys_is_explained(
    refusal: tuple[int, dict[str, Any]], code: str, loopback: EgressPolicy
) -> None:
    with http_front(lambda *_: None, lambda *_: refusal) as port:
        config = GcsConfig(bucket=BUCKET, endpoint_url=f"http://localhost:{port}", auth="none")
        with pytest.raises(ConnectorError) as caught:
            await Gcs(config, GcsSecrets(), loopback).check(Steps())
    assert caught.value.code == code
    assert CANARY not in caught.value.message
