"""How a bucket of S3 is found and signed in to, for S3 sources and for tables that lie in one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from app.connectors.contract.config import ConnectorSecrets, InvalidField, SecretText

# A label of the endpoint's host name (RFC 1035 section 2.3.1).
Region = Annotated[
    str,
    Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z", description="Region of the bucket."),
]
PathStyle = Annotated[
    bool | None,
    Meta(description="Whether the bucket stands in the path. Unset: where an endpoint_url is given, it does."),
]
AccessKeyId = Annotated[
    Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")] | None,
    Meta(description="Unset: the bucket is read without signing in.", examples=["AKIAIOSFODNN7EXAMPLE"]),
]


class S3Secrets(ConnectorSecrets, frozen=True, kw_only=True):
    secret_access_key: Annotated[SecretText | None, Meta(description="Belongs to the access_key_id.")] = None
    session_token: Annotated[
        Annotated[SecretText, Meta(pattern=r"^[!-~]+\Z")] | None, Meta(description="For temporary credentials.")
    ] = None


def refuse_half_a_key(access_key_id: str | None, secrets: S3Secrets) -> None:
    """Raises `InvalidField` for an id without its secret, or a secret without its id."""
    if access_key_id is not None and secrets.secret_access_key is None:
        raise InvalidField(("secrets", "secret_access_key"), "secret_access_key is needed for the access_key_id.")
    if access_key_id is None and (secrets.secret_access_key or secrets.session_token):
        raise InvalidField(("config", "access_key_id"), "access_key_id is needed for the secret_access_key.")
