"""The documentation pages in a real browser that cannot reach anything but the hub."""

import http.client
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser.conftest import Browser
from tests.conftest import ADMIN_EMAIL
from tests.serving import PASSWORD, Served

pytestmark = pytest.mark.slow

PAGES = {"/docs": "Redoc", "/docs/swagger": "Swagger UI", "/docs/scalar": "Scalar"}
TRIED_IN = ["/docs/swagger", "/docs/scalar"]
"""Pages from which calls are made; Redoc is for reading."""
READY = "identity, access, and data sources proven reachable"
"""Of the document's own introduction: what every page shows first."""
OPERATIONS = {"#/roles/create_role": "Create a role", "#/data-sources/create_source": "Register a data source"}
"""Titles by the part of the page that shows them: Redoc shows the operations of one tag at a time, Swagger UI those that
are near, and Scalar all."""
FROM_THIS_HOST = {"data", "blob", "about"}
"""URL schemes that no network is needed for."""
every_page = pytest.mark.parametrize("path", PAGES)


@every_page
def test_a_page_shows_the_operations_without_any_network(served: Served, browser: Browser, path: str) -> None:
    for operation, title in OPERATIONS.items():
        part = operation if path == "/docs" else operation.replace("data-sources", "data%20sources")
        browser.open(served.url + path + ("" if path == "/docs/scalar" else part), title)
        requested = browser.requested
        assert f"{served.url}/openapi.json" in requested
        parts = [urlsplit(url) for url in requested]
        here = urlsplit(served.url).netloc
        assert [part for part in parts if part.netloc != here and part.scheme not in FROM_THIS_HOST] == []
        assert browser.complaints == []


@every_page
def test_a_page_may_load_nothing_from_elsewhere(served: Served, path: str) -> None:
    answer = httpx.get(served.url + path, trust_env=False)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert "form-action 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.found("U8")
@every_page
def test_a_page_leads_to_the_others(served: Served, browser: Browser, path: str) -> None:
    browser.open(served.url + path, READY)
    assert browser.script("return document.querySelector('.bar [aria-current=page]').textContent") == PAGES[path]
    for other in PAGES.keys() - {path}:
        browser.open(served.url + path, PAGES[other])
        browser.press(f'.bar a[href="{other}"]')
        browser.until(lambda: READY in browser.text, f"{other} is shown")
        assert urlsplit(browser.driver.current_url).path == other


@pytest.mark.found("U8")
@every_page
def test_a_page_is_dark_where_that_is_preferred(served: Served, browser: Browser, path: str) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(served.url + path, READY)
        browser.keep_screenshot(f"{PAGES[path]}-{scheme}")
        brightness[scheme] = {place: _brightness(browser, place) for place in (".bar", "#page")}
    for place in (".bar", "#page"):
        assert brightness["light"][place] > 200 > 80 > brightness["dark"][place], brightness


def _brightness(browser: Browser, selector: str) -> float:
    """Of the background that is seen behind an element, from 0 to 255."""
    colour = browser.script(
        """let element = document.querySelector(arguments[0]);
           if (arguments[0] === "#page") element = element.firstElementChild ?? element;
           for (; element; element = element.parentElement) {
             const found = getComputedStyle(element).backgroundColor;
             if (!/, 0\\)$|transparent/.test(found)) break;
           }
           const canvas = document.createElement("canvas").getContext("2d");
           canvas.fillStyle = element ? getComputedStyle(element).backgroundColor : "white";
           canvas.fillRect(0, 0, 1, 1);
           return Array.from(canvas.getImageData(0, 0, 1, 1).data);""",
        selector,
    )
    red, green, blue, _ = colour
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


@pytest.mark.found("U8")
@every_page
def test_a_page_fits_a_phone(served: Served, browser: Browser, path: str) -> None:
    browser.be_a_phone(True)
    browser.open(served.url + path, READY)
    browser.keep_screenshot(f"{PAGES[path]}-phone")
    assert browser.script("return document.scrollingElement.scrollWidth") <= 390
    left, right = browser.script(
        "const box = document.getElementById('sign-in').getBoundingClientRect(); return [box.left, box.right]"
    )
    assert 0 <= left < right <= 390


