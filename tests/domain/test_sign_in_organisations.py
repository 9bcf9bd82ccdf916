"""The sign-in page of a hub that several organisations share."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from app.domain.sign_in.pending import cookie_name
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.domain.test_sign_in_page import BROWSER, sealed, send

pytestmark = pytest.mark.anyio

CLIENT_OF_PROVIDER = {"issuer": "https://login.example.org", "client_id": "hub", "client_secret": "a secret"}


@pytest.fixture
async def browser(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with hub.client() as client:
        client.cookies.set(cookie_name(hub.settings), BROWSER)
        yield client


@pytest.fixture(scope="module")
async def other(hub: Hub) -> Hub:
    made = await hub.new_tenant()
    await with_provider(made, "Other")
    return made


async def with_provider(hub: Hub, label: str) -> None:
    new = {"kind": "oidc", "name": f"p{uuid4().hex[:8]}", "label": label, **CLIENT_OF_PROVIDER}
    made = await hub.admin.post("/api/v1/identity-providers", json=new)
    assert made.status_code == 201, made.text


async def slug_of(hub: Hub) -> str:
    return str((await hub.admin.get("/api/v1/auth/me")).json()["tenant"]["slug"])


def buttons_on(page: httpx.Response) -> list[str]:
    return re.findall(r'class="button"[^>]*>([^<]*)<', page.text)


async def say(browser: httpx.AsyncClient, request: str, tenant: str) -> httpx.Response:
    """The page that comes of the answer."""
    said = await browser.post("/sign-in/organisation", data={"request": request, "tenant": tenant})
    assert said.status_code == 303, said.text
    return await browser.get(said.headers["location"])


def request_on(page: httpx.Response) -> str:
    """The sign-in that its form keeps."""
    found = re.search(r'name="request" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


async def test_nobody_is_asked_on_a_hub_of_one(hub: Hub, browser: httpx.AsyncClient) -> None:
    """The form is there at once, with the providers: it comes before those that make a second tenant."""
    await with_provider(hub, "Default")
    shown = await browser.get("/sign-in", params={"request": sealed(hub)})
    assert (buttons_on(shown), 'name="password"' in shown.text) == (["Sign in with Default"], True)
    assert "organisation" not in shown.text.lower()


async def test_the_organisation_is_asked_for_where_there_are_several_and_none_is_named(
    hub: Hub, browser: httpx.AsyncClient
) -> None:
    """By what the hub is, and not by whose address it is."""
    asked = 'name="tenant"'
    assert asked not in (await browser.get("/sign-in", params={"request": sealed(hub)})).text
    other = await hub.new_tenant()
    slug = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["slug"]
    assert asked in (await browser.get("/sign-in", params={"request": sealed(hub)})).text
    assert asked not in (await browser.get("/sign-in", params={"request": sealed(hub, tenant=slug)})).text
    email = f"{uuid4().hex}@example.org"
    for one in (hub, other):
        await one.new_user(email=email, password=PASSWORD)
    assert (await send(browser, sealed(hub), email=email)).status_code == 401
    assert (await send(browser, sealed(hub), email=email, tenant=slug)).status_code == 303
    assert (await send(browser, sealed(hub), email=email, tenant="nowhere")).status_code == 401
    assert (await send(browser, sealed(hub, tenant=slug), email=email, tenant="nowhere")).status_code == 303
    assert (await send(browser, sealed(hub, tenant=slug), email=ADMIN_EMAIL)).status_code == 401


async def test_no_provider_is_shown_before_an_organisation_is_said(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    asked = await browser.get("/sign-in", params={"request": sealed(hub)})
    assert (asked.status_code, buttons_on(asked)) == (200, [])
    assert 'name="password"' not in asked.text
    assert re.search(r'<label for="tenant">.*aria-describedby="tenant-hint".* autofocus>', asked.text, re.DOTALL)
    assert "<button>Continue</button>" in asked.text
    assert "script" not in asked.headers["content-security-policy"]
    assert 'href="/sign-in/passkey?' in asked.text, "a passkey needs no organisation"


async def test_then_its_own_providers_are_shown_and_lead_to_its_own(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    slug = await slug_of(other)
    shown = await say(browser, sealed(hub), f" {slug.upper()} ")
    assert buttons_on(shown) == ["Sign in with Other"]
    assert f"Organisation: {slug}" in shown.text
    (address,) = re.findall(r'href="([^"]*/login\?[^"]+)"', shown.text)
    query = parse_qs(urlsplit(address.replace("&amp;", "&")).query)
    assert (query["tenant"], query["request"]) == ([slug], [request_on(shown)])
    assert buttons_on(await say(browser, sealed(hub), "default")) == ["Sign in with Default"]


async def test_the_password_is_asked_of_the_organisation_that_was_said(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    email = f"{uuid4().hex}@example.org"
    for one in (hub, other):
        await one.new_user(email=email, password=PASSWORD)
    shown = await say(browser, sealed(hub), await slug_of(other))
    assert 'name="tenant"' not in shown.text
    assert (await send(browser, request_on(shown), email=email)).status_code == 303
    assert (await send(browser, request_on(shown), email=ADMIN_EMAIL)).status_code == 401


async def test_an_organisation_that_is_not_there_looks_like_one_without_providers(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    bare = await slug_of(await hub.new_tenant())
    pages = []
    for slug in (bare, "x" * len(bare)):
        shown = await say(browser, sealed(hub), slug)
        wrong = await send(browser, request_on(shown), email="nobody@example.org")
        assert (shown.status_code, wrong.status_code) == (200, 401)
        pages.append([without_sealed(each, slug) for each in (shown, wrong)])
    assert pages[0] == pages[1]
    assert buttons_on(shown) == []


def without_sealed(page: httpx.Response, slug: str) -> str:
    return re.sub(r"[A-Za-z0-9_-]{80,}", "sealed", page.text).replace(slug, "slug")


async def test_who_knows_no_name_goes_on_by_their_address(hub: Hub, browser: httpx.AsyncClient, other: Hub) -> None:
    """An address that one organisation alone has says which is meant."""
    user = await other.new_user(password=PASSWORD)
    shown = await say(browser, sealed(hub), " ")
    assert (buttons_on(shown), 'name="tenant"' in shown.text) == ([], True)
    assert (await send(browser, request_on(shown), email=user["email"])).status_code == 303


@pytest.mark.parametrize(
    ("first", "way_back"), [("nowhere", "Change the organisation"), ("", "Name your organisation")]
)
async def test_who_has_mistaken_themselves_goes_back(
    hub: Hub, browser: httpx.AsyncClient, other: Hub, first: str, way_back: str
) -> None:
    shown = await say(browser, sealed(hub), first)
    (address,) = re.findall(rf'href="([^"]+)">{way_back}</a>', shown.text)
    asked = await browser.get(address)
    assert "<button>Continue</button>" in asked.text
    assert buttons_on(await say(browser, request_on(asked), "default")) == ["Sign in with Default"]


async def test_what_can_be_no_name_is_told_on_the_same_page(hub: Hub, browser: httpx.AsyncClient, other: Hub) -> None:
    for name in ("x" * 101, "a\x00b"):
        said = await browser.post("/sign-in/organisation", data={"request": sealed(hub), "tenant": name})
        assert said.status_code == 400
        assert 'role="alert"' in said.text
        assert "<button>Continue</button>" in said.text
        assert "xxxx" not in said.text.replace(request_on(said), "")


async def test_the_address_of_the_form_opened_once_more_is_a_page(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/sign-in/organisation")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


async def test_nothing_that_is_typed_becomes_markup(hub: Hub, browser: httpx.AsyncClient, other: Hub) -> None:
    shown = await say(browser, sealed(hub), "'\"><script>alert(1)</script>&$say_email")
    assert "<script" not in shown.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;$say_email" in shown.text


async def test_a_client_that_names_one_is_not_talked_out_of_it(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    request = sealed(hub, tenant=await slug_of(other))
    for shown in (await browser.get("/sign-in", params={"request": request}), await say(browser, request, "default")):
        assert buttons_on(shown) == ["Sign in with Other"]
        assert not re.search("(Change|Name)[a-z ]+organisation", shown.text)


@pytest.mark.parametrize(
    ("change", "status"),
    [({"request": "x"}, 400), ({"request": "expired"}, 410), ({"tenant": ["a", "b"]}, 400)],
    ids=["altered", "over", "twice"],
)
async def test_what_cannot_go_on_is_told_here_as_everywhere(
    hub: Hub, browser: httpx.AsyncClient, other: Hub, change: dict[str, Any], status: int
) -> None:
    given = {"request": sealed(hub), "tenant": "default", **change}
    if given["request"] == "expired":
        given["request"] = sealed(hub, expires_at=1)
    said = await browser.post("/sign-in/organisation", data=given)
    assert (said.status_code, "location" in said.headers) == (status, False)


async def test_another_sites_form_and_another_browser_say_nothing(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    given = {"request": sealed(hub), "tenant": "default"}
    foreign = await browser.post("/sign-in/organisation", data=given, headers={"sec-fetch-site": "cross-site"})
    async with hub.client() as without_cookie:
        alone = await without_cookie.post("/sign-in/organisation", data=given)
    assert (foreign.status_code, alone.status_code) == (403, 403)


async def test_the_letter_for_a_new_password_knows_what_was_said(
    hub: Hub, browser: httpx.AsyncClient, other: Hub
) -> None:
    shown = await say(browser, sealed(hub), await slug_of(other))
    (address,) = re.findall(r'href="(/sign-in/forgotten[^"]+)"', shown.text)
    assert 'name="tenant"' not in (await browser.get(address)).text
