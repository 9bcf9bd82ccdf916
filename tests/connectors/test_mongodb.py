"""What MongoDB asks for beyond the contract: members that name others, TLS and its certificates, ways to sign in."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bson
import msgspec
import pytest
from bson.datetime_ms import DatetimeMS

from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.processes.sandbox import ConnectorSandbox
from app.connectors.types.mongodb.bson_values import MAX_FIELDS, FieldTypes, plain
from app.connectors.types.mongodb.connector import Mongodb, MongodbConfig, MongodbSecrets
from app.connectors.values.bad_bytes import NOT_UTF8
from app.core.egress import EgressPolicy
from tests.connectors.contract import CANARY, Start
from tests.connectors.servers.certificates import Authority
from tests.connectors.servers.starting import (
    place,
    place_certificate,
    private_folder,
    program,
    running,
    scripted_server,
    server_context,
    tls_front,
)
from tests.connectors.types import mongodb
from tests.ports import free_port

pytestmark = pytest.mark.anyio
services = pytest.mark.services

PASSWORD = {"password": f"pw-{CANARY}"}
Answer = Callable[[dict[str, Any]], dict[str, Any] | bytes]


@pytest.fixture(scope="session")
def port(start: Start) -> int:
    return start(mongodb.server)


@pytest.fixture(scope="session")
def tls_port(start: Start, port: int) -> int:
    return start(tls_front, port)


def config(port: int, **more: Any) -> dict[str, Any]:
    return {"host": "localhost", "port": port, "database": "shop", "username": "reader", **more}


def connector(values: dict[str, Any], policy: EgressPolicy, **secrets: str) -> Mongodb:
    return Mongodb(msgspec.convert(values, MongodbConfig), MongodbSecrets(**(secrets or PASSWORD)), policy)


async def discovered(mongo: Mongodb) -> dict[tuple[str, ...], DiscoveredObject]:
    return {found.path: found async for batch in mongo.discover() for found in batch}


# TLS ------------------------------------------------------------------------------------------------------------------


@services
@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_over_tls_every_step_passes(
    mode: str, tls_port: int, authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    values = config(tls_port, tls_mode=mode)
    if mode.startswith("verify"):
        values["ca_certificate"] = authority.pem.decode()
    result = await sandbox.check("mongodb", values, PASSWORD, loopback)
    assert [step.status for step in result.steps] == ["passed"] * 5
    assert result.server["encryption"] == "TLSv1.3"
    assert f"SecantusDB {result.server['version'].rpartition('.')[0]}" in Mongodb.verified_with
    shown = await sandbox.preview("mongodb", values, PASSWORD, loopback, PreviewRequest(path=("shop", "recent")))
    assert shown.rows == [[2, 1, "NaN", "x"]]


@services
async def test_verify_ca_does_not_look_at_the_name(tls_port: int, authority: Authority, loopback: EgressPolicy) -> None:
    values = config(tls_port, host="127.0.0.1", tls_mode="verify-ca", ca_certificate=authority.pem.decode())
    assert ("shop", "orders") in await discovered(connector(values, loopback))


@services
async def test_a_server_that_asks_for_a_client_certificate_gets_it(
    authority: Authority, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    certificate, key = (pem.decode() for pem in authority.certificate_for("reader"))
    with strict_server(authority) as port:
        values = {"host": "localhost", "port": port, "tls_mode": "require"}
        refused = await sandbox.check("mongodb", values, {}, loopback)
        values["client_certificate"] = certificate
        let_in = await sandbox.check("mongodb", values, {"client_key": key}, loopback)
    assert (refused.steps[2].status, refused.steps[2].code) == ("failed", "tls_failed")
    assert let_in.status == "passed"


@contextmanager
def strict_server(authority: Authority) -> Iterator[int]:
    """Its own TLS, for clients with a certificate of the tests' authority, without users."""
    port = free_port()
    with private_folder() as folder:
        certificate, key = place_certificate(folder)
        ca = place(folder / "ca.crt", authority.pem)
        command = [
            *(program("secantusd-py"), "--port", str(port), "--storage-path", str(folder / "data"), "--standalone"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-file", str(ca), "--tls-require-client-cert"),
        ]
        with running(command, port, cwd=folder, env={"HOME": str(folder)}):
            yield port


# Members --------------------------------------------------------------------------------------------------------------


def hello(**more: Any) -> dict[str, Any]:
    return {"ok": 1, "maxWireVersion": 21, "minWireVersion": 0, "setName": "rs", **more}


def arbiter(*hosts: str) -> dict[str, Any]:
    return hello(arbiterOnly=True, hosts=list(hosts))


@contextmanager
def scripted_mongod(
    answer: Answer, context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Answers each command as told, and yields its port and the commands it was sent."""
    heard: list[dict[str, Any]] = []

    def talk(connection: socket.socket) -> None:
        while command := _command(connection):
            heard.append(command)
            reply = answer(command)
            body = reply if isinstance(reply, bytes) else struct.pack("<IB", 0, 0) + bson.encode(reply)
            connection.sendall(struct.pack("<iiii", 16 + len(body), 1, command["$id"], 2013) + body)

    def script(connection: socket.socket) -> None:
        if context is None:
            talk(connection)
        else:
            with context.wrap_socket(connection, server_side=True) as encrypted:
                talk(encrypted)

    with scripted_server(script) as port:
        yield port, heard


def _command(connection: socket.socket) -> dict[str, Any] | None:
    """None at the end, and for what is no message: the first words of TLS, for one."""
    header = _exactly(connection, 16)
    if len(header) < 16 or header[12:] != struct.pack("<i", 2013):
        return None
    length, request = struct.unpack("<ii", header[:8])
    body = _exactly(connection, length - 16)
    return {**bson.decode(body[5:]), "$id": request}


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (piece := connection.recv(size - len(content))):
        content += piece
    return content


@pytest.mark.parametrize(
    "member", ["169.254.169.254:27017", "[fd00:ec2::254]:27017", "2852039166:80", "10.0.0.1:27017", "0.0.0.0:27017"]
)
async def test_a_member_at_a_closed_address_is_not_dialled(
    member: str, sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    with scripted_mongod(lambda _: arbiter(member)) as (port, _):
        result = await sandbox.check("mongodb", config(port), PASSWORD, loopback)
    assert (result.steps[1].status, result.steps[1].code) == ("failed", "egress_refused")


async def test_a_primary_is_read_from_whatever_members_it_names(
    sandbox: ConnectorSandbox, loopback: EgressPolicy
) -> None:
    """Again and again: at the first greeting, to the driver, in each of its heartbeats."""

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if "listCollections" in command:
            batch = [{"name": "c", "type": "collection"}]
            return {"ok": 1, "cursor": {"id": 0, "ns": "shop.$cmd.listCollections", "firstBatch": batch}}
        members = ["169.254.169.254:27017", "10.0.0.1:27017", "/tmp/mongodb-27017.sock"]
        return hello(ismaster=True, hosts=members, primary=members[0], me=members[0], version="7.0.1")

    with scripted_mongod(answer) as (port, heard):
        result = await sandbox.check("mongodb", {"host": "localhost", "port": port, "database": "shop"}, {}, loopback)
    assert result.status == "passed"
    assert result.server == {"product": "MongoDB", "version": "7.0.1", "role": "primary", "encryption": "none"}
    assert any("listCollections" in command for command in heard)


@services
async def test_members_that_are_named_are_asked_where_the_given_one_has_no_data(
    port: int, loopback: EgressPolicy
) -> None:
    members = ("169.254.169.254:27017", f"localhost:{free_port()}", "/tmp/x.sock", f"127.0.0.1:{port}")
    with scripted_mongod(lambda _: arbiter(*members)) as (arbiter_port, heard):
        mongo = connector(config(arbiter_port), loopback)
        assert ("shop", "orders") in await discovered(mongo)
        alone = connector(config(arbiter_port, direct_connection=True), loopback)
        with pytest.raises(ConnectorError) as caught:
            await alone.check(Steps())
    assert caught.value.code == "server_error"
    assert all("saslStart" not in command for command in heard)


@services
async def test_of_several_hosts_one_that_answers_is_enough(port: int, loopback: EgressPolicy) -> None:
    hosts = [
        {"host": "nowhere.invalid"},
        {"host": "localhost", "port": free_port()},
        {"host": "localhost", "port": port},
    ]
    values = {**config(port, hosts=hosts), "host": None, "replica_set": "secantus"}
    assert ("shop", "orders") in await discovered(connector(values, loopback))


async def test_a_secondary_is_preferred(loopback: EgressPolicy) -> None:
    with (
        scripted_mongod(lambda _: hello(ismaster=True)) as (primary, _),
        scripted_mongod(lambda _: hello(secondary=True, cursor={"id": 0, "ns": "a.b", "firstBatch": []})) as (
            port,
            heard,
        ),
    ):
        hosts = [{"host": "localhost", "port": primary}, {"host": "localhost", "port": port}]
        values = {"hosts": hosts, "database": "shop"}
        steps = Steps()
        with pytest.raises(ConnectorError):
            await Mongodb(msgspec.convert(values, MongodbConfig), MongodbSecrets(), loopback).check(steps)
    assert steps.server["role"] == "secondary"
    assert any("listCollections" in command for command in heard)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\x00\x00\x00\x00\x00" + struct.pack("<i", 1_000_000) + b"\x00" * 10, "protocol_mismatch"),
        (b"", "protocol_mismatch"),
        ({"ok": 1, "hosts": 7, "setName": [], "maxWireVersion": "x"}, "unsupported"),
        ({"ok": 1, "ismaster": True, "maxWireVersion": 6}, "unsupported"),
        (hello(hosts=["no port", ":1", "a:99999999999", "x" * 1000 + ":1", 5]), "server_error"),
        ({"ok": 1, "maxWireVersion": 21, "isreplicaset": True}, "server_error"),
    ],
)
async def test_a_greeting_may_be_anything(answer: Any, code: str, loopback: EgressPolicy) -> None:
    with scripted_mongod(lambda _: answer) as (port, _), pytest.raises(ConnectorError) as caught:
        await connector(config(port), loopback).check(Steps())
    assert caught.value.code == code


@services
async def test_a_rebinding_name_stays_what_it_was(
    port: int, loopback: EgressPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith("rebind.example"):
            return real(host, port, *rest, **more)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    mongo = connector(config(port, host="db.rebind.example"), loopback)
    await mongo.check(Steps())
    assert len((await mongo.preview(PreviewRequest(path=("shop", "log")))).rows) == 3
    assert asked == ["db.rebind.example"]


# Signing in -----------------------------------------------------------------------------------------------------------


async def test_a_certificate_signs_in_by_itself(authority: Authority, loopback: EgressPolicy) -> None:
    certificate, key = (pem.decode() for pem in authority.certificate_for("reader"))
    with scripted_mongod(lambda _: hello(ismaster=True), server_context()) as (port, heard):
        values = {"host": "localhost", "port": port, "auth_mechanism": "MONGODB-X509", "tls_mode": "verify-full"}
        values |= {"ca_certificate": authority.pem.decode(), "client_certificate": certificate}
        with pytest.raises(ConnectorError):
            await connector(values, loopback, client_key=key).check(Steps())
    (command,) = [command for command in heard if "authenticate" in command]
    assert (command["mechanism"], command["$db"]) == ("MONGODB-X509", "$external")


async def test_plain_passwords_travel_over_tls_only(authority: Authority, loopback: EgressPolicy) -> None:
    plain_login = {"auth_mechanism": "PLAIN", "username": "reader"}
    with scripted_mongod(lambda _: hello(ismaster=True)) as (port, heard):
        values = {"host": "localhost", "port": port, "tls_mode": "require", **plain_login}
        with pytest.raises(ConnectorError) as caught:
            await connector(values, loopback).check(Steps())
    assert caught.value.code == "tls_unavailable"
    assert CANARY not in str(heard)


# Reading --------------------------------------------------------------------------------------------------------------


@services
async def test_all_databases_are_shown_to_who_may_see_them(port: int, loopback: EgressPolicy) -> None:
    everything = config(port, username="auditor", database=None)
    for scope, expected in (
        ({}, {"bulk", "closed", "shop"}),
        ({"include_databases": ["s*"]}, {"shop"}),
        ({"exclude_databases": ["*o*"]}, {"bulk"}),
        ({"include_collections": ["th*"]}, {"closed"}),
        ({"exclude_collections": ["*"]}, set()),
    ):
        found = await discovered(connector({**everything, **scope}, loopback))
        assert {path[0] for path in found} == expected, scope


@services
async def test_what_the_configuration_leaves_out_has_no_preview(port: int, loopback: EgressPolicy) -> None:
    mongo = connector(config(port, exclude_collections=["orders"]), loopback)
    for path in (("shop", "orders"), ("closed", "things"), ("shop", "system.users"), ("", ""), ("shop", "$cmd")):
        with pytest.raises(ConnectorError) as caught:
            await mongo.preview(PreviewRequest(path=path))
        assert caught.value.code == "not_found"


@services
async def test_fields_are_those_of_the_oldest_and_the_newest_documents(port: int, loopback: EgressPolicy) -> None:
    values = config(port, username="auditor", database="bulk", sample_documents=20)
    found = await discovered(connector(values, loopback))
    assert [(field.name, field.is_nullable) for field in found["bulk", "many"].fields] == [
        ("_id", False),
        ("new", True),
    ]


@services
async def test_a_preview_of_many_documents_stops_at_its_limits(port: int, loopback: EgressPolicy) -> None:
    values = config(port, username="auditor", database="bulk")

    async def shown(name: str, **limits: Any) -> PreviewResult:
        return await connector(values, loopback).preview(PreviewRequest(path=("bulk", name), **limits))

    assert len((await shown("many", limit=250)).rows) == 250
    assert not (await shown("many", limit=301)).truncated
    assert (await shown("many", limit=0)).rows == []
    cut = await shown("long", max_value_bytes=64)
    ((_, text, raw, deep),) = cut.rows
    assert (text, len(raw), len(deep), cut.truncated) == ("ü" * 32, 64, 64, True)


def test_dates_beyond_the_years_of_rfc_3339_stay_numbers() -> None:
    moments = {0: "1970-01-01T00:00:00Z", -1: "1969-12-31T23:59:59.999Z", 300_000_000_000_000: "300000000000000"}
    assert {ms: plain(DatetimeMS(ms)) for ms in moments} == moments


def test_a_document_of_many_keys_is_no_table_of_as_many_columns() -> None:
    types = FieldTypes()
    types.add((f"k{number}", "int") for number in range(MAX_FIELDS + 1000))
    assert len(types.fields()) == MAX_FIELDS


@pytest.mark.parametrize(
    ("natives", "portable"),
    [
        ({"int", "long"}, "integer"),
        ({"int", "double"}, "number"),
        ({"int", "decimal", "double"}, "decimal"),
        ({"int", "string"}, "json"),
        ({"int", "null"}, "integer"),
        ({"null"}, "unknown"),
        ({"binData", "binData(4)"}, "json"),
    ],
)
def test_types_are_merged(natives: set[str], portable: str) -> None:
    types = FieldTypes()
    for native in natives:
        types.add([("x", native)])
    (field,) = types.fields()
    assert field.type == portable
    assert field.is_nullable == ("null" in natives)


# Configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"host": None}, "host"),
        ({"hosts": [{"host": "b"}]}, "host"),
        ({"host": "mongodb+srv://cluster.example.org"}, "host"),
        ({"host": "/tmp/mongodb-27017.sock"}, "host"),
        ({"host": "mongodb.sock"}, "host"),
        ({"host": None, "hosts": [{"host": "a"}, {"host": "b.sock"}]}, "hosts"),
        ({"host": None, "hosts": [{"host": "a"}, {"host": "b"}], "direct_connection": True}, "direct_connection"),
        ({"ca_certificate": "-----BEGIN X", "tls_mode": "require"}, "ca_certificate"),
        ({"client_certificate": "-----BEGIN X", "tls_mode": "prefer"}, "client_certificate"),
        ({"auth_mechanism": "MONGODB-X509"}, "client_certificate"),
        ({"auth_mechanism": "PLAIN", "username": "a"}, "tls_mode"),
        ({"auth_mechanism": "SCRAM-SHA-1"}, "username"),
        ({"auth_source": "admin"}, "username"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"host": "a", **change}, MongodbConfig)
    assert isinstance(caught.value.__cause__, InvalidField)
    assert caught.value.__cause__.path[0] == field


@pytest.mark.parametrize(
    "change",
    [
        {"auth_mechanism": "MONGODB-AWS"},
        {"auth_mechanism": "MONGODB-OIDC"},
        {"auth_mechanism": "GSSAPI"},
        {"database": "a/b"},
        {"database": "$external"},
        {"tls_mode": "maybe"},
        {"authMechanismProperties": {}},
    ],
)
def test_what_reads_this_machine_or_makes_no_sense_is_no_config(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"host": "a", "username": "b", **change}, MongodbConfig)


@pytest.mark.found("D2", "D4", "D12")
async def test_names_that_are_no_utf_8_or_are_there_twice_hide_nothing(loopback: EgressPolicy) -> None:
    """`#` stands for a byte that is no UTF-8."""

    def answer(command: dict[str, Any]) -> bytes:
        raw = {
            "listCollections": [{"name": "good", "type": "collection"}, {"name": "caf#", "type": "collection"}],
            "aggregate": [{"f": [{"k": "a", "t": "int"}, {"k": "a", "t": "string"}, {"k": "n#", "t": "int"}]}],
            "find": [{"a": 1, "b": "x#", "n#": 2}],
        }
        batch = next((found for name, found in raw.items() if name in command), [])
        reply = bson.encode(hello(ismaster=True, cursor={"id": 0, "ns": "shop.c", "firstBatch": batch}))
        return struct.pack("<IB", 0, 0) + reply.replace(b"#", b"\xe9").replace(b"\x02b\x00", b"\x02a\x00")

    with scripted_mongod(answer) as (port, _):
        config = MongodbConfig(host="localhost", port=port, database="shop", tls_mode="disable")
        source = Mongodb(config, MongodbSecrets(), loopback)
        found = [one async for some in source.discover() for one in some]
        shown = await source.preview(PreviewRequest(path=("shop", "good")))
    assert [one.name for one in found] == ["good", "caf\\xe9"]
    assert [field.name for field in found[0].fields] == ["a", "a_2", "n\\xe9"]
    assert [column.name for column in shown.columns] == ["a", "a_2", "n\\xe9"]
    assert shown.rows == [[1, "x\\xe9", 2]]
    assert shown.notes == (NOT_UTF8,)
