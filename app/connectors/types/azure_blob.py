"""Azure Blob Storage and Data Lake Storage: List Blobs and Get Blob of the REST API, signed by Shared Key, by a shared
access signature, or with the token of a service principal."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Annotated, Final, Literal
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import msgspec
from msgspec import Meta

from app.connectors.contract.config import ConnectorSecrets, InvalidField, SecretText
from app.connectors.contract.failures import ConnectorError
from app.connectors.files.object_store import (
    PAGE,
    FoundKey,
    ObjectStore,
    ObjectStoreConfig,
    Store,
    refuse_a_bad_endpoint,
    refuse_a_readable_detour,
)
from app.connectors.files.signed_store import SignedStore
from app.connectors.network.http import HttpClient, HttpUrl
from app.connectors.network.oauth import token_for_form

Auth = Literal["account_key", "sas_token", "client_secret", "none"]
"""Each but the last is the name of the secret that it takes."""

_SCOPE: Final = "https://storage.azure.com/.default"
_API_VERSION: Final = "2021-12-02"
"""Since 2021-02-12 names come percent-encoded where XML cannot hold them; what is newer, older emulators refuse."""


class AzureBlobConfig(ObjectStoreConfig, frozen=True, kw_only=True):
    account_name: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=24,
            pattern=r"^[a-z0-9]+\Z",
            description="Name of the storage account.",
            examples=["shopdata"],
        ),
    ]
    container: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=63,
            # Names with a dollar sign are Azure's own: $web, $root, $logs.
            pattern=r"^(\$[a-z]+|[a-z0-9](-?[a-z0-9])+)\Z",
            description="Name of the container.",
            examples=["orders"],
        ),
    ]
    endpoint_url: Annotated[
        HttpUrl | None,
        Meta(
            description="For sovereign clouds, private endpoints and emulators. Unset: "
            "https://<account_name>.blob.core.windows.net. The account stands in the path where the host is an address "
            "or a name without dots."
        ),
    ] = None
    auth: Annotated[Auth, Meta(description="How to sign in: with which of the secrets.")] = "account_key"
    tenant_id: Annotated[
        Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*\Z")] | None,
        Meta(description="Directory of the service principal, for client_secret."),
    ] = None
    client_id: Annotated[
        Annotated[str, Meta(max_length=128, pattern=r"^[!-~]+\Z")] | None,
        Meta(description="Application id of the service principal, for client_secret."),
    ] = None
    authority_host: Annotated[
        HttpUrl, Meta(description="Where the service principal signs in; other clouds have their own.")
    ] = "https://login.microsoftonline.com"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_a_bad_endpoint("endpoint_url", self.endpoint_url, self.account_name)
        refuse_a_bad_endpoint("authority_host", self.authority_host)
        if self.auth != "client_secret":
            return
        refuse_a_readable_detour("authority_host", self.authority_host, self.endpoint_url)
        for name in ("tenant_id", "client_id"):
            if getattr(self, name) is None:
                raise InvalidField((name,), f"{name} is needed to sign in with a client_secret.")


class AzureBlobSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    account_key: Annotated[SecretText | None, Meta(description="One of the two keys of the account, in base64.")] = None
    sas_token: Annotated[
        Annotated[SecretText, Meta(pattern=r"^[!-~]+\Z")] | None,
        Meta(description="A shared access signature with the rights to read and to list, as a query string."),
    ] = None
    client_secret: Annotated[SecretText | None, Meta(description="Of the service principal.")] = None


class AzureBlob(ObjectStore[AzureBlobConfig, AzureBlobSecrets]):
    type = "azure_blob"
    label = "Azure Blob Storage"
    description = "Files in one container, grouped into datasets."
    config_type = AzureBlobConfig
    secrets_type = AzureBlobSecrets
    warm_modules = ("httpx", "app.connectors.network.http", "app.connectors.files.parquet_rows", "arro3.io")
    extra = "azure_blob"
    verified_with = ("Azurite 3.35",)
    destination_fields = frozenset(
        {
            *("endpoint_url", "account_name", "container", "auth", "tenant_id", "client_id", "authority_host"),
            *("verify_tls", "ca_certificate"),
        }
    )
    # From "Status and error codes" and "Blob service error codes" of the Azure Storage REST API.
    told_by_code = {
        "AuthenticationFailed": ("authentication_failed", "{host} did not accept the credentials."),
        "InvalidAuthenticationInfo": ("authentication_failed", "{host} did not accept the credentials."),
        "NoAuthenticationInformation": ("authentication_failed", "{host} lets nobody read {place} without signing in."),
        "KeyBasedAuthenticationNotPermitted": (
            "authentication_failed",
            "The account takes no keys and no signatures made with them; use a service principal.",
        ),
        "AccountIsDisabled": ("permission_denied", "The storage account is disabled."),
        "AuthorizationFailure": (
            "permission_denied",
            "{host} does not let these credentials read {place}, or does not let the hub's address in.",
        ),
        "AuthorizationPermissionMismatch": ("permission_denied", "These credentials may not read {place}."),
        "AuthorizationResourceTypeMismatch": ("permission_denied", "The signature is not made for containers."),
        "AuthorizationServiceMismatch": ("permission_denied", "The signature is not made for blobs."),
        "AuthorizationProtocolMismatch": ("permission_denied", "The signature is made for https only."),
        "AuthorizationSourceIPMismatch": ("permission_denied", "The signature is not made for the hub's address."),
        "InsufficientAccountPermissions": ("permission_denied", "These credentials may not read {place}."),
        "PublicAccessNotPermitted": ("permission_denied", "The account lets nobody in without signing in."),
        "ContainerNotFound": ("not_found", "The account does not have {place}."),
        "ContainerBeingDeleted": ("not_found", "{place} is being deleted."),
        "ContainerDisabled": ("permission_denied", "{place} is disabled."),
        "ResourceNotFound": ("not_found", "The account does not exist, or has nothing to read without signing in."),
        "BlobNotFound": ("not_found", "The file is not in {place} any more."),
        "BlobArchived": ("permission_denied", "The file is archived and has to be restored first."),
        "ServerBusy": ("rate_limited", "The server takes no more requests for now."),
        "OperationTimedOut": ("timeout", "The server took too long."),
    }

    @classmethod
    def validate(cls, config: AzureBlobConfig, secrets: AzureBlobSecrets) -> None:
        if config.auth != "none" and getattr(secrets, config.auth) is None:
            raise InvalidField(("secrets", config.auth), f"{config.auth} is needed to sign in.")
        if secrets.account_key is not None and not _is_base64(secrets.account_key):
            raise InvalidField(("secrets", "account_key"), "account_key is not base64.")
        if secrets.sas_token is not None and not parse_qs(secrets.sas_token.lstrip("?")).get("sig"):
            raise InvalidField(("secrets", "sas_token"), "sas_token is a query string that holds a signature (sig).")

    @property
    def url(self) -> str:
        config = self.config
        if config.endpoint_url is None:
            return f"https://{config.account_name}.blob.core.windows.net"
        url = config.endpoint_url.rstrip("/")
        parts = urlsplit(url)
        return url if parts.path or _names_the_account(parts.hostname or "") else f"{url}/{config.account_name}"

    @property
    def place(self) -> str:
        return f"the container {self.config.container}"

    @property
    def product(self) -> str:
        return "Azure Blob Storage" if self.config.endpoint_url is None else "Azure Blob Storage compatible"

    @property
    def has_credentials(self) -> bool:
        return self.config.auth != "none"

    @asynccontextmanager
    async def opened(self, client: HttpClient) -> AsyncIterator[Store]:
        yield _Container(self, client, await self._credentials(client))

    def code_in(self, answer: str) -> str | None:
        """Azurite calls a wrong signature AuthorizationFailure, which is Azure's word for a firewall."""
        code = super().code_in(answer)
        if code == "AuthorizationFailure" and "Server failed to authenticate" in answer:
            return "AuthenticationFailed"
        return code

    async def _credentials(self, client: HttpClient) -> Credentials:
        config, secrets = self.config, self.secrets
        if config.auth == "account_key":
            if not _is_base64(secrets.account_key or ""):
                raise ConnectorError("invalid_configuration", "account_key is missing or not base64.")
            return Credentials(account_key=base64.b64decode(secrets.account_key or ""))
        if config.auth == "sas_token":
            return Credentials(signature=_parameters(_current(secrets.sas_token or "")))
        if config.auth == "client_secret":
            return Credentials(token=await self._token(client))
        return Credentials()

    async def _token(self, client: HttpClient) -> str:
        """Microsoft identity platform, client credentials flow with a shared secret."""
        config = self.config
        url = f"{config.authority_host.rstrip('/')}/{config.tenant_id}/oauth2/v2.0/token"
        form = {"grant_type": "client_credentials", "client_id": str(config.client_id), "scope": _SCOPE}
        return await token_for_form(client, url, {**form, "client_secret": str(self.secrets.client_secret)})


