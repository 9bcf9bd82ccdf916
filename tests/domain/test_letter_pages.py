"""The pages that links of letters lead to, as a browser asks for them."""

import re

import httpx
import pytest

from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import new_user, open_session
from tests.domain.letters import Post
from tests.domain.letters import mailing as mailing
from tests.domain.letters import post as post

pytestmark = pytest.mark.anyio

NEW = "a heron waits where two rivers meet"


def page(answer: httpx.Response, status: int = 200) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    return answer.text


def heading(text: str) -> str:
    found = re.search("<h1>(.*?)</h1>", text)
    assert found
    return found[1]


async def test_a_password_is_forgotten_and_reset_by_pages_alone(post: Post) -> None:
    email = await new_user(post.hub, post.records)
    browser = post.hub.client()
    page(await browser.get("/sign-in/forgotten"))
    sent = page(await browser.post("/sign-in/forgotten", data={"request": "", "email": email, "tenant": ""}))
    assert heading(sent) == "Check your email"
    await post.work()
    token = post.last_to(email).token
    shown = page(await browser.get("/sign-in/reset", params={"token": token}))
    assert f'name="token" value="{token}"' in shown
    weak = page(await browser.post("/sign-in/reset", data={"token": token, "password": "short"}), 400)
    assert 'role="alert"' in weak
    assert f'name="token" value="{token}"' in weak
    done = page(await browser.post("/sign-in/reset", data={"token": token, "password": NEW}))
    assert heading(done) == "Your password is changed"
    await post.hub.sign_in(email, NEW)
    used = page(await browser.post("/sign-in/reset", data={"token": token, "password": NEW}), 400)
    assert "Ask for a new one" in used


async def test_a_scanner_that_opens_a_link_uses_nothing_up(post: Post) -> None:
    email = await new_user(post.hub, post.records)
    await post.forget(email)
    made = await post.hub.admin.post("/api/v1/users/invitations", json={"email": f"invited.{email}"})
    assert made.status_code == 201
    client = await open_session(post.hub, post.records, email)
    body = {"new_email": f"new.{email}", "current_password": PASSWORD}
    assert (await client.post("/api/v1/auth/change-email", json=body)).status_code == 202
    await post.work()
    tokens = {
        "reset": post.last_to(email).token,
        "invitation": post.last_to(f"invited.{email}").token,
        "email": post.last_to(f"new.{email}").token,
    }
    for name, token in tokens.items():
        for method in ("GET", "HEAD", "GET"):
            answer = await post.hub.client().request(method, f"/sign-in/{name}?token={token}&utm_source=mail")
            assert answer.status_code == 200
    browser = post.hub.client()
    page(await browser.post("/sign-in/email", data={"token": tokens["email"]}))
    page(await browser.post("/sign-in/invitation", data={"token": tokens["invitation"], "password": NEW}))
    await post.hub.sign_in(f"new.{email}", PASSWORD)
    await post.hub.sign_in(f"invited.{email}", NEW)


async def test_an_invitation_is_accepted_with_a_name(post: Post) -> None:
    invited = "grace@example.org"
    await post.hub.admin.post("/api/v1/users/invitations", json={"email": invited})
    await post.work()
    browser, token = post.hub.client(), post.last_to(invited).token
    sent = {"token": token, "first_name": "Grace", "last_name": "", "password": NEW}
    assert heading(page(await browser.post("/sign-in/invitation", data=sent))) == "You can sign in now"
    client = await post.hub.sign_in(invited, NEW)
    assert (await client.get("/api/v1/auth/me")).json()["user"]["first_name"] == "Grace"


@pytest.mark.parametrize("name", ["reset", "invitation", "email"])
@pytest.mark.parametrize("token", ["", "x", "dfp_" + "A" * 43 + "_" + "A" * 43, "<script>", "é\x00", "A" * 5000])
async def test_a_link_that_is_none_is_told_as_such(hub: Hub, name: str, token: str) -> None:
    shown = page(await hub.client().get(f"/sign-in/{name}", params={"token": token}))
    assert "<script>" not in shown
    sent = {"token": token, "password": NEW, "first_name": "", "last_name": ""}
    page(await hub.client().post(f"/sign-in/{name}", data=sent), 400)


async def test_a_form_of_another_site_is_not_looked_at(post: Post) -> None:
    email = await new_user(post.hub, post.records)
    await post.forget(email)
    sent = {"token": post.last_to(email).token, "password": NEW}
    foreign = {"sec-fetch-site": "cross-site"}
    assert (await post.hub.client().post("/sign-in/reset", data=sent, headers=foreign)).status_code == 403
    page(await post.hub.client().post("/sign-in/reset", data=sent))


async def test_the_page_says_the_same_to_everybody(post: Post) -> None:
    known = await new_user(post.hub, post.records)
    shown = {
        page(await post.hub.client().post("/sign-in/forgotten", data={"email": email}))
        for email in (known, "nobody@example.org", "no address")
    }
    assert len(shown) == 1


@pytest.mark.parametrize("email", ["a" * 400, "a\x00b"])
async def test_what_can_be_nobodys_address_is_told(post: Post, email: str) -> None:
    page(await post.hub.client().post("/sign-in/forgotten", data={"email": email}), 400)


async def test_a_hub_without_mail_says_so(hub: Hub) -> None:
    assert "sends no mail" in page(await hub.client().get("/sign-in/forgotten"))
