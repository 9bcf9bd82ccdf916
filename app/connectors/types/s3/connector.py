"""Amazon S3 and compatible object stores: ListObjectsV2 and GetObject, signed by `signature_v4`."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import quote, unquote_plus, urlsplit

from msgspec import Meta

from app.connectors.contract.config import InvalidField
from app.connectors.files.object_store import (
    PAGE,
    FoundKey,
    ObjectStore,
    ObjectStoreConfig,
    Store,
    refuse_a_bad_endpoint,
)
from app.connectors.files.signed_store import SignedStore
from app.connectors.network.http import HttpClient, HttpUrl
from app.connectors.types.s3.access import AccessKeyId, PathStyle, Region, S3Secrets, refuse_half_a_key
from app.connectors.types.s3.signature_v4 import AccessKey, signed


class S3Config(ObjectStoreConfig, frozen=True, kw_only=True):
    bucket: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=63,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]+\Z",
            description="Name of the bucket.",
            examples=["shop-data"],
        ),
    ]
    region: Region = "us-east-1"
    endpoint_url: Annotated[
        HttpUrl | None,
        Meta(description="For compatible stores. Unset: Amazon's endpoint of the region."),
    ] = None
    path_style: PathStyle = None
    access_key_id: AccessKeyId = None
    requester_pays: Annotated[
        bool, Meta(description="Whether to pay for reading a bucket that asks its readers to.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_a_bad_endpoint("endpoint_url", self.endpoint_url)


class S3(ObjectStore[S3Config, S3Secrets]):
    type = "s3"
    label = "Amazon S3 and compatible"
    description = "Files in one bucket, grouped into datasets."
    config_type = S3Config
    secrets_type = S3Secrets
    warm_modules = ("httpx", "app.connectors.network.http", "app.connectors.files.parquet_rows", "arro3.io")
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
        "TemporaryRedirect": ("invalid_configuration", "{place} is not in the region of this source."),
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
        refuse_half_a_key(config.access_key_id, secrets)
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

    @asynccontextmanager
    async def opened(self, client: HttpClient) -> AsyncIterator[Store]:
        yield _Bucket(self, client)

    @property
    def bucket_path(self) -> str:
        return f"/{self.config.bucket}" if self._is_path_style else ""

    @property
    def access_key(self) -> AccessKey | None:
        """None for a bucket that is read as anybody."""
        config, secrets = self.config, self.secrets
        if config.access_key_id is None:
            return None
        return AccessKey(config.access_key_id, secrets.secret_access_key or "", secrets.session_token)

    @property
    def _is_path_style(self) -> bool:
        if self.config.path_style is not None:
            return self.config.path_style
        return self.config.endpoint_url is not None or "." in self.config.bucket


class _Bucket(SignedStore):
    """See "ListObjectsV2" of the Amazon S3 API Reference."""

    def __init__(self, connector: S3, client: HttpClient) -> None:
        super().__init__(connector, client)
        self._bucket_path = connector.bucket_path
        self._access_key = connector.access_key
        self._region = connector.config.region
        self._payer = {"x-amz-request-payer": "requester"} if connector.config.requester_pays else {}

    def path_of(self, key: str) -> str:
        return f"{self._bucket_path}/{quote(key)}"

    def signed(
        self, path: str, query: Mapping[str, str], headers: dict[str, str]
    ) -> tuple[Mapping[str, str], dict[str, str]]:
        if self._access_key is None:
            return query, headers
        now = dt.datetime.now(dt.UTC)
        return query, signed(self._access_key, self._region, path, query, {**headers, **self._payer}, now)

    async def listed(self, prefix: str, after: str = "", count: int = PAGE) -> AsyncIterator[list[FoundKey]]:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(count), "prefix": prefix}
        if after[:-1]:
            query["start-after"] = after[:-1]  # The key that is equal to `after` is to be among them.
        while True:
            listing = await self.listing(self._bucket_path or "/", query, "ListBucketResult", "Contents")
            is_encoded = listing.told.get("EncodingType") == "url"
            yield [
                self.found(
                    unquote_plus(item.get("Key", "")) if is_encoded else item.get("Key", ""), item.get("Size", "")
                )
                for item in listing.items
            ]
            if listing.told.get("IsTruncated") != "true":
                return
            if not listing.told.get("NextContinuationToken"):
                raise self.no_listing()  # A first page alone would look like all there is.
            query["continuation-token"] = listing.told["NextContinuationToken"]
            query.pop("start-after", None)
