"""The documentation pages: Redoc, Swagger UI and Scalar around `/openapi.json`, every byte of them served by the hub.

The bundles lie beside the hub in its environment, where its wheel puts them; what is ours around them lies in `pages`.
What the pages may load is held down by a Content-Security-Policy, so that a page which reaches for another host is
broken rather than leaking.
"""

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from string import Template

from litestar import get
from litestar.params import FromPath
from msgspec import Struct

from app.core.answers import Answer, Tagged, answer
from app.core.errors import NotFound
from app.core.limits.prices import costs
from app.core.schemas import Output
from app.core.security import open_to_all
from app.core.served import REVALIDATED, Asset, as_served, asset_of, asset_served, tag_of
from app.domain.requests import HubRequest

ASSETS = "/docs/assets"
BUNDLES = frozenset({"redoc.js", "redoc.svg", "swagger.js", "swagger.css", "scalar.js"})
"""The only files that are served, of those that the build takes into the hub's wheel (`hatch_build.py`)."""
BUNDLES_FOLDER = "data_fusion_hub_pages"
OWN = frozenset(
    {"bar.css", "bar.js", "digest.js", "session.js", "signed-in.js"}
    | {"start-redoc.js", "start-swagger.js", "start-scalar.js"}
)
OWN_FOLDER = Path(__file__).with_name("pages")
NAMED = re.compile(r"\{([a-z-]+\.(?:js|css|svg))\}")
"""In a script of ours, another asset: its address beside it stands there instead."""
REDIRECTED: Mapping[str, tuple[bytes, ...]] = {
    "redoc.js": (b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"https://cdn.redoc.ly/redoc/logo-mini-full.svg"),
}
"""Addresses of a logo on another host that a bundle has built in and no option takes out: ours stands there instead, as
seen from the page."""


class Page(Struct, frozen=True):
    path: str
    name: str
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

REDOC = Page("/docs", "Redoc", modules=("start-redoc.js",), policy="; worker-src blob:")
SWAGGER = Page("/docs/swagger", "Swagger UI", ("swagger.js",), ("swagger.css",), ("start-swagger.js",))
SCALAR = Page("/docs/scalar", "Scalar", ("scalar.js",), modules=("start-scalar.js",))
PAGES = (REDOC, SWAGGER, SCALAR)
SIGNED_IN = Page("/docs/signed-in", "Signing in", modules=("signed-in.js",))
"""Where the hub's sign-in page sends a browser back to: the client `hub-docs`."""
DOCUMENT = "/openapi.json"
DOCUMENT_OF_EVENTS = "/asyncapi.json"


@cache
def asset(name: str) -> Asset:
    """One file of the allow-lists. Raises NotFound for any other name, and where the package is not installed."""
    return asset_of(name, _read_asset(name))


def _read_asset(name: str) -> bytes:
    if name in OWN:
        text = (OWN_FOLDER / name).read_text(encoding="utf-8")
        return NAMED.sub(lambda found: f"./{_versioned(found[1])}", text).encode()
    if name not in BUNDLES:
        raise NotFound
    found = find_spec(BUNDLES_FOLDER)
    if found is None or not found.submodule_search_locations:
        raise NotFound(code="docs_not_installed")
    body = Path(next(iter(found.submodule_search_locations)), name).read_bytes()
    for address in REDIRECTED.get(name, ()):
        body = body.replace(address, f"{ASSETS.lstrip('/')}/redoc.svg".encode())
    return body


def _versioned(name: str) -> str:
    """The name of an asset with the start of its digest, so that it may be kept for ever."""
    return f"{name}?v={asset(name).version}"


