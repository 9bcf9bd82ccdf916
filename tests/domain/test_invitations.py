"""Invitations: who may write them, what they are worth, and what whoever accepts one gets."""

import asyncio
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.core.limits.limiter import LETTERS_TO_ONE
from app.core.opaque_tokens import new_token
from app.domain.letters.sending import LetterSender
from app.domain.letters.services import MOST_AN_HOUR
from app.domain.recovery.forgotten import write_letters
from tests.answer_times import assert_alike
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.letters import Post, assert_worth_nothing
from tests.domain.letters import mailing as mailing
from tests.domain.letters import post as post

pytestmark = pytest.mark.anyio

INVITATIONS = "/api/v1/users/invitations"
ACCEPT = "/api/v1/auth/accept-invitation"
NEW = "a heron waits where two rivers meet"


def address() -> str:
    return f"{uuid4().hex}@example.org"


async def invited(client: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    answer = await client.post(INVITATIONS, json={"email": address(), **given})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def token_in(invitation: dict[str, Any]) -> str:
    return str(invitation["link"]).rpartition("token=")[2]


async def accept(hub: Hub, token: str, **given: Any) -> httpx.Response:
    return await hub.client().post(ACCEPT, json={"token": token, "password": NEW, **given})


# --- by mail ---


async def test_an_invitation_comes_by_mail_and_its_link_to_nobody_else(post: Post) -> None:
    hub = post.hub
    role = await hub.new_role(permissions=["roles:read"])
    made = await invited(hub.admin, email="Ada@Example.org", role_ids=[role["id"]], first_name="Ada")
    assert (made["link"], made["letter"]) == (None, "waiting")
    await post.work()
    taken = post.last_to("Ada@example.org")
    assert ADMIN_EMAIL in taken.plain
    shown = (await hub.admin.get(f"{INVITATIONS}/{made['id']}")).json()
    assert shown["letter"] == "sent"
    answer = await accept(hub, taken.token, last_name="Lovelace")
    assert answer.status_code == 201
    user = answer.json()
    assert (user["email"], user["first_name"], user["last_name"]) == ("Ada@example.org", "Ada", "Lovelace")
    assert {each["id"] for each in user["roles"]} >= {role["id"]}
    client = await hub.sign_in("ada@example.org", NEW)
    assert (await client.get("/api/v1/roles")).status_code == 200
    assert (await hub.admin.get(f"{INVITATIONS}/{made['id']}")).status_code == 404
    rows = await post.records.audit(answer)
    assert sorted(row["action"] for row in rows) == ["invitation.accept", "user.create"]
    assert {row["actor_name"] for row in rows} == {"Ada@example.org"}
    (given,) = (await hub.admin.get(f"/api/v1/role-assignments?role_id={role['id']}")).json()["items"]
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]["id"]
    assert given["via"] == {"type": "person", "id": me}


async def test_an_invitation_that_is_sent_again_has_another_link(post: Post) -> None:
    made = await invited(post.hub.admin)
    await post.work()
    older = post.last_to(made["email"]).token
    again = await post.hub.admin.post(f"{INVITATIONS}/{made['id']}/resend")
    assert again.status_code == 200
    assert again.json()["expires_at"] > made["expires_at"]
    await post.work()
    assert_worth_nothing(await accept(post.hub, older))
    assert (await accept(post.hub, post.last_to(made["email"]).token)).status_code == 201


async def test_a_mailbox_is_not_filled_with_invitations(post: Post) -> None:
    made = await invited(post.hub.admin)
    answers = [await post.hub.admin.post(f"{INVITATIONS}/{made['id']}/resend") for _ in range(MOST_AN_HOUR)]
    assert [answer.status_code for answer in answers] == [200] * (MOST_AN_HOUR - 1) + [429]
    assert "retry-after" in answers[-1].headers


async def invited_and_withdrawn(client: httpx.AsyncClient, email: str) -> httpx.Response:
    answer = await client.post(INVITATIONS, json={"email": email})
    if answer.status_code == 201:
        assert (await client.delete(f"{INVITATIONS}/{answer.json()['id']}")).status_code == 204
    return answer


