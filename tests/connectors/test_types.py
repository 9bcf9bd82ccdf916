"""What single types do beyond the contract."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.connectors.contract.config import InvalidField
from app.connectors.contract.objects import PreviewRequest
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.postgresql.connector import Postgresql, PostgresqlConfig, PostgresqlSecrets
from app.connectors.types.rest.connector import RestConfig
from app.connectors.types.s3.access import S3Secrets
from app.connectors.types.s3.connector import S3, S3Config
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY
from tests.connectors.servers.certificates import Authority
from tests.connectors.types.postgresql import PostgresServer

pytestmark = pytest.mark.anyio

POSTGRES = {"host": "localhost", "database": "shop", "username": "reader"}
PASSWORD = {"password": f"pw-{CANARY}"}


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_postgresql_over_tls_passes_every_step(
    mode: str, tls_postgres: int, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config: dict[str, Any] = {**POSTGRES, "port": tls_postgres, "tls_mode": mode}
    if mode.startswith("verify"):
        config["ca_certificate"] = authority.pem.decode()
    result = await sandbox.check("postgresql", config, PASSWORD, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"
    request = PreviewRequest(path=("odd.schema", 'a "b".c'))
    assert (await sandbox.preview("postgresql", config, PASSWORD, loopback, request)).rows == [[7]]


async def test_rest_over_tls_passes_every_step(
    tls_shop_api: int, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {
        "base_url": f"https://localhost:{tls_shop_api}",
        "auth": "bearer",
        "ca_certificate": authority.pem.decode(),
    }
    result = await sandbox.check("rest", config, {"token": f"{CANARY}-rest"}, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5


async def test_postgresql_is_the_version_that_is_claimed(
    filled_postgres: PostgresServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    result = await sandbox.check("postgresql", {**POSTGRES, "port": filled_postgres.port}, PASSWORD, loopback)
    assert f"PostgreSQL {result.server['version'].partition('.')[0]}" in Postgresql.verified_with


async def test_schemas_can_be_included_and_excluded(
    filled_postgres: PostgresServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    for scope, expected in (
        ({"include_schemas": ["sh*"]}, {"shop"}),
        ({"exclude_schemas": ["shop"]}, {"odd.schema"}),
        ({"include_schemas": ["sho_"]}, set()),
        ({"include_schemas": ["*"], "exclude_schemas": ["odd.*"]}, {"shop"}),
    ):
        config = {**POSTGRES, "port": filled_postgres.port, **scope}
        batches = [batch async for batch in sandbox.discover("postgresql", config, PASSWORD, loopback)]
        assert {item.path[0] for batch in batches for item in batch} == expected


async def test_long_values_are_cut_and_said_to_be(
    filled_postgres: PostgresServer, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    config = {**POSTGRES, "port": filled_postgres.port, "database": "postgres", "username": "postgres"}
    secrets = {"password": filled_postgres.superuser_password}
    request = PreviewRequest(path=("public", "long"), max_value_bytes=64)
    shown = await sandbox.preview("postgresql", config, secrets, loopback, request)
    ((text, binary),) = shown.rows
    assert text == "ü" * 32
    assert len(binary) == 64
    assert shown.truncated


@pytest.mark.parametrize(
    ("struct", "values", "field"),
    [
        (PostgresqlConfig, {**POSTGRES, "ca_certificate": "-----BEGIN X", "tls_mode": "prefer"}, "ca_certificate"),
        (PostgresqlConfig, {**POSTGRES, "host": "a\nb"}, "host"),
        (PostgresqlConfig, {**POSTGRES, "username": "a\x00b"}, "username"),
        (RestConfig, {"base_url": "http://a", "auth": "basic"}, "username"),
        (RestConfig, {"base_url": "http://a", "headers": {"Authorization": "x"}}, "headers"),
        (RestConfig, {"base_url": "http://a", "headers": {"X": "a\r\nY: b"}}, "headers"),
        (S3Config, {"bucket": "abc", "endpoint_url": "http://a/path"}, "endpoint_url"),
    ],
)
def test_a_wrong_field_is_named(struct: Any, values: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(values, struct)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path[0] == field


def test_config_and_secrets_are_judged_together() -> None:
    with pytest.raises(InvalidField) as caught:
        S3.validate(S3Config(bucket="abc", access_key_id="x"), S3Secrets())
    assert caught.value.path == ("secrets", "secret_access_key")
    config = PostgresqlConfig(**dict[str, Any](POSTGRES), tls_mode="require", client_certificate="-----BEGIN X")
    with pytest.raises(InvalidField) as caught:
        Postgresql.validate(config, PostgresqlSecrets())
    assert caught.value.path == ("secrets", "client_key")
