"""Forgotten passwords and new email addresses: links that work once, and answers that tell nothing."""

import asyncio
import itertools
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.core.limits.limiter import LETTERS_TO_ONE, Limits
from app.core.limits.rates import Rate
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.letters.links import token_of
from app.domain.letters.services import MOST_AN_HOUR
from app.domain.recovery.forgotten import write_letters
from tests.answer_times import assert_alike
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records, new_user, open_session
from tests.domain.letters import PUBLIC_URL, Post, assert_worth_nothing
from tests.domain.letters import mailing as mailing
from tests.domain.letters import post as post

pytestmark = pytest.mark.anyio

FORGOT = "/api/v1/auth/forgot-password"
RESET = "/api/v1/auth/reset-password"
CHANGE = "/api/v1/auth/change-email"
CONFIRM = "/api/v1/auth/confirm-email"
LOGIN = "/api/v1/auth/login"
NEW = "a heron waits where two rivers meet"
OTHER = "some other words nobody would think of"


@pytest.fixture(scope="module")
def hub(mailing: Post) -> Hub:
    return mailing.hub


async def reset(hub: Hub, token: str, password: str = NEW) -> httpx.Response:
    return await hub.client().post(RESET, json={"token": token, "new_password": password})


async def sign_in(hub: Hub, email: str, password: str) -> int:
    return (await hub.client().post(LOGIN, json={"email": email, "password": password})).status_code


# --- the whole way ---


async def test_a_forgotten_password_is_replaced_by_the_link_of_a_letter(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records, failed_logins=9)
    await records.run("UPDATE users SET locked_until = now() + interval '9 minutes' WHERE email = $1", email)
    client = await open_session(hub, records, email)
    await post.forget(email.upper())
    (taken,) = post.server.taken
    assert taken.recipient == email
    answer = await reset(hub, taken.token)
    assert answer.status_code == 204
    assert (await sign_in(hub, email, NEW), await sign_in(hub, email, PASSWORD)) == (200, 401)
    assert (await client.get("/api/v1/auth/me")).status_code == 401, "whoever was signed in is not any more"
    (row,) = await records.audit(answer)
    assert (row["action"], row["outcome"], row["actor_name"]) == ("auth.reset_password", "success", email)
    await post.work()
    assert post.last_to(email).message["subject"] == "Your password was reset"
    types = [row["type"] for row in await records.run("SELECT type FROM outbox_events WHERE subject LIKE 'users/%'")]
    assert "org.datafusionhub.user.password_changed" in types


