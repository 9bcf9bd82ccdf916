"""Everything that goes out goes through the corporate proxy where there is one, whatever the type of the source."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from app.connectors.contract.failures import EXPLANATIONS, ConnectorError
from app.connectors.contract.objects import PreviewRequest
from app.connectors.contract.pinning import Network
from app.connectors.processes import child as child_module
from app.connectors.processes.sandbox import ConnectorSandbox
from app.core.egress import EgressPolicy
from app.core.tunnels import TunnellingLoop
from tests.connectors.contract import CANARY, HASTY_S, Kind, Ports, Start
from tests.connectors.servers import connect_proxy
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.connect_proxy import ConnectProxy
from tests.connectors.test_contract import discovered
from tests.connectors.types import KINDS, all_kinds
from tests.connectors.types.postgresql import PostgresServer

pytestmark = pytest.mark.anyio

TOKEN = f"{CANARY}-rest"
PASSWORD = f"pw-{CANARY}"
POSTGRES = {"host": "localhost", "database": "shop", "username": "reader"}
BEHIND = "shop.behind.example"
"""A name that the proxy knows and nobody else."""


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with connect_proxy.running(ConnectProxy(names={BEHIND: "127.0.0.1"})) as running:
        yield running


@pytest.fixture
def policy(proxy: ConnectProxy) -> EgressPolicy:
    return EgressPolicy(loopback_allowed=True, proxy=proxy.seen())


def rest(url: str, **more: Any) -> dict[str, Any]:
    return {"base_url": url, "auth": "bearer", "resources": [{"name": "orders", "path": "orders"}], **more}


async def checked(sandbox: ConnectorSandbox, policy: EgressPolicy, config: dict[str, Any]) -> Any:
    result = await sandbox.check("rest", config, {"token": TOKEN}, policy)
    assert connect_proxy.PASSWORD not in msgspec.json.encode(result).decode()
    return result


def failed(result: Any) -> tuple[str, str, str]:
    (step,) = [step for step in result.steps if step.status == "failed"]
    assert step.fault == EXPLANATIONS[step.code].fault
    return step.name, step.code, step.message


# Every type -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=all_kinds())
def kind(request: pytest.FixtureRequest, start: Start, ports: Ports) -> Kind:
    built: Kind = KINDS[request.param].kind(start, ports)
    return built


async def test_every_type_goes_through_the_proxy(kind: Kind, proxy: ConnectProxy, sandbox: ConnectorSandbox) -> None:
    """No type reaches its server otherwise: the process may connect to the proxy and to nothing else."""
    if not kind.dials:
        return
    policy = EgressPolicy(**kind.policy, proxy=proxy.seen())
    result = await sandbox.check(kind.type, kind.config, kind.secrets, policy)
    assert result.status == "passed", result
    assert tuple(step.status for step in result.steps) == kind.statuses
    at_check = len(proxy.asked)
    assert at_check > 0
    found = await discovered(sandbox, kind, policy)
    assert {item.path for item in found} == kind.objects.keys()
    at_discovery = len(proxy.asked)
    assert at_discovery > at_check
    path, rows = next(iter(kind.previews.items()))
    shown = await sandbox.preview(kind.type, kind.config, kind.secrets, policy, PreviewRequest(path=path))
    assert shown.rows == rows
    assert len(proxy.asked) > at_discovery


async def test_a_tls_database_is_checked_against_the_name_behind_the_proxy(
    tls_postgres: int, authority: Authority, proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    """The certificate is made for `localhost`: what stands in for it in this process is no name to anybody."""
    ca = authority.pem.decode()
    config = {**POSTGRES, "port": tls_postgres, "tls_mode": "verify-full", "ca_certificate": ca}
    result = await sandbox.check("postgresql", config, {"password": PASSWORD}, policy)
    assert result.status == "passed", result
    assert set(proxy.asked) == {f"localhost:{tls_postgres}"}
    misnamed = await sandbox.check("postgresql", {**config, "host": BEHIND}, {"password": PASSWORD}, policy)
    assert failed(misnamed)[:2] == ("tls", "tls_certificate_invalid")


# Names and addresses --------------------------------------------------------------------------------------------------


async def test_a_name_that_only_the_proxy_knows_is_reached(
    shop_api: int, proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    result = await checked(sandbox, policy, rest(f"http://{BEHIND}:{shop_api}"))
    assert result.status == "passed", result
    assert set(proxy.asked) == {f"{BEHIND}:{shop_api}"}


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        ("127.0.0.1", {"loopback_allowed": False}),
        ("localhost", {"loopback_allowed": False}),
        ("x.localhost", {"loopback_allowed": False}),
        ("169.254.169.254", {}),
        ("[::ffff:169.254.169.254]", {}),
        ("2852039166", {}),
        ("10.0.0.1", {}),
        (BEHIND, {"deny": ("*.behind.example",)}),
        ("127.0.0.1", {"deny": ("127.0.0.0/8",)}),
        ("localhost", {"deny": ("127.0.0.0/8", "::1")}),
    ],
)
async def test_what_the_policy_refuses_is_not_asked_of_the_proxy(
    host: str, changes: dict[str, Any], proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    strict = msgspec.structs.replace(policy, **changes)
    step, code, _ = failed(await checked(sandbox, strict, rest(f"http://{host}:8000")))
    assert (step, code) == ("resolve", "egress_refused")
    assert proxy.asked == []


async def test_the_proxy_itself_is_no_source(
    proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    """That the hub may dial it is for tunnels only."""
    strict = msgspec.structs.replace(policy, loopback_allowed=False)
    _, code, _ = failed(await checked(sandbox, strict, rest(f"http://127.0.0.1:{proxy.port}")))
    assert code == "egress_refused"


async def test_redirects_are_judged_and_go_through_the_proxy(
    shop_api: int, proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    from tests.connectors.test_ssrf import http, recording_server

    url = f"http://{BEHIND}:{shop_api}/orders"
    with recording_server(http(b"", "302 Found", f"Location: {url}\r\n")) as (port, _):
        result = await checked(sandbox, policy, rest(f"http://127.0.0.1:{port}"))
    assert failed(result)[1] == "authentication_failed"  # the token stays where it was given for
    assert proxy.asked[-1] == f"{BEHIND}:{shop_api}"
    with recording_server(http(b"", "302 Found", "Location: http://169.254.169.254/\r\n")) as (port, _):
        result = await checked(sandbox, policy, rest(f"http://127.0.0.1:{port}"))
    assert failed(result)[1] == "egress_refused"
    assert not any("169.254" in target for target in proxy.asked)


@pytest.mark.parametrize("direct", ["127.0.0.0/8", "localhost", "127.0.0.1"])
async def test_what_is_exempt_is_dialled_and_judged(
    direct: str, shop_api: int, proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    exempt = msgspec.structs.replace(policy, direct=(direct,))
    result = await checked(sandbox, exempt, rest(f"http://localhost:{shop_api}"))
    assert result.status == "passed", result
    assert proxy.asked == []
    closed = msgspec.structs.replace(exempt, loopback_allowed=False)
    assert failed(await checked(sandbox, closed, rest(f"http://localhost:{shop_api}")))[1] == "egress_refused"


# A proxy that does not do its part ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\n\r\nnot allowed", "proxy_refused"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "proxy_refused"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "proxy_invalid"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "host_unreachable"),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n", "proxy_timeout"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "proxy_invalid"),
        (b"HTTP/1.1 OK\r\n\r\n", "proxy_invalid"),
        (b"HTTP/1.1 200", "proxy_invalid"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "proxy_invalid"),
        (b"", "proxy_timeout"),
    ],
)
async def test_each_ailment_of_the_proxy_is_a_failed_connect_step(
    answer: bytes, code: str, shop_api: int, proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    proxy.answers = [answer]
    config = rest(f"http://{BEHIND}:{shop_api}", connect_timeout_s=HASTY_S)
    step, found, message = failed(await checked(sandbox, policy, config))
    assert (step, found) == ("connect", code), message
    assert "not allowed" not in message


@pytest.mark.parametrize("changes", [{"password": f"wrong-{CANARY}"}, {"username": "", "password": ""}])
async def test_wrong_credentials_of_the_proxy_are_the_hubs_fault(
    changes: dict[str, str], shop_api: int, proxy: ConnectProxy, sandbox: ConnectorSandbox
) -> None:
    policy = EgressPolicy(loopback_allowed=True, proxy=proxy.seen(**changes))
    result = await checked(sandbox, policy, rest(f"http://{BEHIND}:{shop_api}"))
    assert failed(result)[:2] == ("connect", "proxy_authentication_failed")
    assert EXPLANATIONS["proxy_authentication_failed"].fault == "hub"
    assert CANARY not in msgspec.json.encode(result).decode()


async def test_a_proxy_that_is_away_is_told_from_a_server_that_is(
    closed_port: int, shop_api: int, proxy: ConnectProxy, policy: EgressPolicy, sandbox: ConnectorSandbox
) -> None:
    gone = msgspec.structs.replace(policy, proxy=msgspec.structs.replace(proxy.seen(), port=closed_port))
    assert failed(await checked(sandbox, gone, rest(f"http://{BEHIND}:{shop_api}")))[:2] == (
        "connect",
        "proxy_unreachable",
    )
    nameless = msgspec.structs.replace(policy, proxy=proxy.seen(host="proxy.invalid"))
    assert failed(await checked(sandbox, nameless, rest(f"http://{BEHIND}:{shop_api}")))[:2] == (
        "connect",
        "proxy_unreachable",
    )
    assert failed(await checked(sandbox, policy, rest(f"http://{BEHIND}:{closed_port}")))[:2] == (
        "connect",
        "host_unreachable",
    )


async def test_a_driver_does_not_say_of_the_server_what_the_proxy_did(
    proxy: ConnectProxy, policy: EgressPolicy, filled_postgres: PostgresServer, sandbox: ConnectorSandbox
) -> None:
    """The first way is opened for the greeting, the second, for asyncpg itself, is not."""
    proxy.answers = [None, b"HTTP/1.1 403 Forbidden\r\n\r\n"]
    config = {"host": BEHIND, "port": filled_postgres.port, "database": "shop", "username": "shop"}
    result = await sandbox.check("postgresql", config, {"password": "x"}, policy)
    assert failed(result)[:2] == ("authenticate", "proxy_refused")


# The room itself ------------------------------------------------------------------------------------------------------


def test_a_driver_that_dials_by_itself_is_refused(proxy: ConnectProxy, policy: EgressPolicy) -> None:
    """It would go past the proxy, or to an address that is nobody's."""

    class Dialling:
        network = Network(policy)

    pinned = asyncio.run(Dialling.network.resolve(BEHIND, 80, 2.0))
    guard = child_module.DialGuard()
    guard.connector = Dialling  # type: ignore[assignment]
    with pytest.raises(ConnectorError) as caught:
        guard("socket.connect", (None, (pinned.addresses[0], 80)))
    assert caught.value.code == "unsupported"
    for address in (("127.0.0.1", 80), ("93.184.216.34", 443)):
        with pytest.raises(ConnectorError):
            guard("socket.connect", (None, address))
    guard("socket.connect", (None, ("127.0.0.1", proxy.port)))


