"""The sign-in page of a hub that several organisations share, in a real browser."""

import httpx
import pytest

from tests.browser.conftest import Browser
from tests.browser.test_sign_in import CONTRAST, MAGNIFIED, Begun, begun, focused
from tests.serving import ADMIN_EMAIL, PASSWORD, Served

pytestmark = pytest.mark.slow

__all__ = ["begun"]

ADA = {"email": "ada@example.org", "password": "a long sentence of ada's own"}
PROVIDER = {
    "kind": "oidc",
    "name": "partner",
    "label": "Partner",
    "issuer": "https://login.example.org",
    "client_id": "hub",
    "client_secret": "a secret",
}


@pytest.fixture(scope="module", autouse=True)
def acme(served: Served) -> None:
    """A second tenant, and a provider of each."""
    with httpx.Client(base_url=f"{served.url}/api/v1", timeout=30) as client:
        be(client, {"email": ADMIN_EMAIL, "password": PASSWORD})
        took(client.post("/identity-providers", json=PROVIDER | {"label": "Default"}))
        took(client.post("/tenants", json={"slug": "acme", "name": "Acme", "admin": ADA}))
        be(client, ADA)
        took(client.post("/identity-providers", json=PROVIDER))


def be(client: httpx.Client, who: dict[str, str]) -> None:
    client.headers["Authorization"] = f"Bearer {took(client.post('/auth/login', json=who)).json()['access_token']}"


def took(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, answer.text
    return answer


def type_keys(browser: Browser, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver).send_keys(*keys).perform()


def test_the_organisation_comes_first_by_keyboard_and_without_scripts(browser: Browser, begun: Begun) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(begun.address(), "Organisation")
        assert "Sign in with Default" not in browser.text
        assert focused(browser) == "tenant"
        type_keys(browser, "acme", Keys.ENTER)
        browser.until(lambda: "Organisation: acme" in browser.text, "whose members are meant")
        assert "Sign in with Partner" in browser.text
        assert focused(browser) == "email"
        type_keys(browser, ADA["email"], Keys.TAB, ADA["password"], Keys.ENTER)
        browser.until(lambda: "/docs/signed-in" in browser.driver.current_url, "it goes on")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert browser.complaints == []


def test_whoever_mistyped_it_goes_back_by_a_link(browser: Browser, begun: Begun) -> None:
    browser.open(begun.address(), "Organisation")
    browser.fill("#tenant", "acmee")
    browser.press("main button")
    browser.until(lambda: "Organisation: acmee" in browser.text, "what was typed")
    assert "Sign in with P" not in browser.text
    browser.press("main a")
    browser.until(lambda: focused(browser) == "tenant", "the question once more")


def test_a_screen_reader_is_told_what_is_asked(browser: Browser, begun: Begun) -> None:
    browser.open(begun.address(), "Organisation")
    asked = browser.driver.find_element("id", "tenant")
    assert (asked.accessible_name, asked.aria_role) == ("Organisation", "textbox")
    described = asked.get_attribute("aria-describedby")
    assert "leave this empty" in browser.driver.find_element("id", described).text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_question_can_be_read_magnified_in_either_light(browser: Browser, begun: Begun, scheme: str) -> None:
    browser.prefer(scheme)
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", MAGNIFIED)
    browser.open(begun.address(), "Organisation")
    browser.keep_screenshot(f"organisation-{scheme}")
    assert browser.script("return document.scrollingElement.scrollWidth") <= MAGNIFIED["width"]
    assert [(name, ratio) for name, ratio in browser.script(CONTRAST) if ratio < 4.5] == []
