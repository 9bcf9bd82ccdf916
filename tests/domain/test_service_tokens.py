"""Access tokens of service accounts: for an API key or for what the account has signed, bounded by it, dead with it."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from app.domain.oauth.assertions import ASSERTION_TYPE, LASTS_AT_MOST_S
from app.domain.upkeep.services import remove_due
from tests.conftest import PASSWORD, Hub, running_hub
from tests.domain.conftest import Records
from tests.domain.oauth import (
    ACCOUNTS,
    ME,
    REVOKE,
    TOKEN,
    Flow,
    Machine,
    ask,
    assert_refused,
    basic_header,
    ends_within_a_second,
    flow_of_registered,
    give_role,
    machine_that_signs,
    machine_with_key,
    new_account,
    public_jwk,
    signed_by_public_key,
    somebody,
    works,
)

pytestmark = pytest.mark.anyio
ALGORITHMS = ["EdDSA", "ES256", "RS256", "PS256"]


# --- what one gets ---


async def test_a_service_account_gets_an_access_token_for_its_key(hub: Hub, records: Records) -> None:
    machine = await machine_with_key(hub)
    answer = await machine.ask()
    granted = answer.json()
    assert set(granted) == {"access_token", "token_type", "expires_in", "scope"}
    assert (granted["token_type"], granted["expires_in"], granted["scope"]) == ("Bearer", 900, "api")
    assert answer.headers["cache-control"] == "no-store"
    claims = jwt.decode(granted["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["client_id"]) == (machine.id, machine.id)
    assert claims["exp"] - claims["iat"] == 900
    assert not {"amr", "acr", "auth_time"} & claims.keys()
    (row,) = await records.audit(answer)
    assert (row["action"], str(row["actor_id"]), row["actor_name"]) == (
        "auth.token",
        machine.id,
        machine.account["name"],
    )


async def test_it_works_as_the_key_does(hub: Hub) -> None:
    machine = await machine_with_key(hub)
    by_token, by_key = hub.client(await machine.token()), hub.client(machine.key["key"])
    assert (await by_token.get(ME)).json() == (await by_key.get(ME)).json()
    for method, path in (("GET", "/api/v1/auth/sessions"), ("POST", "/api/v1/auth/logout"), ("GET", "/api/v1/users")):
        one, other = [await client.request(method, path) for client in (by_token, by_key)]
        assert (one.status_code, one.json()["code"]) == (other.status_code, other.json()["code"])
    assert (await by_token.get("/api/v1/auth/sessions")).json()["code"] == "session_required"


async def test_basic_shows_the_same(hub: Hub) -> None:
    machine = await machine_with_key(hub)
    answer = await ask(hub, TOKEN, basic=(machine.id, machine.key["key"]), grant_type="client_credentials")
    assert await works(hub, answer.json()["access_token"])


async def test_it_never_reaches_further_than_the_key(hub: Hub) -> None:
    machine = await machine_with_key(hub, permissions=["roles:read"])
    await give_role(hub, machine.id, "roles:read", "users:read")
    client = hub.client(await machine.token())
    assert (await client.get(ME)).json()["permissions"] == ["roles:read"]
    assert [(await client.get(f"/api/v1/{path}")).status_code for path in ("roles", "users")] == [200, 403]


async def test_what_it_does_is_on_record_under_the_account_and_the_key(hub: Hub, records: Records) -> None:
    machine = await machine_with_key(hub)
    await give_role(hub, machine.id, "groups:write")
    made = await hub.client(await machine.token()).post("/api/v1/groups", json={"name": uuid4().hex})
    assert made.status_code == 201, made.text
    (row,) = await records.audit(made)
    assert (str(row["actor_id"]), str(row["api_key_id"])) == (machine.id, machine.key["id"])


async def test_it_lasts_no_longer_than_the_key(hub: Hub, records: Records) -> None:
    ends_at = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
    machine = await machine_with_key(hub, expires_at=ends_at)
    granted = (await machine.ask()).json()
    assert 50 <= granted["expires_in"] <= 60
    assert await works(hub, granted["access_token"])
    await records.run("UPDATE api_keys SET expires_at = now() WHERE id = $1", UUID(machine.key["id"]))
    hub.parts.principals.drop("api_key", UUID(machine.key["id"]))
    assert not await works(hub, granted["access_token"])


# --- how it ends ---


async def end_key(hub: Hub, machine: Machine) -> int:
    return (await hub.admin.delete(f"/api/v1/api-keys/{machine.key['id']}")).status_code


async def deactivate(hub: Hub, machine: Machine) -> int:
    return (await hub.admin.patch(f"{ACCOUNTS}/{machine.id}", json={"is_active": False})).status_code


async def delete(hub: Hub, machine: Machine) -> int:
    return (await hub.admin.delete(f"{ACCOUNTS}/{machine.id}")).status_code


@pytest.mark.parametrize("end", [end_key, deactivate, delete])
async def test_it_is_dead_within_a_second_everywhere(hub: Hub, other_worker: Hub, end: Any) -> None:
    machine = await machine_with_key(hub)
    token = await machine.token()
    assert await works(hub, token)
    assert await works(other_worker, token)
    assert await end(hub, machine) in (200, 204)
    assert not await works(hub, token)
    assert await ends_within_a_second(other_worker, token)
    assert_refused(await machine.ask(), "invalid_client", 401)


@pytest.mark.parametrize("jwks", [None, "another"])
async def test_it_is_dead_with_the_public_key_that_it_rests_on(hub: Hub, other_worker: Hub, jwks: str | None) -> None:
    machine = await machine_that_signs(hub, kid="same")
    token = await machine.token()
    assert await works(other_worker, token)
    another = public_jwk(ed25519.Ed25519PrivateKey.generate(), "EdDSA") | {"kid": "same"}
    changed = await hub.admin.patch(f"{ACCOUNTS}/{machine.id}", json={"jwks": jwks and {"keys": [another]}})
    assert changed.status_code == 200, changed.text
    assert not await works(hub, token)
    assert await ends_within_a_second(other_worker, token)
    assert_refused(await machine.ask(), "invalid_client", 401)


async def test_another_key_beside_it_does_not_end_it(hub: Hub) -> None:
    machine = await machine_that_signs(hub)
    token = await machine.token()
    own = public_jwk(machine.private, "EdDSA")
    another = public_jwk(ec.generate_private_key(ec.SECP256R1()), "ES256")
    assert (await hub.admin.patch(f"{ACCOUNTS}/{machine.id}", json={"jwks": {"keys": [another, own]}})).is_success
    assert await works(hub, token)


async def test_a_suspended_tenants_programs_get_nothing_and_what_they_have_is_dead(hub: Hub) -> None:
    other = await hub.new_tenant()
    by_key, signing = await machine_with_key(other), await machine_that_signs(other)
    tokens = [await machine.token() for machine in (by_key, signing)]
    tenant_id = (await other.admin.get(ME)).json()["tenant"]["id"]
    assert (await hub.admin.post(f"/api/v1/tenants/{tenant_id}/suspend")).is_success
    assert [await works(hub, token) for token in tokens] == [False, False]
    for machine in (by_key, signing):
        assert_refused(await machine.ask(), "invalid_client", 401)


async def test_a_program_gives_its_token_back(hub: Hub, other_worker: Hub, records: Records) -> None:
    machine = await machine_with_key(hub)
    one, other = await machine.token(), await machine.token()
    assert await works(other_worker, one)
    given_back = await ask(hub, REVOKE, token=one, client_id=machine.id, client_secret=machine.key["key"])
    assert given_back.status_code == 200
    assert not await works(hub, one)
    assert await works(hub, other)
    assert [row["action"] for row in await records.audit(given_back)] == ["auth.revoke"]
    assert await ends_within_a_second(other_worker, one)


async def test_a_program_revokes_nobody_elses_token(hub: Hub) -> None:
    one, other = await machine_with_key(hub), await machine_with_key(hub)
    shown = {"client_id": one.id, "client_secret": one.key["key"]}
    of_user = await Flow(hub).sign_in(await somebody(hub))
    of_other = await other.token()
    for token in (of_other, of_user["access_token"], of_user["refresh_token"]):
        assert_refused(await ask(hub, REVOKE, token=token, **shown), "invalid_grant")
    assert_refused(await ask(hub, REVOKE, token=of_other, client_id="hub-cli"), "invalid_grant")
    assert await works(hub, of_other)
    assert_refused(await ask(hub, REVOKE, token=one.key["key"], **shown), "unsupported_token_type")


async def test_introspection_knows_it(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    machine = await machine_with_key(hub)
    token = await machine.token()
    told = (await hub.admin.post("/api/v1/auth/introspect", data={"token": token})).json()
    assert (told["active"], told["sub"], told["client_id"]) == (True, machine.id, machine.id)
    assert told["username"] == machine.account["name"]
    assert (await other.admin.post("/api/v1/auth/introspect", data={"token": token})).json() == {"active": False}
    await end_key(hub, machine)
    assert (await hub.admin.post("/api/v1/auth/introspect", data={"token": token})).json() == {"active": False}


# --- who gets none ---


async def test_a_key_is_the_secret_of_its_own_account_alone(hub: Hub) -> None:
    one, other = await machine_with_key(hub), await machine_with_key(hub)
    assert_refused(await one.ask(client_secret=other.key["key"]), "invalid_client", 401)
    assert_refused(await one.ask(client_secret=f"{one.key['key'][:-1]}x"), "invalid_client", 401)
    assert_refused(await one.ask(client_id=str(uuid4())), "invalid_client", 401)
    assert_refused(await one.ask(client_id=one.id.upper()), "invalid_client", 401)
    assert_refused(await one.ask(client_secret=None), "invalid_client", 401)
    assert_refused(await one.ask(client_id=None), "invalid_client", 401)


async def test_a_users_key_is_no_programs_secret(hub: Hub) -> None:
    client = await hub.user_with()
    me = (await client.get(ME)).json()["user"]["id"]
    key = (await client.post("/api/v1/api-keys", json={"name": "mine"})).json()["key"]
    answer = await ask(hub, TOKEN, grant_type="client_credentials", client_id=me, client_secret=key)
    assert_refused(answer, "invalid_client", 401)


async def test_clients_of_people_get_no_token_without_a_person_and_programs_no_persons(hub: Hub) -> None:
    flow = await flow_of_registered(hub, is_confidential=True)
    asked = {"grant_type": "client_credentials", "client_id": flow.client_id, "client_secret": flow.secret}
    assert_refused(await ask(hub, TOKEN, **asked), "unauthorized_client")
    assert_refused(await ask(hub, TOKEN, grant_type="client_credentials"), "invalid_client", 401)
    machine = await machine_with_key(hub)
    assert_refused(await machine.ask(grant_type="refresh_token", refresh_token="x"), "unauthorized_client")


async def test_a_failure_is_on_record_where_the_key_is_known(hub: Hub, records: Records) -> None:
    one, other = await machine_with_key(hub), await machine_with_key(hub)
    (row,) = await records.audit(await one.ask(client_secret=other.key["key"]))
    assert (row["action"], row["outcome"], str(row["resource_id"])) == ("auth.client", "failure", other.key["id"])


# --- private_key_jwt ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_program_that_signs_needs_no_secret(hub: Hub, records: Records, algorithm: str) -> None:
    machine = await machine_that_signs(hub, algorithm)
    await give_role(hub, machine.id, "roles:read", "groups:write")
    client = hub.client(await machine.token())
    assert (await client.get("/api/v1/roles")).status_code == 200
    assert (await client.get(ME)).json()["service_account"]["jwks"]["keys"][0]["kty"] in ("OKP", "EC", "RSA")
    made = await client.post("/api/v1/groups", json={"name": uuid4().hex})
    (row,) = await records.audit(made)
    assert str(row["actor_id"]) == machine.id


@pytest.mark.parametrize("audience", ["issuer", "token endpoint", "both"])
async def test_an_assertion_is_for_this_server(hub: Hub, audience: str) -> None:
    machine = await machine_that_signs(hub)
    of_server = {"issuer": hub.settings.url, "token endpoint": f"{hub.settings.url}{TOKEN}"}
    meant: Any = of_server.get(audience, list(of_server.values()))
    assert (await machine.ask(client_assertion=machine.assertion(aud=meant))).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "https://other.example.org"},
        {"aud": ["http://127.0.0.1:8000", "https://other.example.org"]},
        {"aud": None},
        {"exp": None},
        {"exp": int(time()) - 60},
        {"exp": int(time()) + 100_000},
        {"exp": "soon"},
        {"exp": 10**400},
        {"nbf": int(time()) + 3600},
        {"iat": int(time()) + 3600},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 256},
        {"iss": None},
        {"iss": "somebody"},
        {"sub": None},
        {"sub": str(uuid4())},
        {"sub": 7},
    ],
)
async def test_an_assertion_says_who_for_whom_and_until_when(hub: Hub, changed: dict[str, Any]) -> None:
    machine = await machine_that_signs(hub)
    text = machine.assertion(**changed) if "sub" not in changed else of_claims(machine, changed)
    assert_refused(await machine.ask(client_assertion=text), "invalid_client", 401)


def of_claims(machine: Machine, changed: dict[str, Any]) -> str:
    """Signed as it is: PyJWT would not write a `sub` that is no text."""
    payload = msgspec.json.encode(machine.claims(**changed))
    return jwt.api_jws.encode(payload, machine.private, machine.algorithm)


async def test_five_minutes_are_the_longest(hub: Hub) -> None:
    machine = await machine_that_signs(hub)
    good = machine.assertion(exp=int(time()) + LASTS_AT_MOST_S)
    assert (await machine.ask(client_assertion=good)).status_code == 200


async def test_an_assertion_is_good_once_on_every_worker(hub: Hub, other_worker: Hub, records: Records) -> None:
    machine = await machine_that_signs(hub)
    text = machine.assertion()
    assert (await machine.ask(client_assertion=text)).status_code == 200
    elsewhere = Machine(other_worker, machine.account, private=machine.private, algorithm="EdDSA")
    replayed = await elsewhere.ask(client_assertion=text)
    assert_refused(replayed, "invalid_client", 401)
    (row,) = await records.audit(replayed)
    assert (row["action"], row["outcome"], row["detail"]) == ("auth.client", "failure", "assertion used before")
    same_jti = machine.assertion(jti="mine"), machine.assertion(jti="mine", exp=int(time()) + 90)
    assert [(await machine.ask(client_assertion=each)).status_code for each in same_jti] == [200, 401]
    another = await machine_that_signs(hub)
    assert (await another.ask(client_assertion=another.assertion(jti="mine"))).status_code == 200


async def test_of_many_at_once_one_is_taken(hub: Hub) -> None:
    machine = await machine_that_signs(hub)
    text = machine.assertion()
    answers = await asyncio.gather(*(machine.ask(client_assertion=text) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_an_assertion_is_used_up_by_a_revocation_too(hub: Hub) -> None:
    machine = await machine_that_signs(hub)
    token, text = await machine.token(), machine.assertion()
    shown = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}
    assert (await ask(hub, REVOKE, token=token, **shown)).status_code == 200
    assert not await works(hub, token)
    assert_refused(await ask(hub, REVOKE, token=token, **shown), "invalid_client", 401)
    assert_refused(await machine.ask(client_assertion=text), "invalid_client", 401)


def unsigned(machine: Machine) -> str:
    return jwt.encode(machine.claims(), "", "none")


def by_public_key_as_secret(machine: Machine) -> str:
    return signed_by_public_key(machine.private, machine.claims())


def by_key_in_its_own_header(machine: Machine) -> str:
    private = ed25519.Ed25519PrivateKey.generate()
    return jwt.encode(machine.claims(), private, "EdDSA", headers={"jwk": public_jwk(private, "EdDSA")})


def by_somebody_else(machine: Machine) -> str:
    return jwt.encode(machine.claims(), ed25519.Ed25519PrivateKey.generate(), "EdDSA")


def under_unknown_kid(machine: Machine) -> str:
    return machine.assertion(headers={"kid": "unknown"})


def with_critical_header(machine: Machine) -> str:
    return machine.assertion(headers={"crit": ["exp"]})


def cut_off(machine: Machine) -> str:
    return machine.assertion()[:-4]


@pytest.mark.parametrize(
    "forge",
    [
        unsigned,
        by_public_key_as_secret,
        by_key_in_its_own_header,
        by_somebody_else,
        under_unknown_kid,
        with_critical_header,
        cut_off,
    ],
)
async def test_a_forged_assertion_shows_nobody(hub: Hub, records: Records, forge: Any) -> None:
    machine = await machine_that_signs(hub)
    answer = await machine.ask(client_assertion=forge(machine))
    assert_refused(answer, "invalid_client", 401)
    (row,) = await records.audit(answer)
    assert (row["action"], str(row["resource_id"])) == ("auth.client", machine.id)


@pytest.mark.parametrize("text", ["x", "a.b.c", "..", "e30.e30.", "x" * 8000, "ü.ü.ü"])
async def test_what_is_no_jwt_shows_nobody(hub: Hub, text: str) -> None:
    machine = await machine_that_signs(hub)
    assert_refused(await machine.ask(client_assertion=text), "invalid_client", 401)


async def test_a_key_is_used_as_it_says(hub: Hub) -> None:
    machine = await machine_that_signs(hub, "RS256", alg="RS256")
    assert (await machine.ask()).status_code == 200
    machine.algorithm = "PS256"
    assert_refused(await machine.ask(), "invalid_client", 401)


async def test_the_client_id_beside_an_assertion_is_its_own(hub: Hub) -> None:
    machine = await machine_that_signs(hub)
    assert_refused(await machine.ask(client_id=str(uuid4())), "invalid_client", 401)
    assert (await machine.ask(client_id=machine.id)).status_code == 200


async def test_one_accounts_key_signs_for_no_other(hub: Hub) -> None:
    one, other = await machine_that_signs(hub), await machine_that_signs(hub)
    text = jwt.encode(other.claims(), one.private, "EdDSA")
    assert_refused(await other.ask(client_assertion=text), "invalid_client", 401)


# --- public keys of an account ---


SHORT = rsa.generate_private_key(65537, 1024)
GOOD = public_jwk(ed25519.Ed25519PrivateKey.generate(), "EdDSA")


@pytest.mark.parametrize(
    "key",
    [
        GOOD | {"d": "AAAA"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": GOOD["x"]},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {"kty": "OKP", "x": GOOD["x"]},
        {"kty": "EC", "crv": "P-256", "x": GOOD["x"], "y": GOOD["x"]},
        {"kty": "EC", "crv": "P-384", "x": GOOD["x"], "y": GOOD["x"]},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        public_jwk(SHORT, "RS256"),
        public_jwk(SHORT, "RS256") | {"n": "_" * 1400},
        GOOD | {"alg": "HS256"},
        GOOD | {"alg": "RS256"},
        GOOD | {"use": "enc"},
        GOOD | {"x5u": "https://evil.example.org/"},
        GOOD | {"kid": ""},
    ],
)
async def test_such_a_key_is_refused(hub: Hub, key: dict[str, Any]) -> None:
    answer = await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex, "jwks": {"keys": [key]}})
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["path"].startswith("jwks.keys[0]")


async def test_an_exponent_of_one_is_refused(hub: Hub) -> None:
    key = public_jwk(rsa.generate_private_key(65537, 2048), "RS256") | {"e": "AQ"}
    answer = await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex, "jwks": {"keys": [key]}})
    assert answer.json()["errors"][0]["code"] == "invalid_key"


async def test_there_are_ten_keys_at_most_and_no_two_of_one_kid(hub: Hub) -> None:
    for keys in ([GOOD] * 11, [], [GOOD | {"kid": "1"}] * 2):
        answer = await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex, "jwks": {"keys": keys}})
        assert answer.status_code == 400


async def test_keys_are_shown_and_kept_without_what_is_of_no_use(hub: Hub) -> None:
    as_exported = GOOD | {"key_ops": ["verify"], "ext": True, "kid": "1", "use": "sig", "alg": "EdDSA"}
    account = await new_account(hub, jwks={"keys": [as_exported]})
    kept = {"keys": [GOOD | {"kid": "1", "use": "sig", "alg": "EdDSA"}]}
    assert account["jwks"] == kept
    assert (await hub.admin.get(f"{ACCOUNTS}/{account['id']}")).json()["jwks"] == kept
    again = await hub.admin.patch(f"{ACCOUNTS}/{account['id']}", json={"jwks": {"keys": [as_exported]}})
    assert again.json()["version"] == 1
    cleared = await hub.admin.patch(f"{ACCOUNTS}/{account['id']}", json={"jwks": None})
    assert (cleared.json()["jwks"], cleared.json()["version"]) == (None, 2)


# --- upkeep, limits ---


async def test_what_is_over_is_removed(hub: Hub, records: Records) -> None:
    machine = await machine_that_signs(hub)
    token = await machine.token()
    await records.run("UPDATE service_tokens SET expires_at = now() - interval '2 hours'")
    await records.run("UPDATE spent_tokens SET expires_at = now() - interval '2 hours'")
    await remove_due(hub.parts, datetime.now(UTC))
    assert await records.one("SELECT count(*) FROM service_tokens") == 0
    assert await records.one("SELECT count(*) FROM spent_tokens") == 0
    hub.parts.principals.drop("service_account", UUID(machine.id))
    assert not await works(hub, token)


async def test_failures_are_limited_and_successes_are_not(cluster: Any, migrated: str, tmp_path: Any) -> None:
    async with running_hub(cluster, migrated, tmp_path, HUB_LOGIN_RATE_LIMIT="5/minute") as hub:
        machine = await machine_with_key(hub)
        assert [(await machine.ask()).status_code for _ in range(8)] == [200] * 8
        failures = [await machine.ask(client_secret="dfh_wrong") for _ in range(6)]
        assert failures[0].status_code == 401
        assert_limited(failures[-1])
        assert (await machine.ask()).status_code == 200


def assert_limited(answer: Any) -> None:
    assert answer.status_code == 429
    assert answer.json()["error"] == "temporarily_unavailable"
    assert int(answer.headers["retry-after"]) > 0
    assert "ratelimit" in answer.headers


async def test_a_password_is_nobodys_secret(hub: Hub) -> None:
    who = await somebody(hub)
    headers = {"Authorization": basic_header(who.email, PASSWORD)}
    answer = await hub.client().post(TOKEN, data={"grant_type": "client_credentials"}, headers=headers)
    assert_refused(answer, "invalid_client", 401)
