"""Passkeys: registered, as a second and as the only factor, and everything that is not right about an answer."""

from typing import Any

import httpx
import pytest

from tests.authenticator import PRESENT
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.factors import AUTH, Person, new_passkey
from tests.sampling import sampled
from tests.started import packages_of_a_start

pytestmark = pytest.mark.anyio


@pytest.fixture
async def person(hub: Hub, records: Records) -> Person:
    return await Person.new(hub, records)


async def begin(hub: Hub) -> dict[str, Any]:
    answer = await hub.client().post(f"{AUTH}/passkey/options")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def end(hub: Hub, begun: dict[str, Any], credential: dict[str, Any]) -> httpx.Response:
    return await hub.client().post(f"{AUTH}/passkey", json={"token": begun["token"], "credential": credential})


async def test_a_new_passkey_is_asked_for_as_the_standard_has_it(person: Person) -> None:
    options = await person.begin_passkey()
    assert options["rp"] == {"id": "127.0.0.1", "name": "Data Fusion Hub"}
    assert options["user"]["name"] == person.email
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["attestation"] == "none"
    assert -7 in [each["alg"] for each in options["pubKeyCredParams"]]


async def test_a_passkey_is_a_second_factor(person: Person) -> None:
    passkey = await person.set_up_passkey()
    mfa = await person.password()
    assert mfa["methods"] == ["webauthn"]
    again = passkey.create(await person.begin_passkey("another"))
    assert [each["id"] for each in mfa["options"]["allowCredentials"]] == [again["id"]]
    answer = await person.show(mfa, method="webauthn", credential=passkey.get(mfa["options"]))
    assert answer.status_code == 200, answer.text
    assert await person.amr() == ["pwd", "hwk", "mfa"]


async def test_a_passkey_is_enough_and_counts_as_two_factors(hub: Hub, person: Person) -> None:
    passkey = await person.set_up_passkey()
    begun = await begin(hub)
    assert "allowCredentials" not in begun["options"]
    answer = await end(hub, begun, passkey.get(begun["options"]))
    assert answer.status_code == 200, answer.text
    assert await person.amr() == ["hwk", "mfa"]
    me = await hub.client(answer.json()["access_token"]).get(f"{AUTH}/me")
    assert me.json()["user"]["email"] == person.email


WRONG: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "https://hub.example.org"},
    "the origin on another port": {"origin": "http://127.0.0.1:8001"},
    "the origin with a path": {"origin": "http://127.0.0.1:8000/"},
    "another relying party": {"rp_id": "example.org"},
    "another challenge": {"challenge": b"x" * 32},
    "no verified user": {"flags": PRESENT},
    "nobody present": {"flags": 0},
    "another ceremony": {"type": "webauthn.create"},
    "a frame of another site": {"cross_origin": True},
    "another user": {"user_handle": b"\0" * 32},
    "a handle that is none": {"user_handle": b"me"},
    "a count that goes back": {"counter": 1},
}


@pytest.mark.parametrize("name", sampled(WRONG, every=3))
async def test_an_answer_that_is_not_right_lets_nobody_in(hub: Hub, person: Person, name: str) -> None:
    passkey = await person.set_up_passkey()
    first = await begin(hub)
    passkey.counter = 4
    assert (await end(hub, first, passkey.get(first["options"]))).status_code == 200
    begun, mfa = await begin(hub), await person.password()
    alone = await end(hub, begun, passkey.get(begun["options"], **WRONG[name]))
    second = await person.show(mfa, method="webauthn", credential=passkey.get(mfa["options"], **WRONG[name]))
    for answer in (alone, second):
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_factor"), answer.text


