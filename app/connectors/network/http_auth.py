"""How sources over HTTP sign in: the settings they share, and a client that knows the credentials.

Credentials and configured headers go to the source's own origin and nowhere else; a token server gets the client's
secret and nothing of the rest. Every address is resolved and judged by `http.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from msgspec import Meta
from msgspec.structs import replace

from app.connectors.contract.config import InvalidField, SecretText
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.network.http import (
    MAX_BODY_BYTES,
    HttpClient,
    HttpUrl,
    MutualTlsConfig,
    Origin,
    Response,
    check_url,
    origin_of,
)
from app.connectors.network.oauth import ClientAuth, ClientCredentials, basic, token_for_client
from app.connectors.network.tls_fields import ClientKeySecrets, refuse_half_an_identity

AuthMode = Literal["none", "basic", "bearer", "api_key_header", "api_key_query", "oauth2_client_credentials"]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
LongWord = Annotated[str, Meta(min_length=1, max_length=1024)]

HTTP_DESTINATION_FIELDS: Final = frozenset(
    {"auth", "username", "api_key_name", "token_url", "client_auth", "client_id", "client_certificate"}
    | {"verify_tls", "ca_certificate"}
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "host", "content-length", "transfer-encoding", "connection"}
    | {"accept-encoding", "upgrade", "te", "trailer", "x-api-key", "content-type"}
)
_SECRET_OF: Final = {
    "basic": "password",
    "bearer": "token",
    "api_key_header": "api_key",
    "api_key_query": "api_key",
    "oauth2_client_credentials": "client_secret",
}
_SETTINGS_OF: Final = {
    "basic": ("username",),
    "api_key_header": ("api_key_name",),
    "api_key_query": ("api_key_name",),
    "oauth2_client_credentials": ("token_url", "client_id"),
}


class HttpSourceConfig(MutualTlsConfig, frozen=True, kw_only=True):
    """Settings behind those of the type itself."""

    auth: Annotated[AuthMode, Meta(description="How the hub signs in.", examples=["bearer"])] = "none"
    username: Annotated[Word | None, Meta(description="For `basic`.")] = None
    api_key_name: Annotated[Word | None, Meta(description="Header or query parameter that carries the key.")] = None
    token_url: Annotated[HttpUrl | None, Meta(description="For OAuth2: where tokens are given out.")] = None
    client_auth: Annotated[
        ClientAuth,
        Meta(description="For OAuth2: where the token server looks for the client's id and secret."),
    ] = "header"
    client_id: Annotated[Word | None, Meta(description="For OAuth2.")] = None
    scope: Annotated[LongWord | None, Meta(description="For OAuth2: what the token is to allow.")] = None
    audience: Annotated[LongWord | None, Meta(description="For OAuth2: whom the token is for.")] = None
    headers: Annotated[
        dict[Word, Annotated[str, Meta(max_length=1024)]],
        Meta(max_length=32, description="Sent with every request. Not for secrets."),
    ] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_url("token_url", self.token_url)
        self._check_auth()
        self._check_headers()

    def _check_auth(self) -> None:
        for name in _SETTINGS_OF.get(self.auth, ()):
            if getattr(self, name) is None:
                raise InvalidField((name,), f"{name} is needed for auth {self.auth}.")
        if self.auth == "basic" and ":" in (self.username or ""):
            raise InvalidField(("username",), "A username for `basic` has no colon (RFC 7617, section 2).")
        if self.auth == "api_key_header":
            if not _TOKEN.fullmatch(self.api_key_name or ""):
                raise InvalidField(("api_key_name",), "api_key_name is not the name of a header.")
            if (self.api_key_name or "").lower() in _OWN_HEADERS - {"authorization", "cookie", "x-api-key"}:
                raise InvalidField(("api_key_name",), "api_key_name is a header that the hub sets.")

    def _check_headers(self) -> None:
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or not value.isascii():
                raise InvalidField(("headers", name), "A header has an ASCII name and value.")
            if name.lower() in _OWN_HEADERS:
                raise InvalidField(("headers", name), f"{name} is set by the hub; secrets belong into auth.")


class HttpSourceSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="For `basic`.")] = None
    token: Annotated[SecretText | None, Meta(description="For `bearer`.")] = None
    api_key: Annotated[SecretText | None, Meta(description="For `api_key_header` and `api_key_query`.")] = None
    client_secret: Annotated[SecretText | None, Meta(description="For OAuth2.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("token", "api_key"):
            if not all("\x21" <= character <= "\x7e" for character in getattr(self, name) or ""):
                raise InvalidField((name,), f"{name} holds a character that no header can carry.")


def check_secrets(config: HttpSourceConfig, secrets: HttpSourceSecrets) -> None:
    """What settings and secrets ask of each other. Raises `InvalidField`."""
    needed = _SECRET_OF.get(config.auth)
    if needed and getattr(secrets, needed) is None:
        raise InvalidField(("secrets", needed), f"{needed} is needed for auth {config.auth}.")
    refuse_half_an_identity(config.client_certificate, secrets)


class SignedIn:
    """A client with the credentials of one source. Use `sign_in` to get one."""

    def __init__(
        self, client: HttpClient, config: HttpSourceConfig, secrets: HttpSourceSecrets, own_origin: Origin
    ) -> None:
        self.own_origin = own_origin
        self._client = client
        self._config = config
        self._secrets = secrets
        self._headers: dict[str, str] = dict(config.headers)
        self._query: dict[str, str] = {}
        self._was_accepted = False

    async def sign_in(self) -> SignedIn:
        """Raises `authentication_failed` where a token server knows neither client nor secret."""
        config, secrets = self._config, self._secrets
        if config.auth == "basic":
            self._headers["authorization"] = basic(f"{config.username}:{secrets.password}")
        elif config.auth == "bearer":
            self._headers["authorization"] = f"Bearer {secrets.token}"
        elif config.auth == "api_key_header":
            self._headers[str(config.api_key_name)] = str(secrets.api_key)
        elif config.auth == "api_key_query":
            self._query[str(config.api_key_name)] = str(secrets.api_key)
        elif config.auth == "oauth2_client_credentials":
            self._headers["authorization"] = f"Bearer {await self._token()}"
        return self

    async def request(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
        accept: str | None = None,
        depth: int | None = None,
        byte_range: tuple[int, int] | None = None,
        max_bytes: int = MAX_BODY_BYTES,
        may_cut: bool = False,
    ) -> Response:
        """As `HttpClient.request`; `depth` is WebDAV's (RFC 4918, section 10.2). A token that was good and is no longer
        is exchanged for a new one, once for each request."""

        async def send() -> Response:
            is_own = origin_of(url) == self.own_origin
            return await self._client.request(
                method,
                with_query(url, {**(query or {}), **(self._query if is_own else {})}),
                headers={**self._headers, **_without_unset({"content-type": content_type})},
                open_headers=_without_unset({"accept": accept, "depth": None if depth is None else str(depth)}),
                content=content,
                own_origin=self.own_origin,
                byte_range=byte_range,
                max_bytes=max_bytes,
                may_cut=may_cut,
            )

        response = await send()
        if response.status != 401:
            self._was_accepted = True
        elif self._was_accepted and self._config.auth == "oauth2_client_credentials":
            await self.sign_in()
            response = await send()
        return replace(response, is_anonymous=True) if self._is_anonymous else response

    @property
    def _is_anonymous(self) -> bool:
        """Credentials may stand in headers or in the URL, too."""
        return self._config.auth == "none" and not self._headers and self._config.client_certificate is None

    async def _token(self) -> str:
        config = self._config
        credentials = ClientCredentials(
            token_url=str(config.token_url),
            client_id=str(config.client_id),
            client_secret=str(self._secrets.client_secret),
            client_auth=config.client_auth,
            scope=config.scope,
            audience=config.audience,
        )
        return await token_for_client(self._client, credentials)


def _without_unset(headers: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if value is not None}


def with_query(url: str, query: Mapping[str, str]) -> str:
    """The URL with parameters set; those of the same names are replaced, the rest stays as it is."""
    if not query:
        return url
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in query]
    return urlunsplit(parts._replace(query=urlencode([*kept, *query.items()])))


def refuse_unless_signed_in(response: Response) -> None:
    """Raises what the status says of the caller and of the server itself, not of what was asked for."""
    if response.status in {401, 403, 407} and response.is_anonymous:
        code: Code = "permission_denied" if response.status == 403 else "authentication_failed"
        raise ConnectorError(
            code, "The server does not answer just anybody, and the source has no credentials: see auth."
        )
    if response.status in {401, 407}:
        raise ConnectorError("authentication_failed", "The server did not accept the credentials.")
    if response.status == 403:
        raise ConnectorError("permission_denied", "The server knows the credentials and does not let them read this.")
    if response.status == 429 or (response.status == 503 and "retry-after" in response.headers):
        raise too_many_requests(response.retry_after_s)
    if response.status >= 500:
        raise ConnectorError("server_error", f"The server answered with status {response.status}.")


def too_many_requests(wait_s: int | None) -> ConnectorError:
    patience = "" if wait_s is None else f" and asks to wait for {wait_s} s"
    return ConnectorError("rate_limited", f"The server takes no more requests for now{patience}.", retry_after_s=wait_s)


def refuse_unless_ok(response: Response) -> None:
    if response.status in {404, 410}:
        raise ConnectorError("not_found", "The server does not have this path.")
    if 300 <= response.status < 400:
        raise ConnectorError("response_invalid", "The server leads elsewhere, where such a request is not sent again.")
    if not 200 <= response.status < 300:
        raise ConnectorError("server_error", f"The server answered with status {response.status}.")