# --- signing in ---


def sign_in(browser: Browser, password: str = PASSWORD) -> None:
    """From a page of the documentation, by the hub's sign-in page."""
    browser.press("#sign-in")
    send(browser, password)


def send(browser: Browser, password: str = PASSWORD) -> None:
    """The form of the sign-in page."""
    browser.fill("#email", ADMIN_EMAIL)
    browser.fill("#password", password)
    browser.press("main button")


def is_signed_in(browser: Browser) -> bool:
    return bool(browser.script("return document.querySelector('#session.signed-in') !== null"))


def kept_session(browser: Browser) -> dict[str, str]:
    found: dict[str, str] = browser.script("return JSON.parse(sessionStorage.getItem('data-fusion-hub'))")
    return found


def ask_who_i_am(browser: Browser, url: str, path: str) -> None:
    """Make the call from the page."""
    if path == "/docs/swagger":
        browser.open(f"{url}/docs/swagger#/auth/get_me", "Who am I")
        for button in ("#operations-auth-get_me .try-out__btn", "#operations-auth-get_me .execute"):
            browser.press(button)
    else:
        browser.open(f"{url}/docs/scalar#tag/auth/GET/api/v1/auth/me", "Who am I")
        browser.press('[id$="GET/api/v1/auth/me"] .show-api-client-button')
        browser.until(lambda: "Send" in browser.text, "the request can be sent")
        browser.script(
            "[...document.querySelectorAll('button')].find((each) => /^Send/.test(each.innerText.trim())).click()"
        )


def answers_who_i_am(browser: Browser) -> bool:
    return f'"email": "{ADMIN_EMAIL}"' in browser.text


@pytest.mark.found("U8")
@every_page
def test_somebody_signs_in_on_a_page_and_stays_signed_in(served: Served, browser: Browser, path: str) -> None:
    browser.open(served.url + path, READY)
    sign_in(browser, "a guess")
    browser.until(lambda: "Email address or password is wrong." in browser.text, "why it did not work")
    browser.fill("#password", PASSWORD)
    browser.press("main button")
    browser.until(lambda: is_signed_in(browser) and READY in browser.text, "somebody is signed in on the page")
    assert urlsplit(browser.driver.current_url).path == path
    assert ADMIN_EMAIL in browser.text
    browser.driver.refresh()
    browser.until(lambda: READY in browser.text, "the page is there again")
    assert is_signed_in(browser)
    assert PASSWORD not in str(browser.script("return JSON.stringify([sessionStorage, localStorage, document.cookie])"))
    token = kept_session(browser)["access_token"]
    browser.press("#sign-out")
    browser.until(lambda: not is_signed_in(browser), "nobody is signed in")
    assert kept_session(browser) is None
    headers = {"Authorization": f"Bearer {token}"}
    browser.until(
        lambda: httpx.get(f"{served.url}/api/v1/auth/me", headers=headers, trust_env=False).status_code == 401,
        "the token is dead",
    )


@pytest.mark.found("U8")
@pytest.mark.parametrize("path", TRIED_IN)
def test_a_call_from_a_page_is_made_as_who_is_signed_in(served: Served, browser: Browser, path: str) -> None:
    browser.open(served.url + path, READY)
    sign_in(browser)
    browser.until(lambda: is_signed_in(browser), "somebody is signed in")
    ask_who_i_am(browser, served.url, path)
    browser.until(lambda: answers_who_i_am(browser), "the answer is shown")
    assert browser.complaints == []


