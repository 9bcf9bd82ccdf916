"""Amazon S3 and compatible object stores, through obstore (see `obstore_client` for how the address is pinned)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from app.connectors.base import ConnectorSecrets, InvalidField, SecretText
from app.connectors.http import HttpClient
from app.connectors.object_store import EndpointUrl, ObjectStore, ObjectStoreConfig, Store, refuse_a_bad_endpoint
from app.connectors.obstore_client import through_obstore


class S3Config(ObjectStoreConfig, frozen=True, kw_only=True):
    bucket: Annotated[
        str,
        Meta(min_length=3, max_length=63, pattern="^[A-Za-z0-9][A-Za-z0-9._-]+$", description="Name of the bucket."),
    ]
    region: Annotated[
        str,
        # A label of the endpoint's host name (RFC 1035 section 2.3.1).
        Meta(
            min_length=1, max_length=63, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", description="Region of the bucket."
        ),
    ] = "us-east-1"
    endpoint_url: Annotated[
        EndpointUrl | None,
        Meta(description="For compatible stores. Unset: Amazon's endpoint of the region."),
    ] = None
    path_style: Annotated[
        bool | None,
        Meta(description="Whether the bucket stands in the path. Unset: where an endpoint_url is given, it does."),
    ] = None
    access_key_id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128, pattern="^[!-~]+$")] | None,
        Meta(description="Unset: the bucket is read without signing in."),
    ] = None
    requester_pays: Annotated[
        bool, Meta(description="Whether to pay for reading a bucket that asks its readers to.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_a_bad_endpoint("endpoint_url", self.endpoint_url)


class S3Secrets(ConnectorSecrets, frozen=True, kw_only=True):
    secret_access_key: Annotated[SecretText | None, Meta(description="Belongs to the access_key_id.")] = None
    session_token: Annotated[
        Annotated[SecretText, Meta(pattern="^[!-~]+$")] | None, Meta(description="For temporary credentials.")
    ] = None


class S3(ObjectStore[S3Config, S3Secrets]):
    type = "s3"
    label = "Amazon S3 and compatible"
    description = "Files in one bucket, grouped into datasets."
    config_type = S3Config
    secrets_type = S3Secrets
    driver = "obstore"
    warm_modules = ("obstore.store", "app.connectors.http", "app.connectors.parquet_rows", "arro3.io")
    extra = "s3"
    verified_with = ("moto 5", "s3rver 3.7")
    destination_fields = frozenset(
        {"endpoint_url", "region", "bucket", "path_style", "access_key_id", "verify_tls", "ca_certificate"}
    )
    # From the Amazon S3 API Reference, "Error responses".
    told_by_code = {
        "InvalidAccessKeyId": ("authentication_failed", "The server does not know the access key."),
        "SignatureDoesNotMatch": ("authentication_failed", "The secret access key does not belong to the access key."),
        "InvalidToken": ("authentication_failed", "The session token is not valid."),
        "ExpiredToken": ("authentication_failed", "The session token has expired."),
        "RequestTimeTooSkewed": ("authentication_failed", "The clocks of hub and server differ too much."),
        "AuthorizationHeaderMalformed": ("invalid_configuration", "{place} is not in the region of this source."),
        "PermanentRedirect": ("invalid_configuration", "{place} is not in the region of this source."),
        "AccessDenied": ("permission_denied", "These credentials may not read {place}."),
        "AllAccessDisabled": ("permission_denied", "Access to {place} is turned off."),
        "NoSuchBucket": ("not_found", "The server does not have {place}."),
        "NoSuchKey": ("not_found", "The file is not in {place} any more."),
        "InvalidObjectState": ("permission_denied", "The file is archived and has to be restored first."),
        "SlowDown": ("rate_limited", "The server takes no more requests for now."),
        "ServiceUnavailable": ("rate_limited", "The server takes no more requests for now."),
    }

    @classmethod
    def validate(cls, config: S3Config, secrets: S3Secrets) -> None:
        if config.access_key_id is not None and secrets.secret_access_key is None:
            raise InvalidField(("secrets", "secret_access_key"), "secret_access_key is needed for the access_key_id.")
        if config.access_key_id is None and (secrets.secret_access_key or secrets.session_token):
            raise InvalidField(("config", "access_key_id"), "access_key_id is needed for the secret_access_key.")
        if config.access_key_id is None and config.requester_pays:
            raise InvalidField(("config", "access_key_id"), "access_key_id is needed: somebody has to pay.")

    @property
    def url(self) -> str:
        """With the bucket in its host name where it belongs there."""
        config = self.config
        domain = "amazonaws.com.cn" if config.region.startswith("cn-") else "amazonaws.com"
        url = (config.endpoint_url or f"https://s3.{config.region}.{domain}").rstrip("/")
        if self._is_path_style:
            return url
        parts = urlsplit(url)
        return parts._replace(netloc=f"{config.bucket}.{parts.netloc}").geturl()

    @property
    def place(self) -> str:
        return f"the bucket {self.config.bucket}"

    @property
    def product(self) -> str:
        return "Amazon S3" if self.config.endpoint_url is None else "S3 compatible"

    @property
    def has_credentials(self) -> bool:
        return self.config.access_key_id is not None

    def opened(self, client: HttpClient) -> AbstractAsyncContextManager[Store]:
        from obstore.store import S3Store

        config = self.config
        make = partial(
            S3Store,
            config.bucket,
            endpoint=self.url,
            region=config.region,
            virtual_hosted_style_request=not self._is_path_style,
            request_payer=config.requester_pays,
            **self._credentials(),
        )
        return through_obstore(self, make)

    @property
    def _is_path_style(self) -> bool:
        if self.config.path_style is not None:
            return self.config.path_style
        return self.config.endpoint_url is not None or "." in self.config.bucket

    def _credentials(self) -> dict[str, Any]:
        config, secrets = self.config, self.secrets
        if config.access_key_id is None:
            return {"skip_signature": True}
        given = {"access_key_id": config.access_key_id, "secret_access_key": secrets.secret_access_key}
        return given | ({"session_token": secrets.session_token} if secrets.session_token else {})
