"""The documentation pages: Redoc, Swagger UI and Scalar around `/openapi.json`, every byte of them served by the hub.

The bundles lie beside the hub in its environment, where its wheel puts them. What the pages may load is held down by a
Content-Security-Policy, so that a page which reaches for another host is broken rather than leaking.
"""

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from litestar import get
from litestar.params import FromPath
from msgspec import Struct

from app.core.answers import Tagged
from app.core.errors import NotFound
from app.core.exchange import Exchange
from app.core.security import open_to_all
from app.domain.requests import HubRequest

ASSETS = "/docs/assets"
BUNDLES = frozenset({"redoc.js", "redoc.svg", "swagger.js", "swagger.css", "scalar.js"})
"""The only files that are served, of those that the build takes into the hub's wheel (`hatch_build.py`)."""
BUNDLES_FOLDER = "data_fusion_hub_pages"

STARTERS: Mapping[str, str] = {
    "start-redoc.js": """import { init } from "{redoc.js}";
init("/openapi.json", { disableTelemetry: true }, document.getElementById("page"));
""",
    "start-swagger.js": """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, docExpansion: "list", persistAuthorization: false,
  validatorUrl: null, presets: [SwaggerUIBundle.presets.apis]
});
""",
    "start-scalar.js": """Scalar.createApiReference("#page", {
  url: "/openapi.json", withDefaultFonts: false, hideClientButton: true, defaultOpenAllTags: true, telemetry: false,
  proxyUrl: "",  showDeveloperTools: "never", agent: { disabled: true }, mcp: { disabled: true }, persistAuth: false
});
""",
}
REDIRECTED: Mapping[str, tuple[bytes, ...]] = {
    "redoc.js": (b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"https://cdn.redoc.ly/redoc/logo-mini-full.svg"),
}
"""Addresses of a logo on another host that a bundle has built in and no option takes out: ours stands there instead."""
MEDIA_TYPES = {".svg": b"image/svg+xml", ".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8"}
FOREVER = b"public, max-age=31536000, immutable"
REVALIDATED = b"no-cache"


class Page(Struct, frozen=True):
    title: str
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    """Scripts that import what they need."""
    policy: str = ""
    """What this page needs beyond `POLICY`."""


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The three bundles write style elements at run time; scripts come from files of ours only, and none is evaluated."""

REDOC = Page("Data Fusion Hub API", modules=("start-redoc.js",), policy="; worker-src blob:")
SWAGGER = Page("Data Fusion Hub API: Swagger UI", ("swagger.js", "start-swagger.js"), ("swagger.css",))
SCALAR = Page("Data Fusion Hub API: Scalar", ("scalar.js", "start-scalar.js"))


class Asset(Struct, frozen=True):
    body: bytes
    tag: bytes
    media_type: bytes


@cache
def asset(name: str) -> Asset:
    """One file of the allow-lists. Raises NotFound for any other name, and where the package is not installed."""
    body = _read(name)
    return Asset(body, b'"%s"' % sha256(body).hexdigest()[:32].encode(), MEDIA_TYPES[Path(name).suffix])


def _read(name: str) -> bytes:
    if name in STARTERS:
        return re.sub(r"\{([a-z.]+)\}", lambda found: _address(found[1]), STARTERS[name]).encode()
    if name not in BUNDLES:
        raise NotFound
    found = find_spec(BUNDLES_FOLDER)
    if found is None or not found.submodule_search_locations:
        raise NotFound("The documentation pages are not installed with this hub.", code="docs_not_installed")
    body = Path(next(iter(found.submodule_search_locations)), name).read_bytes()
    for address in REDIRECTED.get(name, ()):
        body = body.replace(address, f"{ASSETS}/redoc.svg".encode())
    return body


def _address(name: str) -> str:
    """The path of an asset with the start of its digest, so that it may be kept for ever."""
    return f"{ASSETS}/{name}?v={asset(name).tag.decode()[1:13]}"


HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
{styles}<style>body {{ margin: 0 }}</style>
</head>
<body>
<div id="page"></div>
<noscript>This page needs JavaScript; <a href="/openapi.json">the document</a> does not.</noscript>
{scripts}</body>
</html>
"""


@cache
def _html(page: Page) -> bytes:
    styles = "".join(f'<link rel="stylesheet" href="{_address(name)}">\n' for name in page.styles)
    scripts = "".join(f'<script src="{_address(name)}"></script>\n' for name in page.scripts)
    scripts += "".join(f'<script type="module" src="{_address(name)}"></script>\n' for name in page.modules)
    return HTML.format(title=page.title, styles=styles, scripts=scripts).encode()


def _answer(exchange: Exchange, body: bytes, tag: bytes, headers: list[tuple[bytes, bytes]]) -> Tagged[bytes]:
    """The bytes, or 304 where the browser has them."""
    headers = [(b"etag", tag), *headers]
    if exchange.headers.get(b"if-none-match") == tag:
        return Tagged(304, headers, b"")
    return Tagged(200, headers, body)


async def _show(request: HubRequest, page: Page) -> Tagged[bytes]:
    body = await asyncio.to_thread(_html, page)
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", (POLICY + page.policy).encode()),
        (b"cache-control", REVALIDATED),
    ]
    return _answer(request.exchange, body, b'"%s"' % sha256(body).hexdigest()[:32].encode(), headers)


@get("/docs", opt=open_to_all(needs_database=False), include_in_schema=False)
async def redoc(request: HubRequest) -> Tagged[bytes]:
    """The reference to read."""
    return await _show(request, REDOC)


@get("/docs/swagger", opt=open_to_all(needs_database=False), include_in_schema=False)
async def swagger(request: HubRequest) -> Tagged[bytes]:
    """The reference to try."""
    return await _show(request, SWAGGER)


@get("/docs/scalar", opt=open_to_all(needs_database=False), include_in_schema=False)
async def scalar(request: HubRequest) -> Tagged[bytes]:
    """Both in one."""
    return await _show(request, SCALAR)


@get(
    "/docs/assets/{name:str}",
    opt=open_to_all(parameters={"v": {"type": "string"}}, needs_database=False),
    include_in_schema=False,
)
async def docs_asset(request: HubRequest, name: FromPath[str]) -> Tagged[bytes]:
    """A script or style of the pages; `v` is there to tell one release's from another's."""
    found = await asyncio.to_thread(asset, name)
    return _answer(
        request.exchange, found.body, found.tag, [(b"content-type", found.media_type), (b"cache-control", FOREVER)]
    )


DOCS = [redoc, swagger, scalar, docs_asset]
