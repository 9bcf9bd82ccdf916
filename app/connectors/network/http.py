"""HTTP for connectors: pinned addresses, no environment, no silent redirects, answers of a limited size.

The address is pinned by dialling the resolved one, while the `Host` header, SNI and the certificate's check keep the
name (httpx's `sni_hostname` extension). Redirects are followed here, each hop resolved and judged anew, and whatever
identifies the caller stays at the origin that it was given for.
"""

from __future__ import annotations

import codecs
import datetime as dt
import re
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Meta

from app.connectors.contract.config import ConnectTimeoutS, InvalidField, SilenceS
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.connectors.network.dialling import ask, dialled, hung_up, not_in_time, silent, unreachable
from app.connectors.network.recognising import Protocol, met, mismatch, refuse_other, what_answers
from app.connectors.network.tls import handshake, tls_context, tls_failure
from app.connectors.network.tls_fields import ClientCertificate, ClientKeySecrets, TlsConfig
from app.core.egress import EgressRefused, Pinned, canonical_host
from app.core.tunnels import TunnelFailed

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS: Final = 5
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_PIECE_BYTES: Final = 256 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_PATIENCE_S: Final = 30 * 24 * 3600
_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9._:-]{1,40})""", re.IGNORECASE)
_HUNG_UP: Final = re.compile("disconnected|peer closed")
_READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})


class HttpConfig(TlsConfig, frozen=True, kw_only=True):
    """How a source that lies at URLs is reached."""

    connect_timeout_s: ConnectTimeoutS = 5.0
    read_timeout_s: SilenceS = 8.0


class MutualTlsConfig(HttpConfig, frozen=True, kw_only=True):
    """The hub may show a certificate of its own."""

    client_certificate: ClientCertificate = None


HttpUrl = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        pattern="^https?://",
        extra_json_schema={"patternErrorMessage": "must start with http:// or https://"},
    ),
]


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
        raise ValueError("a URL starts with http:// or https://")
    if parts.username is not None or parts.password is not None or "\\" in parts.netloc:
        raise ValueError("a URL holds no user information")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.port == 0:
        raise ValueError("the port is 0")
    try:
        host = str(canonical_host(parts.hostname))
    except EgressRefused as error:
        raise ValueError(f"the host is refused: {error.reason}") from None
    return Origin(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))


def check_url(name: str, url: str | None) -> None:
    """Raises `InvalidField` for a URL that no request is sent to."""
    if url is None:
        return
    try:
        origin_of(url)
    except ValueError as error:
        raise InvalidField((name,), f"{name}: {error}.") from None


class Response(msgspec.Struct, frozen=True):
    """An answer, read and decompressed."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    url: str
    """Where it came from in the end."""
    is_whole: bool = True
    """Whether `body` is all of it; see `HttpClient.request`."""
    is_anonymous: bool = False
    """Whether it was asked for without any credentials, so that none of them can be wrong."""

    @property
    def retry_after_s(self) -> int | None:
        return retry_after_s(self.headers)

    def json(self, decode: Callable[[bytes], object] = msgspec.json.decode) -> Any:
        """Raises `response_invalid`. A byte order mark is passed over (RFC 8259, section 8.1). Answers that hold rows
        are decoded by `json_text.decode_json`, which loses no digit. What is no UTF-8 is read as it is declared."""
        for body in self._in_utf8():
            with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                return decode(body)
        raise ConnectorError("response_invalid", "The answer is not JSON.")

    def _in_utf8(self) -> Iterator[bytes]:
        """First as it is: servers say ISO-8859-1 of whatever they send."""
        yield self.body.removeprefix(codecs.BOM_UTF8)
        declared = _CHARSET.search(self.headers.get("content-type", ""))
        with suppress(LookupError, UnicodeError):
            if declared and codecs.lookup(declared[1]).name != "utf-8":
                yield self.body.decode(declared[1]).removeprefix("\ufeff").encode()


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """RFC 9110, section 10.2.3: seconds or a date; at most a month. None for what is neither."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdecimal() and len(told) < 8:
        return min(int(told), _MAX_PATIENCE_S)
    try:
        moment = parsedate_to_datetime(told)
    except (TypeError, ValueError):
        return None
    seconds = (moment.replace(tzinfo=moment.tzinfo or dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds()
    return max(0, min(ceil(seconds), _MAX_PATIENCE_S))


class Stream(msgspec.Struct, frozen=True):
    """An answer whose body is still under way."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    url: str
    """Where it comes from in the end."""
    pieces: AsyncIterator[bytes]
    """The decompressed body, to be gone through once. Raises `ConnectorError`."""


