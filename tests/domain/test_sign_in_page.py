"""The pages on which people sign in, as a browser asks for them."""

import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from msgspec import structs

from app.core.errors import Unauthenticated
from app.core.limits.limiter import Limits
from app.core.limits.rates import Rate
from app.core.sealed_values import seal
from app.domain.auth.sessions import Authenticated
from app.domain.requests import HubRequest
from app.domain.sign_in import forms
from app.domain.sign_in.forms import field, form
from app.domain.sign_in.pending import PendingSignIn, cookie_header, cookie_name, new_browser
from app.domain.sign_in.rendering import FOLDER, fill, together
from app.domain.sign_in.texts import TEXTS
from app.domain.sign_in.views import STATUS
from app.domain.sign_in.ways import WAYS, HalfSignedIn, Page, PageLink, ProviderLink, Then
from app.domain.work import UnitOfWork, work_of_its_own
from tests import pending
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub
from tests.declared import document
from tests.domain.conftest import Records, new_user
from tests.domain.test_auth import FAILURES, counted
from tests.pending import CLIENT

pytestmark = pytest.mark.anyio

BROWSER = new_browser()
DOMAIN = FOLDER.parents[1]
"""Where pages are made: other slices bring steps and pages of their own."""


def sealed(hub: Hub, browser: str = BROWSER, **given: Any) -> str:
    """A sign-in that a client has asked for, in this browser."""
    return pending.sealed(hub.parts.key_ring, browser, **given)


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
    other_purpose = seal(hub.parts.key_ring, "something else", pending.pending(BROWSER))
    for request in (genuine[:-2], genuine[:20] + "AAAA" + genuine[24:], "x", "é", "\x00", other_purpose, "A" * 5000):
        for answer in (await browser.get("/sign-in", params={"request": request}), await send(browser, request)):
            assert answer.status_code == 400, request
            assert "This sign-in cannot continue" in answer.text
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
            assert "has no cookie of the hub" in answer.text


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


# --- who is let in ---


async def page_of_failure(
    hub: Hub, browser: httpx.AsyncClient, email: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, ...]:
    request = sealed(hub)
    async with counted(hub, monkeypatch) as work:
        answer = await send(browser, request, email=email, password=password)
    text = answer.text.replace(request, "").replace(f'value="{escape(email)}"', "")
    differ = {"x-request-id", "ratelimit", "content-length"}
    headers = {name: value for name, value in answer.headers.items() if name not in differ}
    return answer.status_code, text, headers, work


