"""A web server with files for the connector tests, ranges honoured, and with answers that are good for nothing.

FILES names the folder that it serves below `/files` (with the token) and `/open`.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

TOKEN = "canary-7f3a9c-files"
CSV = b"id,name\n1,Zo\xc3\xab\n2,\n"
ODD_NAMES = ("売上\u3000二月.csv", "a\u00a0b.csv", "na\u00efve \U0001f468\u200d\U0001f469.csv", "soft\u00adhyphen.csv")
_count = itertools.count()


class Guarded:
    """Files for whoever has the token; below `forbidden/` for nobody."""

    def __init__(self, folder: str) -> None:
        self._files = StaticFiles(directory=folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if headers.get(b"authorization") != f"Bearer {TOKEN}".encode():
            await Response("who are you?", 401)(scope, receive, send)
        elif "/forbidden/" in scope["path"]:
            await Response("not for you", 403)(scope, receive, send)
        else:
            await self._files(scope, receive, send)


def page(_: Request) -> Response:
    return HTMLResponse("<html><body>Please sign in</body></html>")


def export(_: Request) -> Response:
    return Response(CSV, media_type="text/csv")


def encoded(_: Request) -> Response:
    """As servers send `.gz` files that believe they had compressed them on the way."""
    return Response(gzip.compress(CSV), media_type="text/csv", headers={"content-encoding": "gzip"})


def endless(_: Request) -> Response:
    async def rows() -> AsyncIterator[bytes]:
        yield b"id,name\n"
        while True:
            yield b"1,x\n" * 10_000
            await asyncio.sleep(0.001)  # For the others, and to see that the reader has left.

    return StreamingResponse(rows(), media_type="text/csv")


def large_without_ranges(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"PAR1"
        for _ in range(40):
            yield bytes(1024 * 1024)

    return StreamingResponse(pieces())


def changing(request: Request) -> Response:
    """Another file each time it is looked at."""
    part, total = bytes(4096), 100_000
    headers = {"content-range": f"bytes 0-4095/{total}", "etag": f'"{next(_count)}"'}
    return Response(b"PAR1" + part[4:], 206, headers)


def other_part(_: Request) -> Response:
    return Response(b"1,x\n", 206, {"content-range": "bytes 100-103/200"})


def unnamed_part(_: Request) -> Response:
    return Response(b"1,x\n", 206)


def moved(request: Request) -> Response:
    return RedirectResponse(f"/open/{request.path_params['path']}", 302)


def away(request: Request) -> Response:
    return RedirectResponse(str(request.query_params["to"]), 302)


def _multistatus(*resources: str) -> Response:
    body = f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(resources)}</D:multistatus>'
    return Response(body, 207, media_type="application/xml")


def _resource(href: str, *, is_folder: bool = False, size: str = "23") -> str:
    kind = "<D:collection/>" if is_folder else ""
    found = f"<D:prop><D:resourcetype>{kind}</D:resourcetype><D:getcontentlength>{size}</D:getcontentlength></D:prop>"
    missing = "<D:prop><D:getcontentlength/></D:prop>"
    return (
        f"<D:response><D:href>{href}</D:href><D:propstat>{found}<D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
        f"<D:propstat>{missing}<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>"
    )


def hostile_folder(request: Request) -> Response:
    """Lists what does not lie in it; one file does."""
    here = str(request.base_url)
    return _multistatus(
        _resource("/dav/hostile/", is_folder=True),
        _resource("http://169.254.169.254/latest/stolen.csv"),
        _resource("/etc/stolen.csv"),
        _resource("/dav/hostile/../stolen.csv"),
        _resource("/dav/hostile/%2e%2e/stolen.csv"),
        _resource("/dav/hostile/a%2Fstolen.csv"),
        _resource("/dav/hostile-not/stolen.csv"),
        _resource("file:///etc/passwd.csv"),
        _resource(f"{here}dav/hostile/good.csv", size="many"),
    )


BYTE_NAMES = {
    "caf%E9.csv": "caf\\xe9.csv",
    "th%FA.csv": "th\\xfa.csv",
    "caf%5Cxe9.csv": "caf\\x5cxe9.csv",
    "tab%09end.csv": "tab\tend.csv",
    "in%FF": "in\\xff",
}
"""As a server lists them, and as they are shown."""


def bytes_folder(request: Request) -> Response:
    """Of names that are no UTF-8, or hold what nobody types; one is a folder, with a file of such a name in it."""
    if request.url.path != "/dav/bytes/":
        return _multistatus(_resource("/dav/bytes/in%FF/", is_folder=True), _resource("/dav/bytes/in%FF/%FE.csv"))
    return _multistatus(*(_resource(f"/dav/bytes/{name}", is_folder=name == "in%FF") for name in BYTE_NAMES))


def bytes_file(request: Request) -> Response:
    asked = request.scope["raw_path"].decode().removeprefix("/dav/bytes/")
    return export(request) if asked in {*BYTE_NAMES, "in%FF/%FE.csv"} else Response("", 404)


def odd_folder(_: Request) -> Response:
    """Names with spaces of other kinds than the usual one, and with joiners, as people type them."""
    return _multistatus(*(_resource(f"/dav/odd/{quote(name)}") for name in ODD_NAMES))


def endless_folder(request: Request) -> Response:
    path = request.url.path.rstrip("/")
    return _multistatus(_resource(f"{path}/", is_folder=True), _resource(f"{path}/deeper/", is_folder=True))


def entities(_: Request) -> Response:
    body = '<!DOCTYPE m [<!ENTITY e SYSTEM "file:///etc/passwd">]><m xmlns="DAV:"><response><href>&e;</href></response></m>'
    return Response(body, 207, media_type="application/xml")


def no_xml(_: Request) -> Response:
    return Response('{"files": []}', 207, media_type="application/json")


def app() -> Starlette:
    folder = os.environ["FILES"]
    guarded, open_to_all = Mount("/files", Guarded(folder)), Mount("/open", StaticFiles(directory=folder))
    return Starlette(routes=[guarded, open_to_all, *_ROUTES])


_ROUTES = (
    Route("/page.csv", page),
    Route("/export", export),
    Route("/encoded.csv.gz", encoded),
    Route("/endless.csv", endless),
    Route("/large.parquet", large_without_ranges),
    Route("/changing.parquet", changing),
    Route("/other-part.csv", other_part),
    Route("/unnamed-part.csv", unnamed_part),
    Route("/moved/{path:path}", moved),
    Route("/away.csv", away),
    Route("/broken.csv", lambda _: Response("out of order", 500)),
    Route("/busy.csv", lambda _: Response("later", 429)),
    Route("/dav/hostile/", hostile_folder, methods=["PROPFIND"]),
    Route("/dav/hostile/good.csv", export),
    Route("/dav/bytes/{path:path}", bytes_folder, methods=["PROPFIND"]),
    Route("/dav/bytes/{path:path}", bytes_file),
    Route("/dav/odd/", odd_folder, methods=["PROPFIND"]),
    Route("/dav/odd/{path:path}", export),
    Route("/dav/endless/{path:path}", endless_folder, methods=["PROPFIND"]),
    Route("/dav/entities/", entities, methods=["PROPFIND"]),
    Route("/dav/no-xml/", no_xml, methods=["PROPFIND"]),
)
