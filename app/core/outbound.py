"""Requests to where somebody else said that the hub should send something: to the address that the egress policy
approved, with the certificate checked against the name, no redirect followed, and little of the answer read.

A name is looked up once for each `Destination`, and what is dialled is what was found and judged then: a name that
leads elsewhere a moment later leads nobody there (decision 0011). Where everything goes out through a proxy, so does
this, and the proxy looks the name up. Nothing of the environment counts.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from app.core.egress import (
    ByProxy,
    EgressPolicy,
    EgressRefused,
    Lookup,
    NameNotResolved,
    Pinned,
    canonical_host,
    classify,
    find_way,
    system_lookup,
)

if TYPE_CHECKING:
    import httpx

PostFailure = Literal[
    "invalid_url",
    "insecure_url",
    "name_not_resolved",
    "egress_refused",
    "connect_timeout",
    "connection_refused",
    "host_unreachable",
    "proxy_refused",
    "connection_lost",
    "certificate_invalid",
    "tls_failed",
    "timeout",
    "response_invalid",
    "redirected",
    "gone",
    "http_error",
]
"""Why something was not taken: nothing else of an answer is ever told but its status."""

USER_AGENT: Final = "data-fusion-hub"
MAX_BODY_BYTES: Final = 4096
"""Of an answer: they are passed over, so that the connection can be used again. Behind more of them it is hung up."""
BODY_S: Final = 1.0
"""For that."""


class Limits(Struct, frozen=True):
    connect_s: float = 5.0
    """For the look-up, and for the connection with its handshake."""
    total_s: float = 15.0
    """Until the head of the answer is there."""
    connections: int = 4


class Reply(Struct, frozen=True):
    status: int | None
    """Of the answer; None where there was none."""
    failure: PostFailure | None
    """None: it was taken."""
    duration_ms: float


class Target(Struct, frozen=True):
    """What a URL leads to."""

    is_encrypted: bool
    host: str
    """In canonical form."""
    port: int
    path: str
    """With the query."""

    def url(self, host: str) -> str:
        """The same at another name or address."""
        authority = f"[{host}]" if ":" in host else host
        if self.port != (443 if self.is_encrypted else 80):
            authority += f":{self.port}"
        return f"{'https' if self.is_encrypted else 'http'}://{authority}{self.path}"


def target_of(url: str) -> Target:
    """Raises ValueError, with a phrase that says what is wrong, for anything but an absolute http or https URL without
    user information."""
    if any(sign <= " " or sign == "\x7f" for sign in url):  # some of which the parser would take away in silence
        raise ValueError("must hold no blanks")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL such as https://hooks.example.org/hub") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("must be a URL such as https://hooks.example.org/hub")
    if parts.username is not None or parts.password is not None or "\\" in parts.netloc:
        raise ValueError("must hold no user name and no password")
    try:
        host = str(canonical_host(parts.hostname))
    except EgressRefused as error:
        raise ValueError(f"names a host that is not dialled: {error.reason}") from None
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    return Target(parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80), path)


@cache
def trusted_authorities() -> ssl.SSLContext:
    """TLS 1.2 or newer, the system's CAs, names checked. Made once: to read the CAs takes longer than to send.

    Slim images have no CA folder; certifi, which comes with httpx, stands in for it there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and os.listdir(paths.capath)):
        context.load_default_certs()
    else:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context


class RequestFailed(Exception):
    """No answer came."""

    def __init__(self, failure: PostFailure) -> None:
        self.failure: PostFailure = failure


