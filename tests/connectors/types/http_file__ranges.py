"""Files over HTTP, by name, on a server that honours ranges."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.servers.file_site import TOKEN
from tests.connectors.servers.shop_bucket import OBJECTS, PREVIEWS
from tests.connectors.servers.starting import ROOT, private_folder, running, tls_front
from tests.connectors.types.http_file import place_files, url_cases
from tests.ports import free_port

_PARQUET = "orders/day=2024-01-02/0.parquet"
_BY_PATH = {
    "customers.csv": ("customers.csv",),
    "odd names/50% über #1?.csv": ("odd names", "50% über #1?.csv"),
    _PARQUET: ("orders", "day=*", "*.parquet"),
    "empty.csv": ("empty.csv",),
}
"""What is configured, and what the same file is called among the datasets of a folder."""


@contextmanager
def file_site() -> Iterator[int]:
    """`tests/connectors/servers/file_site.py` on uvicorn, with the shop's files; yields the port."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--log-level", "critical", "--no-access-log", "--port", str(port)]
    with private_folder() as folder:
        place_files(folder)
        (folder / "forbidden").mkdir()
        (folder / "forbidden" / "x.csv").write_text("id\n1\n")
        command = [sys.executable, "-m", "uvicorn", "--factory", "tests.connectors.servers.file_site:app", *options]
        with running(command, port, cwd=ROOT, env={**os.environ, "FILES": str(folder)}):
            yield port


def kind(start: Start, ports: Ports) -> Kind:
    port = start(file_site)
    site = f"http://localhost:{port}"
    one = {"paths": None}
    unreadable = ("list", "response_invalid")
    return Kind(
        "http_file",
        {"url": f"{site}/files", "paths": list(_BY_PATH), "auth": "bearer"},
        {"token": TOKEN},
        (
            Case("wrong_token", "authenticate", "authentication_failed", {}, {"token": f"wrong-{CANARY}"}),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"token": None}),
            Case("wrong_path", "list", "not_found", {"paths": ["nowhere.csv"]}),
            Case("second_path_is_wrong", "list", "not_found", {"paths": ["customers.csv", "nowhere.csv"]}),
            Case("forbidden_path", "list", "permission_denied", {"paths": ["forbidden/x.csv"]}),
            Case("a_page_to_sign_in", *unreadable, {"url": f"{site}/page.csv", **one}),
            Case("other_part", *unreadable, {"url": f"{site}/other-part.csv", **one}),
            Case("unnamed_part", *unreadable, {"url": f"{site}/unnamed-part.csv", **one}),
            Case("changing", *unreadable, {"url": f"{site}/changing.parquet", **one}),
            Case("no_parquet", *unreadable, {"url": f"{site}/files/customers.csv", "format": "parquet", **one}),
            Case("broken", "authenticate", "server_error", {"url": f"{site}/broken.csv", **one}),
            Case("busy", "authenticate", "rate_limited", {"url": f"{site}/busy.csv", **one}),
            Case("no_webdav", "list", "protocol_mismatch", {"listing": "webdav", **one}),
            Case("entities", *unreadable, {"url": f"{site}/dav/entities", "listing": "webdav", **one}),
            Case("no_xml", *unreadable, {"url": f"{site}/dav/no-xml", "listing": "webdav", **one}),
            *url_cases(ports, port, start(tls_front, port)),
        ),
        {tuple(path.split("/")): ("file", OBJECTS[known][1]) for path, known in _BY_PATH.items()},
        {tuple(path.split("/")): PREVIEWS[known] for path, known in _BY_PATH.items() if known in PREVIEWS},
        server={"encryption": "none", "product": "HTTP"},
    )
