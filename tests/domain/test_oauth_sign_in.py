"""Signing in for a client: the authorization endpoint, codes, refresh tokens of a client, revocation, metadata."""

import asyncio
import re
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

import httpx
import jwt
import pytest

from app.core.sealed_values import unseal
from app.domain.sign_in.pending import PendingSignIn
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.oauth import (
    AUTHORIZE,
    CALLBACK,
    CLIENTS,
    REVOKE,
    TOKEN,
    WEB,
    Flow,
    Somebody,
    ask,
    assert_refused,
    basic_header,
    challenge_of,
    ends_within_a_second,
    flow_of_registered,
    pending_in,
    registered_client,
    sign_in,
    somebody,
    works,
)

pytestmark = pytest.mark.anyio
NEW = "a heron waits where two rivers meet"


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def told_of(answer: httpx.Response) -> dict[str, str]:
    """What the client is told by way of the browser."""
    assert answer.status_code == 302, answer.text
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


# --- a sign-in ---


async def test_a_program_on_ones_own_machine_signs_somebody_in(hub: Hub, records: Records) -> None:
    flow, who = Flow(hub), await somebody(hub)
    redeemed = await flow.redeem(await flow.code(who))
    tokens = redeemed.json()
    assert {name: tokens[name] for name in ("token_type", "expires_in", "scope")} == {
        "token_type": "Bearer",
        "expires_in": 900,
        "scope": "api",
    }
    assert redeemed.headers["cache-control"] == "no-store"
    me = await hub.client(tokens["access_token"]).get("/api/v1/auth/me")
    assert me.json()["user"]["id"] == who.id
    assert [(row["action"], str(row["actor_id"])) for row in await records.audit(redeemed)] == [("auth.login", who.id)]


async def test_an_access_token_says_which_client_it_is_for_and_how_its_user_signed_in(hub: Hub) -> None:
    flow, who = await flow_of_registered(hub), await somebody(hub)
    tokens = await flow.sign_in(who)
    claims = claims_of(tokens["access_token"])
    assert (claims["client_id"], claims["sub"], claims["amr"], claims["acr"]) == (
        flow.client_id,
        who.id,
        ["pwd"],
        "aal1",
    )
    assert abs(claims["auth_time"] - time.time()) < 60
    told = await hub.admin.post("/api/v1/auth/introspect", data={"token": tokens["access_token"]})
    assert told.json()["client_id"] == flow.client_id
    own = await hub.client().post("/api/v1/auth/login", json={"email": who.email, "password": PASSWORD})
    assert claims_of(own.json()["access_token"])["client_id"] == "data-fusion-hub"


async def test_refreshing_keeps_the_client_and_the_time_of_the_sign_in(hub: Hub) -> None:
    flow = await flow_of_registered(hub, is_confidential=True)
    first = await flow.sign_in(await somebody(hub))
    again = await flow.refresh(first["refresh_token"])
    before, after = claims_of(first["access_token"]), claims_of(again.json()["access_token"])
    kept = ("sub", "sid", "client_id", "auth_time", "amr")
    assert [before[name] for name in kept] == [after[name] for name in kept]
    assert again.json()["refresh_token"] != first["refresh_token"]


async def test_a_confidential_client_shows_its_secret_in_the_header_or_in_the_form(hub: Hub) -> None:
    flow, who = await flow_of_registered(hub, is_confidential=True), await somebody(hub)
    assert flow.secret is not None
    code = await flow.code(who)
    assert_refused(await flow.redeem(code, client_secret=None), "invalid_client", 401)
    assert_refused(await flow.redeem(code, client_secret=f"{flow.secret[:-1]}x"), "invalid_client", 401)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": WEB, "code_verifier": flow.verifier}
    answer = await ask(hub, TOKEN, basic=(flow.client_id, flow.secret), **form)
    assert answer.status_code == 200, answer.text


async def test_a_member_of_the_docs_pages_signs_in_by_their_own_client(hub: Hub) -> None:
    page = f"{hub.settings.url}/docs/signed-in"
    flow = Flow(hub, "hub-docs", page)
    assert (await flow.sign_in(await somebody(hub)))["scope"] == "api"
    for uri in (CALLBACK, f"{page}/", f"{page}?x=1"):
        assert (await flow.begin(redirect_uri=uri)).json()["code"] == "unregistered_redirect"


