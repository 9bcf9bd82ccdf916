"""Second factors by code: set up, asked for at a sign-in, guessed at, used twice; recovery codes; step-up."""

import asyncio
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from app.domain.factors import one_time, recovery
from app.domain.factors.challenges import Challenge
from app.domain.sign_in.pending import cookie_name, new_browser
from app.domain.upkeep.services import KINDS
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.factors import AUTH, Person
from tests.pending import sealed

pytestmark = pytest.mark.anyio

WRONG = {"email": "", "password": "a guess that is wrong"}


@pytest.fixture
async def person(hub: Hub, records: Records) -> Person:
    return await Person.new(hub, records)


@pytest.fixture
async def ada(person: Person) -> Person:
    """With an authenticator app."""
    return await person.set_up_totp()


async def test_a_factor_counts_once_it_is_confirmed(hub: Hub, person: Person) -> None:
    made = await person.client.post(f"{AUTH}/factors", json={"type": "totp", "name": "  my   phone "})
    assert made.status_code == 201
    shown = made.json()
    assert (shown["name"], shown["is_confirmed"]) == ("my phone", False)
    assert shown["otpauth_uri"].startswith("otpauth://totp/Data%20Fusion%20Hub:")
    assert shown["secret"] in shown["otpauth_uri"]
    await hub.sign_in(person.email)
    wrong = await person.client.post(f"{AUTH}/factors/{shown['id']}/confirm", json={"code": "000000"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "wrong_factor")
    listed = (await person.client.get(f"{AUTH}/factors")).json()["items"]
    assert [(each["id"], each["is_confirmed"]) for each in listed] == [(shown["id"], False)]
    assert not {"secret", "otpauth_uri", "options"} & listed[0].keys()


async def test_the_right_password_is_told_that_it_is_not_enough(ada: Person) -> None:
    mfa = await ada.password()
    assert mfa.keys() == {"token", "methods"}
    assert mfa["methods"] == ["totp"]
    await ada.recovery_codes()
    assert (await ada.password())["methods"] == ["totp", "recovery"]


async def test_a_code_lets_in_with_two_factors(ada: Person) -> None:
    answer = await ada.show(await ada.password(), method="totp", code=await ada.code())
    assert answer.status_code == 200
    assert answer.json().keys() >= {"access_token", "refresh_token"}
    assert await ada.amr() == ["pwd", "otp", "mfa"]
    assert (await ada.hub.client(answer.json()["access_token"]).get(f"{AUTH}/me")).status_code == 200


async def test_a_wrong_password_says_nothing_of_factors(hub: Hub, ada: Person, person: Person) -> None:
    wrong = await hub.client().post(f"{AUTH}/login", json=WRONG | {"email": ada.email})
    nobody = await hub.client().post(f"{AUTH}/login", json=WRONG | {"email": "nobody@example.org"})
    assert wrong.status_code == nobody.status_code == 401
    assert {**wrong.json(), "request_id": ""} == {**nobody.json(), "request_id": ""}


@pytest.mark.parametrize("around", [-1, 0, 1])
async def test_a_code_of_the_steps_around_now_works_and_none_works_twice(ada: Person, around: int) -> None:
    code = await ada.code(around)
    assert (await ada.show(await ada.password(), method="totp", code=code)).status_code == 200
    for given in (code, f"{code[:3]} {code[3:]}"):
        again = await ada.show(await ada.password(), method="totp", code=given)
        assert (again.status_code, again.json()["code"]) == (401, "invalid_factor")


async def test_codes_beyond_the_steps_around_now_do_not_work(ada: Person) -> None:
    for around in (-2, 2):
        answer = await ada.show(await ada.password(), method="totp", code=await ada.code(around))
        assert answer.status_code == 401


async def test_of_parallel_uses_of_one_code_one_wins(ada: Person) -> None:
    code, tokens = await ada.code(), [await ada.password() for _ in range(6)]
    answers = await asyncio.gather(*(ada.show(mfa, method="totp", code=code) for mfa in tokens))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401, 401]


