"""Signing in by an OpenID provider: openspec/specs/identity-providers/spec.md."""

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator
from hashlib import sha256, sha512
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
import jwt
import pytest

from app.core import fetching
from app.core.embedded import EmbeddedPostgres
from app.core.outbound import Limits
from app.domain.oidc import discovery
from tests.conftest import PASSWORD, Hub, running_hub
from tests.domain.conftest import Records
from tests.domain.oauth import AUTHORIZE, Flow, signed_by_public_key
from tests.domain.oidc_provider import (
    CHALLENGE,
    CLIENT_ID,
    CLIENT_SECRET,
    FIRST,
    LOGIN,
    PAGE,
    Browser,
    Key,
    Provider,
    as_json,
    ended,
    exchange,
    groups_of,
    serving_provider,
)
from tests.receivers import Answering, answers, drips, hangs_up, keeps_silent, never_ends
from tests.silent_names import SilentNames

pytestmark = pytest.mark.anyio

V1 = "/api/v1"


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    async with running_hub(cluster, migrated, folder, HUB_SIGN_IN_REDIRECTS=PAGE) as running:
        yield running


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """On a port that another one may have had a moment ago, of which the hub would know what that one has said."""
    discovery.KNOWN_BY_HUB.clear()
    async with serving_provider() as serving:
        yield serving


async def registered(hub: Hub, provider: Provider, tenant: str | None = None, **given: Any) -> Browser:
    """A browser in front of a hub that knows the provider."""
    name = f"p{uuid4().hex}"
    new = {"kind": "oidc", "name": name, "label": name, "issuer": provider.issuer, "client_id": CLIENT_ID}
    made = await hub.admin.post(f"{V1}/identity-providers", json=new | {"client_secret": CLIENT_SECRET} | given)
    assert made.status_code == 201, made.text
    MADE.append((hub, made.json()["id"]))
    return Browser(hub, provider, name, tenant)


MADE: list[tuple[Hub, str]] = []


@pytest.fixture(autouse=True)
async def none_are_left(hub: Hub) -> AsyncIterator[None]:
    """A tenant has no more than twenty."""
    yield
    while MADE:
        its, provider_id = MADE.pop()
        await its.admin.delete(f"{V1}/identity-providers/{provider_id}")


@pytest.fixture
async def browser(hub: Hub, provider: Provider) -> Browser:
    provider.claims = somebody()
    return await registered(hub, provider)


def somebody(**given: Any) -> dict[str, Any]:
    """New to the hub."""
    sub = uuid4().hex
    return {"sub": sub, "email": f"{sub}@example.org", **given}