@cache
def page_html(page: Page, base: str, hub: str) -> bytes:
    """`base` is the path under which clients find the hub, empty or such as `/hub`; `hub` its whole address."""
    place = escape(base + ASSETS)
    styles = (f'<link rel="stylesheet" href="{place}/{_versioned(name)}">' for name in (*page.styles, "bar.css"))
    scripts = [f'<script src="{place}/{_versioned(name)}"></script>' for name in page.scripts]
    modules = ("bar.js", *page.modules)
    scripts += [f'<script type="module" src="{place}/{_versioned(name)}"></script>' for name in modules]
    template = Template((OWN_FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=f"Data Fusion Hub API: {page.name}",
        hub=escape(hub.rstrip("/")),
        links=" ".join(_links(page, base)),
        document=escape(base + DOCUMENT),
        styles="".join(f"{line}\n" for line in styles),
        scripts="".join(f"{line}\n" for line in scripts),
    ).encode()


def _links(shown: Page, base: str) -> list[str]:
    here = ' aria-current="page"'
    pages = [f'<a href="{escape(base + page.path)}"{here * (page is shown)}>{page.name}</a>' for page in PAGES]
    return [*pages, f'<a href="{escape(base + DOCUMENT)}">openapi.json</a>']


async def _show(request: HubRequest, page: Page) -> Tagged[bytes]:
    settings = request.parts.settings
    body = await asyncio.to_thread(page_html, page, request.exchange.base_path, settings.url)
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", (POLICY + page.policy).encode()),
        REVALIDATED,
    ]
    return as_served(request.exchange, body, tag_of(body), headers)


@get(REDOC.path, opt=open_to_all(needs_database=False) | costs("nothing"), include_in_schema=False)
async def redoc(request: HubRequest) -> Tagged[bytes]:
    """The reference to read."""
    return await _show(request, REDOC)


@get(SWAGGER.path, opt=open_to_all(needs_database=False) | costs("nothing"), include_in_schema=False)
async def swagger(request: HubRequest) -> Tagged[bytes]:
    """The reference to try."""
    return await _show(request, SWAGGER)


@get(SCALAR.path, opt=open_to_all(needs_database=False) | costs("nothing"), include_in_schema=False)
async def scalar(request: HubRequest) -> Tagged[bytes]:
    """Both in one."""
    return await _show(request, SCALAR)


@get(
    SIGNED_IN.path,
    opt=open_to_all(parameters={"code": {"type": "string"}}, needs_database=False) | costs("nothing"),
    include_in_schema=False,
)
async def signed_in(request: HubRequest) -> Tagged[bytes]:
    """The end of a sign-in; what the address says beside the path is for the page's script alone."""
    return await _show(request, SIGNED_IN)


@get(
    f"{ASSETS}/{{name:str}}",
    opt=open_to_all(parameters={"v": {"type": "string"}}, needs_database=False) | costs("nothing"),
    include_in_schema=False,
)
async def docs_asset(request: HubRequest, name: FromPath[str]) -> Tagged[bytes]:
    """A script or style of the pages; `v` is there to tell one release's from another's."""
    return asset_served(request.exchange, await asyncio.to_thread(asset, name))


class Index(Output):
    """Where everything is; paths as clients see them."""

    name: str
    version: str
    api: str
    documentation: str
    openapi: str
    asyncapi: str
    keys: str
    health: str


@get("/", opt=open_to_all(needs_database=False) | costs("nothing"), include_in_schema=False)
async def index(request: HubRequest) -> Answer[Index]:
    """A browser is led to the documentation, a program is told where everything is."""
    base = request.exchange.base_path
    if request.exchange.accepts("text/html"):
        return Answer(302, [(b"location", (base + REDOC.path).encode())], b"")
    return answer(
        request.exchange,
        Index(
            name="Data Fusion Hub",
            version=version("data-fusion-hub"),
            api=f"{base}/api/v1",
            documentation=base + REDOC.path,
            openapi=base + DOCUMENT,
            asyncapi=base + DOCUMENT_OF_EVENTS,
            keys=f"{base}/.well-known/jwks.json",
            health=f"{base}/health/ready",
        ),
    )


DOCS = [index, redoc, swagger, scalar, signed_in, docs_asset]