async def test_who_withdraws_and_invites_again_fills_no_mailbox(post: Post) -> None:
    inviter, email = await post.hub.user_with("users:write", "users:read"), address()
    answers = [await invited_and_withdrawn(inviter, each) for each in [email, email.upper()] * 9]
    assert [answer.status_code for answer in answers] == [201] * LETTERS_TO_ONE.quota + [429] * 3
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit-policy"] == '"recipient";q=15;w=3600'
    assert (await post.hub.admin.post(INVITATIONS, json={"email": email})).status_code == 429, "whoever invites"
    assert (await invited_and_withdrawn(inviter, address())).status_code == 201


async def test_what_a_mailbox_gets_of_one_tenant_takes_nothing_from_another(post: Post) -> None:
    other, email = await post.hub.new_tenant(), address()
    for _ in range(LETTERS_TO_ONE.quota + 1):
        await invited_and_withdrawn(post.hub.admin, email)
    assert (await invited_and_withdrawn(other.admin, email)).status_code == 201


async def test_an_invitation_that_is_refused_takes_nothing_from_the_mailbox(post: Post) -> None:
    made = await invited(post.hub.admin)
    for _ in range(LETTERS_TO_ONE.quota):
        assert (await post.hub.admin.post(INVITATIONS, json={"email": made["email"]})).status_code == 409
    assert (await post.hub.admin.post(f"{INVITATIONS}/{made['id']}/resend")).status_code == 200


async def test_a_withdrawn_invitation_is_not_sent_and_its_link_is_worth_nothing(post: Post) -> None:
    made = await invited(post.hub.admin)
    await post.work()
    token = post.last_to(made["email"]).token
    waits = await invited(post.hub.admin)
    for each in (made, waits):
        assert (await post.hub.admin.delete(f"{INVITATIONS}/{each['id']}")).status_code == 204
    assert_worth_nothing(await accept(post.hub, token))
    await post.work()
    assert post.server.to(waits["email"]) == []


async def test_the_first_admin_of_a_tenant_is_invited_where_no_password_is_given(post: Post) -> None:
    hub, slug = post.hub, f"t{uuid4().hex}"
    email = f"admin@{slug}.example.org"
    made = await hub.admin.post("/api/v1/tenants", json={"slug": slug, "name": "Acme & Co", "admin": {"email": email}})
    assert made.status_code == 201, made.text
    assert "invitation_link" not in made.json()
    await post.work()
    taken = post.last_to(email)
    assert "Acme &amp; Co" in taken.html
    assert "Acme & Co" in taken.plain
    assert (await accept(hub, taken.token)).status_code == 201
    client = await hub.sign_in(email, NEW, tenant=slug)
    assert (await client.get("/api/v1/users")).status_code == 200


# --- where the hub sends no mail ---


async def test_without_mail_whoever_invites_is_shown_the_link_once(hub: Hub, records: Records) -> None:
    made = await invited(hub.admin)
    assert made["letter"] == "shown"
    assert made["link"].startswith(f"{hub.settings.url}/sign-in/invitation?token=dfi_")
    shown = (await hub.admin.get(f"{INVITATIONS}/{made['id']}")).json()
    assert "link" not in shown
    secret = token_in(made).rpartition("_")[2]
    for table in ("outbox_events", "audit_events", "letters", "invitations"):
        found = await records.one(f"SELECT count(*) FROM {table} AS row WHERE row::text LIKE '%' || $1 || '%'", secret)
        assert found == 0, table
    assert (await accept(hub, token_in(made))).status_code == 201


async def test_without_mail_no_mailbox_is_filled_and_who_invites_goes_on(hub: Hub) -> None:
    email = address()
    answers = [await invited_and_withdrawn(hub.admin, email) for _ in range(LETTERS_TO_ONE.quota + 2)]
    assert {answer.status_code for answer in answers} == {201}


async def test_without_mail_an_operator_is_shown_the_link_for_a_first_admin(hub: Hub) -> None:
    slug = f"t{uuid4().hex}"
    body = {"slug": slug, "name": slug, "admin": {"email": f"admin@{slug}.example.org"}}
    made = await hub.admin.post("/api/v1/tenants", json=body)
    assert made.status_code == 201
    link = made.json()["invitation_link"]
    assert (await accept(hub, link.rpartition("token=")[2])).status_code == 201
    await hub.sign_in(body["admin"]["email"], NEW, tenant=slug)  # type: ignore[index]