async def test_a_browser_keeps_its_cookie_and_a_new_one_gets_one(hub: Hub) -> None:
    flow = Flow(hub)
    new = await flow.begin()
    cookie = re.fullmatch(r"hub-browser=([\w-]{32}); Path=/; HttpOnly; SameSite=Lax", new.headers["set-cookie"])
    assert cookie is not None
    known = await hub.client().get(AUTHORIZE, params=flow.parameters(), headers={"Cookie": f"hub-browser={cookie[1]}"})
    assert "set-cookie" not in known.headers
    for answer in (new, known):
        assert pending_in(hub, answer.headers["location"]).is_of(cookie[1])
        sealed = told_of(answer)["request"]
        assert unseal(hub.parts.key_ring, "something else", sealed, PendingSignIn) is None


async def test_the_tenant_that_is_meant_goes_along(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    slug = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["slug"]
    theirs = await registered_client(other)
    asked = [
        (Flow(hub), slug),
        (Flow(hub, theirs["client_id"], WEB), None),
        (Flow(hub, theirs["client_id"], WEB), slug),
    ]
    for flow, tenant in asked:
        begun = await flow.begin(tenant=tenant)
        assert pending_in(hub, begun.headers["location"]).tenant == slug
    assert told_of(await Flow(hub, theirs["client_id"], WEB).begin(tenant="default"))["error"] == "invalid_request"


# --- what is wrong with a request to the authorization endpoint ---


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"client_id": "nobody"}, "unknown_client"),
        ({"client_id": "dfo_" + "A" * 43}, "unknown_client"),
        ({"client_id": "hub-cli\0"}, "unknown_client"),
        ({"client_id": None}, "invalid_parameter"),
        ({"redirect_uri": None}, "invalid_parameter"),
        ({"redirect_uri": "https://evil.example.org/"}, "unregistered_redirect"),
        ({"redirect_uri": "http://127.0.0.1:1@evil.example.org/"}, "unregistered_redirect"),
        ({"redirect_uri": "http://127.0.0.1.evil.example.org/"}, "unregistered_redirect"),
        ({"redirect_uri": "http://evil.example.org\\@127.0.0.1/"}, "unregistered_redirect"),
        ({"redirect_uri": "http://127.0.0.1:1/\r\nX: y"}, "unregistered_redirect"),
        ({"redirect_uri": "//evil.example.org"}, "unregistered_redirect"),
        ({"redirect_uri": "javascript:alert(1)"}, "unregistered_redirect"),
        ({"redirect_uri": "http://127.0.0.1:1/#x"}, "unregistered_redirect"),
    ],
)
async def test_nobody_is_redirected_before_client_and_address_belong_together(
    hub: Hub, changed: dict[str, str | None], code: str
) -> None:
    answer = await Flow(hub).begin(**changed)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers


async def test_a_person_is_told_on_a_page_that_a_program_is_not_registered(hub: Hub) -> None:
    asked, browsers = Flow(hub).parameters(client_id="nobody"), {"accept": "text/html,*/*;q=0.8"}
    answer = await hub.client().get(AUTHORIZE, params=asked, headers=browsers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
    assert "is not registered here" in answer.text


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"scope": "a" * 1001}, "invalid_request"),
        ({"scope": "api\0"}, "invalid_request"),
        ({"tenant": "No Slug"}, "invalid_request"),
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"request_uri": "https://evil.example.org/"}, "request_uri_not_supported"),
    ],
)
async def test_what_else_is_wrong_is_told_to_the_client(hub: Hub, changed: dict[str, str | None], error: str) -> None:
    flow = Flow(hub)
    answer = await flow.begin(**changed)
    told = told_of(answer)
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    assert (told["error"], told["state"], told["iss"]) == (error, flow.state, hub.settings.url)
    assert "code" not in told
    assert "set-cookie" not in answer.headers


async def test_a_state_that_cannot_be_given_back_is_left_out(hub: Hub) -> None:
    for state in ("a\nb", "ü", "a" * 1001):
        told = told_of(await Flow(hub).begin(state=state))
        assert (told["error"], "state" in told) == ("invalid_request", False)