def test_a_server_that_greets_first_is_heard_from_its_first_byte(proxy: ConnectProxy, policy: EgressPolicy) -> None:
    """The greeting may come in one piece with the proxy's answer."""
    proxy.answers = [b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n"]
    network = Network(policy)

    async def greeted() -> bytes:
        pinned = await network.resolve(BEHIND, 22, 2.0)
        reader, writer = await asyncio.open_connection(pinned.addresses[0], 22)
        greeting = await reader.readline()
        writer.close()
        return greeting

    with asyncio.Runner(loop_factory=lambda: TunnellingLoop(network.tunnel_at, network.note_tunnel)) as runner:
        assert runner.run(greeted()) == b"SSH-2.0-x\r\n"


def test_each_host_and_each_address_of_the_proxy_has_a_stand_in(policy: EgressPolicy) -> None:
    network = Network(policy)

    async def resolved() -> list[tuple[str, ...]]:
        return [(await network.resolve(host, 80, 2.0)).addresses for host in (BEHIND, "other.behind.example", BEHIND)]

    one, other, again = asyncio.run(resolved())
    assert one == again != other
    assert all(not policy.decide(address).is_allowed for address in (*one, *other))
    assert socket.inet_aton(one[0])


def test_nothing_shows_the_credentials_of_the_proxy(policy: EgressPolicy) -> None:
    assert connect_proxy.PASSWORD not in repr(policy)
    assert connect_proxy.USER not in repr(policy.proxy)