async def test_without_mail_nobody_gets_a_link_for_a_forgotten_password(hub: Hub, records: Records) -> None:
    assert (await hub.client().post("/api/v1/auth/forgot-password", json={"email": ADMIN_EMAIL})).status_code == 202
    await write_letters(hub.parts)
    await LetterSender(hub.parts).send_due()
    (letter,) = await records.run("SELECT status, failure FROM letters WHERE email = $1", ADMIN_EMAIL)
    assert tuple(letter) == ("failed", "not_configured")


# --- who may invite whom to what ---


async def test_nobody_invites_to_more_than_they_hold(hub: Hub) -> None:
    strong = await hub.new_role(permissions=["roles:write"])
    inviter = await hub.user_with("users:write", "users:read")
    answer = await inviter.post(INVITATIONS, json={"email": address(), "role_ids": [strong["id"]]})
    assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    admin_role = "00000000-0000-7000-8000-000000000101"
    answer = await inviter.post(INVITATIONS, json={"email": address(), "role_ids": [admin_role]})
    assert answer.status_code == 403
    assert (await inviter.post(INVITATIONS, json={"email": address()})).status_code == 201


async def test_nobody_sends_an_invitation_again_that_gives_more_than_they_hold(hub: Hub) -> None:
    strong = await hub.new_role(permissions=["roles:write"])
    made = await invited(hub.admin, role_ids=[strong["id"]])
    other = await hub.user_with("users:write", "users:read")
    answer = await other.post(f"{INVITATIONS}/{made['id']}/resend")
    assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    assert (await accept(hub, token_in(made))).status_code == 201, "the link of before is not touched"


async def test_roles_that_are_not_there_are_named(hub: Hub) -> None:
    role = await hub.new_role()
    answer = await hub.admin.post(INVITATIONS, json={"email": address(), "role_ids": [role["id"], str(uuid4())]})
    assert answer.status_code == 400
    assert [(each["path"], each["code"]) for each in answer.json()["errors"]] == [("role_ids[1]", "unknown_role")]


