"""Documents of somebody else's, fetched: by the way that `outbound` has out, and with an end to all of it.

FetchFailed    there is nothing to be read; `reason` says why, and nothing of what was answered
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from app.core.egress import EgressPolicy, Lookup
from app.core.outbound import Destination, Limits, PostFailure, RequestFailed

if TYPE_CHECKING:
    import httpx

LIMITS: Final = Limits(connect_s=5.0, total_s=10.0, connections=1)
MAX_DOCUMENT_BYTES: Final = 1_048_576
FORM_TYPE: Final = "application/x-www-form-urlencoded"

FetchFailure = Literal[PostFailure, "too_large", "wrong_media_type", "malformed"]


class FetchFailed(Exception):
    def __init__(self, reason: FetchFailure) -> None:
        self.reason: FetchFailure = reason
        super().__init__(reason)


class Fetched(Struct, frozen=True):
    status: int
    media_type: str
    body: bytes


class _Fetching(Destination):
    async def fetch(self, headers: Mapping[str, str], body: bytes) -> Fetched:
        """Raises FetchFailed."""
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._fetched(headers, body)
        except TimeoutError:
            raise FetchFailed("timeout") from None
        except RequestFailed as error:
            raise FetchFailed(error.failure) from None

    async def _fetched(self, headers: Mapping[str, str], body: bytes) -> Fetched:
        answer = await self._answer(headers, body)
        try:
            if 300 <= answer.status_code < 400:
                raise FetchFailed("redirected")
            read = await _read(answer)
        finally:
            await answer.aclose()
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Fetched(answer.status_code, media_type, read)


async def _read(answer: httpx.Response) -> bytes:
    """As it came over the wire: nothing was said that would let it be compressed."""
    import httpx

    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed("wrong_media_type")
    read = bytearray()
    try:
        async for piece in answer.stream:  # type: ignore[union-attr]
            read += piece
            if len(read) > MAX_DOCUMENT_BYTES:
                raise FetchFailed("too_large")
    except httpx.HTTPError:
        raise FetchFailed("connection_lost") from None
    return bytes(read)


async def fetch(
    url: str,
    policy: EgressPolicy,
    lookup: Lookup,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    authorities: ssl.SSLContext | None = None,
) -> Fetched:
    """What is there, or with a form what is answered to it, whatever the status. `lookup` is of whoever says what is
    fetched (`LookUps.of`). Raises FetchFailed."""
    method: Literal["GET", "POST"] = "GET"
    body, given = b"", dict(headers or {})
    if form is not None:
        method, body = "POST", urlencode(form).encode()
        given |= {"content-type": FORM_TYPE, "content-length": str(len(body))}
    place = _Fetching(url, policy, method=method, limits=LIMITS, authorities=authorities, lookup=lookup)
    try:
        return await place.fetch({"accept": "application/json", **given}, body)
    finally:
        await place.close()


async def fetch_object(
    url: str,
    policy: EgressPolicy,
    lookup: Lookup,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, object]]:
    """The status, and the JSON object that came with it. Raises FetchFailed."""
    found = await fetch(url, policy, lookup, form=form, headers=headers)
    if not (found.media_type == "application/json" or found.media_type.endswith("+json")):
        raise FetchFailed("http_error" if found.status >= 400 else "wrong_media_type")
    try:
        return found.status, msgspec.json.decode(found.body, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        raise FetchFailed("malformed") from None
