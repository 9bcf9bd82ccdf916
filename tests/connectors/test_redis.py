"""What Redis asks for beyond the contract: servers that lead elsewhere, values of any size, rights on some commands."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import redis

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.redis.connector import Redis, RedisConfig, RedisSecrets
from app.connectors.types.redis.key_patterns import MAX_PATTERNS, KeyPatterns, beginning, fits, masked
from app.connectors.types.redis.session import MAX_REPLY_BYTES
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import place, private_folder, program, running, scripted_server, unprivileged
from tests.connectors.types.redis import fill, redis_server, server
from tests.cpu_growth import CpuGrowth
from tests.ports import free_port

pytestmark = pytest.mark.anyio
services = pytest.mark.services

PASSWORD = {"password": f"pw-{CANARY}"}
Answer = Callable[[list[bytes]], bytes]


@contextmanager
def open_server() -> Iterator[int]:
    """Without users and passwords."""
    with redis_server() as (port, _):
        yield port


@pytest.fixture(scope="session")
def open_port(start: Start) -> int:
    return start(open_server)


@pytest.fixture
def client(open_port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=open_port) as client:
        client.flushall()
        yield client


def connector(port: int, policy: EgressPolicy, password: str | None = None, **more: Any) -> Redis:
    values = {"host": "127.0.0.1", "port": port, **more}
    return Redis(msgspec.convert(values, RedisConfig), RedisSecrets(password=password), policy)


async def discovered(source: Redis) -> dict[tuple[str, ...], DiscoveredObject]:
    return {found.path: found async for batch in source.discover() for found in batch}


async def shown(source: Redis, *path: str, **limits: Any) -> PreviewResult:
    return await source.preview(PreviewRequest(path=path, **limits))


# TLS and signing in ---------------------------------------------------------------------------------------------------


@services
@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_over_tls_every_step_passes(
    mode: str, start: Start, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values: dict[str, Any] = {"host": "localhost", "port": start(server)[1], "tls_mode": mode, "username": "reader"}
    if mode.startswith("verify"):
        values["ca_certificate"] = authority.pem.decode()
    result = await sandbox.check("redis", values, PASSWORD, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"
    assert f"Redis {result.server['version'].rpartition('.')[0]}" in Redis.verified_with
    preview = await sandbox.preview("redis", values, PASSWORD, loopback, PreviewRequest(path=("set", "tags")))
    assert preview.rows == [["tags", "only", None]]


@services
async def test_a_server_that_asks_for_a_client_certificate_gets_it(
    authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    certificate, key = (pem.decode() for pem in authority.certificate_for("reader"))
    with redis_server("--tls-auth-clients", "yes") as (_, port):
        values = {"host": "localhost", "port": port, "tls_mode": "require"}
        refused = await sandbox.check("redis", values, {}, loopback)
        values["client_certificate"] = certificate
        let_in = await sandbox.check("redis", values, {"client_key": key}, loopback)
    assert refused.status == "failed"
    assert refused.steps[2].code == "tls_failed"
    assert let_in.status == "passed"


@services
async def test_a_password_alone_signs_in(sandbox: ConnectorSandbox, loopback: EgressPolicy) -> None:
    with redis_server("--requirepass", f"pw-{CANARY}") as (port, _):
        values = {"host": "localhost", "port": port}
        codes = [
            [step.code for step in (await sandbox.check("redis", values, secrets, loopback)).steps][3]
            for secrets in ({}, {"password": f"wrong-{CANARY}"}, PASSWORD)
        ]
    assert codes == ["authentication_failed", "authentication_failed", "ok"]


@services
async def test_a_password_that_nobody_asks_for_is_said_to_be(open_port: int, loopback: EgressPolicy) -> None:
    with pytest.raises(ConnectorError) as caught:
        await connector(open_port, loopback, f"pw-{CANARY}").check(Steps())
    assert caught.value.code == "authentication_failed"
    assert "no password set" in caught.value.message


@services
async def test_keys_that_a_user_may_not_look_at_are_not_shown(loopback: EgressPolicy) -> None:
    users = f"user default off\nuser admin on nopass ~* +@all\nuser half on >pw-{CANARY} ~page:* -@all +@read +ping"
    with redis_server(users=users) as (port, _):
        with redis.Redis(port=port, username="admin", password="x") as admin:
            fill(admin)
        half = connector(port, loopback, f"pw-{CANARY}", username="half")
        await half.check(Steps())
        assert set(await discovered(half)) == {("string", "page:*")}


@services
async def test_another_database_is_another_source(client: redis.Redis, open_port: int, loopback: EgressPolicy) -> None:
    with redis.Redis(port=open_port, db=3) as other:
        other.set("there", "x")
    assert await discovered(connector(open_port, loopback)) == {}
    assert (await shown(connector(open_port, loopback, database=3), "string", "there")).rows == [["there", "x", None]]


# Servers that lead elsewhere ------------------------------------------------------------------------------------------


@contextmanager
def scripted_redis(answer: Answer) -> Iterator[tuple[int, list[list[bytes]]]]:
    heard: list[list[bytes]] = []

    def script(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            while line := lines.readline():
                command = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
                heard.append(command)
                connection.sendall(answer(command))

    with scripted_server(script) as port:
        yield port, heard


def answers(**replies: bytes) -> Answer:
    return lambda command: b"+PONG\r\n" if command == [b"PING"] else replies.get(command[0].decode(), b"+OK\r\n")


def slots(host: bytes, port: int) -> bytes:
    node = b"*3\r\n$%d\r\n%s\r\n:%d\r\n$1\r\nx\r\n" % (len(host), host, port)
    return b"*1\r\n*3\r\n:0\r\n:16383\r\n" + node


@pytest.mark.parametrize("redirect", [b"-MOVED 1 169.254.169.254:80\r\n", b"-ASK 1 10.0.0.1:6379\r\n"])
async def test_redirects_are_not_followed(redirect: bytes, sandbox: ConnectorSandbox, loopback: EgressPolicy) -> None:
    one_key = b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n"
    for replies in ({"SCAN": redirect}, {"SCAN": one_key, "TYPE": redirect}):
        with scripted_redis(answers(**replies)) as (port, _):
            result = await sandbox.check("redis", {"host": "localhost", "port": port}, {}, loopback)
        assert (result.steps[4].status, result.steps[4].code) == ("failed", "egress_refused")


@pytest.mark.parametrize("host", [b"169.254.169.254", b"2852039166", b"::ffff:169.254.169.254", b"0.0.0.0"])
async def test_a_node_at_a_closed_address_is_not_dialled(
    host: bytes, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    with scripted_redis(answers(CLUSTER=slots(host, 80))) as (port, _):
        values = {"host": "localhost", "port": port, "cluster": True}
        result = await sandbox.check("redis", values, {}, loopback)
    assert (result.steps[4].status, result.steps[4].code) == ("failed", "egress_refused")


async def test_without_the_setting_no_other_node_is_asked_for(loopback: EgressPolicy) -> None:
    with scripted_redis(answers(SCAN=b"*2\r\n$1\r\n0\r\n*0\r\n")) as (port, heard):
        await connector(port, loopback).check(Steps())
    assert all(command[0] != b"CLUSTER" for command in heard)


@services
async def test_the_keys_of_every_node_of_a_cluster_are_shown(loopback: EgressPolicy) -> None:
    with cluster() as ports:
        source = connector(ports[0], loopback, cluster=True)
        steps = Steps()
        await source.check(steps)
        found = await discovered(source)
        preview = await shown(source, "string", "key:*")
        alone = await shown(connector(ports[0], loopback), "string", "key:*")
    assert steps.server["mode"] == "cluster"
    assert list(found) == [("string", "key:*")]
    assert sorted(row[0] for row in preview.rows) == sorted(f"key:{number}" for number in range(40))
    assert 0 < len(alone.rows) < 40


@contextmanager
def cluster() -> Iterator[list[int]]:
    """Two nodes, each with half of the slots, and forty keys."""
    with contextlib.ExitStack() as stack:
        buses = [free_port(), free_port()]
        ports = [stack.enter_context(_node(bus)) for bus in buses]
        clients = [stack.enter_context(redis.Redis(port=port, decode_responses=True)) for port in ports]
        for client, (first, last) in zip(clients, ((0, 8191), (8192, 16383)), strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[1], buses[1])
        _until(lambda: all(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for client in clients))
        for number in range(40):
            for client in clients:
                with contextlib.suppress(redis.exceptions.MovedError):
                    client.set(f"key:{number}", number)
        yield ports


@contextmanager
def _node(bus: int) -> Iterator[int]:
    with redis_server("--cluster-enabled", "yes", "--cluster-port", str(bus)) as (port, _):
        yield port


def _until(is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.05)


@services
async def test_a_sentinel_is_told_apart(sandbox: ConnectorSandbox, loopback: EgressPolicy) -> None:
    port = free_port()
    with private_folder() as folder:
        settings = place(folder / "sentinel.conf", f"port {port}\nbind 127.0.0.1\ndir {folder}\n".encode())
        command = [program("redis-server"), str(settings), "--sentinel"]
        with running(command, port, cwd=folder, **unprivileged()):
            result = await sandbox.check("redis", {"host": "localhost", "port": port}, {}, loopback)
    assert (result.steps[4].code, result.server["mode"]) == ("protocol_mismatch", "sentinel")
    assert "Sentinel" in result.steps[4].message


@pytest.mark.parametrize(
    ("replies", "step", "code"),
    [
        ({"SCAN": b"*1\r\n$1\r\n0\r\n"}, 4, "response_invalid"),
        ({"SCAN": b":7\r\n"}, 4, "response_invalid"),
        ({"SCAN": b"!7\r\n"}, 4, "protocol_mismatch"),
        ({"SCAN": b"$x\r\n"}, 4, "response_invalid"),
        ({"SCAN": b"*1\r\n" * 100_000}, 4, "response_invalid"),
        ({"SCAN": b"$999999999\r\n" + b"x" * 4 * MAX_REPLY_BYTES}, 4, "response_too_large"),
        ({"SCAN": b"-LOADING Redis is loading\r\n"}, 4, "server_error"),
        ({"CLIENT": b""}, 3, "timeout"),
    ],
)
async def test_a_reply_may_be_anything(
    replies: dict[str, bytes], step: int, code: str, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    with scripted_redis(answers(**replies)) as (port, _):
        values = {"host": "localhost", "port": port, "read_timeout_s": 1}
        result = await sandbox.check("redis", values, {}, loopback)
    assert (result.steps[step].status, result.steps[step].code) == ("failed", code)


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        (b"-DENIED Redis is running in protected mode\r\n", "permission_denied"),
        (b"-ERR max number of clients reached\r\n", "rate_limited"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol_mismatch"),
        (b"ERROR\r\n", "protocol_mismatch"),
    ],
)
async def test_a_greeting_tells_what_answers(greeting: bytes, code: str, loopback: EgressPolicy) -> None:
    with scripted_redis(lambda _: greeting) as (port, _), pytest.raises(ConnectorError) as caught:
        await connector(port, loopback).check(Steps())
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("mode", "step", "code"),
    [("disable", 1, "connection_lost"), ("prefer", 1, "connection_lost"), ("require", 2, "tls_failed")],
)
async def test_a_server_that_hangs_up_at_once_speaks_nothing(
    mode: str, step: int, code: str, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    with scripted_server(lambda _: None) as port:
        result = await sandbox.check("redis", {"host": "localhost", "port": port, "tls_mode": mode}, {}, loopback)
    assert (result.steps[step].status, result.steps[step].code) == ("failed", code)


async def test_servers_before_the_access_control_list_take_the_password_alone(loopback: EgressPolicy) -> None:
    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"AUTH":
            return b"+OK\r\n" if len(command) == 2 else b"-ERR wrong number of arguments for 'auth' command\r\n"
        return b"*2\r\n$1\r\n0\r\n*0\r\n" if command[0] == b"SCAN" else b"+PONG\r\n"

    with scripted_redis(answer) as (port, _):
        await connector(port, loopback, f"pw-{CANARY}", username="reader").check(Steps())


# Values of any size ---------------------------------------------------------------------------------------------------


@contextmanager
def counted(port: int) -> Iterator[tuple[int, list[int]]]:
    """A front before a server, and how many bytes came from it."""
    sizes: list[int] = []

    def script(near: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            threading.Thread(target=_pour, args=(near, far), daemon=True).start()
            while piece := far.recv(65_536):
                sizes.append(len(piece))
                near.sendall(piece)

    with scripted_server(script) as front:
        yield front, sizes


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@services
async def test_large_values_are_never_transferred(client: redis.Redis, open_port: int, loopback: EgressPolicy) -> None:
    large = os.urandom(1024) * 30 * 1024
    client.set("text:1", "x" * len(large))
    client.hset("user:1", mapping={"name": "Zoë", "photo": large})
    client.hset("map:1", mapping={f"f{number}": large[:100_000] for number in range(200)})
    client.rpush("list:1", "small", large)
    client.sadd("set:1", large)
    client.zadd("zset:1", {large: 1})
    client.xadd("stream:1", {"payload": large})
    with counted(open_port) as (front, sizes):
        source = connector(front, loopback)
        assert len(await discovered(source)) == 7
        text = await shown(source, "string", "text:*", max_value_bytes=1000)
        user = await shown(source, "hash", "user:*")
        others = [await shown(source, kind, f"{kind}:*") for kind in ("list", "set", "zset", "stream")]
        mapping = await shown(source, "hash", "map:*", limit=3)
    assert (text.rows, text.truncated) == ([["text:1", "x" * 1000, None]], True)
    assert [dict(zip((column.name for column in user.columns), row, strict=True)) for row in user.rows] == [
        {"key": "user:1", "name": "Zoë", "photo": None, "ttl_s": None}
    ]
    assert user.truncated
    assert all(preview.truncated for preview in others)
    assert len(mapping.rows) == 3
    assert sum(sizes) < 12 * MAX_REPLY_BYTES < len(large)


@services
async def test_what_is_too_long_leaves_the_next_keys_readable(
    client: redis.Redis, open_port: int, loopback: EgressPolicy
) -> None:
    client.rpush("list:1", *["small"] * 1000, b"x" * 3 * MAX_REPLY_BYTES)
    client.rpush("list:2", "after")
    preview = await shown(connector(open_port, loopback), "list", "list:*", limit=1000)
    assert preview.rows[0] == ["list:1", 0, "small", None]
    assert preview.rows[-1] == ["list:2", 0, "after", None]
    assert preview.truncated


@services
async def test_characters_are_not_cut_in_half(client: redis.Redis, open_port: int, loopback: EgressPolicy) -> None:
    client.set("long:1", "ü" * 1000)
    client.set("long:2", b"caf\xc3")
    preview = await shown(connector(open_port, loopback), "string", "long:1", max_value_bytes=65)
    assert (preview.rows, preview.truncated) == ([["long:1", "ü" * 32, None]], True)


# Keys -----------------------------------------------------------------------------------------------------------------


@services
async def test_nothing_but_reading_is_asked_of_a_server(
    client: redis.Redis, open_port: int, loopback: EgressPolicy
) -> None:
    fill(client)
    client.expire("tags", 1000)
    client.config_resetstat()
    source = connector(open_port, loopback)
    await source.check(Steps())
    for kind, glob in await discovered(source):
        await shown(source, kind, glob)
    used = {name.removeprefix("cmdstat_").upper() for name in client.info("commandstats")}
    assert used - {"INFO", "CONFIG|RESETSTAT"} <= {
        *("PING", "CLIENT|SETNAME", "CLIENT", "READONLY", "SCAN", "TYPE", "TTL", "MEMORY|USAGE", "GETRANGE"),
        *("HLEN", "HKEYS", "HSTRLEN", "HMGET", "HSCAN", "LLEN", "LRANGE", "SCARD", "SSCAN", "ZCARD", "ZRANGE"),
        *("XLEN", "XRANGE"),
    }
    ((_, _, ttl),) = (await shown(source, "set", "tags")).rows
    assert 0 < ttl <= 1000
    assert 0 < client.ttl("tags") <= 1000


@services
async def test_keys_can_be_included_and_excluded(client: redis.Redis, open_port: int, loopback: EgressPolicy) -> None:
    fill(client)
    for scope, expected in (
        ({"include_keys": ["user:*", "tags"]}, {"user:*", "tags"}),
        ({"include_keys": ["*:*"], "exclude_keys": ["*:1", "queue*", "scores*"]}, {"user:*", "page:*"}),
        ({"include_keys": ["page:3?"]}, set()),
        ({"max_keys": 1}, None),
    ):
        found = {path[1] for path in await discovered(connector(open_port, loopback, **scope))}
        assert expected is None or found == expected, scope
    with pytest.raises(ConnectorError) as caught:
        await shown(connector(open_port, loopback, exclude_keys=["tags"]), "set", "tags")
    assert caught.value.code == "not_found"


@services
@pytest.mark.parametrize(
    ("max_keys", "stopped_because"), [(1, "There are more keys than max_keys (1)."), (100_000, None)]
)
async def test_a_discovery_says_whether_it_saw_every_key(
    client: redis.Redis, open_port: int, loopback: EgressPolicy, max_keys: int, stopped_because: str | None
) -> None:
    client.mset({f"name:{number}": number for number in range(2_000)})
    source = connector(open_port, loopback, max_keys=max_keys)
    await discovered(source)
    assert source.stopped_because == stopped_because


@services
async def test_ten_thousand_keys_are_a_few_patterns(
    client: redis.Redis, open_port: int, loopback: EgressPolicy
) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            pipeline.set(f"session:{os.urandom(16).hex()}:data", number)
            pipeline.set(f"name:{chr(97 + number % 26)}{chr(97 + number // 26 % 26)}", number)
        pipeline.execute()
    found = await discovered(connector(open_port, loopback))
    assert set(found) == {("string", "session:*:data"), ("string", "name:*")}
    preview = await shown(connector(open_port, loopback), "string", "session:*:data", limit=1000)
    assert (len(preview.rows), preview.truncated) == (1000, True)


@services
@pytest.mark.found("D12")
async def test_bytes_that_are_no_text_are_shown_and_said_to_be(
    client: redis.Redis, open_port: int, loopback: EgressPolicy
) -> None:
    """In keys, and in entries of streams: elsewhere a column that holds some is binary."""
    client.set(b"caf\xe9", "coffee")
    client.set("tea", "tea")
    client.xadd("drinks:one", {b"na\xefve": b"caf\xe9"})
    source = connector(open_port, loopback)
    cafe = await shown(source, "string", "caf?")
    assert [row[:2] for row in cafe.rows] == [["caf\\xe9", "coffee"]]
    assert len(cafe.notes) == 1
    drinks = await shown(source, "stream", "drinks:one")
    assert drinks.rows[0][2] == {"na\\xefve": "caf\\xe9"}
    assert len(drinks.notes) == 1
    assert (await shown(source, "string", "tea")).notes == ()


@services
async def test_keys_that_are_no_text_are_found_again(
    client: redis.Redis, open_port: int, loopback: EgressPolicy
) -> None:
    for key in (b"\xff\x00:x", b"a?b", b"a[b]", b"a\\b", b"a^b", "ü:1".encode(), b"", b"a b"):
        client.set(key, "x")
    source = connector(open_port, loopback)
    found = await discovered(source)
    assert len(found) == 8
    keys = [row[0] for kind, glob in found for row in (await shown(source, kind, glob)).rows]
    assert sorted(keys) == sorted(["\\xff\x00:x", "a?b", "a[b]", "a\\b", "a^b", "ü:1", "", "a b"])


async def test_documents_of_the_json_module_are_shown(loopback: EgressPolicy) -> None:
    replies = {
        "SCAN": b"*2\r\n$1\r\n0\r\n*1\r\n$5\r\ndoc:1\r\n",
        "TYPE": b"+ReJSON-RL\r\n",
        "TTL": b":-1\r\n",
        "MEMORY": b":100\r\n",
        "JSON.GET": b'$22\r\n{"a":9007199254740993}\r\n',
    }
    with scripted_redis(answers(**replies)) as (port, _):
        source = connector(port, loopback)
        (found,) = (await discovered(source)).values()
        preview = await shown(source, "json", "doc:*")
    assert [(field.name, field.type) for field in found.fields][1] == ("value", "json")
    assert preview.rows == [["doc:1", {"a": "9007199254740993"}, None]]


@pytest.mark.parametrize(
    ("key", "glob"),
    [
        (b"user:42", "user:*"),
        (b"user:42:cart", "user:*:cart"),
        (b"session:6f9619ff-8b86-d011-b42d-00c04fc964ff", "session:*"),
        (b"v1:utf8:md5", "v1:utf8:md5"),
        (b"order-2024-01-02", "order-*"),
        (b"7", "*"),
        (b"a*b", r"a\*b"),
        (b"\xffx", "?x"),
        (b"", ""),
        (b"a:b:c:d:e:f:g:h:i:j", "a:b:c:d:e:f:g:h:i:j"),
    ],
)
def test_a_key_fits_its_own_pattern(key: bytes, glob: str) -> None:
    assert ":".join(masked(key, ":")) == glob
    assert fits(key, glob, ":")
    assert not fits(key + b":x", glob, ":") or glob.count(":") >= 7


@pytest.mark.parametrize(
    ("glob", "first"), [("user:*:x", "user:*"), ("plain", "plain"), ("*", "*"), (r"a\*b*c", r"a\*b*"), ("?x", "?x")]
)
def test_a_server_is_asked_for_the_beginning_of_a_pattern(glob: str, first: str) -> None:
    assert beginning(glob) == first


def test_a_pattern_of_many_stars_is_decided_at_once() -> None:
    growth = CpuGrowth(100, 200)
    for stars in growth.sizes():
        with growth.look(stars):
            assert not fits(b"a" * 2000, "*a" * stars + "b", ":")
    growth.assert_bounded()


def test_many_keys_take_little_memory() -> None:
    patterns = KeyPatterns(":")
    tracemalloc.start()
    for number in range(12_000):
        patterns.add(b"user:%d:cart:%d" % (number, number), "hash")
        patterns.add(b"%s:x" % number.to_bytes(3, "big").hex().translate(_LETTERS).encode(), "string")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(list(patterns)) == MAX_PATTERNS
    assert patterns.is_full
    assert peak < 20_000_000


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


# Configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"host": "redis://a"}, "host"),
        ({"host": "/var/run/redis.sock"}, "host"),
        ({"cluster": True, "database": 1}, "database"),
        ({"ca_certificate": "-----BEGIN X"}, "ca_certificate"),
        ({"client_certificate": "-----BEGIN X"}, "client_certificate"),
        ({"username": "a\r\nCONFIG"}, "username"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"host": "a", **change}, RedisConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path[0] == field


def test_a_user_needs_a_password() -> None:
    with pytest.raises(InvalidField) as caught:
        Redis.validate(RedisConfig(host="a", username="b"), RedisSecrets())
    assert caught.value.path == ("secrets", "password")