async def test_unknown_parameters_are_ignored_and_repeated_ones_are_not(hub: Hub) -> None:
    flow = Flow(hub)
    assert told_of(await flow.begin(nonce="1", prompt="login", **{"x y": "z"})).keys() == {"request"}
    for again in ("state=other", "scope=api", "code_challenge=x", "response_type=code", "unknown=1&unknown=2"):
        answer = await hub.client().get(f"{AUTHORIZE}?{urlencode(flow.parameters())}&{again}")
        assert told_of(answer)["error"] == "invalid_request"
    for again in ("client_id=hub-cli", f"redirect_uri={CALLBACK}"):
        answer = await hub.client().get(f"{AUTHORIZE}?{urlencode(flow.parameters())}&{again}")
        assert (answer.status_code, answer.json()["code"]) == (400, "repeated_parameter")
    many = urlencode({f"p{number}": "1" for number in range(60)})
    assert (await hub.client().get(f"{AUTHORIZE}?{urlencode(flow.parameters())}&{many}")).status_code == 400


async def test_a_redirect_uri_with_a_query_keeps_it(hub: Hub) -> None:
    uri = f"{WEB}?from=hub"
    client = await registered_client(hub, redirect_uris=[uri])
    flow = Flow(hub, client["client_id"], uri)
    assert (await flow.begin(response_type="x")).headers["location"].startswith(f"{uri}&error=")
    assert await flow.sign_in(await somebody(hub))


# --- codes ---


async def test_a_code_that_comes_twice_ends_the_session_that_it_opened(hub: Hub) -> None:
    flow, who = Flow(hub), await somebody(hub)
    code = await flow.code(who)
    tokens = (await flow.redeem(code)).json()
    assert await works(hub, tokens["access_token"])
    assert_refused(await flow.redeem(code), "invalid_grant")
    assert not await works(hub, tokens["access_token"])
    assert_refused(await flow.refresh(tokens["refresh_token"]), "invalid_grant")


async def test_of_many_at_once_one_gets_tokens_and_they_are_dead(hub: Hub) -> None:
    flow, who = Flow(hub), await somebody(hub)
    code = await flow.code(who)
    answers = await asyncio.gather(*(flow.redeem(code) for _ in range(8)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(good) == 1
    assert not await works(hub, good[0].json()["access_token"])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"code_verifier": "short"}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:49153/callback"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"client_id": "hub-docs"}, "invalid_grant"),
        ({"client_id": None}, "invalid_grant"),
        ({"code": "dfc_x"}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
    ],
)
async def test_a_code_is_good_for_whom_it_was_given_and_leaves_it_good(
    hub: Hub, changed: dict[str, str | None], error: str
) -> None:
    flow, who = Flow(hub), await somebody(hub)
    code = await flow.code(who)
    assert_refused(await flow.redeem(code, **changed), error)
    assert (await flow.redeem(code)).status_code == 200


async def test_the_challenge_is_no_verifier(hub: Hub) -> None:
    flow, who = Flow(hub), await somebody(hub)
    code = await flow.code(who)
    assert_refused(await flow.redeem(code, code_verifier=challenge_of(flow.verifier)), "invalid_grant")


async def test_a_code_of_another_client_is_no_code(hub: Hub) -> None:
    one, other = await flow_of_registered(hub), await flow_of_registered(hub)
    other.verifier = one.verifier
    assert_refused(await other.redeem(await one.code(await somebody(hub))), "invalid_grant")


async def test_a_code_lasts_a_minute(hub: Hub, records: Records) -> None:
    flow, who = Flow(hub), await somebody(hub)
    code = await flow.code(who)
    lasts = "SELECT extract(epoch FROM expires_at - created_at)::int FROM sign_in_codes WHERE user_id = $1"
    assert await records.one(lasts, UUID(who.id)) == 60
    await records.run("UPDATE sign_in_codes SET expires_at = now() WHERE user_id = $1", UUID(who.id))
    assert_refused(await flow.redeem(code), "invalid_grant")


async def test_whoever_was_deactivated_meanwhile_gets_no_tokens(hub: Hub) -> None:
    flow, who = Flow(hub), await somebody(hub)
    code = await flow.code(who)
    assert (await hub.admin.patch(f"/api/v1/users/{who.id}", json={"is_active": False})).status_code == 200
    assert_refused(await flow.redeem(code), "invalid_grant")


async def test_a_code_for_an_address_that_was_taken_away_is_worth_nothing(hub: Hub) -> None:
    """Whoever is on the form at that moment sends it there all the same."""
    client, who = await registered_client(hub, redirect_uris=[WEB, "https://old.example.org/"]), await somebody(hub)
    flow = Flow(hub, client["client_id"], "https://old.example.org/")
    code = await flow.code(who)
    changed = await hub.admin.patch(f"{CLIENTS}/{client['id']}", json={"redirect_uris": [WEB]})
    assert changed.status_code == 200, changed.text
    assert_refused(await flow.redeem(code), "invalid_grant")


