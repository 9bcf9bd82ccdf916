"""HTTP for connectors: pinned addresses, no environment, no silent redirects, answers of a limited size.

The address is pinned by dialling the resolved one, while the `Host` header, SNI and the certificate's check keep the
name (httpx's `sni_hostname` extension). Redirects are followed here, each hop resolved and judged anew, and whatever
identifies the caller stays at the origin that it was given for.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from app.connectors.base import Network, Steps
from app.connectors.dialling import ask, dialled, handshake, hung_up, silent, tls_context, tls_failure, unreachable
from app.connectors.failures import ConnectorError
from app.core.egress import EgressRefused, Pinned, canonical_host

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS: Final = 5
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port: what credentials are bound to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @property
    def is_encrypted(self) -> bool:
        return self.scheme == "https"


def origin_of(url: str) -> Origin:
    """Raises `ValueError` for anything but an absolute http or https URL without user information."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("only http and https URLs are used")
    if parts.username is not None or parts.password is not None or "\\" in url:
        raise ValueError("a URL holds no user information")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    try:
        host = str(canonical_host(parts.hostname))
    except EgressRefused as error:
        raise ValueError(f"the host is refused: {error.reason}") from None
    return Origin(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))


class Response(msgspec.Struct, frozen=True):
    """An answer, read whole and decompressed."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    url: str
    """Where it came from in the end."""

    def json(self) -> Any:
        """Raises `response_invalid`."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise ConnectorError("response_invalid", "The answer is not JSON.") from None


class HttpClient:
    """GET and POST for one source. Use it as an asynchronous context manager."""

    def __init__(
        self,
        network: Network,
        *,
        verify_tls: bool = True,
        ca_certificate: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 8.0,
    ) -> None:
        self._network = network
        self._verify_tls = verify_tls
        self._ca_certificate = ca_certificate
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._transports.values():
            await transport.aclose()

    async def reach(self, steps: Steps, url: str) -> None:
        """Steps resolve, connect and tls of a check. A server without TLS is asked for a greeting first, so that
        credentials go only to what speaks HTTP."""
        origin = origin_of(url)
        with steps.step("resolve", f"{origin.host} is known."):
            pinned = await self._network.resolve(origin.host, origin.port, self._connect_timeout_s)
        if origin.is_encrypted:
            await self._reach_encrypted(steps, origin, pinned)
            return
        with steps.step("connect", f"HTTP is spoken on port {origin.port}."):
            async with dialled(pinned, origin.port, self._connect_timeout_s) as sock:
                answer = await ask(sock, _greeting(url), pinned, origin.port, self._read_timeout_s)
            if not answer.startswith(b"HTTP/"):
                raise _not_http(origin)
        steps.server["encryption"] = "none"
        steps.skip("tls", "The URL starts with http; the connection is not encrypted.")

    async def _reach_encrypted(self, steps: Steps, origin: Origin, pinned: Pinned) -> None:
        with steps.step("connect", f"Port {origin.port} is open."):
            async with dialled(pinned, origin.port, self._connect_timeout_s):
                pass
        with steps.step("tls", "The connection is encrypted."):
            async with dialled(pinned, origin.port, self._connect_timeout_s) as sock:
                steps.server["encryption"] = await handshake(
                    sock, self._context(origin.host), pinned, origin.port, self._connect_timeout_s
                )

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        own_origin: Origin | None = None,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> Response:
        """`headers` are sent to `own_origin` only; without it, to the origin of `url`."""
        own_origin = own_origin or origin_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            is_own = _target(url) == own_origin
            response = await self._send("GET", url, dict(headers or {}) if is_own else {}, None, max_bytes)
            if response.status not in _REDIRECTS or "location" not in response.headers:
                return response
            url = _next_hop(url, response.headers["location"])
        raise ConnectorError("response_invalid", f"There were more than {MAX_REDIRECTS} redirects.")

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """Never follows a redirect: the form holds credentials."""
        from urllib.parse import urlencode

        all_headers = {"content-type": "application/x-www-form-urlencoded", **headers}
        return await self._send("POST", url, all_headers, urlencode(form).encode(), MAX_BODY_BYTES)

    async def _send(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None, max_bytes: int
    ) -> Response:
        import httpx

        origin = _target(url)
        pinned = await self._network.resolve(origin.host, origin.port, self._connect_timeout_s)
        timeout = httpx.Timeout(self._read_timeout_s, connect=self._connect_timeout_s).as_dict()
        failure: Exception | None = None
        for address in pinned.addresses:
            request = _request(method, url, origin, address, headers, content, timeout)
            try:
                answer = await self._transport(origin.host).handle_async_request(request)
                return await _read(answer, url, max_bytes)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
            except httpx.HTTPError as error:
                raise self._explain(error, origin) from error
        raise self._explain(failure or OSError(), origin) from failure

    def _transport(self, host: str) -> httpx.AsyncHTTPTransport:
        """One for each name: two names at one address must not share a connection made for the first."""
        import httpx

        if host not in self._transports:
            self._transports[host] = httpx.AsyncHTTPTransport(verify=self._context(host), trust_env=False)
        return self._transports[host]

    def _context(self, host: str) -> ssl.SSLContext:
        return tls_context(host, verify_certificate=self._verify_tls, ca_certificate=self._ca_certificate)

    def _explain(self, error: Exception, origin: Origin) -> ConnectorError:
        """httpx's errors in our words."""
        import httpx

        cause = _root_cause(error)
        if isinstance(error, httpx.ConnectTimeout):
            return ConnectorError(
                "connect_timeout", f"{origin.host} did not answer within {self._connect_timeout_s:g} s."
            )
        if isinstance(error, httpx.TimeoutException):
            return silent(origin.host, origin.port, self._read_timeout_s)
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause, origin.host, origin.port, self._connect_timeout_s)
        if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
            return _not_http(origin)
        if isinstance(error, httpx.ConnectError) and isinstance(cause, OSError):
            return unreachable(cause, origin.host, origin.port)
        return hung_up(origin.host, origin.port)