async def test_whatever_is_wrong_the_page_and_the_work_are_the_same(
    hub: Hub, browser: httpx.AsyncClient, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = await page_of_failure(hub, browser, "unknown@example.org", PASSWORD, monkeypatch)
    assert unknown[0] == 401
    assert unknown[3]["verified"] == ["argon2id"]
    for name, columns in FAILURES.items():
        email = await new_user(hub, records, **{key: value for key, value in columns.items() if value != "later"})
        if "locked_until" in columns:
            await records.run("UPDATE users SET locked_until = now() + interval '9 minutes' WHERE email = $1", email)
        tried = "wrong" if name == "wrong" else PASSWORD
        assert await page_of_failure(hub, browser, email, tried, monkeypatch) == unknown, name


@pytest.mark.parametrize(
    "form",
    [
        {"email": "a" * 30_000},
        {"password": "a" * 30_000},
        {"email": "ada\x00@example.org"},
        {"tenant": "x" * 101},
        {"email": "", "password": ""},
        {"tenant": "default'--"},
    ],
)
async def test_what_can_be_nobodys_fails_like_a_wrong_password(
    hub: Hub, browser: httpx.AsyncClient, records: Records, form: dict[str, str]
) -> None:
    answer = await send(browser, sealed(hub), **form)
    assert answer.status_code == 401
    assert "Email address or password is wrong." in answer.text
    assert len(await records.audit(answer)) == 1
    assert len(answer.content) < 5000


async def test_each_sign_in_is_on_record_once(hub: Hub, browser: httpx.AsyncClient, records: Records) -> None:
    (row,) = await records.audit(await send(browser, sealed(hub)))
    assert (row["action"], row["outcome"], row["actor_name"], row["detail"]) == (
        "auth.sign_in",
        "success",
        ADMIN_EMAIL,
        "pwd",
    )
    (row,) = await records.audit(await send(browser, sealed(hub), password="wrong"))
    assert (row["action"], row["outcome"]) == ("auth.login", "failure")


async def test_ten_failures_lock_an_account_here_and_there(
    hub: Hub, browser: httpx.AsyncClient, records: Records
) -> None:
    email = await new_user(hub, records)
    for _ in range(10):
        assert (await send(browser, sealed(hub), email=email, password="wrong")).status_code == 401
    assert (await send(browser, sealed(hub), email=email)).status_code == 401
    answer = await hub.client().post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 401


async def test_too_many_attempts_are_told_when_to_come_again(hub: Hub) -> None:
    limited = Limits(Rate.parse("999999/second"), Rate.parse("2/hour"), key=b"x" * 32)
    before, hub.parts.limits = hub.parts.limits, limited
    try:
        async with hub.client() as browser:
            browser.cookies.set(cookie_name(hub.settings), BROWSER)
            for _ in range(2):
                assert (await send(browser, sealed(hub), password="wrong")).status_code == 401
            answer = await send(browser, sealed(hub))
    finally:
        hub.parts.limits = before
    assert answer.status_code == 429
    assert re.search(r"Try again in \d+ minutes", answer.text)
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert "content-security-policy" in answer.headers


async def test_too_many_attempts_by_one_name_keep_the_form(
    hub: Hub, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.parts.passwords, "_under_way", 100_000)
    answer = await send(browser, sealed(hub))
    assert answer.status_code == 429
    assert "Too many people are signing in" in answer.text
    assert f'value="{ADMIN_EMAIL}"' in answer.text


# --- what a page lets a browser do ---

HOSTILE = "'\"><script>alert(1)</script>&$say_email${say_email}"


async def test_nothing_that_is_sent_becomes_markup(hub: Hub, browser: httpx.AsyncClient) -> None:
    wrong = await send(browser, sealed(hub, state=HOSTILE), email=HOSTILE, tenant=HOSTILE)
    over = await browser.get("/sign-in", params={"request": sealed(hub, state=HOSTILE, expires_at=1)})
    altered = await browser.get("/sign-in", params={"request": HOSTILE, HOSTILE: HOSTILE})
    for answer in (wrong, over, altered, await browser.get(f"/sign-in/{quote(HOSTILE.replace('/', ''))}")):
        assert answer.status_code in (400, 401, 404, 410)
        assert "<script" not in answer.text
        assert answer.text.count("<html") == 1
    assert f'value="{escape(HOSTILE)}"' in wrong.text


async def test_a_state_comes_back_as_it_was(hub: Hub, browser: httpx.AsyncClient) -> None:
    state = "a b&code=evil#\r\nLocation: https://evil.example"
    answer = await send(browser, sealed(hub, state=state))
    assert parse_qs(urlsplit(answer.headers["location"]).query)["state"] == [state]


async def test_what_is_put_into_a_template_is_escaped_and_nothing_is_forgotten() -> None:
    assert fill("paragraph", text=HOSTILE).html == f"<p>{escape(HOSTILE)}</p>\n"
    with pytest.raises(KeyError):
        fill("paragraph")


@pytest.mark.parametrize(
    ("redirect_uri", "targets"),
    [
        (CLIENT, "'self' https:"),
        ("http://127.0.0.1:9/cb", "'self' http: https:"),
        ("http://[::1]:9/cb", "'self' http: https:"),
        ("org.example.app:/cb", "'self' org.example.app: https:"),
    ],
)
async def test_a_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody(
    hub: Hub, browser: httpx.AsyncClient, redirect_uri: str, targets: str
) -> None:
    answer = await browser.get("/sign-in", params={"request": sealed(hub, redirect_uri=redirect_uri)})
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'self'; img-src 'self' data:; form-action {targets}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert re.findall(r"(?:src|href|action)=\"(?!data:|/)", answer.text) == []
    assert re.findall(r" (?:style|on[a-z]+)=", answer.text) == []


async def test_pages_of_errors_have_the_same_headers(hub: Hub, browser: httpx.AsyncClient) -> None:
    for answer in (
        await browser.get("/sign-in"),
        await browser.get("/sign-in/nothing"),
        await browser.get("/sign-in", params={"request": "x"}),
        await browser.post("/sign-in", json={"email": "x"}),
        await browser.post("/sign-in", data={"email": "x" * 70_000}),
    ):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "form-action 'self';" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


async def test_what_is_no_form_of_ours_is_a_page_too(hub: Hub, browser: httpx.AsyncClient) -> None:
    request = sealed(hub)
    statuses = {
        "json": (await browser.post("/sign-in", json={"request": request})).status_code,
        "large": (await browser.post("/sign-in", data={"email": "x" * 70_000})).status_code,
        "many": (await browser.post("/sign-in", data={f"f{n}": "" for n in range(21)})).status_code,
        "twice": (
            await browser.post("/sign-in", content=f"request={request}&email=a&email=b", headers=FORM)
        ).status_code,
        "empty": (await browser.post("/sign-in", content=b"", headers=FORM)).status_code,
        "bytes": (await browser.post("/sign-in", content=b"request=%ff&\xff=\xfe&;", headers=FORM)).status_code,
    }
    assert statuses == {"json": 415, "large": 413, "many": 400, "twice": 400, "empty": 400, "bytes": 400}


FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("credential", ['{"a":' + "[" * 2500 + "]" * 2500 + "}", "[]", '{"a":"\\ud800"}', "", "{"])
async def test_a_passkeys_answer_that_no_script_of_ours_has_sent_is_told(
    hub: Hub, browser: httpx.AsyncClient, credential: str
) -> None:
    sent = {"request": sealed(hub), "token": "x", "credential": credential}
    answer = await browser.post("/sign-in/passkey", data=sent)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


async def test_fields_and_parameters_that_are_not_known_are_not_looked_at(hub: Hub, browser: httpx.AsyncClient) -> None:
    assert (
        (await send(browser, sealed(hub), redirect_uri="https://evil.example", next="//evil.example"))
        .headers["location"]
        .startswith(CLIENT)
    )
    shown = await browser.get("/sign-in", params={"request": sealed(hub), "utm_source": "mail"})
    assert shown.status_code == 200


async def test_head_is_answered_like_get(hub: Hub, browser: httpx.AsyncClient) -> None:
    for request, status in ((sealed(hub), 200), ("x", 400)):
        shown = await browser.get("/sign-in", params={"request": request})
        answer = await browser.head("/sign-in", params={"request": request})
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["content-length"] == shown.headers["content-length"]


@pytest.mark.parametrize(
    ("headers", "is_ours"),
    [
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://hub.test"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://hub.test"}, True),
        ({"origin": "http://hub.test.evil.example"}, False),
        ({"origin": "http://hub.test@evil.example"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "hub.test"}, False),
        ({"origin": "null"}, True),
        ({}, True),
    ],
)
async def test_a_form_of_another_site_is_refused(
    hub: Hub, browser: httpx.AsyncClient, headers: dict[str, str], is_ours: bool
) -> None:
    given = {"request": sealed(hub), "email": ADMIN_EMAIL, "password": PASSWORD}
    answer = await browser.post("/sign-in", data=given, headers=headers)
    assert answer.status_code == (303 if is_ours else 403)
    assert is_ours or "came from another site" in answer.text


async def test_the_browsers_cookie_is_sent_by_no_other_sites_form(hub: Hub) -> None:
    name, value = cookie_header(hub.settings, BROWSER)
    assert name == b"set-cookie"
    assert b"HttpOnly; SameSite=Lax" in value
    secure = cookie_header(structs.replace(hub.settings, public_url="https://hub.example.org"), BROWSER)[1].decode()
    assert secure.startswith("__Host-hub-browser=")
    assert secure.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")


async def test_styles_are_kept_for_good_and_nothing_else_is_served(browser: httpx.AsyncClient) -> None:
    shown = await browser.get("/sign-in")
    (address,) = re.findall(r'href="(/sign-in/assets/[^"]+)"', shown.text)
    first = await browser.get(address)
    assert (first.status_code, first.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in first.headers["cache-control"]
    again = await browser.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("page.html", "texts.py", "%2e%2e%2ftexts.py", "Sign-in.css", "sign-in.css%00"):
        assert (await browser.get(f"/sign-in/assets/{name}")).status_code in (400, 404)


async def test_links_and_providers_of_other_slices_stand_on_the_page(
    hub: Hub, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def providers_of(request: HubRequest, pending: PendingSignIn, sealed: str) -> list[ProviderLink]:
        return [ProviderLink("acme", "Sign in with <Acme>", f"/api/v1/auth/oidc/acme/login?request={sealed}")]

    monkeypatch.setattr(WAYS, "providers_of", providers_of)
    monkeypatch.setattr(WAYS, "links", [PageLink("Forgotten password?", "/sign-in/forgotten")])
    request = sealed(hub)
    text = (await browser.get("/sign-in", params={"request": request})).text
    assert f'href="/sign-in/forgotten?request={request}">Forgotten password?</a>' in text
    assert f'href="/api/v1/auth/oidc/acme/login?request={request}">Sign in with &lt;Acme&gt;</a>' in text


async def test_the_pages_stand_in_no_document() -> None:
    assert [path for path in document()["paths"] if path.startswith("/sign-in")] == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.html")), ids=lambda path: path.stem)
async def test_every_text_of_a_template_is_there_and_every_template_is_used(path: Path) -> None:
    wanted = set(re.findall(r"\$say_([a-z_]+)", path.read_text(encoding="utf-8")))
    assert wanted <= TEXTS.keys()
    sources = "".join(each.read_text(encoding="utf-8") for each in DOMAIN.rglob("*.py"))
    assert f'"{path.stem}"' in sources


async def test_every_text_is_said_somewhere() -> None:
    files = [*FOLDER.glob("*.html"), *(each for each in DOMAIN.rglob("*.py") if each.name != "texts.py")]
    files.append(DOMAIN.parent / "api" / "v1.py")
    said = "".join(each.read_text(encoding="utf-8") for each in files)
    unsaid = {
        name for name in TEXTS if f'"{name}"' not in said and f"'{name}'" not in said and f"$say_{name}" not in said
    }
    titled = {name for name in unsaid if f'"{name.removesuffix("_title")}"' in said}
    assert {name for name in unsaid - titled if name.removesuffix("_title") not in STATUS} == set()
