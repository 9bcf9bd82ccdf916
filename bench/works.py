"""What is measured, who does it, and which goals apply (the goals of the design, as ratios)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jwt

from bench import load
from bench.contestants import Server
from bench.load import Request
from bench.probe import expect, send
from bench.report import Goal, Sample, Work
from bench.rounds import Bench, Entry, sample_of
from bench.seeding import HubClient, Rows, login_request, new_role, sign_in

JWT_SECRET = "the bench's own secret, for P1 alone"
_LOGIN_CLIENTS = 32
_READERS = 8
_LOGIN_STRETCH = 3
"""Logins are few per second; they need longer rounds to be counted to a per cent."""
_QUEUE_S = 60
_SETTLED_S = 1.0
"""What makes the load beside has started by then; it goes on for as long at the end."""
_SHARE = "beside the bare argon2 pool"
_LIST = "?limit=20"


@dataclass(frozen=True)
class Field:
    """Everybody who takes part."""

    hub: Server
    f0: Server
    f1: Server
    p1: Server
    rows: Rows


def reads(bench: Bench, field: Field) -> Iterator[Work]:
    single = {"GET /roles/{id}": f"/roles/{field.rows.role_id}"}
    lists = {f"GET /roles{_LIST}": f"/roles{_LIST}"}
    if field.rows.source_id:
        single["GET /data-sources/{id}"] = f"/data-sources/{field.rows.source_id}"
        lists[f"GET /data-sources{_LIST}"] = f"/data-sources{_LIST}"
    else:
        bench.problem(f"data sources are not measured: {field.rows.refusal}")
    for name, path in single.items():
        yield _against_both(bench, field, name, path, 8.0)
    for name, path in lists.items():
        yield _against_both(bench, field, name, path, 10.0)
    for name, path in single.items():
        yield _unchanged(bench, field, name, path)


def _against_both(bench: Bench, field: Field, name: str, path: str, times_p1: float) -> Work:
    work = Work(name, [Goal("hub", "F1", 1.0), Goal("hub", "P1", times_p1)])
    client = sign_in(field.hub.url)
    entries = {
        "F1": Entry(field.f1, Request(field.f1.url + path)),
        "hub": Entry(field.hub, client.request("GET", path)),
        "P1": Entry(field.p1, Request(field.p1.url + path, headers=_p1_headers(field)), same_values=False),
    }
    bench.run(work, entries)
    return work


def _unchanged(bench: Bench, field: Field, name: str, path: str) -> Work:
    work = Work(f"{name}, If-None-Match", [Goal("hub 304", "hub", 1.0)])
    client = sign_in(field.hub.url)
    plain = client.request("GET", path)
    tag = {name.lower(): value for name, value in expect(plain, 200).headers.items()}.get("etag", "no tag")
    conditional = client.request("GET", path, **{"If-None-Match": tag})
    if expect(conditional, 304).body:
        bench.problem(f"{name}: the 304 has a body")
    bench.run(work, {"hub": Entry(field.hub, plain), "hub 304": Entry(field.hub, conditional, 304)})
    return work


def identity(bench: Bench, field: Field) -> Iterator[Work]:
    """What every other service asks all the time, answered from memory."""
    client = sign_in(field.hub.url)
    asked = introspection(client)
    if expect(asked, 200).json.get("active") is not True:
        bench.problem("POST /auth/introspect: the token of the bench is not active")
    after_body = replace(asked, url=f"{field.f0.url}/constant-after-body")
    pairs = {
        "GET /auth/me": (client.request("GET", "/auth/me"), Request(f"{field.f0.url}/constant"), 0.65),
        "POST /auth/introspect": (asked, after_body, 0.50),
    }
    for name, (request, constant, limit) in pairs.items():
        work = Work(name, [Goal("hub", "F0", limit)])
        bench.run(work, {"F0": Entry(field.f0, constant), "hub": Entry(field.hub, request)})
        yield work


def introspection(client: HubClient) -> Request:
    """Of the client's own token."""
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/x-www-form-urlencoded"}
    return Request(f"{client.url}/api/v1/auth/introspect", "POST", headers, f"token={client.token}")


