"""Access tokens of OAuth 2.0, for whatever signs in with one: by client credentials, or by another grant's form."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

from msgspec import Struct

from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.network.http import HttpClient, Response, origin_of

ClientAuth = Literal["header", "body"]

_MAX_TOKEN_CHARACTERS: Final = 64 * 1024
_REFUSALS: Final[dict[int, tuple[Code, str]]] = {
    **dict.fromkeys((400, 401, 403), ("authentication_failed", "did not accept the client")),
    **dict.fromkeys((404, 410), ("not_found", "does not have this path")),
    **dict.fromkeys((301, 302, 303, 307, 308), ("response_invalid", "leads elsewhere, where no secret is sent")),
    429: ("rate_limited", "takes no more requests for now"),
}
_VISIBLE: Final = re.compile(r"[!-~]+")


class ClientCredentials(Struct, frozen=True, kw_only=True):
    """RFC 6749, section 4.4."""

    token_url: str
    client_id: str
    client_secret: str
    client_auth: ClientAuth = "header"
    """Where the client says who it is; section 2.3.1."""
    scope: str | None = None
    audience: str | None = None

    def __repr__(self) -> str:
        return f"ClientCredentials({self.token_url!r}, {self.client_id!r})"


async def token_for_client(client: HttpClient, credentials: ClientCredentials) -> str:
    """As `token_for_form`."""
    form = {"grant_type": "client_credentials"}
    form |= {name: value for name in ("scope", "audience") if (value := getattr(credentials, name))}
    if credentials.client_auth == "body":
        identity = {"client_id": credentials.client_id, "client_secret": credentials.client_secret}
        return await token_for_form(client, credentials.token_url, form | identity)
    pair = f"{quote(credentials.client_id, safe='')}:{quote(credentials.client_secret, safe='')}"
    return await token_for_form(client, credentials.token_url, form, basic(pair))


async def token_for_form(
    client: HttpClient, url: str, form: Mapping[str, str], authorization: str | None = None
) -> str:
    """A bearer token that can stand in a header. Raises `authentication_failed` where the form is refused, and what
    ails the server itself otherwise; none of its words is repeated."""
    headers = {"accept": "application/json", **({"authorization": authorization} if authorization else {})}
    response = await client.post_form(url, form, headers)
    host = origin_of(url).host
    if response.status != 200:
        code, sentence = _REFUSALS.get(response.status, ("server_error", "answered with status {status}"))
        message = f"The token server {host} {sentence.format(status=response.status)}."
        raise ConnectorError(code, message, retry_after_s=response.retry_after_s)
    return _token_in(response, host)


def _token_in(response: Response, host: str) -> str:
    """RFC 6749, section 5.1."""
    answer = response.json()
    token, kind = None, None
    if isinstance(answer, dict):
        token, kind = answer.get("access_token"), answer.get("token_type", "bearer")
    if not isinstance(token, str) or len(token) > _MAX_TOKEN_CHARACTERS or not _VISIBLE.fullmatch(token):
        raise ConnectorError("response_invalid", f"The token server {host} gave no access token.")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise ConnectorError("response_invalid", f"The token server {host} gave a token of another kind than bearer.")
    return token


def basic(pair: str) -> str:
    """A header's value for `user:password` (RFC 7617)."""
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")