def _target(url: str) -> Origin:
    try:
        return origin_of(url)
    except ValueError as error:
        raise ConnectorError("egress_refused", f"The server led to a URL that is not followed: {error}.") from None


def _next_hop(url: str, location: str) -> str:
    """Raises `egress_refused` for what is not followed: another scheme, or back to no encryption."""
    import httpx

    try:
        target = str(httpx.URL(url).join(location))
    except (httpx.InvalidURL, ValueError):
        raise ConnectorError("response_invalid", "The server redirects to something that is no URL.") from None
    if _target(url).is_encrypted and not _target(target).is_encrypted:
        raise ConnectorError("egress_refused", "The server redirects from an encrypted to an unencrypted URL.")
    return target


def _request(
    method: str,
    url: str,
    origin: Origin,
    address: str,
    headers: Mapping[str, str],
    content: bytes | None,
    timeout: dict[str, float | None],
) -> httpx.Request:
    import httpx

    named = httpx.URL(url).copy_with(host=origin.host, port=origin.port, fragment=None)
    host_header = named.netloc.decode("ascii")
    basics = {"host": host_header, "accept": "application/json, */*;q=0.5", "accept-encoding": "gzip"}
    return httpx.Request(
        method,
        named.copy_with(host=address),
        headers={**basics, "user-agent": "data-fusion-hub", **headers},
        content=content,
        extensions={"sni_hostname": origin.host, "timeout": timeout},
    )


def _root_cause(error: BaseException) -> BaseException:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _greeting(url: str) -> bytes:
    parts = urlsplit(url)
    return f"HEAD {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode("ascii")


def _not_http(origin: Origin) -> ConnectorError:
    return ConnectorError("protocol_mismatch", f"What answers on {origin.host}, port {origin.port}, is not HTTP.")


# Bodies ---------------------------------------------------------------------------------------------------------------


async def _read(answer: httpx.Response, url: str, max_bytes: int) -> Response:
    try:
        body = await _body(answer, max_bytes)
    finally:
        await answer.aclose()
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status_code, headers, body, url)


async def _body(answer: httpx.Response, max_bytes: int) -> bytes:
    """Decompresses here, in bounded bites: httpx would inflate a bomb before anybody can say stop."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", ""}:
        raise ConnectorError("response_invalid", "The answer is compressed in a way that was not asked for.")
    inflate = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    body = bytearray()
    async for chunk in answer.stream:  # type: ignore[union-attr]
        try:
            body += inflate.decompress(chunk, max_bytes + 1 - len(body)) if inflate else chunk
        except zlib.error:
            raise ConnectorError("response_invalid", "The compressed answer is damaged.") from None
        if len(body) > max_bytes:
            raise ConnectorError("response_too_large", f"The answer is larger than {max_bytes // 1024} KiB.")
    return bytes(body)