class HttpClient:
    """Requests for one source. Use it as an asynchronous context manager."""

    def __init__(
        self,
        network: Network,
        *,
        verify_tls: bool = True,
        ca_certificate: str | None = None,
        client_certificate: str | None = None,
        client_key: str | None = None,
        client_key_passphrase: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 8.0,
    ) -> None:
        self._network = network
        self._verify_tls = verify_tls
        self._ca_certificate = ca_certificate
        self._identity = (client_certificate, client_key, client_key_passphrase)
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._transports: dict[tuple[str, bool], httpx.AsyncHTTPTransport] = {}

    @classmethod
    def of(cls, network: Network, config: HttpConfig, secrets: ClientKeySecrets | None = None) -> HttpClient:
        """As a config says. Without secrets, nobody is asked for a certificate of the hub."""
        return cls(
            network,
            verify_tls=config.verify_tls,
            ca_certificate=config.ca_certificate,
            client_certificate=config.client_certificate if isinstance(config, MutualTlsConfig) else None,
            client_key=secrets.client_key if secrets else None,
            client_key_passphrase=secrets.client_key_passphrase if secrets else None,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )

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
            await self._reach_encrypted(steps, url, origin, pinned)
            return
        with steps.step("connect", f"HTTP is spoken on port {origin.port}."):
            greeted = self._greeted(url, origin, pinned)
            await met(greeted, Protocol.HTTP, "HTTP", pinned, origin.port, "not_set")
        steps.server["encryption"] = "none"
        steps.skip("tls", "The URL starts with http; the connection is not encrypted.")

    async def _reach_encrypted(self, steps: Steps, url: str, origin: Origin, pinned: Pinned) -> None:
        with steps.step("connect", f"Port {origin.port} is open."):
            async with dialled(pinned, origin.port, self._connect_timeout_s):
                pass
        with steps.step("tls", "The connection is encrypted."):
            encrypted = self._encrypted(origin, pinned)
            steps.server["encryption"] = await met(encrypted, Protocol.HTTP, "HTTP", pinned, origin.port, "now")

    async def _greeted(self, url: str, origin: Origin, pinned: Pinned) -> None:
        async with dialled(pinned, origin.port, self._connect_timeout_s) as sock:
            answer = await ask(sock, _greeting(url), pinned, origin.port, self._read_timeout_s)
        if not answer.startswith(b"HTTP/"):
            raise mismatch("HTTP", origin.host, origin.port, answer)
        if answer[8:13] == b" 400 ":  # So says a server with TLS, in a body that the answer to HEAD does not have.
            found = await what_answers(pinned, origin.port)
            refuse_other(found, Protocol.HTTP, "HTTP", pinned, origin.port, "not_set")

    async def _encrypted(self, origin: Origin, pinned: Pinned) -> str:
        """The version of TLS."""
        async with dialled(pinned, origin.port, self._connect_timeout_s) as sock:
            context = self._context(origin.host)
            return await handshake(sock, context, pinned, origin.port, self._connect_timeout_s)

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        own_origin: Origin | None = None,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> Response:
        """`request` with GET."""
        return await self.request("GET", url, headers=headers, own_origin=own_origin, max_bytes=max_bytes)

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        all_headers = {"content-type": "application/x-www-form-urlencoded", **headers}
        return await self.request("POST", url, headers=all_headers, content=urlencode(form).encode())

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        open_headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        own_origin: Origin | None = None,
        byte_range: tuple[int, int] | None = None,
        max_bytes: int = MAX_BODY_BYTES,
        may_cut: bool = False,
        as_is: bool = False,
    ) -> Response:
        """`stream`, read into memory. A body above `max_bytes` is `response_too_large`; with `may_cut`, its first
        `max_bytes` are given and the connection is hung up."""
        async with self.stream(
            method,
            url,
            headers=headers,
            open_headers=open_headers,
            content=content,
            own_origin=own_origin,
            byte_range=byte_range,
            as_is=as_is,
        ) as answer:
            body = bytearray()
            async for piece in answer.pieces:
                body += piece
                if len(body) > max_bytes:
                    if may_cut:
                        return Response(answer.status, answer.headers, bytes(body[:max_bytes]), answer.url, False)
                    raise ConnectorError("response_too_large", f"The answer is larger than {max_bytes // 1024} KiB.")
        return Response(answer.status, answer.headers, bytes(body), answer.url)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        open_headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        own_origin: Origin | None = None,
        byte_range: tuple[int, int] | None = None,
        as_is: bool = False,
    ) -> AsyncIterator[Stream]:
        """Redirects of a method that only reads are followed, others are given back as they are.

        `headers` and `content` are sent to `own_origin` only (without it, to the origin of `url`), `open_headers` to
        whoever answers in the end. `byte_range` asks for the bytes from its first to before its second number,
        uncompressed; a server may ignore it, the status then is 200 and not 206 (RFC 9110, section 14.2).

        `as_is` is for requests that are signed, and for files that are kept compressed: path and query go out as they
        are written, dots and double slashes included, and the answer is neither followed nor decompressed."""
        own_origin = own_origin or origin_of(url)
        open_headers = {**(open_headers or {}), **_range_headers(byte_range)}
        for _ in range(MAX_REDIRECTS + 1):
            is_own = _target(url) == own_origin
            all_headers = {**open_headers, **(headers or {})} if is_own else open_headers
            origin, answer = await self._send(method, url, all_headers, content if is_own else None, as_is)
            try:
                following = None if as_is else _location(method, answer)
                if following is None:
                    async with aclosing(self._pieces(answer, origin, as_is)) as pieces:
                        yield Stream(answer.status_code, _lower_case(answer), url, pieces)
                    return
            finally:
                await answer.aclose()
            url = _next_hop(url, following)
        raise ConnectorError("response_invalid", f"There were more than {MAX_REDIRECTS} redirects.")

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, as_is: bool
    ) -> tuple[Origin, httpx.Response]:
        import httpx

        origin = _target(url)
        pinned = await self._network.resolve(origin.host, origin.port, self._connect_timeout_s)
        timeout = httpx.Timeout(self._read_timeout_s, connect=self._connect_timeout_s).as_dict()
        failure: Exception | None = None
        for address in pinned.addresses:
            request = _request(method, url, origin, address, headers, content, timeout)
            if as_is:
                request.extensions["target"] = _written_target(url)
            try:
                return origin, await self._transport(origin).handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
            except httpx.HTTPError as error:
                raise self._explain(error, origin) from error
        if isinstance(failure, httpx.ConnectTimeout):
            raise not_in_time(pinned, origin.port, self._connect_timeout_s) from failure
        raise self._explain(failure or OSError(), origin) from failure

    async def _pieces(self, answer: httpx.Response, origin: Origin, as_is: bool) -> AsyncGenerator[bytes, None]:
        import httpx

        try:
            async for piece in answer.stream if as_is else _inflated(answer):  # type: ignore[union-attr]
                yield piece
        except httpx.HTTPError as error:
            raise self._explain(error, origin) from error

    def _transport(self, origin: Origin) -> httpx.AsyncHTTPTransport:
        """One for each name: two names at one address must not share a connection made for the first.

        One that never encrypts trusts nobody: reading the system's CAs costs more than all the rest of a request."""
        import httpx

        key = origin.host, origin.is_encrypted
        if key not in self._transports:
            context = self._context(origin.host) if origin.is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._transports[key] = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        return self._transports[key]

    def _context(self, host: str) -> ssl.SSLContext:
        certificate, key, passphrase = self._identity
        return tls_context(
            host,
            verify_certificate=self._verify_tls,
            ca_certificate=self._ca_certificate,
            client_certificate=certificate,
            client_key=key,
            client_key_passphrase=passphrase,
        )

    def _explain(self, error: Exception, origin: Origin) -> ConnectorError:
        """httpx's errors in our words."""
        import httpx

        cause = _root_cause(error)
        if isinstance(error, httpx.TimeoutException):
            return silent(origin.host, origin.port, self._read_timeout_s)
        if isinstance(cause, ssl.SSLError):
            return tls_failure(cause, origin.host, origin.port, self._connect_timeout_s)
        if isinstance(error, httpx.RemoteProtocolError) and not _HUNG_UP.search(str(error)):
            return mismatch("HTTP", origin.host, origin.port)
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