async def test_nobody_comes_in_by_another_users_passkey(hub: Hub, person: Person, records: Records) -> None:
    eve = await Person.new(hub, records)
    theirs, passkey = await eve.set_up_passkey(), await person.set_up_passkey()
    mfa = await person.password()
    crossed = await person.show(mfa, method="webauthn", credential=theirs.get(mfa["options"]))
    assert crossed.status_code == 401
    theirs.id = passkey.id  # signed with another key
    mfa = await person.password()
    forged = theirs.get(mfa["options"], user_handle=passkey.user_handle)
    assert (await person.show(mfa, method="webauthn", credential=forged)).status_code == 401
    begun = await begin(hub)
    assert (await end(hub, begun, theirs.get(begun["options"], user_handle=passkey.user_handle))).status_code == 401


async def test_a_challenge_is_answered_once(hub: Hub, person: Person) -> None:
    passkey = await person.set_up_passkey()
    begun = await begin(hub)
    assert (await end(hub, begun, passkey.get(begun["options"]))).status_code == 200
    assert (await end(hub, begun, passkey.get(begun["options"]))).status_code == 401
    mfa = await person.password()
    assert (await person.show(mfa, method="webauthn", credential=passkey.get(mfa["options"]))).status_code == 200
    assert (await person.show(mfa, method="webauthn", credential=passkey.get(mfa["options"]))).status_code == 401
    other = await end(hub, mfa, passkey.get(mfa["options"]))
    assert (other.status_code, other.json()["code"]) == (401, "invalid_mfa_token")


async def test_nonsense_is_no_passkey(hub: Hub, person: Person) -> None:
    passkey = await person.set_up_passkey()
    begun = await begin(hub)
    right = passkey.get(begun["options"])
    for credential in (
        {},
        {"response": None},
        right | {"response": {"userHandle": right["response"]["userHandle"]}},
        right | {"rawId": "x"},
        right | {"response": right["response"] | {"clientDataJSON": "bm9uZQ"}},
        right | {"response": right["response"] | {"authenticatorData": "AA"}},
    ):
        assert (await end(hub, begun, credential)).status_code == 401


async def test_what_is_disabled_does_not_sign_in(hub: Hub, person: Person, records: Records) -> None:
    passkey = await person.set_up_passkey()
    await records.run("UPDATE users SET is_active = false WHERE email = $1", person.email)
    begun = await begin(hub)
    assert (await end(hub, begun, passkey.get(begun["options"]))).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "https://hub.example.org"},
        {"rp_id": "example.org"},
        {"challenge": b"x" * 32},
        {"flags": PRESENT},
        {"type": "webauthn.get"},
    ],
)
async def test_a_new_passkey_that_is_not_right_is_not_taken(hub: Hub, person: Person, wrong: dict[str, Any]) -> None:
    options = await person.begin_passkey()
    place = f"{AUTH}/factors/{person.passkey_id}/confirm"
    answer = await person.client.post(place, json={"credential": new_passkey(hub).create(options, **wrong)})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_factor")
    assert (await person.client.post(place, json={"code": "000000"})).status_code == 400


async def test_a_passkey_is_of_one_user(hub: Hub, person: Person, records: Records) -> None:
    passkey, eve = await person.set_up_passkey(), await Person.new(hub, records)
    options = await eve.begin_passkey()
    place = f"{AUTH}/factors/{eve.passkey_id}/confirm"
    assert (await eve.client.post(place, json={"credential": passkey.create(options)})).status_code == 409


async def test_a_passkey_steps_up(hub: Hub, person: Person) -> None:
    passkey = await person.set_up_passkey()
    await person.age_sessions()
    begun = (await person.client.post(f"{AUTH}/step-up/options")).json()
    given = {"method": "webauthn", "token": begun["token"], "credential": passkey.get(begun["options"])}
    other = await hub.user_with()
    assert (await other.post(f"{AUTH}/step-up", json=given)).status_code == 400
    assert (await person.client.post(f"{AUTH}/step-up", json=given)).status_code == 204
    assert await person.amr() == ["pwd", "hwk", "mfa"]
    assert (await person.client.post(f"{AUTH}/step-up", json=given)).status_code == 400


def test_the_library_is_imported_when_somebody_has_to_do_with_a_passkey() -> None:
    assert not packages_of_a_start() & {"fido2", "pyotp"}