class Destination:
    """One URL, for some POSTs one after the other or side by side. Its connections are its own, and closed by `close`.

    What is not encrypted goes to this machine only, where the policy allows that at all.
    """

    def __init__(
        self,
        url: str,
        policy: EgressPolicy,
        *,
        method: Literal["GET", "POST"] = "POST",
        limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
        authorities: ssl.SSLContext | None = None,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._url = url
        self._policy = policy
        self._method = method
        self._limits = limits
        self._authorities = authorities
        self._lookup = lookup
        self._finding = asyncio.Lock()
        self._way: Pinned | ByProxy | None = None
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def post(self, headers: Mapping[str, str], body: bytes) -> Reply:
        """Whatever comes of it: nothing is raised but what ends the task."""
        began, status = perf_counter(), None
        failure: PostFailure | None
        try:
            status = await self._status(headers, body)
            failure = _failure_of(status)
        except RequestFailed as error:
            failure = error.failure
        return Reply(status, failure, round((perf_counter() - began) * 1000, 1))

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def _status(self, headers: Mapping[str, str], body: bytes) -> int:
        try:
            async with asyncio.timeout(self._limits.total_s):
                answer = await self._answer(headers, body)
        except TimeoutError:
            raise RequestFailed("timeout") from None
        try:
            await _pass_over(answer)
        finally:
            await answer.aclose()
        return answer.status_code

    async def _answer(self, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """Its head. Raises RequestFailed."""
        import httpx

        try:
            target = target_of(self._url)
            named = httpx.URL(target.url(target.host))
        except (ValueError, httpx.InvalidURL):
            raise RequestFailed("invalid_url") from None
        failure: PostFailure = "host_unreachable"
        way = await self._approved(target)
        for address in way.addresses if isinstance(way, Pinned) else (target.host,):
            request = self._request(target, named, address, headers, body)
            try:
                return await self._open_transport(target, way).handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = _failure_of_error(error)
            except httpx.HTTPError as error:
                raise RequestFailed(_failure_of_error(error)) from error
        raise RequestFailed(failure)

    async def _approved(self, target: Target) -> Pinned | ByProxy:
        """Raises RequestFailed."""
        async with self._finding:
            if self._way is None:
                self._way = await self._looked_up(target)
        return self._way

    async def _looked_up(self, target: Target) -> Pinned | ByProxy:
        try:
            way = await find_way(target.host, target.port, self._policy, self._limits.connect_s, self._lookup)
        except NameNotResolved:
            raise RequestFailed("name_not_resolved") from None
        except EgressRefused:
            raise RequestFailed("egress_refused") from None
        if not target.is_encrypted and not _stays_on_this_machine(way):
            raise RequestFailed("insecure_url")
        return way

    def _request(
        self, target: Target, named: httpx.URL, address: str, headers: Mapping[str, str], body: bytes
    ) -> httpx.Request:
        """To the address, or by the proxy to the name; `Host`, SNI and the check of the certificate keep the name."""
        import httpx

        timeout = httpx.Timeout(self._limits.total_s, connect=self._limits.connect_s)
        return httpx.Request(
            self._method,
            target.url(address),
            headers={"host": named.netloc.decode("ascii"), "user-agent": USER_AGENT, **headers},
            content=body,
            extensions={"sni_hostname": target.host, "timeout": timeout.as_dict()},
        )

    def _open_transport(self, target: Target, way: Pinned | ByProxy) -> httpx.AsyncHTTPTransport:
        import httpx

        if self._transport is None:
            # One that never encrypts trusts nobody.
            trusted = self._authorities or trusted_authorities()
            context = trusted if target.is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            connections = httpx.Limits(max_connections=self._limits.connections)
            proxy = _proxy_of(way) if isinstance(way, ByProxy) else None
            self._transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=connections, proxy=proxy)
        return self._transport


def is_of_this_machine(address: str) -> bool:
    return classify(ip_address(address))[0] == "loopback"


def _stays_on_this_machine(way: Pinned | ByProxy) -> bool:
    return isinstance(way, Pinned) and all(is_of_this_machine(address) for address in way.addresses)


def _proxy_of(way: ByProxy) -> httpx.Proxy:
    import httpx

    proxy = way.proxy
    is_known = bool(proxy.username or proxy.password)
    return httpx.Proxy(f"http://{proxy.place}", auth=(proxy.username, proxy.password) if is_known else None)


async def _pass_over(answer: httpx.Response) -> None:
    """The status has said all that there is to know; how the body goes on changes nothing of it."""
    import httpx

    count = 0
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(BODY_S):
            async for piece in answer.stream:  # type: ignore[union-attr]
                count += len(piece)
                if count > MAX_BODY_BYTES:
                    return


def _failure_of(status: int) -> PostFailure | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return "redirected"
    return "gone" if status == 410 else "http_error"


def _failure_of_error(error: httpx.HTTPError) -> PostFailure:
    import httpx

    cause = _root_cause(error)
    if isinstance(error, httpx.ProxyError):
        return "proxy_refused"
    if isinstance(error, httpx.ConnectTimeout):
        return "connect_timeout"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "certificate_invalid"
    if isinstance(cause, ssl.SSLError):
        return "tls_failed"
    if isinstance(cause, ConnectionRefusedError):
        return "connection_refused"
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return "response_invalid"
    return "host_unreachable" if isinstance(error, httpx.ConnectError) else "connection_lost"


def _root_cause(error: BaseException) -> BaseException:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error