async def test_an_address_that_is_taken_or_invited_is_a_conflict(hub: Hub) -> None:
    user = await hub.new_user()
    answer = await hub.admin.post(INVITATIONS, json={"email": user["email"].upper()})
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")
    made = await invited(hub.admin)
    answer = await hub.admin.post(INVITATIONS, json={"email": made["email"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "already_invited")
    answers = await asyncio.gather(*(hub.admin.post(INVITATIONS, json={"email": "race@example.org"}) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [201] + [409] * 4


async def test_an_expired_invitation_is_in_nobodys_way_and_may_be_sent_again(hub: Hub, records: Records) -> None:
    first, second = await invited(hub.admin), await invited(hub.admin)
    for each in (first, second):
        invitation_id = UUID(each["id"])
        await records.run("UPDATE invitations SET expires_at = now() WHERE id = $1", invitation_id)
        await records.run("UPDATE letters SET expires_at = now() WHERE invitation_id = $1", invitation_id)
        assert_worth_nothing(await accept(hub, token_in(each)))
    anew = await invited(hub.admin, email=first["email"])
    assert anew["id"] != first["id"]
    again = await hub.admin.post(f"{INVITATIONS}/{second['id']}/resend")
    assert (await accept(hub, token_in(again.json()))).status_code == 201


async def test_the_same_key_shows_the_same_link(hub: Hub) -> None:
    body, key = {"email": address()}, {"Idempotency-Key": uuid4().hex}
    first, second = [await hub.admin.post(INVITATIONS, json=body, headers=key) for _ in range(2)]
    assert first.json() == second.json()
    assert first.json()["link"]


# --- nothing tells why a link is worth nothing ---


async def links_worth_nothing(hub: Hub, records: Records) -> dict[str, str]:
    """Tokens, by why."""
    names = ("guessed", "used", "withdrawn", "newer one written", "expired", "inviter gone", "tenant suspended")
    inviter, other = await hub.user_with("users:write", "users:read"), await hub.new_tenant()
    clients = {"inviter gone": inviter, "tenant suspended": other.admin}
    made = {name: await invited(clients.get(name, hub.admin)) for name in names}
    tokens = {name: token_in(invitation) for name, invitation in made.items()}
    assert (await accept(hub, tokens["used"])).status_code == 201
    assert (await hub.admin.delete(f"{INVITATIONS}/{made['withdrawn']['id']}")).status_code == 204
    assert (await hub.admin.post(f"{INVITATIONS}/{made['newer one written']['id']}/resend")).status_code == 200
    expired = UUID(made["expired"]["id"])
    await records.run("UPDATE letters SET expires_at = now() WHERE invitation_id = $1", expired)
    me = (await inviter.get("/api/v1/auth/me")).json()["user"]["id"]
    await records.run(ENDS["was deactivated"], UUID(me))
    theirs = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    await records.run("UPDATE tenants SET is_active = false WHERE id = $1", UUID(theirs))
    tokens["guessed"] = f"{tokens['guessed'][:-4]}AAAA"
    ours = UUID(str((await hub.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]))
    tokens["unknown"] = new_token("dfi", ours, uuid4()).text
    tokens["of no tenant"] = new_token("dfi", uuid4(), uuid4()).text
    return tokens


async def test_the_answer_is_the_same_for_every_link_that_is_worth_nothing(hub: Hub, records: Records) -> None:
    seen = []
    for token in (await links_worth_nothing(hub, records)).values():
        answer = await accept(hub, token)
        assert_worth_nothing(answer)
        headers = {name: text for name, text in answer.headers.items() if name not in {"x-request-id", "ratelimit"}}
        seen.append(({**answer.json(), "request_id": ""}, headers))
    assert all(each == seen[0] for each in seen)


@pytest.mark.slow
async def test_the_time_of_the_answer_tells_nobody_why_a_link_is_worth_nothing(hub: Hub, records: Records) -> None:
    tokens = await links_worth_nothing(hub, records)
    await assert_alike({name: partial(accept, hub, token) for name, token in tokens.items()}, within_ms=3.0)


# --- when it is accepted ---


async def test_of_many_who_accept_at_once_one_wins(hub: Hub) -> None:
    made = await invited(hub.admin)
    answers = await asyncio.gather(*(accept(hub, token_in(made)) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [400] * 5


async def test_a_weak_password_does_not_use_an_invitation_up(hub: Hub) -> None:
    made = await invited(hub.admin)
    answer = await accept(hub, token_in(made), password="short")
    assert (answer.status_code, answer.json()["code"]) == (400, "weak_password")
    assert (await accept(hub, token_in(made))).status_code == 201


async def test_who_registers_first_does_not_get_what_the_invitation_gives(hub: Hub) -> None:
    role = await hub.new_role(permissions=["roles:read"])
    made = await invited(hub.admin, role_ids=[role["id"]])
    squatter = {"email": made["email"], "password": PASSWORD}
    assert (await hub.client().post("/api/v1/auth/register", json=squatter)).status_code == 201
    answer = await accept(hub, token_in(made))
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")
    client = await hub.sign_in(made["email"])
    assert (await client.get("/api/v1/roles")).status_code == 403


async def test_a_registration_and_an_acceptance_at_once_make_one_user(hub: Hub) -> None:
    made = await invited(hub.admin)
    register = hub.client().post("/api/v1/auth/register", json={"email": made["email"], "password": PASSWORD})
    answers = await asyncio.gather(register, accept(hub, token_in(made)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_a_role_that_is_gone_is_left_out(hub: Hub, records: Records) -> None:
    gone, stays = await hub.new_role(), await hub.new_role()
    made = await invited(hub.admin, role_ids=[gone["id"], stays["id"]])
    await hub.admin.delete(f"/api/v1/roles/{gone['id']}")
    answer = await accept(hub, token_in(made))
    assert answer.status_code == 201
    assert {each["id"] for each in answer.json()["roles"]} & {gone["id"], stays["id"]} == {stays["id"]}
    (row,) = [row for row in await records.audit(answer) if row["action"] == "invitation.accept"]
    assert row["after"]["left_out"] == [gone["id"]]


async def test_a_role_that_has_come_to_more_than_the_inviter_holds_is_left_out(hub: Hub) -> None:
    role = await hub.new_role(permissions=["users:read"])
    inviter = await hub.user_with("users:write", "users:read")
    made = await invited(inviter, role_ids=[role["id"]])
    changed = await hub.admin.patch(f"/api/v1/roles/{role['id']}", json={"permissions": ["users:read", "roles:write"]})
    assert changed.status_code == 200
    answer = await accept(hub, token_in(made))
    assert answer.status_code == 201
    assert role["id"] not in {each["id"] for each in answer.json()["roles"]}


ENDS = {
    "was deactivated": "UPDATE users SET is_active = false WHERE id = $1",
    "may not invite any more": "UPDATE role_assignments SET ended_at = now() WHERE subject_id = $1",
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_invitation_is_worth_nothing_once_its_inviter(hub: Hub, records: Records, end: str) -> None:
    inviter = await hub.user_with("users:write", "users:read")
    me = (await inviter.get("/api/v1/auth/me")).json()["user"]["id"]
    made = await invited(inviter)
    await records.run(ENDS[end], UUID(me))
    assert_worth_nothing(await accept(hub, token_in(made)))
    again = await hub.admin.post(f"{INVITATIONS}/{made['id']}/resend")
    assert (await accept(hub, token_in(again.json()))).status_code == 201, "somebody else stands for it now"


async def test_a_service_account_may_invite_and_its_invitations_end_with_it(hub: Hub) -> None:
    account = (await hub.admin.post("/api/v1/service-accounts", json={"name": uuid4().hex})).json()
    role = await hub.new_role(permissions=["users:write", "users:read"])
    subject = {"type": "service_account", "id": account["id"]}
    given = await hub.admin.post("/api/v1/role-assignments", json={"subject": subject, "role_id": role["id"]})
    assert given.status_code == 201
    owner = {"type": "service_account", "id": account["id"]}
    key = (await hub.admin.post("/api/v1/api-keys", json={"name": "x", "owner": owner})).json()["key"]
    client = hub.client(key)
    first, second = await invited(client, role_ids=[role["id"]]), await invited(client)
    assert (await accept(hub, token_in(first))).status_code == 201
    off = await hub.admin.patch(f"/api/v1/service-accounts/{account['id']}", json={"is_active": False})
    assert off.status_code == 200
    assert_worth_nothing(await accept(hub, token_in(second)))


async def test_an_invitation_is_of_its_tenant(two_tenants: tuple[Hub, Hub]) -> None:
    ours, theirs = two_tenants
    made = await invited(ours.admin)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/resend")):
        answer = await theirs.admin.request(method, f"{INVITATIONS}/{made['id']}{path}")
        assert answer.status_code == 404, method
    assert made["email"] not in (await theirs.admin.get(INVITATIONS)).text
    user = (await accept(theirs, token_in(made))).json()
    assert (await ours.admin.get(f"/api/v1/users/{user['id']}")).status_code == 200
    assert (await theirs.admin.get(f"/api/v1/users/{user['id']}")).status_code == 404


async def test_invitations_are_listed_and_found_by_address(hub: Hub) -> None:
    made = await invited(hub.admin)
    found = (await hub.admin.get(INVITATIONS, params={"email": made["email"].upper()})).json()["items"]
    assert [each["id"] for each in found] == [made["id"]]
    listed = (await hub.admin.get(INVITATIONS, params={"sort": "email", "limit": 200})).json()["items"]
    assert [each["email"] for each in listed] == sorted(each["email"] for each in listed)


async def test_what_has_changed_is_not_withdrawn_by_a_stale_copy(hub: Hub) -> None:
    made = await hub.admin.post(INVITATIONS, json={"email": address()})
    path = f"{INVITATIONS}/{made.json()['id']}"
    tag = (await hub.admin.get(path)).headers["etag"]
    assert made.headers["etag"] == tag
    await hub.admin.post(f"{path}/resend")
    assert (await hub.admin.delete(path, headers={"If-Match": tag})).status_code == 412
    assert (await hub.admin.delete(path, headers={"If-Match": "*"})).status_code == 204
