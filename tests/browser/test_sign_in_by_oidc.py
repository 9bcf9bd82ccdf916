"""Signing in by an OpenID provider in a real browser: npm's `oidc-provider`, the hub's own pages, and nothing between.

The tests go on from one another: somebody comes for the first time, again, in other groups, and is signed out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.browser.conftest import Browser
from tests.browser.openid_provider import CLIENT_SECRET, OpenIdProvider, installed_provider
from tests.serving import ADMIN_EMAIL, PASSWORD, Served, serving

pytestmark = pytest.mark.slow

BUTTON = 'a[href*="/auth/oidc/corp/login"]'
ME = """
    const done = arguments[arguments.length - 1];
    const kept = JSON.parse(sessionStorage.getItem("data-fusion-hub"));
    const headers = {Authorization: `Bearer ${kept.access_token}`};
    fetch("/api/v1/auth/me", {headers}).then(async (answer) => done([answer.status, await answer.json()]));"""
LINK = """
    const done = arguments[arguments.length - 1];
    const kept = JSON.parse(sessionStorage.getItem("data-fusion-hub"));
    const headers = {Authorization: `Bearer ${kept.access_token}`, "Content-Type": "application/json"};
    const body = JSON.stringify({provider: "corp", redirect_uri: `${location.origin}/docs`});
    fetch("/api/v1/auth/identities", {method: "POST", headers, body}).then(async (answer) => done(await answer.json()));"""


class Side(NamedTuple):
    hub: Served
    provider: OpenIdProvider


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with installed_provider(tmp_path_factory.mktemp("openid")) as provider:
        settings = {
            "HUB_OIDC_CORP_ISSUER": provider.issuer,
            "HUB_OIDC_CORP_CLIENT_ID": "hub",
            "HUB_OIDC_CORP_CLIENT_SECRET": CLIENT_SECRET,
            "HUB_OIDC_CORP_SCOPES": "openid email profile groups",
            "HUB_OIDC_CORP_GROUPS_CLAIM": "groups",
            "HUB_OIDC_CORP_ALLOWED_DOMAINS": "example.org",
            "HUB_OIDC_CORP_LABEL": "Corporate login",
        }
        with serving(**settings) as hub:
            yield Side(hub, provider)


def go_to_provider(side: Side, browser: Browser) -> None:
    browser.open(f"{side.hub.url}/docs/signed-in", "Sign in with Corporate login")
    browser.press(BUTTON)


def log_in_there(browser: Browser, account: str) -> None:
    browser.fill("input[name=login]", account)
    browser.fill("input[name=password]", "whatever")
    browser.press("button[type=submit]")
    browser.until(lambda: "Authorize" in browser.text, "consent is asked for")
    browser.press("button[type=submit]")


def end_as(browser: Browser, email: str) -> dict[str, Any]:
    """At the hub's page, which shows who one is: the user."""
    browser.until(lambda: email in browser.text and "/docs" in browser.driver.current_url, f"{email} is signed in")
    status, me = browser.driver.execute_async_script(ME)
    assert (status, me["user"]["email"]) == (200, email)
    return dict(me["user"])


def sign_out_here(side: Side, browser: Browser) -> None:
    browser.open(f"{side.hub.url}/docs", "Sign out")
    browser.press("#sign-out")
    browser.until(lambda: "Sign in" in browser.text, "signed out")


def groups_of(side: Side, user_id: str) -> set[str]:
    with httpx.Client(headers={"Authorization": f"Bearer {side.hub.sign_in()}"}, trust_env=False, timeout=60) as admin:
        at = f"{side.hub.url}/api/v1/groups"
        groups = admin.get(at).json()["items"]
        held = {group["name"]: admin.get(f"{at}/{group['id']}/members").json()["items"] for group in groups}
    return {name for name, members in held.items() if user_id in {member["id"] for member in members}}


def test_a_provider_that_is_away_is_told_of_on_a_page(side: Side, browser: Browser) -> None:
    go_to_provider(side, browser)
    browser.until(lambda: "does not answer" in browser.text, "the page says so")
    browser.keep_screenshot("oidc-away")


def test_somebody_comes_for_the_first_time_and_again(side: Side, browser: Browser) -> None:
    side.provider.knows(ada={"given_name": "Ada", "family_name": "Lovelace", "groups": ["Analysts", "Sales"]})
    side.provider.start(side.hub.url, "first")
    go_to_provider(side, browser)
    log_in_there(browser, "ada")
    first = end_as(browser, "ada@example.org")
    assert (first["first_name"], first["last_name"]) == ("Ada", "Lovelace")
    assert groups_of(side, first["id"]) == {"Analysts", "Sales"}
    sign_out_here(side, browser)
    side.provider.knows(ada={"groups": ["Sales"]})
    go_to_provider(side, browser)  # who is known there is asked nothing
    assert end_as(browser, "ada@example.org")["id"] == first["id"]
    assert groups_of(side, first["id"]) == {"Sales"}


def test_who_signs_out_there_is_signed_out_here(side: Side, browser: Browser) -> None:
    browser.open(f"{side.hub.url}/docs/signed-in", "Sign in with Corporate login")
    browser.press(BUTTON)
    end_as(browser, "ada@example.org")
    kept = browser.script("return sessionStorage.getItem('data-fusion-hub')")
    browser.open(f"{side.provider.issuer}/session/end", "Do you want to sign-out")
    browser.press("button[value=yes]")
    browser.until(lambda: "Sign-out Success" in browser.text, "signed out there")
    browser.driver.get(f"{side.hub.url}/docs")
    browser.script("sessionStorage.setItem('data-fusion-hub', arguments[0])", kept)
    browser.until(lambda: browser.driver.execute_async_script(ME)[0] == 401, "signed out here")


def test_keys_that_are_new_are_believed(side: Side, browser: Browser) -> None:
    side.provider.stop()
    side.provider.start(side.hub.url, "second")
    go_to_provider(side, browser)
    log_in_there(browser, "ada")
    end_as(browser, "ada@example.org")
    sign_out_here(side, browser)


def test_an_identity_is_linked_from_within_a_session(side: Side, browser: Browser) -> None:
    side.provider.knows(boss={"email": ADMIN_EMAIL})
    browser.driver.get(f"{side.provider.issuer}/session/end")
    browser.driver.delete_all_cookies()  # the next one who sits there
    go_to_provider(side, browser)
    log_in_there(browser, "boss")
    browser.until(lambda: "link this provider" in browser.text, "the address alone makes nobody the admin")
    browser.open(f"{side.hub.url}/docs/signed-in", "Sign in with Corporate login")
    browser.fill("input[name=email]", ADMIN_EMAIL)
    browser.fill("input[name=password]", PASSWORD)
    browser.press("form button")
    admin = end_as(browser, ADMIN_EMAIL)
    browser.driver.get(browser.driver.execute_async_script(LINK)["login_url"])
    browser.until(lambda: "linked=corp" in browser.driver.current_url, "linked")
    sign_out_here(side, browser)
    go_to_provider(side, browser)
    assert end_as(browser, ADMIN_EMAIL)["id"] == admin["id"]