async def test_the_code_that_confirmed_a_factor_does_not_sign_in(hub: Hub, person: Person) -> None:
    await person.set_up_totp()
    await person.records.run("UPDATE factors SET last_step = $1", int(time.time()) // 30 + 1)
    answer = await person.show(await person.password(), method="totp", code=await person.code())
    assert answer.status_code == 401


async def test_ten_wrong_codes_lock_the_account_whatever_the_password(hub: Hub, ada: Person, records: Records) -> None:
    """The right password between the guesses gives no new ones."""
    for _ in range(10):
        mfa = await ada.password()
        answer = await ada.show(mfa, method="totp", code="000000")
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_factor")
    (row,) = [row for row in await records.audit(answer) if row["action"] == "user.lock"]
    assert row["outcome"] == "success"
    right = await ada.show(mfa, method="totp", code=await ada.code())
    assert (right.status_code, right.json()["code"]) == (401, "invalid_factor")
    locked = await hub.client().post(f"{AUTH}/login", json={"email": ada.email, "password": PASSWORD})
    assert (locked.status_code, locked.json()["code"]) == (401, "invalid_credentials")


async def test_parallel_guesses_do_not_race_past_the_lock(ada: Person, records: Records) -> None:
    mfa = await ada.password()
    guesses = [ada.show(mfa, method="totp", code=f"{number:06}") for number in range(30)]
    right = ada.show(mfa, method="totp", code=await ada.code())
    answers = await asyncio.gather(*guesses)
    assert {answer.status_code for answer in answers} == {401}
    assert (await right).status_code == 401
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", ada.email) == 10


async def test_failures_are_on_record_with_who_it_is(ada: Person, records: Records) -> None:
    answer = await ada.show(await ada.password(), method="totp", code="000000")
    (row,) = await records.audit(answer)
    assert (row["action"], row["outcome"], row["detail"], row["actor_name"]) == (
        "auth.login",
        "failure",
        "totp",
        ada.email,
    )


async def test_an_mfa_token_is_of_one_user_one_purpose_and_five_minutes(
    hub: Hub, ada: Person, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve = await (await Person.new(hub, records)).set_up_totp()
    of_eve, mfa = await eve.password(), await ada.password()
    crossed = await ada.show(of_eve, method="totp", code=await ada.code())
    assert (crossed.status_code, crossed.json()["code"]) == (401, "invalid_factor")
    other = Challenge(user_id=uuid4(), tenant_id=uuid4()).sealed(hub.parts.key_ring, "step-up")
    altered = mfa["token"][:-4] + ("AAAA" if mfa["token"][-4:] != "AAAA" else "BBBB")
    for token in (altered, other, "x", "é", mfa["token"][:40]):
        answer = await ada.show({"token": token}, method="totp", code=await ada.code())
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_mfa_token"), token
    later = time.time() + 301
    code = await ada.code()
    monkeypatch.setattr("app.domain.factors.challenges.time.time", lambda: later)
    over = await ada.show(mfa, method="totp", code=code)
    assert (over.status_code, over.json()["code"]) == (401, "invalid_mfa_token")


async def test_an_mfa_token_dies_with_the_password_that_it_was_given_for(hub: Hub, ada: Person) -> None:
    mfa = await ada.password()
    changed = {"current_password": PASSWORD, "new_password": "a heron waits where two rivers meet"}
    assert (await ada.client.post(f"{AUTH}/change-password", json=changed)).status_code == 204
    answer = await ada.show(mfa, method="totp", code=await ada.code())
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_mfa_token")


async def test_half_a_sign_in_dies_with_the_password_that_was_given(hub: Hub, ada: Person) -> None:
    """Whatever page of it is asked for meanwhile: the one before the new password, and the one after it."""
    browser = new_browser()
    form = {"request": sealed(hub.parts.key_ring, browser), "email": ada.email, "password": PASSWORD}
    async with hub.client() as client:
        client.cookies.set(cookie_name(hub.settings), browser)
        half = (await client.post("/sign-in", data=form)).headers["location"].partition("?request=")[2]
        shown = await client.get("/sign-in/factor", params={"request": half})
        token = shown.text.partition('name="mfa_token" value="')[2].partition('"')[0]
        changed = {"current_password": PASSWORD, "new_password": "a heron waits where two rivers meet"}
        assert (await ada.client.post(f"{AUTH}/change-password", json=changed)).status_code == 204
        sent = {"request": half, "mfa_token": token, "code": await ada.code()}
        assert (await client.post("/sign-in/factor", data=sent)).status_code == 401
        again = await client.get("/sign-in/factor", params={"request": half})
        assert again.status_code == 401
        assert "mfa_token" not in again.text


# --- recovery codes ---


async def test_recovery_codes_work_once_and_new_ones_replace_them(ada: Person) -> None:
    codes = await ada.recovery_codes()
    assert len(set(codes)) == recovery.NUMBER == 10
    assert all(set(recovery.plain(code)) <= set(recovery.ALPHABET) and len(code) == 19 for code in codes)
    typed = codes[0].upper().replace("-", " ")
    assert (await ada.show(await ada.password(), method="recovery", code=typed)).status_code == 200
    assert await ada.amr() == ["pwd", "kba", "mfa"]
    assert (await ada.show(await ada.password(), method="recovery", code=codes[0])).status_code == 401
    await ada.recovery_codes()
    assert (await ada.show(await ada.password(), method="recovery", code=codes[1])).status_code == 401


async def test_recovery_codes_stand_in_for_a_factor_and_for_nothing_else(hub: Hub, person: Person) -> None:
    """Who has none would make a session of two factors by the password alone."""
    codes = await person.recovery_codes()
    shown = await person.client.post(f"{AUTH}/step-up", json={"method": "recovery", "code": codes[0]})
    assert (shown.status_code, shown.json()["code"]) == (400, "wrong_factor")
    assert await person.amr() == ["pwd"]
    await person.set_up_totp()
    shown = await person.client.post(f"{AUTH}/step-up", json={"method": "recovery", "code": codes[0]})
    assert shown.status_code == 204, shown.text


async def test_of_parallel_uses_of_one_recovery_code_one_wins(ada: Person) -> None:
    code, tokens = (await ada.recovery_codes())[0], [await ada.password() for _ in range(6)]
    answers = await asyncio.gather(*(ada.show(mfa, method="recovery", code=code) for mfa in tokens))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401, 401]


async def test_recovery_codes_and_secrets_are_stored_as_nobody_can_read_them(ada: Person, records: Records) -> None:
    codes = await ada.recovery_codes()
    assert ada.totp is not None
    rows = str(await records.run("SELECT * FROM recovery_codes")) + str(await records.run("SELECT * FROM factors"))
    assert ada.totp.secret not in rows
    assert not any(code in rows or recovery.plain(code) in rows for code in codes)


# --- step-up ---


async def test_without_a_step_up_factors_stay_as_they_are(hub: Hub, ada: Person) -> None:
    await ada.age_sessions()
    for answer in (
        await ada.client.post(f"{AUTH}/factors", json={"type": "totp", "name": "another"}),
        await ada.client.delete(f"{AUTH}/factors/{ada.totp_id}"),
        await ada.client.post(f"{AUTH}/recovery-codes"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "step_up_required"), answer.text
        assert "/api/v1/auth/step-up" in answer.json()["detail"]
    done = await ada.client.post(f"{AUTH}/step-up", json={"method": "totp", "code": await ada.code()})
    assert done.status_code == 204
    assert (await ada.client.delete(f"{AUTH}/factors/{ada.totp_id}")).status_code == 204
    await hub.sign_in(ada.email)


async def test_a_password_undoes_no_factor(hub: Hub, ada: Person) -> None:
    """Who knows it, and has a session from before, is whom the factor was set up against."""
    for _ in range(2):  # in a session that is young by itself, and in one that is not
        answer = await ada.client.post(f"{AUTH}/step-up", json={"password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (403, "factor_required")
        for refused in (
            await ada.client.delete(f"{AUTH}/factors/{ada.totp_id}"),
            await ada.client.post(f"{AUTH}/recovery-codes"),
            await ada.client.post(f"{AUTH}/factors", json={"type": "totp", "name": "another"}),
        ):
            assert (refused.status_code, refused.json()["code"]) == (403, "step_up_required")
        await ada.age_sessions()


async def test_a_step_up_is_of_one_session_and_of_five_minutes(hub: Hub, ada: Person) -> None:
    other = await ada.sign_in()
    await ada.age_sessions()
    done = await ada.client.post(f"{AUTH}/step-up", json={"method": "totp", "code": await ada.code()})
    assert done.status_code == 204
    assert (await other.post(f"{AUTH}/recovery-codes")).status_code == 403
    assert (await ada.client.post(f"{AUTH}/recovery-codes")).status_code == 200
    await ada.age_sessions()
    assert (await ada.client.post(f"{AUTH}/recovery-codes")).status_code == 403


async def test_a_step_up_with_a_code_makes_the_session_one_of_two_factors(ada: Person, records: Records) -> None:
    of_client = "SELECT amr FROM sessions WHERE user_id = (SELECT id FROM users WHERE email = $1) ORDER BY id"
    assert await records.one(of_client, ada.email) == ["pwd"]
    assert await ada.amr() == ["pwd", "otp", "mfa"], "who sets one up has shown it"
    done = await ada.client.post(f"{AUTH}/step-up", json={"method": "totp", "code": await ada.code()})
    assert done.status_code == 204, done.text
    assert await records.one(of_client, ada.email) == ["pwd", "otp", "mfa"]


async def test_wrong_step_ups_count_towards_the_lock(ada: Person, records: Records) -> None:
    wrong = await ada.client.post(f"{AUTH}/step-up", json={"password": "not this one, surely"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "wrong_password")
    wrong = await ada.client.post(f"{AUTH}/step-up", json={"method": "totp", "code": "000000"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "wrong_factor")
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", ada.email) == 2
    nothing = await ada.client.post(f"{AUTH}/step-up", json={})
    assert nothing.json()["errors"][0]["path"] == "password"


async def test_another_users_factor_is_not_there(hub: Hub, ada: Person, records: Records) -> None:
    eve = await (await Person.new(hub, records)).set_up_totp()
    begun = await (await eve.home()).post(f"{AUTH}/factors", json={"type": "totp", "name": "another"})
    place = f"{AUTH}/factors/{begun.json()['id']}"
    for answer in (
        await ada.client.get(place),
        await ada.client.post(f"{place}/confirm", json={"code": "000000"}),
        await ada.client.delete(place),
        await hub.admin.get(place),
    ):
        assert answer.status_code == 404


async def test_removing_the_last_factor_takes_the_recovery_codes_along(hub: Hub, ada: Person, records: Records) -> None:
    await ada.recovery_codes()
    assert (await (await ada.home()).delete(f"{AUTH}/factors/{ada.totp_id}")).status_code == 204
    left = "SELECT count(*) FROM recovery_codes WHERE user_id = (SELECT id FROM users WHERE email = $1)"
    assert await records.one(left, ada.email) == 0
    await hub.sign_in(ada.email)


async def test_an_admin_resets_the_factors_of_who_lost_them(hub: Hub, ada: Person, records: Records) -> None:
    user_id = await records.one("SELECT id FROM users WHERE email = $1", ada.email)
    place = f"/api/v1/users/{user_id}/reset-factors"
    helper = await hub.user_with("users:read", "users:write")
    assert (await helper.post(place)).status_code == 204
    assert (await ada.client.get(f"{AUTH}/me")).status_code == 401
    await hub.sign_in(ada.email)
    root = (await hub.admin.get(f"{AUTH}/me")).json()["user"]["id"]
    beyond = await helper.post(f"/api/v1/users/{root}/reset-factors")
    assert (beyond.status_code, beyond.json()["code"]) == (403, "exceeds_own_permissions")
    await records.run("UPDATE sessions SET authenticated_at = now() - interval '6 minutes'")
    late = await helper.post(place)
    assert (late.status_code, late.json()["code"]) == (403, "step_up_required")
    await records.run("UPDATE sessions SET authenticated_at = now()")


async def test_what_is_not_confirmed_in_time_is_gone(hub: Hub, person: Person, records: Records) -> None:
    made = await person.client.post(f"{AUTH}/factors", json={"type": "totp", "name": "phone"})
    await records.run("UPDATE factors SET expires_at = now() - interval '1 minute' WHERE confirmed_at IS NULL")
    place = f"{AUTH}/factors/{made.json()['id']}"
    assert (await person.client.post(f"{place}/confirm", json={"code": "000000"})).status_code == 404
    (kind,) = [kind for kind in KINDS if kind.name == "factors"]
    assert await kind.step(hub.parts, datetime.now(UTC), 100) >= 1
    assert (await person.client.get(place)).status_code == 404


async def test_a_user_has_twenty_factors_at_most(person: Person, records: Records) -> None:
    made = await person.client.post(f"{AUTH}/factors", json={"type": "totp", "name": "phone"})
    await records.run(
        """INSERT INTO factors (id, tenant_id, user_id, type, name, created_at, updated_at, confirmed_at)
           SELECT gen_random_uuid(), tenant_id, user_id, 'totp', 'many', now(), now(), now()
           FROM factors, generate_series(1, 20) WHERE id = $1::uuid""",
        made.json()["id"],
    )
    full = await person.client.post(f"{AUTH}/factors", json={"type": "totp", "name": "one more"})
    assert (full.status_code, full.json()["code"]) == (409, "too_many_factors")


async def test_a_sign_in_from_another_place_is_told(hub: Hub, records: Records, person: Person) -> None:
    _, before = await records.mark()
    await hub.sign_in(person.email)
    body = {"email": person.email, "password": PASSWORD}
    opened = await hub.client().post(f"{AUTH}/login", json=body, headers={"user-agent": "Another/1.0"})
    assert opened.status_code == 200
    (event,) = await records.events(before)
    assert event["type"] == "org.datafusionhub.user.signed_in_from_new_device"
    assert event["data"]["device"] == "Another/1.0"
    assert (await hub.client().post(f"{AUTH}/login", json=body, headers={"user-agent": "Another/1.0"})).is_success
    assert len(await records.events(before)) == 1


def test_codes_are_those_of_the_standard() -> None:
    """RFC 6238 appendix B: the last six of its eight digits, by the secret of its tests in base 32."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    for moment, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert one_time.step_of(secret, code, moment) == moment // 30
