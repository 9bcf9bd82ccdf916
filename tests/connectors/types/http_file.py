"""Files over HTTP, in a WebDAV folder of WsgiDAV."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.shop_bucket import OBJECTS, PREVIEWS, content
from tests.connectors.servers.starting import private_folder, running, tls_front
from tests.ports import free_port

PASSWORD = f"dav-{CANARY}"


@contextmanager
def webdav() -> Iterator[int]:
    """The shop's files below `/dav`, for `reader`. Yields the port."""
    with private_folder() as folder:
        place_files(folder / "files")
        port = free_port()
        config = {
            "host": "127.0.0.1",
            "port": port,
            "server": "wsgiref",
            "provider_mapping": {"/dav": str(folder / "files")},
            "simple_dc": {"user_mapping": {"*": {"reader": {"password": PASSWORD}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "dir_browser": {"enable": False},
        }
        (folder / "wsgidav.json").write_text(json.dumps(config))
        command = [str(Path(sys.executable).with_name("wsgidav")), "--quiet", "--config", str(folder / "wsgidav.json")]
        with running(command, port, cwd=folder):
            yield port


def place_files(folder: Path) -> None:
    for key, file in content().items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(file)


def kind(start: Start, ports: Ports) -> Kind:
    port = start(webdav)
    return Kind(
        "http_file",
        {"url": f"http://localhost:{port}/dav", "listing": "webdav", "auth": "basic", "username": "reader"},
        {"password": PASSWORD},
        (
            Case("wrong_password", "authenticate", "authentication_failed", {}, {"password": f"wrong-{CANARY}"}),
            Case("wrong_user", "authenticate", "authentication_failed", {"username": "nobody"}),
            Case("no_auth", "authenticate", "authentication_failed", {"auth": "none"}, {"password": None}),
            Case("wrong_folder", "list", "not_found", {"url": f"http://localhost:{port}/dav/nowhere"}),
            *url_cases(ports, port, start(tls_front, port)),
        ),
        OBJECTS,
        PREVIEWS,
        server={"encryption": "none", "product": "WebDAV"},
    )


def url_cases(ports: Ports, port: int, tls_port: int) -> tuple[Case, ...]:
    """What can be wrong about the `url`. A server listens on `port`, and over TLS, for the name `localhost`, on
    `tls_port`."""
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    tls = {"url": f"https://localhost:{tls_port}/"}
    return (
        Case("closed_port", "connect", "connection_refused", {"url": f"http://localhost:{ports.closed}/"}),
        Case("unknown_name", "resolve", "name_not_resolved", {"url": "http://nowhere.invalid/"}),
        Case("link_local", "resolve", "egress_refused", {"url": "http://169.254.169.254/latest"}),
        Case("silent", "connect", "timeout", {"url": f"http://localhost:{ports.silent}/", **hasty}),
        Case("silent_tls", "tls", "timeout", {"url": f"https://localhost:{ports.silent}/", **hasty}),
        Case("other_protocol", "connect", "protocol_mismatch", {"url": f"http://localhost:{ports.ssh}/"}),
        Case("no_tls", "tls", "tls_unavailable", {"url": f"https://localhost:{port}/"}),
        Case("unknown_ca", "tls", "tls_certificate_invalid", tls),
        Case("other_name", "tls", "tls_certificate_invalid", {"url": f"https://127.0.0.1:{tls_port}/"}),
        Case("broken_ca", "tls", "invalid_configuration", {**tls, "ca_certificate": "-----BEGIN X\n"}),
    )