def writes(bench: Bench, field: Field) -> Iterator[Work]:
    work = Work("POST /roles", [Goal("hub", "F1", 1.0), Goal("hub", "P1", 3.0)])
    hub = sign_in(field.hub.url).request("POST", "/roles", new_role("bench {n}"))
    json_type = {"Content-Type": "application/json"}
    entries = {
        "F1": Entry(field.f1, Request(f"{field.f1.url}/roles", "POST", json_type, hub.body), 201, same_values=False),
        "hub": Entry(field.hub, hub, 201),
        "P1": Entry(
            field.p1, Request(f"{field.p1.url}/roles", "POST", _p1_headers(field) | json_type, hub.body), 201, False
        ),
    }
    bench.run(work, entries)
    yield work


def logins(bench: Bench, field: Field) -> Iterator[Work]:
    work = Work(f"POST /auth/login, {_LOGIN_CLIENTS} clients", [Goal("hub", "argon2 pool", 0.90)])
    request = login_request(field.hub.url)
    expect(request, 200)
    seconds = bench.pace.seconds * _LOGIN_STRETCH
    for _ in range(bench.pace.rounds):
        pool = load.start_argon2_pool(_LOGIN_CLIENTS, seconds).result(seconds)
        work.add("argon2 pool", sample_of(pool, pool.cpu_s, None))
        outcome, sample = bench.measure_patient(Entry(field.hub, request), _LOGIN_CLIENTS, seconds)
        _wait_for_queue(request)
        work.add("hub", sample)
        bench.tell(f"{work.name}: {sample.per_second:.1f}/s, {outcome.told_to_wait} times told to wait")
        if sample.failures:
            bench.problem(f"{work.name}: {outcome.bad_statuses} errors, {outcome.socket_errors} broken sockets")
    yield work


def reads_beside_logins(bench: Bench, field: Field) -> Iterator[Work]:
    """p99 of reads while 32 clients sign in, against the same reads on the processor share that is left.

    The share is made by running the bare argon2 pool, as wide as the hub's, beside the hub.
    """
    path = f"/roles/{field.rows.role_id}"
    work = Work(
        f"GET /roles/{{id}}, {_READERS} clients, beside logins", [Goal("beside 32 clients", _SHARE, 1.5, "p99")]
    )
    reader = Entry(field.hub, sign_in(field.hub.url).request("GET", path))
    login, seconds = login_request(field.hub.url), bench.pace.seconds + 2 * _SETTLED_S
    for number in range(1, bench.pace.rounds + 1):
        work.add("alone", bench.measure(reader, _READERS)[1])
        pool = load.start_argon2_pool(_LOGIN_CLIENTS, seconds)
        work.add(_SHARE, _measure_settled(bench, reader))
        verified = pool.result(seconds)
        clients = load.start_patient(login, _LOGIN_CLIENTS, seconds)
        work.add("beside 32 clients", _measure_settled(bench, reader))
        outcome = clients.result(seconds)
        bench.tell(
            f"{work.name}, round {number}: {outcome.per_second:.1f} logins/s, {outcome.told_to_wait} times told to "
            f"wait; the bare pool {verified.per_second:.1f}/s"
        )
        if outcome.bad_statuses or outcome.socket_errors or not outcome.requests:
            bench.problem(f"{work.name}: {outcome.bad_statuses} of {outcome.requests} logins failed")
        _wait_for_queue(login)
    yield work


def _measure_settled(bench: Bench, reader: Entry) -> Sample:
    time.sleep(_SETTLED_S)
    return bench.measure(reader, _READERS)[1]


def _wait_for_queue(login: Request) -> None:
    """A login waits behind those that the clients left in the queue, which must not burden the next contestant."""
    gives_up = time.monotonic() + _QUEUE_S
    while (answer := send(login)).status == 429 and time.monotonic() < gives_up:
        time.sleep(float({name.lower(): value for name, value in answer.headers.items()}["retry-after"]))
    expect(login, 200)


def _p1_headers(field: Field) -> dict[str, str]:
    return {"Authorization": f"Bearer {jwt.encode({'sub': field.rows.user_id}, JWT_SECRET, 'HS256')}"}