async def end_by(hub: Hub, ending: str, who: Somebody, session: httpx.AsyncClient) -> httpx.Response:
    match ending:
        case "new password":
            return await hub.admin.patch(f"/api/v1/users/{who.id}", json={"password": NEW})
        case "own new password":
            body = {"current_password": PASSWORD, "new_password": NEW}
            return await session.post("/api/v1/auth/change-password", json=body)
        case "everywhere":
            return await session.post("/api/v1/auth/logout", json={"scope": "all"})
        case _:
            return await hub.admin.post(f"/api/v1/users/{who.id}/end-sessions")


@pytest.mark.parametrize("ending", ["new password", "own new password", "everywhere", "by an admin"])
async def test_what_ends_all_sessions_ends_codes_that_would_open_one(hub: Hub, ending: str) -> None:
    flow, who = Flow(hub), await somebody(hub)
    session, code = await hub.sign_in(who.email), await flow.code(who)
    ended = await end_by(hub, ending, who, session)
    assert ended.status_code in (200, 204), ended.text
    assert_refused(await flow.redeem(code), "invalid_grant")


@pytest.mark.parametrize("ending", ["new password", "everywhere"])
async def test_a_code_that_is_exchanged_meanwhile_opens_no_session_that_stays(hub: Hub, ending: str) -> None:
    for _ in range(5):
        flow, who = Flow(hub), await somebody(hub)
        session, code = await hub.sign_in(who.email), await flow.code(who)
        redeemed, ended = await asyncio.gather(flow.redeem(code), end_by(hub, ending, who, session))
        assert ended.status_code in (200, 204), ended.text
        assert redeemed.status_code in (200, 400), redeemed.text
        assert redeemed.status_code == 400 or not await works(hub, redeemed.json()["access_token"])


async def of_other_tenant(hub: Hub, other: Hub) -> Somebody:
    me = (await other.admin.get("/api/v1/auth/me")).json()
    return await somebody(other, tenant_id=UUID(me["tenant"]["id"]))


async def test_a_tenants_client_takes_no_code_of_another_tenants_member(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    flow = await flow_of_registered(hub)
    stranger = await of_other_tenant(hub, other)
    assert_refused(await flow.redeem(await flow.code(stranger)), "invalid_grant")


async def test_a_suspended_tenants_clients_codes_and_sessions_are_worth_nothing(hub: Hub) -> None:
    other = await hub.new_tenant()
    tenant_id = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    flow, member = await flow_of_registered(other), await of_other_tenant(hub, other)
    of_cli, tokens = Flow(hub), await flow.sign_in(member)
    code = await of_cli.code(member)
    assert (await hub.admin.post(f"/api/v1/tenants/{tenant_id}/suspend")).status_code == 200
    assert not await works(hub, tokens["access_token"])
    assert_refused(await of_cli.redeem(code), "invalid_grant")
    assert_refused(await flow.refresh(tokens["refresh_token"]), "invalid_client", 401)
    assert (await flow.begin()).json()["code"] == "unknown_client"


# --- refresh tokens ---


async def test_a_refresh_token_is_good_for_its_client_alone_and_others_do_not_end_it(hub: Hub) -> None:
    flow, other, who = await flow_of_registered(hub), await flow_of_registered(hub), await somebody(hub)
    token = (await flow.sign_in(who))["refresh_token"]
    assert_refused(await other.refresh(token), "invalid_grant")
    assert_refused(await Flow(hub).refresh(token), "invalid_grant")
    assert_refused(await ask(hub, TOKEN, grant_type="refresh_token", refresh_token=token), "invalid_grant")
    own = await hub.client().post("/api/v1/auth/refresh", json={"refresh_token": token})
    assert own.json()["code"] == "invalid_refresh_token"
    assert (await flow.refresh(token)).status_code == 200


async def test_the_hubs_own_sessions_are_no_clients(hub: Hub) -> None:
    who = await somebody(hub)
    own = (await hub.client().post("/api/v1/auth/login", json={"email": who.email, "password": PASSWORD})).json()
    assert_refused(await Flow(hub).refresh(own["refresh_token"]), "invalid_grant")
    assert (await ask(hub, TOKEN, grant_type="refresh_token", refresh_token=own["refresh_token"])).status_code == 200


async def test_a_refresh_token_that_is_used_again_ends_the_session(hub: Hub, records: Records) -> None:
    flow, who = Flow(hub), await somebody(hub)
    first = await flow.sign_in(who)
    second = (await flow.refresh(first["refresh_token"])).json()
    third = (await flow.refresh(second["refresh_token"])).json()
    assert_refused(await flow.refresh(first["refresh_token"]), "invalid_grant")
    assert not await works(hub, third["access_token"])
    assert_refused(await flow.refresh(third["refresh_token"]), "invalid_grant")


# --- revocation (RFC 7009) ---


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "unheard_of"])
async def test_revoking_either_token_ends_the_session(
    hub: Hub, records: Records, other_worker: Hub, kind: str, hint: str | None
) -> None:
    flow, who = await flow_of_registered(hub, is_confidential=True), await somebody(hub)
    tokens = await flow.sign_in(who)
    assert await works(other_worker, tokens["access_token"])
    form = {"token": tokens[kind], "token_type_hint": hint, "client_id": flow.client_id, "client_secret": flow.secret}
    revoked = await ask(hub, REVOKE, **form)
    assert (revoked.status_code, revoked.content) == (200, b"")
    assert not await works(hub, tokens["access_token"])
    assert await ends_within_a_second(other_worker, tokens["access_token"])
    assert_refused(await flow.refresh(tokens["refresh_token"]), "invalid_grant")
    assert [(row["action"], str(row["actor_id"])) for row in await records.audit(revoked)] == [("auth.revoke", who.id)]
    again = await ask(hub, REVOKE, **form)
    assert again.status_code == 200
    assert await records.audit(again) == []


