"""Limits as a client meets them: whose quota is taken from, what a 429 says, and what cannot be dodged."""

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.errors import TooManyRequests
from app.core.limits.limiter import Limits
from app.core.limits.rates import Rate
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub, running_hub
from tests.domain.conftest import Records

pytestmark = [pytest.mark.anyio, pytest.mark.found("RL3")]

ITEM = re.compile(r'"([a-z-]+)";([a-z]+=\d+(?:;[a-z]+=\d+)*)')
"""Of a list of structured fields (RFC 9651): a string with whole numbers as parameters."""
ME = "/api/v1/auth/me"
LOGIN = "/api/v1/auth/login"


@pytest.fixture(scope="module")
async def behind_a_proxy(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    async with running_hub(
        cluster, migrated, tmp_path_factory.mktemp("hub"), HUB_TRUSTED_PROXIES="127.0.0.1/32"
    ) as running:
        yield running


@pytest.fixture
def limited(behind_a_proxy: Hub) -> Hub:
    """Nobody has used anything yet."""
    behind_a_proxy.parts.limits = Limits(Rate.parse("30/hour"), Rate.parse("5/hour"), key=b"of this test")
    return behind_a_proxy


def parsed(field: str) -> tuple[str, dict[str, int]]:
    found = ITEM.fullmatch(field)
    assert found, field
    return found[1], {name: int(value) for name, _, value in (each.partition("=") for each in found[2].split(";"))}


def left(answer: httpx.Response) -> int:
    return parsed(answer.headers["ratelimit"])[1]["r"]


def via(hub: Hub, address: str) -> httpx.AsyncClient:
    """A client behind the trusted proxy, which adds its address to whatever the client claims."""
    client = hub.client()
    client.headers["x-forwarded-for"] = address
    return client


async def sign_in(client: httpx.AsyncClient, email: str = ADMIN_EMAIL, password: str = PASSWORD) -> httpx.Response:
    return await client.post(LOGIN, json={"email": email, "password": password})


def assert_rate_limited(answer: httpx.Response, policy: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited"), answer.text
    name, standing = parsed(answer.headers["ratelimit"])
    assert (name, parsed(answer.headers["ratelimit-policy"])[0]) == (policy, policy)
    assert 0 < standing["t"] == int(answer.headers["retry-after"]) <= 3600


# Principals -----------------------------------------------------------------------------------------------------------


async def test_a_good_answer_says_what_is_left(limited: Hub) -> None:
    first, second = await limited.admin.get(ME), await limited.admin.get(ME)
    assert parsed(first.headers["ratelimit-policy"]) == ("principal", {"q": 30, "w": 3600})
    assert (left(first), left(second)) == (29, 28)
    assert 3590 < parsed(second.headers["ratelimit"])[1]["t"] <= 3600


async def test_exactly_the_quota_is_admitted_and_a_429_says_how_long_to_wait(limited: Hub) -> None:
    answers = [await limited.admin.get(ME) for _ in range(33)]
    assert [answer.status_code for answer in answers] == [200] * 30 + [429] * 3
    assert_rate_limited(answers[-1], "principal")
    assert left(answers[-1]) == 0


async def test_a_write_costs_two_and_a_connector_run_ten(limited: Hub) -> None:
    before = left(await limited.admin.get(ME))
    wrote = await limited.admin.post("/api/v1/roles", json={"name": "one", "permissions": []})
    assert (wrote.status_code, left(wrote)) == (201, before - 2)
    source = {"type": "simulated", "config": {}, "secrets": {}}
    ran = await limited.admin.post("/api/v1/data-sources/test", json=source)
    assert (ran.status_code, left(ran)) == (200, before - 12)
    checked = await limited.admin.post("/api/v1/authz/check", json={"checks": [{"action": "roles:read"}]})
    assert (checked.status_code, left(checked)) == (200, before - 13)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/roles/00000000-0000-7000-8000-000000000000", 404),
        ("GET", "/api/v1/roles?sort=nothing", 400),
        ("HEAD", ME, 200),
    ],
)
async def test_what_is_refused_or_fails_counts_as_well(limited: Hub, method: str, path: str, status: int) -> None:
    before = left(await limited.admin.get(ME))
    answer = await limited.admin.request(method, path)
    assert (answer.status_code, left(answer)) == (status, before - 1)


async def test_a_forbidden_call_counts(limited: Hub) -> None:
    nobody = await limited.user_with()
    before = left(await nobody.get(ME))
    answer = await nobody.get("/api/v1/users")
    assert (answer.status_code, left(answer)) == (403, before - 1)