def _named(url: str, origin: Origin) -> httpx.URL:
    """As it goes out: encoded, the host as it is resolved. Raises `response_invalid`; what a config holds is judged
    before."""
    import httpx

    try:
        return httpx.URL(url).copy_with(host=origin.host, port=origin.port, fragment=None)
    except httpx.InvalidURL:
        raise ConnectorError("response_invalid", "The server led to something that is no URL.") from None


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

    named = _named(url, origin)
    host_header = named.netloc.decode("ascii")
    basics = {"host": host_header, "accept": "application/json, */*;q=0.5", "accept-encoding": "gzip"}
    return httpx.Request(
        method,
        named.copy_with(host=address),
        headers={**basics, "user-agent": "data-fusion-hub", **headers},
        content=content,
        extensions={"sni_hostname": origin.host, "timeout": timeout},
    )


def _written_target(url: str) -> bytes:
    """What httpx would tidy before it is sent."""
    parts = urlsplit(url)
    return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}".encode("ascii")


def _root_cause(error: BaseException) -> BaseException:
    while not isinstance(error, TunnelFailed) and (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _greeting(url: str) -> bytes:
    named = _named(url, origin_of(url))
    path, _, _ = named.raw_path.partition(b"?")
    return b"HEAD %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path, named.netloc)


# Answers --------------------------------------------------------------------------------------------------------------


def _range_headers(byte_range: tuple[int, int] | None) -> dict[str, str]:
    """A range of a compressed answer would be a range of nothing that can be read."""
    if byte_range is None:
        return {}
    start, end = byte_range
    return {"range": f"bytes={start}-{end - 1}", "accept-encoding": "identity"}


def _location(method: str, answer: httpx.Response) -> str | None:
    """Where to go on, if anywhere: a request that writes, or carries credentials in its body, is not sent twice."""
    if answer.status_code not in _REDIRECTS or method not in _READING_METHODS:
        return None
    return str(answer.headers["location"]) if "location" in answer.headers else None


def _lower_case(answer: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


async def _inflated(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Decompresses here, in bounded bites: httpx would inflate a bomb before anybody can say stop."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", ""}:
        raise ConnectorError("response_invalid", "The answer is compressed in a way that was not asked for.")
    inflate = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    async for chunk in answer.stream:  # type: ignore[union-attr]
        if inflate is None:
            yield chunk
            continue
        while chunk and not inflate.eof:
            yield _bite(inflate, chunk)
            chunk = inflate.unconsumed_tail


def _bite(inflate: zlib._Decompress, chunk: bytes) -> bytes:
    try:
        return inflate.decompress(chunk, MAX_PIECE_BYTES)
    except zlib.error:
        raise ConnectorError("response_invalid", "The compressed answer is damaged.") from None
