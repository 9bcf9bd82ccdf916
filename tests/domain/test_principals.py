"""Principals in memory: what a change costs does not hang on how many sessions there are, and a refresh changes none."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.core.reads import Reads
from app.core.security import Claims, Principal
from app.domain.auth import principals as module
from app.domain.auth.principals import Principals, Signed
from app.domain.auth.schemas import Me
from tests.conftest import Hub
from tests.cpu_growth import CpuGrowth
from tests.domain.conftest import Records, new_user, open_pair
from tests.sampling import sampled

pytestmark = [pytest.mark.anyio, pytest.mark.found("L1")]

TENANT, EVERYBODY = uuid4(), uuid4()


def nothing_loaded() -> Principals:
    reads = Reads("postgresql://nobody@127.0.0.1:1/x", pool_size=1, timeout_s=1)
    return Principals(reads, "postgresql://nobody@127.0.0.1:1/x")


def kept(principals: Principals, *, user_id: UUID | None = None, roles: tuple[UUID, ...] = (EVERYBODY,)) -> Claims:
    """A session in memory, and what its token says."""
    user_id, session_id = user_id or uuid4(), uuid4()
    principal = Principal(
        id=user_id,
        tenant_id=TENANT,
        session_id=session_id,
        name="",
        role_ids=frozenset(roles),
        permissions=frozenset(),
    )
    me: Any = None  # what it shows is not looked at here
    claims = Claims(user_id, session_id, TENANT, "jti", 0, 0, "api")
    rests_on = (session_id, user_id, TENANT, *roles)
    principals._keep(claims, Signed(principal, me, time.time() + 900, math.inf, rests_on, {}))
    return claims


def is_known(principals: Principals, claims: Claims) -> bool:
    return principals._find(claims) is not None


@pytest.mark.parametrize("kind", ["session", "user", "role", "tenant"])
def test_a_change_is_about_all_that_rests_on_it_and_nothing_else(kind: str) -> None:
    principals = nothing_loaded()
    user_id, role_id = uuid4(), uuid4()
    meant = kept(principals, user_id=user_id, roles=(EVERYBODY, role_id))
    again = kept(principals, user_id=user_id, roles=(EVERYBODY, role_id))
    other = kept(principals)
    principals.drop(kind, {"session": meant.sid, "user": user_id, "role": role_id, "tenant": TENANT}[kind])
    assert not is_known(principals, meant)
    assert is_known(principals, again) == (kind == "session")
    assert is_known(principals, other) == (kind != "tenant")


def test_what_is_loaded_after_a_change_is_kept_until_the_next_one() -> None:
    principals, user_id = nothing_loaded(), uuid4()
    kept(principals, user_id=user_id)
    principals.drop("user", user_id)
    later = kept(principals, user_id=user_id)
    assert is_known(principals, later)
    principals.drop("user", user_id)
    assert not is_known(principals, later)


@pytest.mark.parametrize("kind", sampled(["session", "user", "role of everybody", "unknown user", "tenant"], every=2))
def test_a_change_costs_the_same_however_many_sessions_are_in_memory(kind: str) -> None:
    """The walk over all of them took 43 ms at 20,000; ten times more sessions must not even double it."""
    ids: dict[str, Callable[[Claims], UUID]] = {
        "session": lambda known: known.sid,
        "user": lambda known: known.sub,
        "role of everybody": lambda _: EVERYBODY,
        "unknown user": lambda _: uuid4(),
        "tenant": lambda _: TENANT,
    }
    growth = CpuGrowth(800, 8_000, times=2, floor_s=0.001)
    for sessions in growth.sizes():
        principals = nothing_loaded()
        claims = [kept(principals) for _ in range(sessions)][:400]
        with growth.look(sessions):
            for known in claims:
                principals.drop(kind.split()[0].replace("unknown", "user"), ids[kind](known))
    growth.assert_bounded()


def test_memory_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PRINCIPALS", 100)
    principals = nothing_loaded()
    claims = [kept(principals) for _ in range(300)]
    assert [is_known(principals, each) for each in claims] == [False] * 200 + [True] * 100
    assert len(principals._marks) == 2 * 100 + 2, "of each its session and user, and what they share"


# --- A refresh tells nobody ---

REFRESH = "/api/v1/auth/refresh"


async def held(hub: Hub, claims: Claims) -> Signed:
    """In memory, once the listener has proven itself."""
    async with asyncio.timeout(10):
        while True:
            await hub.parts.principals.of(claims)
            if found := hub.parts.principals._find(claims):
                return found
            await asyncio.sleep(0.01)


async def pair_of(hub: Hub, records: Records) -> dict[str, Any]:
    return await open_pair(hub, records, await new_user(hub, records))


async def test_a_refresh_leaves_the_principal_in_memory_on_every_worker(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    pair = await pair_of(hub, records)
    claims = hub.parts.tokens.verify(pair["access_token"].encode())
    before = [await held(each, claims) for each in (hub, other_worker)]
    answer = await hub.client().post(REFRESH, json={"refresh_token": pair["refresh_token"]})
    assert answer.status_code == 200, answer.text
    await asyncio.sleep(0.5)
    assert [await each.parts.principals.of(claims) for each in (hub, other_worker)] == before
    assert (await held(hub, claims)) is before[0]


async def test_a_reused_refresh_token_is_heard_of_by_every_worker(
    hub: Hub, other_worker: Hub, records: Records
) -> None:
    pair = await pair_of(hub, records)
    claims = hub.parts.tokens.verify(pair["access_token"].encode())
    before = [await held(each, claims) for each in (hub, other_worker)]
    await hub.client().post(REFRESH, json={"refresh_token": pair["refresh_token"]})
    await records.run("UPDATE sessions SET rotated_at = now() - interval '1 minute' WHERE id = $1", claims.sid)
    again = await hub.client().post(REFRESH, json={"refresh_token": pair["refresh_token"]})
    assert again.status_code == 401

    async def is_forgotten(each: Hub, known: Signed) -> None:
        async with asyncio.timeout(1):
            while each.parts.principals._find(claims) is known:
                await asyncio.sleep(0.01)

    for each, known in zip((hub, other_worker), before, strict=True):
        await is_forgotten(each, known)


# --- ST6: what is loaded while a change comes in ---


@pytest.mark.parametrize("kind", ["session", "user", "role", "tenant", "gap", "something new"])
async def test_a_load_that_a_change_overtakes_is_not_kept(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    claims = hub.parts.tokens.verify((await pair_of(hub, records))["access_token"].encode())
    principals = hub.parts.principals
    loaded = await held(hub, claims)
    changed = {"session": claims.sid, "user": claims.sub, "tenant": claims.tid, "role": min(loaded.principal.role_ids)}

    async def change() -> None:
        if kind == "gap":
            principals._drop_all()
        else:
            principals.drop(kind, changed.get(kind, uuid4()))

    await _load_and_meanwhile(principals, claims, change, monkeypatch)
    assert principals._find(claims) is None


async def test_a_load_that_anothers_change_overtakes_is_kept(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many people signing out each second nothing would ever be kept."""
    claims = hub.parts.tokens.verify((await pair_of(hub, records))["access_token"].encode())
    principals = hub.parts.principals
    await held(hub, claims)

    async def change() -> None:
        for kind in ("session", "user", "tenant"):
            principals.drop(kind, uuid4())

    await _load_and_meanwhile(principals, claims, change, monkeypatch)
    assert principals._find(claims) is not None


async def _load_and_meanwhile(
    principals: Principals, claims: Claims, change: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`change` happens after the rows were read and before they are kept."""
    real = principals._load

    async def overtaken(given: Claims) -> Signed:
        loaded = await real(given)
        await change()
        return loaded

    monkeypatch.setattr(principals, "_load", overtaken)
    principals._kept.pop(claims.sid, None)
    assert (await principals.of(claims)).principal.session_id == claims.sid
    monkeypatch.undo()


async def test_rights_are_held_once_for_all_who_have_them(hub: Hub, records: Records) -> None:
    one, other = [
        await held(hub, hub.parts.tokens.verify((await pair_of(hub, records))["access_token"].encode()))
        for _ in range(2)
    ]
    assert one.principal.permissions is other.principal.permissions
    assert isinstance(one.me, Me)
    assert one.me.tenant is other.me.tenant
