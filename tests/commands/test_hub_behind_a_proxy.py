"""A hub that reaches its sources through a corporate proxy, from the setting to the answer."""

from pathlib import Path

import pytest

from tests.commands.hubs import Serve
from tests.connectors.servers import connect_proxy
from tests.connectors.servers.connect_proxy import ConnectProxy
from tests.connectors.test_ssrf import http, recording_server

pytestmark = pytest.mark.slow

PASSWORD = "canary-7f3a9c"


def test_a_source_is_reached_through_the_proxy_and_its_password_is_nowhere(data_dir: Path, serve: Serve) -> None:
    source = {
        "name": "shop",
        "type": "rest",
        "config": {"auth": "none", "resources": [{"name": "orders", "path": "orders"}]},
    }
    proxy = ConnectProxy(username="hub", password=PASSWORD, names={"shop.behind.example": "127.0.0.1"})
    with connect_proxy.running(proxy), recording_server(http(b'[{"id": 1}]')) as (port, heard):
        source["config"] |= {"base_url": f"http://shop.behind.example:{port}"}  # type: ignore[operator]
        hub = serve(data_dir, HUB_EGRESS_PROXY=f"http://hub:{PASSWORD}@127.0.0.1:{proxy.port}", HUB_LOG_LEVEL="debug")
        with hub.client() as client:
            made = client.post("/data-sources", json=source).json()
            path = f"/data-sources/{made['id']}"
            tested = client.post(f"{path}/test")
            shown = client.post(f"{path}/preview", json={"object": "orders"})
            proxy.answers = [b"HTTP/1.1 403 Forbidden\r\n\r\n"]
            refused = client.post(f"{path}/preview", json={"object": "orders"})
            told = client.get("/audit-events?limit=200").text
    assert tested.json()["status"] == "passed", tested.text
    assert shown.json()["rows"] == [[1]], shown.text
    assert (refused.status_code, refused.json()["code"]) == (409, "source_proxy_refused")
    assert set(proxy.asked) == {f"shop.behind.example:{port}"}
    assert heard
    everything = "".join((hub.said, tested.text, shown.text, refused.text, told))
    assert PASSWORD not in everything