@pytest.mark.found("U8")
def test_a_token_that_expires_is_renewed_and_an_ended_session_asked_for_anew(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs/swagger", READY)
    sign_in(browser)
    browser.until(lambda: is_signed_in(browser), "somebody is signed in")
    first = kept_session(browser)
    expire(browser)
    ask_who_i_am(browser, served.url, "/docs/swagger")
    browser.until(lambda: answers_who_i_am(browser), "the answer is shown")
    second = kept_session(browser)
    assert second["access_token"] != first["access_token"]
    assert second["refresh_token"] != first["refresh_token"]
    with httpx.Client(base_url=f"{served.url}/api/v1", trust_env=False) as client:
        headers = {"Authorization": f"Bearer {second['access_token']}"}
        assert client.post("/auth/logout", headers=headers).status_code == 204
    expire(browser)
    browser.press("#operations-auth-get_me .execute")
    browser.until(lambda: "Your session has ended. Sign in again." in browser.text, "the page says so")
    assert not is_signed_in(browser)


def expire(browser: Browser) -> None:
    """As if a quarter of an hour had passed."""
    browser.script(
        """const session = JSON.parse(sessionStorage.getItem("data-fusion-hub"));
           sessionStorage.setItem("data-fusion-hub", JSON.stringify({ ...session, expires_at: Date.now() }));"""
    )


def test_swagger_ui_sends_a_request_and_shows_the_answer(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs/swagger#/health/get_live", "Is the process alive")
    for button in (".try-out__btn", ".execute"):
        browser.press(button)
    browser.until(lambda: "The process answers." in browser.text, "the answer is shown")


def test_swagger_ui_signs_in_with_a_token_and_shows_what_it_opens(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs/swagger#/auth/get_me", "Who am I")
    browser.press(".btn.authorize")
    browser.fill("[aria-label=auth-bearer-value]", served.sign_in())
    for button in (".auth-btn-wrapper .authorize", ".btn-done", ".try-out__btn", ".execute"):
        browser.press(button)
    browser.until(lambda: f'"email": "{ADMIN_EMAIL}"' in browser.text, "the answer is shown")


def test_swagger_ui_authorizes_by_the_hubs_sign_in_page(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs/swagger", READY)
    browser.press(".btn.authorize")
    browser.until(lambda: "authorizationCode" in browser.text, "the ways to authorize")
    browser.script(
        """const way = [...document.querySelectorAll(".auth-container")]
             .find((each) => each.innerText.includes("authorizationCode"));
           setTimeout(() => way.querySelector("button.authorize").click());"""
    )
    send(browser)
    browser.until(lambda: is_signed_in(browser) and READY in browser.text, "somebody is signed in on the page")
    assert urlsplit(browser.driver.current_url).path == "/docs/swagger"
    browser.press(".btn.authorize")
    browser.until(lambda: "Authorized" in browser.text, "Swagger UI knows the token")


@pytest.mark.found("U8")
def test_swagger_ui_offers_an_example_for_each_type_of_source(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs/swagger#/data%20sources/create_source", "Register a data source")
    browser.until(lambda: "Apache Kafka" in browser.text, "the examples can be chosen")
    offered = browser.script(
        "return [...document.querySelectorAll('.examples-select option')].map((each) => each.textContent)"
    )
    assert {"PostgreSQL", "SQLite", "Amazon S3 and compatible", "REST API", "Simulated"} <= set(offered)


# --- what is served ---


@pytest.mark.found("U8")
def test_the_root_leads_a_browser_to_the_pages_and_tells_a_program_where_everything_is(
    served: Served, browser: Browser
) -> None:
    browser.open(served.url, READY)
    assert urlsplit(browser.driver.current_url).path == "/docs"
    told = httpx.get(served.url, trust_env=False).json()
    for name in ("documentation", "openapi", "asyncapi", "keys", "health"):
        assert httpx.get(served.url + told[name], trust_env=False).status_code == 200, name


def test_assets_are_kept_for_good_and_known_again(served: Served) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        first = client.get("/docs/assets/redoc.js")
        again = client.get("/docs/assets/redoc.js", headers={"If-None-Match": first.headers["etag"]})
    assert first.status_code == 200
    assert "immutable" in first.headers["cache-control"]
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "../../pyproject.toml",
        "..%2f..%2fpyproject.toml",
        "%2e%2e/%2e%2e/etc/passwd",
        "__init__.py",
        "page.html",
        "redoc.js%00",
        "Redoc.js",
        "",
    ],
)
def test_no_other_file_is_served(served: Served, name: str) -> None:
    # Not by httpx, which would tidy the path up before sending it.
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
    connection.request("GET", f"/docs/assets/{name}")
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert b"root:" not in answer.read()
    connection.close()