async def test_a_letter_says_who_it_is_from_and_that_a_program_wrote_it(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    message = post.last_to(email).message
    assert message["from"] == "Data Fusion Hub <hub@example.org>"
    assert message["to"] == email
    assert message["auto-submitted"] == "auto-generated"
    assert message["message-id"].endswith("@hub.example.org>")
    assert message.get_content_type() == "multipart/alternative"
    link = f"{PUBLIC_URL}/sign-in/reset?token={post.last_to(email).token}"
    assert link in post.last_to(email).plain
    assert f'<a href="{link}">' in post.last_to(email).html


async def test_links_lead_to_the_public_url_whatever_host_a_request_went_to(
    hub: Hub, post: Post, records: Records
) -> None:
    email = await new_user(hub, records)
    evil = {"host": "evil.example.org", "x-forwarded-host": "evil.example.org", "forwarded": "host=evil.example.org"}
    answer = await hub.client().post(FORGOT, json={"email": email}, headers=evil)
    assert answer.status_code == 202
    await post.work()
    taken = post.last_to(email)
    assert "evil" not in taken.plain + taken.html + taken.message.as_string()
    assert f"{PUBLIC_URL}/sign-in/reset" in taken.plain


async def test_no_token_is_in_any_answer_event_audit_row_or_table(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    await reset(hub, token)
    secret = token.rpartition("_")[2]
    for table in ("outbox_events", "audit_events", "letters", "forgotten_passwords", "jobs"):
        found = await records.one(f"SELECT count(*) FROM {table} AS row WHERE row::text LIKE '%' || $1 || '%'", secret)
        assert found == 0, table


# --- what a link is worth ---


async def test_a_link_works_once(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    assert (await reset(hub, token)).status_code == 204
    assert_worth_nothing(await reset(hub, token, OTHER))
    assert await sign_in(hub, email, NEW) == 200


async def test_of_many_who_come_with_one_link_at_once_one_wins(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    passwords = [f"{NEW}, the {number}th time" for number in range(8)]
    answers = await asyncio.gather(*(reset(hub, token, each) for each in passwords))
    assert sorted(answer.status_code for answer in answers) == [204] + [400] * 7
    (winner,) = [password for password, answer in zip(passwords, answers, strict=True) if answer.is_success]
    assert await sign_in(hub, email, winner) == 200


async def test_a_weak_password_does_not_use_a_link_up(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    for weak in ("short", email):
        answer = await reset(hub, token, weak)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "new_password")
    assert (await reset(hub, token)).status_code == 204


async def test_a_newer_link_ends_the_one_before(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    older = post.last_to(email).token
    await post.forget(email)
    assert_worth_nothing(await reset(hub, older))
    assert (await reset(hub, post.last_to(email).token)).status_code == 204


ENDINGS: dict[str, str] = {
    "deactivated": "UPDATE users SET is_active = false WHERE email = $1",
    "deactivated for a while": "UPDATE users SET is_active = false WHERE email = $1",
    "given another password": "UPDATE users SET password_hash = 'another' WHERE email = $1",
    "given another address": "UPDATE users SET email_key = email_key || 'x' WHERE email = $1",
    "expired": "UPDATE letters SET expires_at = now() WHERE email = $1",
    "of somebody who is gone": "DELETE FROM users WHERE email = $1",
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_link_is_dead_once_its_user_is(hub: Hub, post: Post, records: Records, ending: str) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    await records.run("DELETE FROM role_assignments WHERE subject_id IN (SELECT id FROM users WHERE email = $1)", email)
    await records.run(ENDINGS[ending], email)
    if ending.endswith("for a while"):
        await records.run("UPDATE users SET is_active = true WHERE email = $1", email)
    assert_worth_nothing(await reset(hub, token))


async def test_a_link_is_dead_after_its_owner_has_changed_the_password(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    client = await open_session(hub, records, email)
    body = {"current_password": PASSWORD, "new_password": OTHER}
    assert (await client.post("/api/v1/auth/change-password", json=body)).status_code == 204
    assert_worth_nothing(await reset(hub, token))
    await post.work()
    assert post.last_to(email).message["subject"] == "Your password was changed"


async def test_a_link_is_of_one_user_one_kind_one_tenant_and_of_no_other_letters(
    hub: Hub, post: Post, records: Records
) -> None:
    email, neighbour = await new_user(hub, records), await new_user(hub, records)
    await post.forget(email)
    token = post.last_to(email).token
    kind, place, secret = token.split("_", 2)
    (theirs,) = await post.letters(email)
    ring, key_id = hub.parts.key_ring, hub.parts.key_ring.current_id
    assert token == token_of(ring, key_id, "reset_password", DEFAULT_TENANT_ID, UUID(str(theirs["id"]))).text
    forged = [
        f"{kind}_{place}_{secret[:-2]}{'A' if secret[-2] != 'A' else 'B'}{secret[-1]}",
        f"dfm_{place}_{secret}",
        token_of(ring, key_id, "reset_password", uuid4(), UUID(str(theirs["id"]))).text,
        token_of(ring, key_id, "reset_password", DEFAULT_TENANT_ID, uuid4()).text,
        token_of(ring, key_id, "invitation", DEFAULT_TENANT_ID, UUID(str(theirs["id"]))).text,
        token.upper(),
        token + "A",
        "x",
        "dfp_' OR 1=1 --",
    ]
    for text in forged:
        assert_worth_nothing(await reset(hub, text))
        assert_worth_nothing(await hub.client().post(CONFIRM, json={"token": text}))
    assert_worth_nothing(await hub.client().post(CONFIRM, json={"token": token}))
    assert (await reset(hub, token)).status_code == 204
    assert await sign_in(hub, neighbour, PASSWORD) == 200


async def test_a_link_of_a_suspended_tenant_is_worth_nothing(hub: Hub, post: Post) -> None:
    other = await hub.new_tenant()
    me = (await other.admin.get("/api/v1/auth/me")).json()
    await post.forget(me["user"]["email"], tenant=me["tenant"]["slug"])
    token = post.last_to(me["user"]["email"]).token
    path = f"/api/v1/tenants/{me['tenant']['id']}"
    assert (await hub.admin.post(f"{path}/suspend")).status_code == 200
    assert_worth_nothing(await reset(hub, token))
    assert (await hub.admin.post(f"{path}/resume")).status_code == 200
    assert (await reset(hub, token)).status_code == 204


async def test_a_link_survives_the_key_that_it_was_derived_with(hub: Hub, post: Post, records: Records) -> None:
    """What was sent is known by its digest; what was not sent yet gets another token."""
    email = await new_user(hub, records)
    await post.forget(email)
    await records.run("UPDATE letters SET key_id = 'gone' WHERE email = $1", email)
    assert (await reset(hub, post.last_to(email).token)).status_code == 204
    assert (await hub.client().post(FORGOT, json={"email": email})).status_code == 202
    await write_letters(hub.parts)
    await records.run(
        "UPDATE letters SET key_id = 'gone', digest = '' WHERE email = $1 AND digest IS NOT NULL AND status = 'waiting'",
        email,
    )
    await post.work()
    resets = [each for each in post.server.to(email) if "/sign-in/reset" in each.plain]
    assert (await reset(hub, resets[-1].token, OTHER)).status_code == 204


# --- who gets a letter ---


NO_LETTER: dict[str, dict[str, Any]] = {
    "is not active": {"is_active": False},
    "has no password": {"password_hash": None},
}


@pytest.mark.parametrize("who", NO_LETTER)
async def test_nobody_gets_a_letter_who(hub: Hub, post: Post, records: Records, who: str) -> None:
    email = await new_user(hub, records, **NO_LETTER[who])
    await post.forget(email)
    assert post.server.taken == []


async def test_nobody_gets_a_letter_who_is_meant_in_several_tenants(hub: Hub, post: Post, records: Records) -> None:
    other, email = await hub.new_tenant(), f"{uuid4().hex}@example.org"
    for one in (hub, other):
        await one.new_user(email=email, password=PASSWORD)
    await post.forget(email)
    assert post.server.taken == []
    slug = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["slug"]
    await post.forget(email, tenant=slug)
    assert slug in post.last_to(email).plain
    assert (await reset(hub, post.last_to(email).token)).status_code == 204
    signed = await hub.client().post(LOGIN, json={"email": email, "password": NEW, "tenant": slug})
    assert signed.status_code == 200
    mine = await hub.client().post(LOGIN, json={"email": email, "password": NEW, "tenant": "default"})
    assert mine.status_code == 401, "the one in the other tenant keeps theirs"


async def test_a_mailbox_is_not_filled(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    for _ in range(MOST_AN_HOUR + 3):
        await post.forget(email)
    assert len(post.server.to(email)) == MOST_AN_HOUR
    assert (await reset(hub, post.last_to(email).token)).status_code == 204, "the last one that came works"


async def test_too_many_of_one_address_are_refused_whether_anybody_has_it_or_not(
    hub: Hub, post: Post, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = await new_user(hub, records)
    seen = {}
    for each in (email, "nobody@example.org"):
        monkeypatch.setattr(
            hub.parts, "limits", Limits(Rate.parse("900/hour"), Rate.parse("3/hour"), key=b"of this test")
        )
        answers = [await hub.client().post(FORGOT, json={"email": each}) for _ in range(4)]
        seen[each] = [(answer.status_code, answer.headers["ratelimit-policy"]) for answer in answers]
        assert [status for status, _ in seen[each]] == [202, 202, 202, 429]
    assert seen[email] == seen["nobody@example.org"]


# --- nothing tells who there is ---


async def known_and_others(hub: Hub, records: Records) -> dict[str, dict[str, str]]:
    other, several = await hub.new_tenant(), f"{uuid4().hex}@example.org"
    for one in (hub, other):
        await one.new_user(email=several, password=PASSWORD)
    return {
        "known": {"email": await new_user(hub, records)},
        "unknown": {"email": f"{uuid4().hex}@example.org"},
        "disabled": {"email": await new_user(hub, records, is_active=False)},
        "without a password": {"email": await new_user(hub, records, password_hash=None)},
        "of several tenants": {"email": several},
        "of no tenant": {"email": several, "tenant": "nowhere"},
        "no address": {"email": "lanterns drift over quiet water"},
    }


async def test_the_answer_is_the_same_for_everybody(hub: Hub, post: Post, records: Records) -> None:
    seen = []
    for given in (await known_and_others(hub, records)).values():
        answer = await hub.client().post(FORGOT, json=given)
        headers = {name: text for name, text in answer.headers.items() if name not in {"x-request-id", "ratelimit"}}
        rows = [(row["action"], row["actor_id"], row["tenant_id"], row["after"]) for row in await records.audit(answer)]
        seen.append((answer.status_code, answer.content, headers, rows))
    assert all(each == seen[0] for each in seen)
    assert seen[0][3] == [("auth.forgot_password", None, DEFAULT_TENANT_ID, None)]
    await post.work()
    assert await records.one("SELECT count(*) FROM forgotten_passwords") == 0


@pytest.mark.slow
async def test_the_time_of_the_answer_tells_nobody_who_there_is(hub: Hub, post: Post, records: Records) -> None:
    """AN4."""
    everybody = await known_and_others(hub, records)
    asked = {name: partial(hub.client().post, FORGOT, json=given) for name, given in everybody.items()}
    await assert_alike(asked, within_ms=3.0)
    await records.run("DELETE FROM forgotten_passwords")


async def test_the_request_asks_the_database_nothing_about_users(hub: Hub, post: Post, records: Records) -> None:
    """Why its time cannot tell: one statement, which writes."""
    before = await records.one("SELECT count(*) FROM forgotten_passwords")
    await records.run("ALTER TABLE users RENAME TO users_away")
    try:
        answer = await hub.client().post(FORGOT, json={"email": "ada@example.org"})
    finally:
        await records.run("ALTER TABLE users_away RENAME TO users")
    assert answer.status_code == 202
    assert await records.one("SELECT count(*) FROM forgotten_passwords") == before + 1
    await post.work()


# --- a new address ---


async def test_a_new_address_holds_once_it_is_confirmed_and_the_old_one_is_told(
    hub: Hub, post: Post, records: Records
) -> None:
    email, new = await new_user(hub, records), f"{uuid4().hex}@example.org"
    client = await open_session(hub, records, email)
    answer = await client.post(CHANGE, json={"new_email": new, "current_password": PASSWORD})
    assert answer.status_code == 202
    await post.work()
    assert post.server.to(email) == []
    assert (await client.get("/api/v1/auth/me")).json()["user"]["email"] == email
    confirmed = await hub.client().post(CONFIRM, json={"token": post.last_to(new).token})
    assert confirmed.status_code == 204
    assert (await client.get("/api/v1/auth/me")).json()["user"]["email"] == new
    assert (await sign_in(hub, new, PASSWORD), await sign_in(hub, email, PASSWORD)) == (200, 401)
    await post.work()
    assert new in post.last_to(email).plain
    assert_worth_nothing(await hub.client().post(CONFIRM, json={"token": post.last_to(new).token}))
    (row,) = await records.audit(confirmed)
    assert (row["action"], row["before"]["email"], row["after"]["email"]) == ("auth.confirm_email", email, new)


async def test_a_new_address_takes_the_password_and_a_wrong_one_counts(hub: Hub, post: Post, records: Records) -> None:
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    answer = await client.post(CHANGE, json={"new_email": "x@example.org", "current_password": "wrong"})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_password")
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", email) == 1
    assert [(row["action"], row["outcome"]) for row in await records.audit(answer)] == [
        ("auth.change_email", "failure")
    ]


async def test_nobody_is_told_that_a_new_address_is_taken(hub: Hub, post: Post, records: Records) -> None:
    email, neighbour = await new_user(hub, records), await new_user(hub, records)
    client = await open_session(hub, records, email)
    answers = []
    for new in (neighbour, f"{uuid4().hex}@example.org"):
        answers.append(await client.post(CHANGE, json={"new_email": new, "current_password": PASSWORD}))
        await post.work()
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert post.server.to(neighbour) == [], "who has it is not bothered"


async def test_an_address_that_is_taken_meanwhile_is_not_given_twice(hub: Hub, post: Post, records: Records) -> None:
    email, new = await new_user(hub, records), f"{uuid4().hex}@example.org"
    client = await open_session(hub, records, email)
    await client.post(CHANGE, json={"new_email": new, "current_password": PASSWORD})
    await post.work()
    await hub.new_user(email=new)
    answer = await hub.client().post(CONFIRM, json={"token": post.last_to(new).token})
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


async def test_a_new_address_is_of_a_domain_that_the_tenant_takes_when_it_is_confirmed(
    hub: Hub, post: Post, records: Records
) -> None:
    email, new = await new_user(hub, records), f"{uuid4().hex}@elsewhere.example"
    client = await open_session(hub, records, email)
    await client.post(CHANGE, json={"new_email": new, "current_password": PASSWORD})
    await post.work()
    rules = {"allowed_email_domains": ["example.org"]}
    assert (await hub.admin.patch("/api/v1/tenant-settings", json=rules)).status_code == 200
    answer = await hub.client().post(CONFIRM, json={"token": post.last_to(new).token})
    await hub.admin.patch("/api/v1/tenant-settings", json={"allowed_email_domains": None})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "domain_not_allowed")


async def test_a_new_address_ends_what_was_sent_to_the_old_one(hub: Hub, post: Post, records: Records) -> None:
    email, new = await new_user(hub, records), f"{uuid4().hex}@example.org"
    client = await open_session(hub, records, email)
    await post.forget(email)
    await client.post(CHANGE, json={"new_email": new, "current_password": PASSWORD})
    await post.work()
    token = post.last_to(email).token
    assert (await hub.client().post(CONFIRM, json={"token": post.last_to(new).token})).status_code == 204
    assert_worth_nothing(await reset(hub, token))


async def test_an_address_of_somebody_elses_is_not_filled_by_changing_to_it(
    hub: Hub, post: Post, records: Records
) -> None:
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    for _ in range(MOST_AN_HOUR + 2):
        answer = await client.post(CHANGE, json={"new_email": "victim@example.org", "current_password": PASSWORD})
        assert answer.status_code == 202
        await post.work()
    assert len(post.server.to("victim@example.org")) == MOST_AN_HOUR


async def test_several_who_name_one_address_fill_no_mailbox_and_are_told_nothing(
    hub: Hub, post: Post, records: Records
) -> None:
    victim, answers = f"{uuid4().hex}@example.org", []
    for _ in range(LETTERS_TO_ONE.quota + 2):
        client = await open_session(hub, records, await new_user(hub, records))
        answers.append(await client.post(CHANGE, json={"new_email": victim, "current_password": PASSWORD}))
        await post.work()
    assert len(post.server.to(victim)) == LETTERS_TO_ONE.quota
    seen = [(answer.status_code, answer.content, answer.headers["ratelimit-policy"]) for answer in answers]
    assert seen == seen[:1] * len(answers)


async def test_who_changes_a_password_again_and_again_fills_no_mailbox(hub: Hub, post: Post, records: Records) -> None:
    """Anybody may register with an address that is not theirs."""
    email = await new_user(hub, records)
    client = await open_session(hub, records, email)
    passwords = [PASSWORD, *(f"{each} herons wait where rivers meet" for each in range(LETTERS_TO_ONE.quota + 2))]
    for old, new in itertools.pairwise(passwords):
        answer = await client.post("/api/v1/auth/change-password", json={"current_password": old, "new_password": new})
        assert answer.status_code in (200, 204), answer.text
    await post.work()
    assert len(post.server.to(email)) == LETTERS_TO_ONE.quota


async def test_one_account_keeps_no_letters_from_another(hub: Hub, post: Post, records: Records) -> None:
    """Whose letters went to the same address, or were ended before they were sent."""
    wanted, others = f"{uuid4().hex}@example.org", await open_session(hub, records, await new_user(hub, records))
    for _ in range(MOST_AN_HOUR + 2):
        await others.post(CHANGE, json={"new_email": wanted, "current_password": PASSWORD})
    await post.work()
    client = await open_session(hub, records, await new_user(hub, records))
    await client.post(CHANGE, json={"new_email": wanted, "current_password": PASSWORD})
    await post.work()
    assert (await client.post(CONFIRM, json={"token": post.last_to(wanted).token})).status_code == 204
    assert (await client.get("/api/v1/auth/me")).json()["user"]["email"] == wanted
