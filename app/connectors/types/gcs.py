"""Google Cloud Storage over its JSON API.

Three things of a service account's key count: who it is for, its private key, and where the token is fetched. Servers
are dialled by `HttpClient` at pinned addresses.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from app.connectors.contract import pem
from app.connectors.contract.config import ConnectorSecrets, InvalidField, SecretText
from app.connectors.contract.failures import ConnectorError
from app.connectors.files.object_store import (
    PAGE,
    FoundKey,
    ObjectStore,
    ObjectStoreConfig,
    Store,
    most_bytes,
    part_of,
    patiently,
    refuse_a_bad_endpoint,
    refuse_a_readable_detour,
)
from app.connectors.network.http import MAX_BODY_BYTES, HttpClient, HttpUrl, Response, check_url
from app.connectors.network.oauth import token_for_form

_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_only"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_S: Final = 600


class GcsConfig(ObjectStoreConfig, frozen=True, kw_only=True):
    bucket: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=222,
            pattern=r"^[a-z0-9][a-z0-9._-]*[a-z0-9]\Z",
            description="Name of the bucket.",
            examples=["shop-data"],
        ),
    ]
    endpoint_url: Annotated[
        HttpUrl | None,
        Meta(description="For private endpoints and emulators. Unset: https://storage.googleapis.com."),
    ] = None
    auth: Annotated[
        Literal["service_account", "none"], Meta(description="How to sign in: with a key, or as anybody.")
    ] = "service_account"
    billing_project: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-z0-9][a-z0-9.:-]*\Z")] | None,
        Meta(description="Project that pays for reading a bucket that asks its readers to."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_a_bad_endpoint("endpoint_url", self.endpoint_url)


class GcsSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    service_account_json: Annotated[
        SecretText | None,
        Meta(description="Key of a service account as Google gives it: a JSON document with its private key."),
    ] = None


class ServiceAccount(msgspec.Struct, frozen=True):
    """What of a key is used. Whatever else stands in it (`gcs_base_url`, `disable_oauth`, paths) is not looked at."""

    client_email: Annotated[str, Meta(min_length=3, max_length=320, pattern=r"^[!-~]+@[!-~]+\Z")]
    private_key: Annotated[str, Meta(max_length=8192)]
    private_key_id: Annotated[str, Meta(max_length=128)] | None = None
    token_uri: HttpUrl = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, no secret
    type: Literal["service_account"] = "service_account"

    @classmethod
    def parse(cls, text: str | None, config: GcsConfig) -> ServiceAccount:
        """Raises `InvalidField`; the message repeats nothing of the key. The numbers in the private key are judged when
        it is used: that takes half a second for a long one."""
        try:
            account = msgspec.json.decode(text or "", type=cls)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise _bad_key(
                "it is a JSON document of type service_account with client_email, private_key (PEM) and token_uri"
            ) from None
        if pem.labels(account.private_key).isdisjoint({"PRIVATE KEY", "RSA PRIVATE KEY"}):
            raise _bad_key("its private_key is no RSA key in PEM form")
        try:
            check_url("token_uri", account.token_uri)
            refuse_a_readable_detour("token_uri", account.token_uri, config.endpoint_url)
        except InvalidField as error:
            raise _bad_key(error.message.rstrip(".")) from None
        return account

    def assertion(self) -> str:
        """A signed claim to be this account (RFC 7523, section 2.1), good at `token_uri` only."""
        import jwt

        now = int(time.time())
        claims = {"iss": self.client_email, "scope": _SCOPE, "aud": self.token_uri, "iat": now}
        headers = {"kid": self.private_key_id} if self.private_key_id else None
        try:
            return jwt.encode(
                {**claims, "exp": now + _ASSERTION_S}, pem.private_key(self.private_key), "RS256", headers
            )
        except Exception as error:
            raise ConnectorError(
                "invalid_configuration", "The private_key of the service account is broken."
            ) from error


def _bad_key(why: str) -> InvalidField:
    return InvalidField(("secrets", "service_account_json"), f"service_account_json cannot be used: {why}.")


class Gcs(ObjectStore[GcsConfig, GcsSecrets]):
    type = "gcs"
    label = "Google Cloud Storage"
    description = "Files in one bucket, grouped into datasets."
    config_type = GcsConfig
    secrets_type = GcsSecrets
    warm_modules = ("httpx", "jwt", "app.connectors.network.http", "app.connectors.files.parquet_rows", "arro3.io")
    extra = "gcs"
    verified_with = ("fake-gcs-server 1.54",)
    # Reasons from "HTTP status and error codes for JSON".
    told_by_code = {
        "rateLimitExceeded": ("rate_limited", "The server takes no more requests for now."),
        "userRateLimitExceeded": ("rate_limited", "The server takes no more requests for now."),
        "accountDisabled": ("permission_denied", "The account of {place} is disabled."),
        "userProjectMissing": ("invalid_configuration", "Readers pay for {place}: billing_project is needed."),
        "userProjectAccessDenied": ("permission_denied", "These credentials may not use the billing_project."),
    }
    destination_fields = frozenset({"endpoint_url", "bucket", "auth", "verify_tls", "ca_certificate"})

    @classmethod
    def validate(cls, config: GcsConfig, secrets: GcsSecrets) -> None:
        if config.auth == "none":
            return
        if secrets.service_account_json is None:
            raise InvalidField(("secrets", "service_account_json"), "service_account_json is needed to sign in.")
        ServiceAccount.parse(secrets.service_account_json, config)

    @property
    def url(self) -> str:
        return (self.config.endpoint_url or "https://storage.googleapis.com").rstrip("/")

    @property
    def place(self) -> str:
        return f"the bucket {self.config.bucket}"

    @property
    def product(self) -> str:
        return "Google Cloud Storage" if self.config.endpoint_url is None else "Google Cloud Storage compatible"

    @property
    def has_credentials(self) -> bool:
        return self.config.auth != "none"

    @asynccontextmanager
    async def opened(self, client: HttpClient) -> AsyncIterator[Store]:
        yield _JsonApi(self, client, await self._headers(client))

    async def _headers(self, client: HttpClient) -> dict[str, str]:
        if self.config.auth == "none":
            return {}
        try:
            account = ServiceAccount.parse(self.secrets.service_account_json, self.config)
        except InvalidField as error:
            raise ConnectorError("invalid_configuration", error.message) from None
        form = {"grant_type": _GRANT, "assertion": account.assertion()}
        return {"authorization": f"Bearer {await token_for_form(client, account.token_uri, form)}"}


class _JsonApi:
    """A `Store`. See the Cloud Storage JSON API, "Objects: list" and "Objects: get"."""

    def __init__(self, connector: Gcs, client: HttpClient, headers: dict[str, str]) -> None:
        self._connector = connector
        self._client = client
        self._headers = headers
        self._objects = f"{connector.url}/storage/v1/b/{quote(connector.config.bucket, safe='')}/o"
        project = connector.config.billing_project
        self._payer = {"userProject": project} if project else {}

    async def pages(self, folder: str, after: str = "") -> AsyncIterator[list[FoundKey]]:
        query = {"maxResults": str(PAGE), "fields": "items(name,size),nextPageToken"}
        if folder:
            query["prefix"] = folder + "/"
        if after:
            query["startOffset"] = after
        while True:
            page = _decoded(await self._get(self._objects, query), _Page)
            yield [FoundKey(item.name, item.size) for item in page.items]
            if not page.next_page_token:
                return
            query["pageToken"] = page.next_page_token

    async def size(self, key: str) -> int:
        item: _Item = _decoded(await self._get(self._url(key), {"fields": "name,size"}, is_file=True), _Item)
        return item.size

    async def read(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        answer = await self._get(self._url(key), {"alt": "media"}, (start, end), is_file=True)
        return part_of(answer, start, end)

    def _url(self, key: str) -> str:
        return f"{self._objects}/{quote(key, safe='')}"

    async def _get(
        self, url: str, query: dict[str, str], byte_range: tuple[int, int] | None = None, *, is_file: bool = False
    ) -> Response:
        answer = await patiently(
            lambda: self._client.request(
                "GET",
                f"{url}?{urlencode({**query, **self._payer})}",
                headers=self._headers,
                byte_range=byte_range,
                max_bytes=most_bytes(byte_range) if byte_range else MAX_BODY_BYTES,
                may_cut=byte_range is not None,
            )
        )
        if answer.status in {200, 206}:
            return answer
        if answer.status == 404 and is_file:
            raise ConnectorError("not_found", f"There is no such file in {self._connector.place}.")
        raise self._connector.explain(answer, _reason(answer))


class _Item(msgspec.Struct):
    name: str
    size: Annotated[int, Meta(ge=0)] = 0
    """The API writes it as a string."""


class _Page(msgspec.Struct, rename="camel"):
    items: list[_Item] = []
    next_page_token: str = ""


def _decoded(answer: Response, type_: object) -> Any:
    try:
        return msgspec.convert(answer.json(), type_, strict=False)
    except msgspec.ValidationError:
        raise ConnectorError("response_invalid", "The answer is none of Google Cloud Storage.") from None


def _reason(answer: Response) -> str | None:
    """`error.errors[0].reason` of a refusal."""
    try:
        return str(answer.json()["error"]["errors"][0]["reason"])
    except (ConnectorError, LookupError, TypeError):
        return None
