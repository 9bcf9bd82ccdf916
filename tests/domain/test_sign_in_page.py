"""The pages on which people sign in, as a browser asks for them."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from msgspec import structs

from app.core.errors import Unauthenticated
from app.domain.auth.sessions import Authenticated
from app.domain.requests import HubRequest
from app.domain.sign_in import forms
from app.domain.sign_in.forms import field, form
from app.domain.sign_in.pending import PENDING, PendingSignIn, cookie_name, digest_of, new_browser, seal
from app.domain.sign_in.rendering import together
from app.domain.sign_in.ways import WAYS, HalfSignedIn, Page, Then
from app.domain.work import UnitOfWork, work_of_its_own
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub

pytestmark = pytest.mark.anyio

BROWSER = new_browser()
CLIENT = "https://client.example.org/signed-in"


def pending(browser: str = BROWSER, **given: Any) -> PendingSignIn:
    """A sign-in that a client has asked for, in this browser."""
    usual = {"client_id": None, "redirect_uri": CLIENT, "state": "s", "code_challenge": "x" * 43}
    return PendingSignIn(browser=digest_of(browser), **{"expires_at": int(time.time()) + 1800, **usual, **given})


def sealed(hub: Hub, **given: Any) -> str:
    return seal(hub.parts.key_ring, PENDING, pending(**given))


@pytest.fixture
async def browser(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    """One that began a sign-in: it has the cookie."""
    async with hub.client() as client:
        client.cookies.set(cookie_name(hub.settings), BROWSER)
        yield client


async def send(browser: httpx.AsyncClient, request: str, **form: str) -> httpx.Response:
    given = {"request": request, "email": ADMIN_EMAIL, "password": PASSWORD, **form}
    return await browser.post("/sign-in", data=given)


async def test_the_right_password_leads_to_the_client_with_a_code(hub: Hub, browser: httpx.AsyncClient) -> None:
    answer = await send(browser, sealed(hub))
    assert answer.status_code == 303, answer.text
    place = urlsplit(answer.headers["location"])
    assert f"{place.scheme}://{place.netloc}{place.path}" == CLIENT
    told = parse_qs(place.query)
    assert told.keys() == {"code", "state", "iss"}
    assert (told["state"], told["iss"]) == (["s"], [hub.settings.url])
    assert answer.headers["cache-control"] == "no-store"


async def test_the_form_keeps_the_sign_in_and_no_password(hub: Hub, browser: httpx.AsyncClient) -> None:
    request = sealed(hub)
    shown = await browser.get("/sign-in", params={"request": request})
    assert shown.status_code == 200, shown.text
    assert f'name="request" value="{request}"' in shown.text
    wrong = await send(browser, request, password="a guess that is wrong")
    assert wrong.status_code == 401
    assert escape(ADMIN_EMAIL) in wrong.text
    assert "a guess that is wrong" not in wrong.text
    assert 'role="alert"' in wrong.text


# --- what cannot go on ---


async def test_a_sign_in_that_is_over_says_so_and_leads_back(hub: Hub, browser: httpx.AsyncClient) -> None:
    for answer in (
        await browser.get("/sign-in", params={"request": sealed(hub, expires_at=int(time.time()) - 1800)}),
        await send(browser, sealed(hub, expires_at=int(time.time()) - 1)),
    ):
        assert answer.status_code == 410
        assert "This took too long" in answer.text
        assert escape(f"{CLIENT}?error=access_denied&iss=") in answer.text
        assert "location" not in answer.headers


async def test_an_altered_sign_in_is_no_sign_in(hub: Hub, browser: httpx.AsyncClient) -> None:
    genuine = sealed(hub)
    other_purpose = seal(hub.parts.key_ring, "something else", pending())
    for request in (genuine[:-2], genuine[:20] + "AAAA" + genuine[24:], "x", "é", "\x00", other_purpose, "A" * 5000):
        for answer in (await browser.get("/sign-in", params={"request": request}), await send(browser, request)):
            assert answer.status_code == 400, request
            assert "This sign-in cannot go on" in answer.text
            assert "client.example.org" not in answer.text


async def test_another_browser_cannot_end_a_sign_in(hub: Hub, browser: httpx.AsyncClient) -> None:
    request = sealed(hub, browser=new_browser())
    for answer in (await browser.get("/sign-in", params={"request": request}), await send(browser, request)):
        assert answer.status_code == 403
        assert "This sign-in began elsewhere" in answer.text
        assert "client.example.org" not in answer.text


async def test_a_browser_without_cookies_is_told_to_allow_them(hub: Hub) -> None:
    async with hub.client() as client:
        for answer in (await client.get("/sign-in", params={"request": sealed(hub)}), await send(client, sealed(hub))):
            assert answer.status_code == 403
            assert "keeps no cookies" in answer.text


async def test_who_comes_without_a_sign_in_is_told_where_to_begin(hub: Hub, browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/sign-in")
    assert answer.status_code == 200
    assert 'href="/docs"' in answer.text


# --- steps ---


class SayPlease:
    """A step that is passed by a word."""

    name = "please"

    async def is_needed(self, work: UnitOfWork, pending: PendingSignIn, who: Authenticated) -> bool:
        return "kba" not in who.amr

    async def page(
        self, request: HubRequest, half: HalfSignedIn, action: str, kept: Mapping[str, str], problem: str | None
    ) -> Page:
        parts = [form(action, [field("word", "The word")], "Go on", kept)]
        said = [] if problem is None else [forms.problem(problem)]
        return Page(heading="Say it", body=together([*said, *parts]), is_wrong=problem is not None)

    async def take(self, request: HubRequest, half: HalfSignedIn, form: Mapping[str, Any], then: Then) -> str:
        if form.get("word") != "please":
            raise Unauthenticated(code="invalid_credentials")
        async with work_of_its_own(request) as work:
            work.move_to(half.tenant_id)
            return await then(work, structs.replace(half.who, amr=("pwd", "kba")))


@pytest.fixture
def with_a_step() -> Iterator[None]:
    WAYS.offer_step(SayPlease())
    yield
    del WAYS.steps["please"]


async def to_the_step(hub: Hub, browser: httpx.AsyncClient) -> str:
    """The text that the step's form has to come back with."""
    answer = await send(browser, sealed(hub))
    assert answer.status_code == 303, answer.text
    place = urlsplit(answer.headers["location"])
    assert (place.netloc, place.path) == ("", "/sign-in/please")
    return parse_qs(place.query)["request"][0]


