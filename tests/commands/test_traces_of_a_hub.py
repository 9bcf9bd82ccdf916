"""A hub as it runs sends the traces of its servers and of its worker; without a collector it goes on as before."""

from pathlib import Path

import httpx
import pytest

from tests.commands.hubs import Serve
from tests.otlp import collecting
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


async def test_servers_and_the_worker_send_their_traces(used_folder: Path, serve: Serve) -> None:
    with collecting() as collector:
        hub = serve(used_folder, HUB_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100")
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        assert httpx.get(f"{hub.url}/api/v1/auth/me", headers=headers).status_code == 401
        (asked,) = await collector.wait_for(lambda span: span.trace_id == trace_id)
        assert (asked.name, asked.role) == ("GET /api/v1/auth/me", "server")
        (kept_up, *_) = await collector.wait_for(lambda span: span.name == "upkeep of sessions")
        assert kept_up.role == "worker"
        assert hub.stop() == 0
        assert "Traceback" not in hub.said


def test_a_collector_that_is_away_is_told_of_once_by_each_process(used_folder: Path, serve: Serve) -> None:
    away = f"127.0.0.1:{free_port()}"
    hub = serve(used_folder, HUB_OTLP_ENDPOINT=f"http://{away}", HUB_LOG_LEVEL="warning", OTEL_BSP_SCHEDULE_DELAY="50")
    for _ in range(200):
        assert httpx.get(f"{hub.url}/api/v1/auth/me").status_code == 401
    assert hub.stop() == 0
    told = [line for line in hub.said.splitlines() if "takes no traces" in line]
    assert 1 <= len(told) <= 2
    assert "opentelemetry" not in hub.said