class Credentials(msgspec.Struct, frozen=True):
    """One of them, or none."""

    account_key: bytes | None = None
    signature: dict[str, str] = {}
    """Query parameters of a shared access signature."""
    token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(<hidden>)"


class _Container(SignedStore):
    """See "List Blobs" of the Azure Storage REST API."""

    def __init__(self, connector: AzureBlob, client: HttpClient, credentials: Credentials) -> None:
        super().__init__(connector, client)
        self._container_path = f"{urlsplit(connector.url).path}/{connector.config.container}"
        self._account = connector.config.account_name
        self._credentials = credentials

    def path_of(self, key: str) -> str:
        """Slashes are encoded too: Azure's servers tidy a path before they look for what it names."""
        return f"{self._container_path}/{quote(key, safe='')}"

    def signed(
        self, path: str, query: Mapping[str, str], headers: dict[str, str]
    ) -> tuple[Mapping[str, str], dict[str, str]]:
        now = format_datetime(dt.datetime.now(dt.UTC), usegmt=True)
        named, known = {**headers, "x-ms-date": now, "x-ms-version": _API_VERSION}, self._credentials
        if known.token is not None:
            named["authorization"] = f"Bearer {known.token}"
        elif known.account_key is not None:
            digest = hmac.digest(known.account_key, to_sign(self._account, path, query, named).encode(), "sha256")
            named["authorization"] = f"SharedKey {self._account}:{base64.b64encode(digest).decode()}"
        return {**known.signature, **query}, named

    async def listed(self, prefix: str, after: str = "", count: int = PAGE) -> AsyncIterator[list[FoundKey]]:
        """Azure has no place to start from; what stands before `after` comes too."""
        query = {"restype": "container", "comp": "list", "maxresults": str(count), "prefix": prefix}
        while True:
            listing = await self.listing(self._container_path, query, "EnumerationResults", "Blob")
            yield [
                self.found(item.get("Name", ""), item.get("Content-Length", ""))
                for item in listing.items
                if item.get("ResourceType") != "directory"  # Of a hierarchical namespace.
            ]
            if not listing.told.get("NextMarker"):
                return
            query["marker"] = listing.told["NextMarker"]


