"""What is served as it is: documents, pages and files of the hub's own, the same bytes until the hub is another, which
clients ask about."""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from app.core.answers import Headers, Tagged
from app.core.exchange import JSON, Exchange

FOREVER = (b"cache-control", b"public, max-age=31536000, immutable")
REVALIDATED = (b"cache-control", b"no-cache")
MEDIA_TYPES = {".svg": b"image/svg+xml", ".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8"}


class Asset(Struct, frozen=True):
    """A script, style or picture of a page."""

    body: bytes
    tag: bytes
    media_type: bytes

    @property
    def version(self) -> str:
        """For its address, so that it may be kept for ever."""
        return self.tag.decode()[1:13]


def asset_of(name: str, body: bytes) -> Asset:
    """`name` is that of its file, of one of the types that pages are made of."""
    return Asset(body, tag_of(body), MEDIA_TYPES[Path(name).suffix])


def as_served(exchange: Exchange, body: bytes, tag: bytes, headers: Headers) -> Tagged[bytes]:
    """The bytes, or 304 where the client has them."""
    headers = [(b"etag", tag), *headers]
    if exchange.headers.get(b"if-none-match") == tag:
        return Tagged(304, headers, b"")
    return Tagged(200, headers, body)


def document_served(exchange: Exchange, body: bytes) -> Tagged[bytes]:
    return as_served(exchange, body, tag_of(body), [(b"content-type", JSON.encode()), REVALIDATED])


def asset_served(exchange: Exchange, asset: Asset) -> Tagged[bytes]:
    return as_served(exchange, asset.body, asset.tag, [(b"content-type", asset.media_type), FOREVER])


@lru_cache(16)
def tag_of(body: bytes) -> bytes:
    return b'"%s"' % sha256(body).hexdigest()[:32].encode()