async def test_sessions_and_keys_of_one_principal_share_its_quota_and_others_have_their_own(limited: Hub) -> None:
    other_session = await limited.sign_in(ADMIN_EMAIL)
    made = await limited.admin.post("/api/v1/api-keys", json={"name": "one"})
    assert made.status_code == 201, made.text
    by_key = limited.client(made.json()["key"])
    before = left(await limited.admin.get(ME))
    assert (left(await other_session.get(ME)), left(await by_key.get(ME))) == (before - 1, before - 2)
    user = await limited.user_with()
    assert left(await user.get(ME)) == 29


async def test_the_keys_of_a_service_account_are_one_bucket(limited: Hub) -> None:
    account = (await limited.admin.post("/api/v1/service-accounts", json={"name": "loader"})).json()
    owner = {"type": "service_account", "id": account["id"]}
    keys = [
        (await limited.admin.post("/api/v1/api-keys", json={"name": name, "owner": owner})).json()["key"]
        for name in ("one", "other")
    ]
    assert [left(await limited.client(key).get(ME)) for key in (*keys, *keys)] == [29, 28, 27, 26]


async def test_tenants_never_share_a_quota(limited: Hub) -> None:
    """The same person in two tenants is two principals."""
    other = await limited.new_tenant("acme")
    before = left(await limited.admin.get(ME))
    for _ in range(25):
        await other.admin.get(ME)
    assert left(await limited.admin.get(ME)) == before - 1


async def test_a_refusal_by_the_limit_leaves_no_audit_row(limited: Hub) -> None:
    """A flood must not fill the log."""
    while (answer := await limited.admin.get("/api/v1/users/00000000-0000-7000-8000-000000000000")).status_code != 429:
        pass
    connection = await asyncpg.connect(limited.owner_url)
    assert await Records(connection).audit(answer) == []
    await connection.close()


# Addresses ------------------------------------------------------------------------------------------------------------


async def test_what_is_open_is_taken_from_the_address(limited: Hub) -> None:
    answers = [
        await via(limited, "192.0.2.1").post("/api/v1/auth/refresh", json={"refresh_token": "x" * 40})
        for _ in range(16)
    ]
    assert [answer.status_code for answer in answers] == [401] * 15 + [429]  # each costs two of thirty
    assert_rate_limited(answers[-1], "address")
    other = await via(limited, "192.0.2.2").post("/api/v1/auth/refresh", json={"refresh_token": "x" * 40})
    assert other.status_code == 401


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (ME, {}, 401),
        (ME, {"authorization": "Bearer nonsense"}, 401),
        ("/api/v1/nothing-here", {}, 404),
        ("/api/v1/auth/login", {}, 405),
        ("/health/live?x=1", {}, 400),
    ],
)
async def test_calls_of_nobody_are_taken_from_their_address(
    limited: Hub, path: str, headers: dict[str, str], status: int
) -> None:
    client = via(limited, "192.0.2.1")
    answers = [await client.get(path, headers=headers) for _ in range(31)]
    assert [answer.status_code for answer in answers] == [status] * 30 + [429]
    assert_rate_limited(answers[-1], "address")


async def test_probes_documents_and_keys_are_not_limited(limited: Hub) -> None:
    client = via(limited, "192.0.2.1")
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs", "/.well-known/jwks.json"):
        answers = [await client.get(path) for _ in range(35)]
        assert {answer.status_code for answer in answers} == {200}
        assert "ratelimit" not in answers[-1].headers
    assert (await client.options(ME)).status_code == 204


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_claimed_addresses_do_not_dodge_a_limit(
    limited: Hub, monkeypatch: pytest.MonkeyPatch, is_trusted: bool
) -> None:
    """Behind a trusted proxy the last address counts, which it adds itself; from anybody else none does."""
    if not is_trusted:
        monkeypatch.setattr(limited.parts, "trusted_proxies", ())
    statuses = []
    for number in range(7):
        claimed = f"198.51.100.{number}" + (", 192.0.2.1" if is_trusted else "")
        statuses.append((await sign_in(via(limited, claimed), f"u{number}@example.org")).status_code)
    assert statuses == [401] * 5 + [429] * 2


async def test_an_address_of_ipv6_shares_its_quota_with_those_around_it(limited: Hub) -> None:
    statuses = [
        (await sign_in(via(limited, f"2001:db8::{number:x}"), f"u{number}@example.org")).status_code
        for number in range(1, 7)
    ]
    assert statuses == [401] * 5 + [429]
    assert (await sign_in(via(limited, "2001:db8:0:1::1"), "u7@example.org")).status_code == 401


# Signing in -----------------------------------------------------------------------------------------------------------