async def me(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get(f"{V1}/auth/me")
    assert answer.status_code == 200, answer.text
    return {"tenant": answer.json()["tenant"], **answer.json()["user"]}


# --- there and back ---


async def test_somebody_new_comes_in_and_is_known_the_next_time(browser: Browser) -> None:
    first = await me(await browser.signed_in())
    assert (first["email"], first["first_name"]) == (browser.provider.claims["email"], "Ada")
    again = await me(await browser.signed_in())
    assert again["id"] == first["id"]


async def test_the_provider_is_asked_with_pkce_and_a_nonce_and_told_nothing_else(browser: Browser) -> None:
    there = await browser.go()
    assert there.keys() == {
        "response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
    }  # fmt: skip
    assert (there["response_type"], there["scope"]) == ("code", "openid email profile")
    assert there["code_challenge_method"] == "S256"
    assert there["code_challenge"] != CHALLENGE
    assert there["redirect_uri"] == f"{browser.hub.settings.url}{browser.at}/callback"


async def test_the_client_shows_who_it_is_as_the_provider_wants_it(browser: Browser) -> None:
    await browser.signed_in()
    (asked,) = [each for each in browser.provider.asked if each.path == "/token"]
    user, _, secret = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
    assert (user, secret) == ("hub", "a+secret+of+%2B%2F%26+signs")
    assert b"client_secret" not in asked.body


async def test_a_secret_in_the_form_where_that_is_all_the_provider_takes(browser: Browser) -> None:
    browser.provider.discovery = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    await browser.signed_in()
    (asked,) = [each for each in browser.provider.asked if each.path == "/token"]
    assert b"client_secret=a+secret" in asked.body
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_signatures_of_today_are_taken(browser: Browser, algorithm: str) -> None:
    browser.provider.keys = [Key("k", algorithm)]
    await browser.signed_in()


async def test_what_the_id_token_leaves_out_is_asked_for(browser: Browser) -> None:
    said = browser.provider.claims
    browser.provider.claims = {"sub": said["sub"], "email": ..., "email_verified": ..., "given_name": ...}
    browser.provider.userinfo = {"sub": said["sub"], "email": said["email"], "email_verified": True}
    assert (await me(await browser.signed_in()))["email"] == said["email"]
    (asked,) = [each for each in browser.provider.asked if each.path == "/userinfo"]
    assert asked.headers["authorization"] == "Bearer at-1"


async def test_a_session_says_how_it_was_opened(browser: Browser, records: Records) -> None:
    browser.provider.claims |= {"amr": ["pwd", "mfa"], "sid": "there-1"}
    user_id = (await me(await browser.signed_in()))["id"]
    found = "SELECT amr, provider, provider_subject, provider_session FROM sessions WHERE user_id::text = $1"
    (session,) = await records.run(found, user_id)
    assert tuple(session) == (["fed", "mfa"], browser.name, browser.provider.claims["sub"], "there-1")


async def test_two_sign_ins_of_somebody_new_at_once_make_one_user(hub: Hub, browser: Browser) -> None:
    twins = [Browser(hub, browser.provider, browser.name) for _ in range(4)]
    goings = [await twin.go() for twin in twins]
    answers = await asyncio.gather(*(twin.come_back(going) for twin, going in zip(twins, goings, strict=True)))
    made = [ended(answer) for answer in answers]
    assert all("code" in told for told in made)
    users = await hub.admin.get(f"{V1}/users", params={"email": browser.provider.claims["email"]})
    assert len(users.json()["items"]) == 1


async def test_a_code_is_exchanged_once(browser: Browser) -> None:
    told = await browser.sign_in()
    assert (await exchange(browser.hub, told["code"])).status_code == 200
    assert (await exchange(browser.hub, told["code"])).json()["error"] == "invalid_grant"


async def test_a_tool_on_ones_own_machine_may_be_the_end(browser: Browser) -> None:
    there = await browser.go(redirect_uri="http://127.0.0.1:53219/done")
    answer = await browser.come_back(there)
    assert answer.headers["location"].startswith("http://127.0.0.1:53219/done?code=")


# --- what the hub does not begin ---


@pytest.mark.parametrize(
    "given",
    [
        {"redirect_uri": "https://evil.example.org/"},
        {"redirect_uri": f"{PAGE}/more"},
        {"redirect_uri": f"{PAGE}?x=1"},
        {"redirect_uri": "http://127.0.0.1.evil.example.org/"},
        {"redirect_uri": "http://localhost:1@evil.example.org/"},
        {"redirect_uri": ""},
        {"code_challenge": "short"},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": ""},
        {"state": "x" * 501},
        {"request": "nonsense"},
        {"link": "nonsense"},
    ],
)
async def test_a_sign_in_that_could_end_nowhere_is_not_begun(browser: Browser, given: dict[str, str]) -> None:
    answer = await browser.client.get(f"{browser.at}/login", params=LOGIN | given)
    assert (answer.status_code, answer.json()["code"]) == (400, "sign_in_invalid")
    assert "location" not in answer.headers


async def test_parameters_that_nobody_knows_are_passed_over(browser: Browser) -> None:
    assert "state" in await browser.go(utm_source="mail")


async def test_a_provider_that_is_not_there_is_a_404_page_for_a_browser(hub: Hub, browser: Browser) -> None:
    browser.name = "nobodys"
    answer = await browser.client.get(f"{browser.at}/login", params=LOGIN, headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "Back to signing in" not in answer.text
    begun = await browser.client.get(AUTHORIZE, params=Flow(hub).parameters())
    asked = dict(parse_qsl(urlsplit(begun.headers["location"]).query))
    come = await browser.client.get(f"{browser.at}/login", params=asked, headers={"accept": "text/html"})
    assert (come.status_code, f'href="/sign-in?request={asked["request"]}"' in come.text) == (404, True)


# --- until state is known to be ours, nobody is sent anywhere ---


async def test_a_state_that_is_not_ours_goes_nowhere(browser: Browser) -> None:
    there = await browser.go()
    altered = there["state"][:-2] + ("AA" if there["state"][-2:] != "AA" else "BB")
    for state in ("", "nonsense", altered):
        answer = await browser.come_back({"state": state})
        assert (answer.status_code, answer.json()["code"]) == (400, "sign_in_invalid")
        assert "location" not in answer.headers
    assert browser.provider.fetched("/token") == 0


async def test_another_browser_does_not_end_what_this_one_began(browser: Browser) -> None:
    there = await browser.go()
    other = Browser(browser.hub, browser.provider, browser.name)
    assert (await other.come_back(there)).status_code == 400
    await other.go()
    assert (await other.come_back(there)).status_code == 400
    page = await other.client.get(f"{other.at}/callback", params=there, headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (403, "text/html; charset=utf-8")


async def test_an_answer_is_not_taken_to_another_provider(hub: Hub, browser: Browser, provider: Provider) -> None:
    there = await browser.go()
    browser.name = (await registered(hub, provider)).name
    assert (await browser.come_back(there)).status_code == 400


async def test_a_state_brings_one_code(browser: Browser) -> None:
    there = await browser.go()
    assert "code" in ended(await browser.come_back(there))
    again = ended(await browser.come_back(there))
    assert (again["error"], again["error_code"]) == ("server_error", "answer_invalid")
    state = there["state"]
    for same in (f"{state}!", f"{state[:9]}.{state[9:]}", f"{state}===="):
        assert (await browser.come_back(there | {"state": same})).status_code == 400


# --- what a provider that lies may say ---


def unsigned(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, "", algorithm="none")


def signed_with_the_public_key(claims: dict[str, Any]) -> str:
    return signed_by_public_key(FIRST.private, claims, kid="first")


def with_another_key(claims: dict[str, Any]) -> str:
    return Key("first").sign(claims)


def with_an_unknown_key(claims: dict[str, Any]) -> str:
    return Key("unknown").sign(claims)


NOW = int(time.time())
LIES: dict[str, dict[str, Any]] = {
    "nonce of another sign-in": {"claims": {"nonce": "another"}},
    "nonce missing": {"claims": {"nonce": ...}},
    "iss of another": {"claims": {"iss": "https://evil.example.org"}},
    "aud of another": {"claims": {"aud": "another"}},
    "aud of several without azp": {"claims": {"aud": ["hub", "another"]}},
    "azp of another": {"claims": {"aud": ["hub", "another"], "azp": "another"}},
    "azp of another, alone": {"claims": {"azp": "another"}},
    "expired": {"claims": {"iat": NOW - 500, "exp": NOW - 61}},
    "without an end": {"claims": {"exp": ...}},
    "without a beginning": {"claims": {"iat": ...}},
    "clock ahead": {"claims": {"iat": NOW + 3600, "exp": NOW + 7200}},
    "made long ago": {"claims": {"iat": NOW - 7200}},
    "not yet valid": {"claims": {"nbf": NOW + 3600}},
    "times that are texts": {"claims": {"exp": "tomorrow"}},
    "nonce of half a character": {"claims": {"nonce": "\ud800"}},
    "sub missing": {"claims": {"sub": ...}},
    "sub empty": {"claims": {"sub": ""}},
    "sub a number": {"claims": {"sub": 7}},
    "at_hash of another token": {"claims": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
    "alg none": {"forge": unsigned},
    "alg HS256 with the public key": {"forge": signed_with_the_public_key},
    "signature of another key": {"forge": with_another_key},
    "kid unknown": {"forge": with_an_unknown_key},
    "access token in place of an ID token": {"forge": lambda claims: FIRST.sign(claims, typ="at+jwt")},
    "critical header": {"forge": lambda claims: FIRST.sign(claims, crit=["x"], x=1)},
    "no token at all": {"forge": lambda _: "nonsense"},
    "a key that is too short": {"keys": [Key("k", bits=1024)]},
    "id_token missing": {"token": {"id_token": ...}},
    "access_token missing": {"token": {"access_token": ...}},
    "token of another type": {"token": {"token_type": "mac"}},
    "userinfo of another": {"claims": {"email": ...}, "userinfo": {"sub": "another", "email": "x@example.org"}},
    "code refused": {"instead": {"/token": as_json({"error": "invalid_grant"}, 400)}},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_lets_nobody_in(browser: Browser, lie: str) -> None:
    address = browser.provider.claims["email"]
    for name, value in LIES[lie].items():
        setattr(browser.provider, name, browser.provider.claims | value if name == "claims" else value)
    told = await browser.sign_in()
    assert (told["error"], told["error_code"]) == ("server_error", "answer_invalid")
    users = await browser.hub.admin.get(f"{V1}/users", params={"email": address})
    assert users.json()["items"] == []


@pytest.mark.parametrize("odd", ["\x00", "\ud800"])
async def test_a_text_that_cannot_be_kept_is_none(browser: Browser, odd: str) -> None:
    browser.provider.claims |= {"sid": f"s{odd}", "given_name": f"Ada{odd}"}
    assert (await me(await browser.signed_in()))["first_name"] == ""
    browser.provider.claims = somebody(email=f"a{odd}@example.org")
    assert (await browser.sign_in())["error_code"] == "email_missing"


async def test_an_honest_at_hash_is_no_lie(browser: Browser) -> None:
    half = base64.urlsafe_b64encode(sha256(b"at-1").digest()[:16]).rstrip(b"=").decode()
    browser.provider.claims |= {"at_hash": half}
    await browser.signed_in()
    browser.provider.keys = [Key("ed", "EdDSA")]
    half = base64.urlsafe_b64encode(sha512(b"at-1").digest()[:32]).rstrip(b"=").decode()
    browser.provider.claims |= {"at_hash": half}
    await browser.signed_in()


async def test_a_clock_that_is_a_little_off_is_borne(browser: Browser) -> None:
    now = int(time.time())
    browser.provider.claims |= {"iat": now + 40, "exp": now + 300}
    await browser.signed_in()
    browser.provider.claims |= {"iat": now - 300, "exp": now - 30}
    await browser.signed_in()


async def test_an_answer_that_names_another_issuer_is_a_mix_up(browser: Browser) -> None:
    told = await browser.sign_in(iss="https://evil.example.org")
    assert told["error_code"] == "answer_invalid"
    assert browser.provider.fetched("/token") == 0
    assert "code" in await browser.sign_in(iss=browser.provider.issuer)


async def test_a_provider_that_promises_to_name_itself_has_to(browser: Browser) -> None:
    browser.provider.discovery = {"authorization_response_iss_parameter_supported": True}
    assert (await browser.sign_in())["error_code"] == "answer_invalid"
    assert "code" in await browser.sign_in(iss=browser.provider.issuer)


async def test_an_error_of_the_providers_reaches_the_client(browser: Browser) -> None:
    told = await browser.sign_in(error="access_denied", error_description="<b>no</b>")
    assert (told["error"], told["error_code"]) == ("access_denied", "access_denied")
    assert "<b>" not in told["error_description"]
    assert told["iss"] == browser.hub.settings.url


# --- a provider that is away, slow or strange harms that sign-in alone ---


STRANGE: dict[str, Answering] = {
    "away": hangs_up,
    "an error of its own": answers(503),
    "silent": keeps_silent,
    "dripping": drips,
    "without an end": never_ends,
    "a hundred megabytes": answers(200, b" " * 2_000_000, content_type="application/json"),
    "HTML": answers(200, b"<html>", content_type="text/html"),
    "broken JSON": answers(200, b"{", content_type="application/json"),
    "a list": answers(200, b"[]", content_type="application/json"),
    "leading inward": answers(302, b"", location="http://127.0.0.1:1/latest/meta-data"),
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second in place of ten."""
    monkeypatch.setattr(fetching, "LIMITS", HASTE)


HASTE = Limits(connect_s=0.5, total_s=0.5, connections=1)


@pytest.mark.parametrize("kind", STRANGE)
async def test_a_strange_token_endpoint_is_told_of_at_the_page(browser: Browser, kind: str, hasty: None) -> None:
    browser.provider.instead = {"/token": STRANGE[kind]}
    told = await browser.sign_in()
    assert (told["error"], told["error_code"]) == ("temporarily_unavailable", "provider_unavailable")
    browser.provider.instead = {}
    assert "code" in await browser.sign_in()


@pytest.mark.parametrize("kind", STRANGE)
async def test_a_strange_discovery_document_is_a_503_of_this_sign_in(browser: Browser, kind: str, hasty: None) -> None:
    browser.provider.instead = {"/.well-known/openid-configuration": STRANGE[kind]}
    answer = await browser.client.get(f"{browser.at}/login", params=LOGIN)
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
    assert "retry-after" in answer.headers
    assert (await browser.hub.admin.get(f"{V1}/auth/me")).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.example.org"},
        {"issuer": ...},
        {"token_endpoint": "http://evil.example.org/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint_auth_methods_supported": "client_secret_basic"},
    ],
)
async def test_a_discovery_document_that_does_not_hold_is_not_believed(browser: Browser, said: dict[str, Any]) -> None:
    document = browser.provider._document() | said
    kept = {name: value for name, value in document.items() if value is not ...}
    browser.provider.instead = {"/.well-known/openid-configuration": as_json(kept)}
    assert (await browser.client.get(f"{browser.at}/login", params=LOGIN)).status_code == 503


async def test_what_a_provider_says_of_itself_is_kept_for_a_while(browser: Browser) -> None:
    for _ in range(3):
        await browser.signed_in()
    assert browser.provider.fetched("/.well-known/openid-configuration") == 1
    assert browser.provider.fetched("/jwks") == 1


async def test_a_new_key_is_looked_for_at_once_and_then_once_a_minute(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.signed_in()
    browser.provider.keys = [Key("second"), FIRST]
    await browser.signed_in()
    assert browser.provider.fetched("/jwks") == 2
    browser.provider.keys = [Key("third")]
    assert (await browser.sign_in())["error_code"] == "answer_invalid"
    assert browser.provider.fetched("/jwks") == 2
    monkeypatch.setattr(discovery, "ASKED_AGAIN_S", 0.0)
    await browser.signed_in()
    assert browser.provider.fetched("/jwks") == 3


async def test_a_provider_that_has_come_back_with_another_key_of_the_same_name_is_believed(browser: Browser) -> None:
    await browser.signed_in()
    browser.provider.keys = [Key("first")]
    await browser.signed_in()


# --- names that nobody answers for ---


@pytest.fixture
async def unanswered(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SilentNames]:
    """In front of one tenant's providers: each name was asked for, or waits for those that were."""
    names = SilentNames(monkeypatch)
    issuers = [f"https://{number}.unanswered.example" for number in range(12)]
    browsers = [await registered(hub, Provider(issuer=issuer)) for issuer in issuers]
    with monkeypatch.context() as hasty:
        hasty.setattr(fetching, "LIMITS", HASTE)
        answers = await asyncio.gather(*(each.client.get(f"{each.at}/login", params=LOGIN) for each in browsers))
    assert {answer.status_code for answer in answers} == {503}
    assert names.threads
    yield names
    names.release()


async def of_another_tenant(hub: Hub, provider: Provider) -> Browser:
    """By a name that has to be looked up, and is known."""
    slug = f"t{uuid4().hex}"
    other = await hub.new_tenant(slug)
    provider.issuer = provider.issuer.replace("127.0.0.1", "localhost")
    return await registered(other, provider, slug)


async def test_names_that_nobody_answers_for_hold_no_other_tenant_up(
    hub: Hub, provider: Provider, unanswered: SilentNames
) -> None:
    """Their look-ups are over their time, and go on: nobody can call them off."""
    browser = await of_another_tenant(hub, provider)
    await browser.go()


async def test_who_is_held_up_holds_nobody_up_who_has_the_same_provider(
    hub: Hub, provider: Provider, unanswered: SilentNames
) -> None:
    browser = await of_another_tenant(hub, provider)
    theirs = await registered(hub, provider)
    waiting = [asyncio.create_task(theirs.client.get(f"{theirs.at}/login", params=LOGIN)) for _ in range(4)]
    await asyncio.sleep(0.1)
    await browser.go()
    assert not any(each.done() for each in waiting), "they stand in a line of their own"
    unanswered.release()
    assert [(await each).status_code for each in waiting] == [302] * 4


# --- who may come in ---


async def test_an_address_of_somebody_else_does_not_make_one_them(hub: Hub, browser: Browser) -> None:
    user = await hub.new_user()
    browser.provider.claims |= {"email": user["email"].upper()}
    told = await browser.sign_in()
    assert (told["error"], told["error_code"]) == ("access_denied", "email_taken")
    assert "link" in told["error_description"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"email_verified": False}, "email_unverified"),
        ({"email_verified": "false"}, "email_unverified"),
        ({"email": ...}, "email_missing"),
        ({"email": "nonsense"}, "email_missing"),
        ({"email": 7}, "email_missing"),
        ({"email_verified": ...}, None),
        ({"email_verified": "true"}, None),
    ],
)
async def test_an_address_has_to_be_ones_own(browser: Browser, said: dict[str, Any], code: str | None) -> None:
    browser.provider.claims |= said
    assert (await browser.sign_in()).get("error_code") == code


async def test_only_verified_addresses_of_allowed_domains_come_in(hub: Hub, provider: Provider) -> None:
    browser = await registered(hub, provider, allowed_domains=["example.org"])
    for said, code in (
        ({"email": f"{uuid4().hex}@example.com"}, "domain_not_allowed"),
        ({"email": f"{uuid4().hex}@sub.example.org"}, "domain_not_allowed"),
        ({"email_verified": ...}, "email_unverified"),
        ({}, None),
    ):
        provider.claims = somebody() | said
        assert (await browser.sign_in()).get("error_code") == code
    provider.claims |= {"email": f"{uuid4().hex}@example.com"}
    assert (await browser.sign_in())["error_code"] == "domain_not_allowed"


async def test_who_is_switched_off_stays_out(hub: Hub, browser: Browser) -> None:
    user = await me(await browser.signed_in())
    await hub.admin.patch(f"{V1}/users/{user['id']}", json={"is_active": False})
    assert (await browser.sign_in())["error_code"] == "user_inactive"


async def test_what_was_refused_is_on_record(hub: Hub, browser: Browser) -> None:
    browser.provider.claims |= {"email_verified": False}
    await browser.sign_in()
    rows = await hub.admin.get(f"{V1}/audit-events", params={"action": "auth.login", "outcome": "failure"})
    assert f"oidc:{browser.name}: email_unverified" in [row["detail"] for row in rows.json()["items"]]


async def test_a_tenants_provider_lets_into_that_tenant_alone(two_tenants: tuple[Hub, Hub], provider: Provider) -> None:
    one, other = two_tenants
    slug = (await me(other.admin))["tenant"]["slug"]
    browser = await registered(other, provider, tenant=slug)
    provider.claims = somebody()
    user = await me(await browser.signed_in())
    assert user["tenant"]["slug"] == slug
    assert (await one.admin.get(f"{V1}/users", params={"email": user["email"]})).json()["items"] == []
    stranger = Browser(one, provider, browser.name)
    assert (await stranger.client.get(f"{stranger.at}/login", params=LOGIN)).status_code == 404


async def test_a_code_is_not_taken_to_a_provider_of_that_name_in_another_tenant(
    two_tenants: tuple[Hub, Hub], provider: Provider
) -> None:
    """Its admin could have sent the browser on to the other tenant's provider, with the state of their own."""
    one, other = two_tenants
    slugs = [(await me(each.admin))["tenant"]["slug"] for each in (one, other)]
    theirs = await registered(other, provider, tenant=slugs[1])
    await registered(one, provider, name=theirs.name)
    attacked = Browser(one, provider, theirs.name, tenant=slugs[0])
    victim = await theirs.go()
    assert victim["redirect_uri"] != (await attacked.go())["redirect_uri"]
    taken: list[dict[str, str]] = [{}, {"tenant": "default"}, {"tenant": slugs[0]}]
    for given in taken:
        answer = await theirs.come_back({"state": victim["state"]}, **given)
        assert answer.status_code == 400, answer.text
    assert provider.fetched("/token") == 0
    assert "code" in ended(await theirs.come_back(victim))


# --- groups ---


async def test_groups_are_taken_at_every_sign_in_and_bring_their_roles(hub: Hub, provider: Provider) -> None:
    browser = await registered(hub, provider, groups_claim="groups")
    one, two = f"One {uuid4().hex}", f"two-{uuid4().hex}"
    provider.claims = somebody(groups=[one, two])
    client = await browser.signed_in()
    user = await me(client)
    assert await groups_of(hub, user["id"]) == {one, two}
    (group,) = (await hub.admin.get(f"{V1}/groups", params={"name": one})).json()["items"]
    assert group["managed_by"] == f"oidc:{browser.name}"
    role = await hub.new_role(permissions=["roles:read"])
    given = {"subject": {"type": "group", "id": group["id"]}, "role_id": role["id"], "scope": {"type": "tenant"}}
    assert (await hub.admin.post(f"{V1}/role-assignments", json=given)).status_code == 201
    assert (await client.get(f"{V1}/roles")).status_code == 200
    provider.claims |= {"groups": two}
    await browser.signed_in()
    assert await groups_of(hub, user["id"]) == {two}
    assert (await client.get(f"{V1}/roles")).status_code == 403
    provider.claims |= {"groups": ...}
    await browser.signed_in()
    assert await groups_of(hub, user["id"]) == set()


async def test_groups_of_others_are_left_alone(hub: Hub, provider: Provider) -> None:
    name = f"Ours {uuid4().hex}"
    ours = (await hub.admin.post(f"{V1}/groups", json={"name": name})).json()
    browser = await registered(hub, provider, groups_claim="groups")
    provider.claims = somebody(groups=[name])
    user = await me(await browser.signed_in())
    assert await groups_of(hub, user["id"]) == set()
    await hub.admin.put(f"{V1}/groups/{ours['id']}/members/{user['id']}")
    await browser.signed_in()
    assert await groups_of(hub, user["id"]) == {name}


async def test_a_group_that_looks_like_another_is_passed_over(hub: Hub, provider: Provider) -> None:
    latin, cyrillic = "aeopc", "аеорс"
    name = "".join(random.choices(latin, k=20))
    assert (await hub.admin.post(f"{V1}/groups", json={"name": name})).status_code == 201
    browser = await registered(hub, provider, groups_claim="groups")
    fine = f"fine {uuid4().hex}"
    provider.claims = somebody(groups=[name.translate(str.maketrans(latin, cyrillic)), fine])
    assert await groups_of(hub, (await me(await browser.signed_in()))["id"]) == {fine}


async def test_strange_groups_are_passed_over(hub: Hub, provider: Provider) -> None:
    browser = await registered(hub, provider, groups_claim="groups")
    fine = f"fine {uuid4().hex}"
    provider.claims = somebody(
        groups=["", " ", "a\x00b", "x" * 201, 7, None, {"a": 1}, fine, fine.upper(), "p\u0430ypal"]
    )
    user = await me(await browser.signed_in())
    assert len(await groups_of(hub, user["id"])) == 1


async def test_a_provider_that_is_not_asked_for_groups_changes_none(hub: Hub, browser: Browser) -> None:
    browser.provider.claims |= {"groups": ["admins"]}
    user = await me(await browser.signed_in())
    assert await groups_of(hub, user["id"]) == set()


# --- links ---


IDENTITIES = f"{V1}/auth/identities"


async def begun(browser: Browser, client: httpx.AsyncClient) -> dict[str, str]:
    """The link has sent the browser to the provider."""
    wanted = {"provider": browser.name, "redirect_uri": PAGE, "state": "mine"}
    answer = await client.post(IDENTITIES, json=wanted)
    assert answer.status_code == 200, answer.text
    browser.client.cookies.update(answer.cookies)
    return browser.arrive(await browser.client.get(answer.json()["login_url"].removeprefix(browser.hub.settings.url)))


async def test_who_is_signed_in_links_an_identity_and_comes_in_by_it(hub: Hub, browser: Browser) -> None:
    user = await hub.new_user(password=PASSWORD)
    client = await hub.sign_in(user["email"])
    browser.provider.claims |= {"email": user["email"]}
    assert ended(await browser.come_back(await begun(browser, client)))["linked"] == browser.name
    (identity,) = (await client.get(IDENTITIES)).json()["items"]
    assert (identity["provider"], identity["subject"]) == (browser.name, browser.provider.claims["sub"])
    assert (await me(await browser.signed_in()))["id"] == user["id"]
    assert (await client.delete(f"{IDENTITIES}/{identity['id']}")).status_code == 204
    assert (await browser.sign_in())["error_code"] == "email_taken"


async def test_a_link_works_in_the_browser_that_began_it_alone(hub: Hub, browser: Browser) -> None:
    client = await hub.sign_in((await hub.new_user(password=PASSWORD))["email"])
    wanted = {"provider": browser.name, "redirect_uri": PAGE}
    address = (await client.post(IDENTITIES, json=wanted)).json()["login_url"].removeprefix(hub.settings.url)
    assert (await hub.client().get(address)).status_code == 400


async def test_a_link_ends_with_its_session(hub: Hub, browser: Browser) -> None:
    client = await hub.sign_in((await hub.new_user(password=PASSWORD))["email"])
    there = await begun(browser, client)
    await client.post(f"{V1}/auth/logout")
    assert ended(await browser.come_back(there))["error_code"] == "session_ended"


async def test_an_identity_is_of_one_person(hub: Hub, browser: Browser) -> None:
    await browser.signed_in()
    client = await hub.sign_in((await hub.new_user(password=PASSWORD))["email"])
    assert ended(await browser.come_back(await begun(browser, client)))["error_code"] == "identity_taken"


async def test_of_two_accounts_that_want_one_identity_at_once_one_has_it(hub: Hub, browser: Browser) -> None:
    for _ in range(3):
        browser.provider.claims = somebody()
        under_way = []
        for _ in range(3):
            one = Browser(hub, browser.provider, browser.name)
            client = await hub.sign_in((await hub.new_user(password=PASSWORD))["email"])
            under_way.append((one, await begun(one, client)))
        ends = [ended(each) for each in await asyncio.gather(*(one.come_back(there) for one, there in under_way))]
        assert sorted(end.get("error_code", "linked") for end in ends) == ["identity_taken", "identity_taken", "linked"]


async def test_the_last_way_in_stays(hub: Hub, browser: Browser) -> None:
    client = await browser.signed_in()
    (identity,) = (await client.get(IDENTITIES)).json()["items"]
    refused = await client.delete(f"{IDENTITIES}/{identity['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "last_way_in")


async def test_nobody_takes_anothers_identity_away(hub: Hub, browser: Browser) -> None:
    client = await browser.signed_in()
    (identity,) = (await client.get(IDENTITIES)).json()["items"]
    assert (await hub.admin.delete(f"{IDENTITIES}/{identity['id']}")).status_code == 404


# --- back-channel logout ---


async def told_out(browser: Browser, token: str) -> httpx.Response:
    return await browser.hub.client().post(f"{browser.at}/backchannel-logout", data={"logout_token": token})


async def is_signed_in(client: httpx.AsyncClient) -> bool:
    return (await client.get(f"{V1}/auth/me")).status_code == 200


async def test_a_session_ends_with_the_one_at_the_provider(browser: Browser) -> None:
    browser.provider.claims |= {"sid": "one"}
    one = await browser.signed_in()
    browser.provider.claims |= {"sid": "two"}
    two = await browser.signed_in()
    answer = await told_out(browser, browser.provider.logout_token(sid="one"))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert (await is_signed_in(one), await is_signed_in(two)) == (False, True)
    assert (await told_out(browser, browser.provider.logout_token(sub=browser.provider.claims["sub"]))).is_success
    assert not await is_signed_in(two)


async def test_a_provider_that_is_switched_off_still_ends_what_it_began(browser: Browser) -> None:
    client = await browser.signed_in()
    off = await browser.hub.admin.patch(f"{V1}/identity-providers/{MADE[-1][1]}", json={"is_active": False})
    assert off.status_code == 200, off.text
    assert await is_signed_in(client)
    answer = await told_out(browser, browser.provider.logout_token(sub=browser.provider.claims["sub"]))
    assert answer.status_code == 200
    assert not await is_signed_in(client)


async def test_a_code_that_waits_ends_with_it_too(browser: Browser) -> None:
    told = await browser.sign_in()
    await told_out(browser, browser.provider.logout_token(sub=browser.provider.claims["sub"]))
    assert (await exchange(browser.hub, told["code"])).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "said",
    [
        {"nonce": "n"},
        {"events": {}},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": None}},
        {"events": ...},
        {"jti": ...},
        {"iat": ...},
        {"exp": ...},
        {"aud": "another"},
        {"iss": "https://evil.example.org"},
        {"iat": 1, "exp": 2},
        {"sub": ...},
        {"sid": 7},
    ],
)
async def test_a_logout_token_that_does_not_hold_ends_nothing(browser: Browser, said: dict[str, Any]) -> None:
    client = await browser.signed_in()
    token = browser.provider.logout_token(**({"sub": browser.provider.claims["sub"]} | said))
    answer = await told_out(browser, token)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert answer.headers["cache-control"] == "no-store"
    assert await is_signed_in(client)


async def test_a_logout_token_is_good_once_and_an_id_token_is_none(browser: Browser) -> None:
    client = await browser.signed_in()
    assert (await told_out(browser, browser.provider.id_token())).status_code == 400
    token = browser.provider.logout_token(sub="somebody else")
    assert (await told_out(browser, token)).status_code == 200
    assert (await told_out(browser, token)).status_code == 400
    assert await is_signed_in(client)