@pytest.mark.parametrize("token", ["x", "dfr_x_1_y", "a.b.c", "ü", "x" * 8192])
async def test_what_is_no_token_is_revoked_all_the_same(hub: Hub, token: str) -> None:
    assert (await ask(hub, REVOKE, token=token, client_id="hub-cli")).status_code == 200


async def test_a_client_revokes_no_other_clients_token(hub: Hub) -> None:
    flow, other = await flow_of_registered(hub), await flow_of_registered(hub)
    tokens = await flow.sign_in(await somebody(hub))
    for kind in ("access_token", "refresh_token"):
        for client_id in (other.client_id, "hub-cli", None):
            assert_refused(await ask(hub, REVOKE, token=tokens[kind], client_id=client_id), "invalid_grant")
    assert await works(hub, tokens["access_token"])


async def test_revoking_needs_the_clients_secret_and_a_token(hub: Hub) -> None:
    flow = await flow_of_registered(hub, is_confidential=True)
    tokens = await flow.sign_in(await somebody(hub))
    asked = {"token": tokens["refresh_token"], "client_id": flow.client_id}
    assert_refused(await ask(hub, REVOKE, **asked), "invalid_client", 401)
    assert_refused(await ask(hub, REVOKE, client_id="hub-cli"), "invalid_request")
    assert await works(hub, tokens["access_token"])


# --- the form, and the ways to show who one is ---


async def test_what_is_wrong_with_the_form_is_told_in_the_words_of_oauth(hub: Hub) -> None:
    client = hub.client()
    assert_refused(await ask(hub, TOKEN), "invalid_request")
    assert_refused(await ask(hub, TOKEN, grant_type="", client_id="hub-cli"), "invalid_request")
    password = {"grant_type": "password", "username": "a", "password": "b"}
    assert_refused(await ask(hub, TOKEN, client_id="hub-cli", **password), "unsupported_grant_type")
    assert_refused(await client.post(TOKEN, json={"grant_type": "refresh_token"}), "invalid_request")
    assert_refused(await client.post(TOKEN, content=b"grant_type=refresh_token"), "invalid_request")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    twice = b"grant_type=refresh_token&grant_type=refresh_token&client_id=hub-cli"
    assert_refused(await client.post(TOKEN, content=twice, headers=form), "invalid_request")
    unknown = b"grant_type=refresh_token&client_id=hub-cli&x=1&x=2"
    assert_refused(await client.post(TOKEN, content=unknown, headers=form), "invalid_request")
    many = "&".join(f"p{number}=1" for number in range(30)).encode()
    assert_refused(await client.post(TOKEN, content=many, headers=form), "invalid_request")
    assert_refused(await client.post(TOKEN, content=b"x=" + b"y" * 70_000, headers=form), "invalid_request", 413)
    assert_refused(await client.post(TOKEN, content=b"\xff\x00%zz=%", headers=form), "invalid_request")
    assert_refused(await client.post(f"{TOKEN}?grant_type=refresh_token", headers=form), "invalid_request")
    assert_refused(await client.post(REVOKE, json={"token": "x"}), "invalid_request")
    assert (await client.get(TOKEN)).status_code == 405