def to_sign(account: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Of a GET: see "Authorize with Shared Key" of the Azure Storage REST API, versions since 2015-02-21."""
    named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()) if name.startswith("x-ms-"))
    resource = f"/{account}{path}" + "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
    return "GET" + "\n" * 11 + headers.get("range", "") + f"\n{named}{resource}"


def _names_the_account(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return "." in host
    return False


def _is_base64(key: str) -> bool:
    try:
        return bool(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        return False


def _current(sas_token: str) -> str:
    """Raises `authentication_failed` for one that is past its end: Azure gives the same answer for any bad one."""
    query = parse_qs(sas_token.lstrip("?"))
    if not query.get("sig"):
        raise ConnectorError("invalid_configuration", "sas_token is a query string that holds a signature (sig).")
    try:
        ends = dt.datetime.fromisoformat(query["se"][0])
    except (KeyError, ValueError):
        return sas_token
    if ends.replace(tzinfo=ends.tzinfo or dt.UTC) < dt.datetime.now(dt.UTC):
        raise ConnectorError("authentication_failed", "The sas_token has expired.")
    return sas_token


def _parameters(sas_token: str) -> dict[str, str]:
    """Some copy it with the plus signs of its base64 as they are."""
    return dict(parse_qsl(sas_token.lstrip("?").replace("+", "%2B")))
