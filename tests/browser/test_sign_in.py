"""The hub's own sign-in page in a real browser."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core.sealing import KeyRing
from app.domain.sign_in.pending import new_browser
from tests.browser.conftest import Browser
from tests.browser.sites import site
from tests.browser.test_docs import READY, is_signed_in, kept_session, send, sign_in
from tests.pending import sealed
from tests.receivers import Answering, Received, answers
from tests.serving import ADMIN_EMAIL, PASSWORD, Served

pytestmark = pytest.mark.slow

COOKIE = "hub-browser"
NARROW = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
MAGNIFIED = {"width": 320, "height": 400, "deviceScaleFactor": 4, "mobile": False}
"""What is left of a window of 1280 by 1600 pixels at 400 % (WCAG 2.2, 1.4.10)."""
CONTRAST = """
  const shown = (colour) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data).slice(0, 3);
  };
  const light = (colour) => shown(colour).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  return [...document.querySelectorAll("h1, p, label, strong, a, button, input, .problem, .hint")].map((element) => {
    let behind = element;
    while (/, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const pair = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)].sort();
    return [element.tagName + " " + element.innerText, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
"""
"""Of all that is read, by WCAG 2.2: what it says, and how it stands out from what is behind it."""


class Begun:
    """Sign-ins that a client has asked for in this browser, as `/auth/authorize` seals them."""

    def __init__(self, served: Served, browser: Browser) -> None:
        self._ring = KeyRing.parse((served.log.parent / "secret-keys").read_text(encoding="utf-8").strip())
        self._cookie = new_browser()
        self.url = served.url
        browser.driver.get(f"{served.url}/sign-in")
        browser.driver.add_cookie({"name": COOKIE, "value": self._cookie, "path": "/"})

    def address(self, **given: Any) -> str:
        page = {"redirect_uri": f"{self.url}/docs/signed-in"}
        return f"{self.url}/sign-in?request={sealed(self._ring, self._cookie, **{**page, **given})}"


@pytest.fixture
def begun(served: Served, browser: Browser) -> Iterator[Begun]:
    yield Begun(served, browser)
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.driver.delete_all_cookies()


def is_refused(browser: Browser) -> bool:
    return "Email address or password is wrong." in browser.text


def focused(browser: Browser) -> str:
    return str(browser.script("return document.activeElement.id || document.activeElement.tagName"))


def test_somebody_signs_in_from_the_documentation_and_sees_who_they_are(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs", READY)
    sign_in(browser)
    browser.until(lambda: is_signed_in(browser) and READY in browser.text, "somebody is signed in")
    assert ADMIN_EMAIL in browser.text
    assert urlsplit(browser.driver.current_url).query == ""
    asked = browser.requested
    assert {urlsplit(url).netloc for url in asked if url.startswith("http")} == {urlsplit(served.url).netloc}
    assert [url for url in asked if PASSWORD in url] == []
    assert browser.complaints == []


def test_two_tabs_sign_in_side_by_side(served: Served, browser: Browser) -> None:
    driver = browser.driver
    first = driver.current_window_handle
    browser.open(f"{served.url}/docs", READY)
    browser.press("#sign-in")
    browser.until(lambda: "Email address" in browser.text, "the form in one tab")
    driver.switch_to.new_window("tab")
    try:
        browser.open(f"{served.url}/docs", READY)
        sign_in(browser)
        browser.until(lambda: is_signed_in(browser), "somebody is signed in, in the other tab")
        other = kept_session(browser)
    finally:
        driver.close()
        driver.switch_to.window(first)
    send(browser, PASSWORD)
    browser.until(lambda: is_signed_in(browser), "somebody is signed in, in the first tab")
    assert kept_session(browser)["refresh_token"] != other["refresh_token"]


def test_who_comes_back_after_an_hour_is_led_to_begin_anew(browser: Browser, begun: Begun) -> None:
    browser.open(begun.address(expires_at=int(time.time()) - 1800), "This took too long")
    browser.press("main a")
    browser.until(lambda: "This sign-in was not begun in this tab." in browser.text, "the page that had begun it")


def test_a_browser_that_keeps_no_cookies_is_told_so(browser: Browser, begun: Begun) -> None:
    address = begun.address()
    browser.driver.delete_all_cookies()
    browser.open(address, "This browser has no cookie of the hub")


def test_a_link_that_somebody_else_has_begun_signs_nobody_in(served: Served, browser: Browser, begun: Begun) -> None:
    address = begun.address()
    Begun(served, browser)
    browser.open(address, "This sign-in began elsewhere")
    assert browser.script("return document.querySelector('form')") is None


def test_a_wrong_password_is_said_where_the_focus_is(browser: Browser, begun: Begun) -> None:
    browser.open(begun.address(), "Email address")
    assert focused(browser) == "email"
    send(browser, "a guess")
    browser.until(lambda: is_refused(browser), "why it did not work")
    assert focused(browser) == "problem"
    assert browser.driver.title.startswith("Error: ")
    shown = browser.script(
        """const of = (id) => document.getElementById(id);
           return [of("email").value, of("password").value, of("problem").getAttribute("role"),
                   of("email").getAttribute("aria-describedby"), of("password").getAttribute("aria-invalid")];"""
    )
    assert shown == [ADMIN_EMAIL, "", "alert", "problem", "true"]
    browser.fill("#password", PASSWORD)
    browser.press("main button")
    browser.until(lambda: "/docs/signed-in" in browser.driver.current_url, "it goes on")
    breaches = [said for said in browser.complaints if "status of 401" not in said]
    assert breaches == []


def test_everything_can_be_done_by_keyboard(browser: Browser, begun: Begun) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(begun.address(), "Email address")
    keys = ActionChains(browser.driver)
    keys.send_keys(ADMIN_EMAIL, Keys.TAB, "a guess", Keys.ENTER).perform()
    browser.until(lambda: is_refused(browser), "why it did not work")
    order = []
    for _ in range(4):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        order.append(focused(browser))
        outline = browser.script("return getComputedStyle(document.activeElement).outlineWidth")
        assert float(outline.removesuffix("px")) >= 2, order
    assert order == ["email", "password", "BUTTON", "A"]


@pytest.mark.parametrize("size", [NARROW, MAGNIFIED], ids=["phone", "magnified"])
def test_the_page_fits_wherever_it_is_read(browser: Browser, begun: Begun, size: dict[str, Any]) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    place = "https://a-workbench-with-a-name-that-goes-on-and-on.departments.example.org/signed-in"
    browser.open(begun.address(redirect_uri=place), "Email address")
    send(browser, "a guess")
    browser.until(lambda: is_refused(browser), "why it did not work")
    browser.keep_screenshot(f"sign-in-{size['width']}")
    assert browser.script("return document.scrollingElement.scrollWidth") <= size["width"]
    heights = browser.script(
        "return [...document.querySelectorAll('input:not([type=hidden]), button')].map((each) => each.offsetHeight)"
    )
    assert min(heights) >= 24  # WCAG 2.2, 2.5.8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_can_be_read_in_either_light(browser: Browser, begun: Begun, scheme: str) -> None:
    browser.prefer(scheme)
    for address, wanted in ((begun.address(), "Email address"), (begun.address(expires_at=1), "This took too long")):
        browser.open(address, wanted)
        pale = [(name, ratio) for name, ratio in browser.script(CONTRAST) if ratio < 4.5]
        assert pale == []
    browser.open(begun.address(), "Email address")
    send(browser, "a guess")
    browser.until(lambda: is_refused(browser), "why it did not work")
    browser.keep_screenshot(f"sign-in-{scheme}-wrong")
    assert [(name, ratio) for name, ratio in browser.script(CONTRAST) if ratio < 4.5] == []
    background = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert ("rgb(2" in background) == (scheme == "light")


THE_PROGRAM = answers(200, b"<p>The program</p>", content_type="text/html")


def sends_on(to: str) -> Answering:
    """A program whose page at the end of a sign-in sends the browser on to another origin."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        is_the_end = received.path.startswith("/callback")
        onward = answers(302, location=f"{to}/app?{urlsplit(received.path).query}")
        await (onward if is_the_end else THE_PROGRAM)(received, writer)

    return answer


def test_a_client_may_send_the_browser_on_to_another_origin(browser: Browser, begun: Begun) -> None:
    with site(THE_PROGRAM) as app, site(sends_on(app)) as client:
        browser.open(begun.address(redirect_uri=f"{client}/callback"), "a program on this computer")
        send(browser, PASSWORD)
        browser.until(lambda: "The program" in browser.text, "the program is shown")
        assert parse_qs(urlsplit(browser.driver.current_url).query)["state"] == ["s"]


def test_the_pages_own_digest_is_the_browsers(served: Served, browser: Browser) -> None:
    browser.open(f"{served.url}/docs", READY)
    differing = browser.driver.execute_async_script(
        """const done = arguments[arguments.length - 1];
           (async () => {
             const { sha256 } = await import("/docs/assets/digest.js");
             let differing = 0;
             for (const length of [0, 1, 43, 55, 56, 63, 64, 65, 119, 120, 128, 1000]) {
               const bytes = crypto.getRandomValues(new Uint8Array(length));
               const wanted = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
               if (String(wanted) !== String(sha256(bytes))) differing++;
             }
             done(differing);
           })();"""
    )
    assert differing == 0