@pytest.mark.usefixtures("with_a_step")
async def test_a_step_comes_between_the_password_and_the_client(hub: Hub, browser: httpx.AsyncClient) -> None:
    half = await to_the_step(hub, browser)
    shown = await browser.get("/sign-in/please", params={"request": half})
    assert shown.status_code == 200
    assert f'value="{half}"' in shown.text
    wrong = await browser.post("/sign-in/please", data={"request": half, "word": "now"})
    assert wrong.status_code == 401
    assert 'role="alert"' in wrong.text
    right = await browser.post("/sign-in/please", data={"request": half, "word": "please"})
    assert right.status_code == 303
    assert right.headers["location"].startswith(f"{CLIENT}?code=dfc_")


@pytest.mark.usefixtures("with_a_step")
async def test_half_a_sign_in_is_of_one_browser_one_step_and_not_a_whole_one(
    hub: Hub, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = await to_the_step(hub, browser)
    sent = {"request": half, "word": "please"}
    assert (await send(browser, half)).status_code == 400
    whole = await browser.post("/sign-in/please", data={**sent, "request": sealed(hub)})
    assert whole.status_code == 400
    async with hub.client() as other:
        other.cookies.set(cookie_name(hub.settings), new_browser())
        assert (await other.post("/sign-in/please", data=sent)).status_code == 403
    later = time.time() + 700
    monkeypatch.setattr("app.domain.sign_in.services.time.time", lambda: later)
    assert (await browser.post("/sign-in/please", data=sent)).status_code == 410


async def test_a_step_that_nobody_offers_is_not_there(browser: httpx.AsyncClient) -> None:
    for answer in (await browser.get("/sign-in/please"), await browser.post("/sign-in/please", data={"a": "b"})):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
