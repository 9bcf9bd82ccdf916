"""Second factors on the sign-in page, in a real browser with an authenticator of its own."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyotp
import pytest

from tests.browser.conftest import Browser
from tests.browser.test_sign_in import Begun
from tests.serving import ADMIN_EMAIL, PASSWORD, Served, serving

pytestmark = pytest.mark.slow

CREATE = """
const [options, done] = arguments;
const parsed = PublicKeyCredential.parseCreationOptionsFromJSON(options);
navigator.credentials.create({publicKey: parsed}).then(made => done(made.toJSON()), error => done(String(error)));
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Browsers have passkeys for names only: of loopback addresses `localhost` has one."""
    with serving(HUB_PUBLIC_URL="http://localhost:{port}") as running:
        running.url = f"http://localhost:{urlsplit(running.url).port}"
        yield running


class Person:
    """A new user of the hub, by its API."""

    def __init__(self, served: Served, name: str) -> None:
        self.url, self.email = served.url, f"{name}@example.org"
        self._admin = httpx.Client(headers={"authorization": f"Bearer {served.sign_in()}"}, trust_env=False)
        body = {"email": self.email, "password": PASSWORD}
        assert self._admin.post(f"{served.url}/api/v1/users", json=body).status_code == 201
        signed = self._admin.post(f"{served.url}/api/v1/auth/login", json=body).json()
        self._client = httpx.Client(headers={"authorization": f"Bearer {signed['access_token']}"}, trust_env=False)

    def post(self, path: str, **body: Any) -> Any:
        answer = self._client.post(f"{self.url}/api/v1/auth/{path}", json=body or None)
        assert answer.is_success, answer.text
        return answer.json()

    def set_up_totp(self) -> pyotp.TOTP:
        made = self.post("factors", type="totp", name="phone")
        otp = pyotp.TOTP(made["secret"])
        self.post(f"factors/{made['id']}/confirm", code=otp.at(time.time() - 30))
        return otp

    def set_up_passkey(self, browser: Browser) -> None:
        made = self.post("factors", type="passkey", name="laptop")
        browser.open(f"{self.url}/sign-in", "Where do you want to sign in?")
        credential = browser.driver.execute_async_script(CREATE, made["options"])
        assert isinstance(credential, dict), credential
        self.post(f"factors/{made['id']}/confirm", credential=credential)

    def proven(self) -> str:
        """What the last sign-in on the page has shown."""
        found = self._admin.get(f"{self.url}/api/v1/audit-events?action=auth.sign_in&limit=1").json()["items"]
        assert found[0]["actor_name"] == self.email, found
        return str(found[0]["detail"])


@pytest.fixture
def with_authenticator(browser: Browser) -> Iterator[Browser]:
    from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

    made = VirtualAuthenticatorOptions(
        protocol="ctap2",
        transport="internal",
        has_resident_key=True,
        has_user_verification=True,
        is_user_verified=True,
    )
    browser.driver.add_virtual_authenticator(made)
    yield browser
    browser.driver.remove_virtual_authenticator()


def begin(browser: Browser, served: Served) -> None:
    """As a client sends the browser here."""
    browser.open(Begun(served, browser).address(redirect_uri=f"{served.url}/sign-in"), "Email address")


def give_password(browser: Browser, email: str) -> None:
    browser.fill("#email", email)
    browser.fill("#password", PASSWORD)
    browser.press("form button")
    browser.until(lambda: "Confirm that it is you" in browser.text, "the step is shown")


def ends_with_a_code(browser: Browser) -> None:
    address = "/sign-in?code=dfc_"
    browser.until(lambda: address in browser.driver.current_url, "the browser is at the client with a code")


def test_a_code_of_the_app_ends_a_sign_in(served: Served, browser: Browser) -> None:
    person = Person(served, "totp")
    otp = person.set_up_totp()
    begin(browser, served)
    give_password(browser, person.email)
    browser.keep_screenshot("sign-in-factor")
    browser.fill("#code", "000000")
    browser.press("form button")
    browser.until(lambda: "That code or passkey is not right" in browser.text, "the wrong code is told")
    browser.fill("#code", otp.now())
    browser.press("form button")
    ends_with_a_code(browser)
    assert person.proven() == "pwd otp mfa"


def test_a_recovery_code_ends_a_sign_in_without_scripts(served: Served, browser: Browser) -> None:
    person = Person(served, "recovery")
    person.set_up_totp()
    code = person.post("recovery-codes")["codes"][0]
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        begin(browser, served)
        give_password(browser, person.email)
        browser.fill("#code", code.upper())
        browser.press("form button")
        ends_with_a_code(browser)
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert person.proven() == "pwd kba mfa"


def test_a_passkey_is_a_second_factor(served: Served, with_authenticator: Browser) -> None:
    browser, person = with_authenticator, Person(served, "second")
    person.set_up_passkey(browser)
    begin(browser, served)
    give_password(browser, person.email)
    browser.press("#passkey")
    ends_with_a_code(browser)
    assert person.proven() == "pwd hwk mfa"
    assert browser.complaints == []


def test_a_passkey_is_enough(served: Served, with_authenticator: Browser) -> None:
    browser, person = with_authenticator, Person(served, "only")
    person.set_up_passkey(browser)
    begin(browser, served)
    browser.driver.find_element("link text", "Sign in with a passkey").click()
    browser.until(lambda: "No password is needed" in browser.text, "the page of passkeys is shown")
    browser.keep_screenshot("sign-in-passkey")
    browser.press("#passkey")
    ends_with_a_code(browser)
    assert person.proven() == "hwk mfa"


def test_without_a_passkey_the_page_stays_and_the_password_is_a_link_away(
    served: Served, with_authenticator: Browser
) -> None:
    browser = with_authenticator
    begin(browser, served)
    browser.driver.find_element("link text", "Sign in with a passkey").click()
    browser.press("#passkey")
    browser.until(
        lambda: not browser.script("return document.getElementById('passkey').disabled"), "it may be tried again"
    )
    browser.driver.find_element("link text", "Sign in with a password").click()
    browser.until(lambda: "Email address" in browser.text, "the form is shown")


def test_the_options_are_those_that_a_browser_takes(served: Served) -> None:
    answer = httpx.post(f"{served.url}/api/v1/auth/passkey/options", trust_env=False).json()
    assert answer["options"]["rpId"] == "localhost"
    assert json.dumps(answer["options"])
    assert ADMIN_EMAIL not in json.dumps(answer)