async def test_logins_from_one_address_to_many_accounts_are_limited(limited: Hub) -> None:
    answers = [await sign_in(via(limited, "192.0.2.1"), f"u{number}@example.org") for number in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert_rate_limited(answers[-1], "login-address")


@pytest.mark.parametrize("email", [ADMIN_EMAIL, "nobody@example.org"])
async def test_logins_to_one_account_from_many_addresses_are_limited(limited: Hub, email: str) -> None:
    """Whether the account exists or not, in any spelling, and whether the password is right."""
    spellings = (email, email.upper(), email.title())
    answers = [
        await sign_in(via(limited, f"192.0.2.{number}"), spellings[number % 3], "a wrong password of some length")
        for number in range(1, 8)
    ]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert_rate_limited(answers[-1], "login-account")
    assert (await sign_in(via(limited, "192.0.2.99"), email)).status_code == 429


async def test_an_admitted_login_does_not_tell_how_often_others_have_tried_that_account(limited: Hub) -> None:
    """Or its owner: that would tell that there is one."""
    await sign_in(via(limited, "192.0.2.1"))
    answers = [await sign_in(via(limited, "192.0.2.2"), name, "wrong") for name in (ADMIN_EMAIL, "no@example.org")]
    assert [parsed(answer.headers["ratelimit"])[0] for answer in answers] == ["login-address"] * 2
    assert [left(answer) for answer in answers] == [4, 3]


async def test_successful_logins_count_too(limited: Hub) -> None:
    user = (await limited.new_user(password=PASSWORD))["email"]
    statuses = [(await sign_in(via(limited, "192.0.2.1"), user)).status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]


async def test_registering_is_taken_from_what_an_address_has_for_sign_ins(limited: Hub) -> None:
    client = via(limited, "192.0.2.1")
    body = {"email": "new@example.org", "password": PASSWORD, "first_name": "N", "last_name": "N"}
    assert (await client.post("/api/v1/auth/register", json=body)).status_code == 201
    assert left(await sign_in(client, "new@example.org")) == 3
    statuses = [(await sign_in(client, f"u{number}@example.org")).status_code for number in range(4)]
    assert statuses == [401] * 3 + [429]


@pytest.mark.found("RL4")
async def test_a_flood_of_logins_takes_nothing_from_who_is_signed_in(limited: Hub) -> None:
    before = left(await limited.admin.get(ME))
    answers = [await sign_in(limited.client(), f"u{number}@example.org") for number in range(40)]
    assert {answer.status_code for answer in answers[5:]} == {429}
    read = await limited.admin.get(ME)
    assert (read.status_code, left(read)) == (200, before - 1)


async def test_a_refused_login_costs_no_hash(limited: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Any] = []
    verify = limited.parts.passwords.verify

    async def counted(*given: Any) -> bool:
        hashed.append(given)
        return await verify(*given)

    monkeypatch.setattr(limited.parts.passwords, "verify", counted)
    for number in range(10):
        await sign_in(via(limited, "192.0.2.1"), f"u{number}@example.org")
    assert len(hashed) == 5


# What else is told ----------------------------------------------------------------------------------------------------


async def test_another_429_has_the_fields_and_a_retry_after_of_its_own(
    limited: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RateLimit` leaves out its time there: the draft wants `Retry-After` not to be before it."""

    async def busy(*_: Any) -> bool:
        raise TooManyRequests(code="login_busy", retry_after_s=3)

    monkeypatch.setattr(limited.parts.passwords, "verify", busy)
    answer = await sign_in(via(limited, "192.0.2.1"), "u@example.org")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "login_busy", "3")
    assert parsed(answer.headers["ratelimit"]) == ("login-address", {"r": 4})
    assert parsed(answer.headers["ratelimit-policy"]) == ("login-address", {"q": 5, "w": 3600})


async def test_what_is_refused_is_a_metric_with_few_labels(limited: Hub) -> None:
    for number in range(8):
        await sign_in(via(limited, "192.0.2.1"), f"u{number}@example.org")
    shown = (await limited.admin.get("/metrics")).text
    lines = [line for line in shown.splitlines() if line.startswith("hub_limits_refused_total{")]
    policies = {re.search(r'policy="([^"]+)"', line)[1] for line in lines}  # type: ignore[index]
    assert "login-address" in policies
    assert policies <= {"principal", "address", "login-address", "login-account", "recipient"}


async def test_readiness_names_nothing_as_degraded_where_nothing_else_is_set(limited: Hub) -> None:
    answer = await limited.client().get("/health/ready")
    assert answer.json() == {"status": "ok", "detail": "Ready to serve.", "degraded": []}