async def test_unknown_fields_are_ignored(hub: Hub) -> None:
    flow, who = Flow(hub), await somebody(hub)
    assert (await flow.redeem(await flow.code(who), resource="https://x.example.org", nonce="1")).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!!",
        "Basic eA==",  # x
        "Basic OnNlY3JldA==",  # :secret
        "Basic /w==",
        "Bearer x",
        "Digest x",
        basic_header("nobody", "x"),
        basic_header("hub-cli", "x"),
    ],
)
async def test_a_header_that_shows_nobody_is_a_401_that_asks_for_basic(hub: Hub, header: str) -> None:
    for path in (TOKEN, REVOKE):
        form = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x"}
        answer = await hub.client().post(path, data=form, headers={"Authorization": header})
        assert_refused(answer, "invalid_client", 401)
        assert answer.headers["www-authenticate"] == 'Basic realm="hub"'


async def test_one_way_at_a_time(hub: Hub) -> None:
    flow = await flow_of_registered(hub, is_confidential=True)
    assert flow.secret is not None
    both = {"grant_type": "refresh_token", "refresh_token": "x", "client_secret": flow.secret}
    assert_refused(await ask(hub, TOKEN, basic=(flow.client_id, flow.secret), **both), "invalid_request")
    other = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "hub-cli"}
    assert_refused(await ask(hub, TOKEN, basic=(flow.client_id, flow.secret), **other), "invalid_request")
    half = {"grant_type": "refresh_token", "refresh_token": "x", "client_assertion": "x"}
    assert_refused(await ask(hub, TOKEN, **half), "invalid_request")


@pytest.mark.parametrize("path", ["/api/v1/auth/me", "/api/v1/users", "/api/v1/auth/introspect"])
async def test_basic_opens_no_other_route(hub: Hub, path: str) -> None:
    flow = await flow_of_registered(hub, is_confidential=True)
    assert flow.secret is not None
    headers = {"Authorization": basic_header(flow.client_id, flow.secret)}
    method = "POST" if path.endswith("introspect") else "GET"
    answer = await hub.client().request(method, path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_failures_of_a_known_client_are_on_record_in_its_tenant(hub: Hub, records: Records) -> None:
    flow = await flow_of_registered(hub, is_confidential=True)
    answer = await flow.refresh("x", client_secret="dfs_wrong")
    (row,) = await records.audit(answer)
    row_id = await records.one("SELECT id FROM oauth_clients WHERE client_id = $1", flow.client_id)
    assert (row["action"], row["resource_type"], row["resource_id"]) == ("auth.client", "oauth_client", row_id)
    assert row["outcome"] == "failure"
    assert await records.audit(await flow.refresh("x", client_id="nobody")) == []


async def test_a_secret_of_another_client_shows_nobody(hub: Hub) -> None:
    one, other = [await flow_of_registered(hub, is_confidential=True) for _ in range(2)]
    assert_refused(await one.refresh("x", client_secret=other.secret), "invalid_client", 401)


# --- metadata ---


async def test_what_the_metadata_says_is_there(hub: Hub) -> None:
    answer = await hub.client().get("/.well-known/oauth-authorization-server")
    assert answer.headers["cache-control"] == "public, max-age=300"
    said = answer.json()
    assert said["issuer"] == hub.settings.url
    assert said["authorization_response_iss_parameter_supported"] is True
    assert said["code_challenge_methods_supported"] == ["S256"]
    for name in ("authorization_endpoint", "jwks_uri"):
        path = said[name].removeprefix(hub.settings.url)
        assert (await hub.client().get(path)).status_code in (200, 400)
    for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        path = said[name].removeprefix(hub.settings.url)
        assert (await hub.client().get(path)).status_code == 405


async def test_the_resource_names_the_server(hub: Hub) -> None:
    said = (await hub.client().get("/.well-known/oauth-protected-resource")).json()
    assert (said["resource"], said["authorization_servers"]) == (hub.settings.url, [hub.settings.url])
    assert said["bearer_methods_supported"] == ["header"]


async def test_a_sealed_sign_in_is_of_its_own_hub(hub: Hub) -> None:
    begun = await Flow(hub).begin()
    location = begun.headers["location"]
    assert await sign_in(hub, location, await somebody(hub))
    with pytest.raises(AssertionError):
        await sign_in(hub, location[:-4] + "AAAA", await somebody(hub))
