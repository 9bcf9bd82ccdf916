"""The documentation pages in a real browser that cannot reach anything but the hub."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import ADMIN_EMAIL
from tests.serving import Served, serving

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
RENDERED_WITHIN_S = 60
PAGES = ["/docs", "/docs/swagger", "/docs/scalar"]
OPERATIONS = {"#/roles/create_role": "Create a role", "#/data-sources/create_source": "Register a data source"}
"""Titles by the part of the page that shows them: Redoc shows the operations of one tag at a time, the others all."""
FROM_THIS_HOST = {"data", "blob", "about"}
"""URL schemes that no network is needed for."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        missing = "chromium" if CHROMIUM is None else "chromedriver"
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed")
        pytest.skip(f"{missing} is not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--window-size=1400,1600",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        "--proxy-server=127.0.0.1:9",
        "--proxy-bypass-list=127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@dataclass
class Seen:
    text: str
    requested: list[str]
    complaints: list[str]


def _open(browser: Any, url: str, wanted: str) -> Seen:
    """The page once the wanted text is visible in it, with all that the browser asked for and complained about."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")  # or another part of the same page would be no new page
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(url)
    try:
        WebDriverWait(browser, RENDERED_WITHIN_S).until(lambda driver: wanted in _visible_text(driver))
    except TimeoutException:
        pytest.fail(f"{wanted!r} is missing in {_visible_text(browser)[:500]!r}; logged: {browser.get_log('browser')}")
    if folder := os.environ.get("HUB_TEST_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{urlsplit(url).path.strip('/').replace('/', '-')}.png"))
    return Seen(_visible_text(browser), _requested(browser), _complaints(browser))


def _complaints(browser: Any) -> list[str]:
    """Errors and breaches of the Content-Security-Policy. What a bundle says of its own progress is neither."""
    entries = browser.get_log("browser")
    return [
        said["message"] for said in entries if said["level"] == "SEVERE" or "Content Security Policy" in said["message"]
    ]


def _visible_text(browser: Any) -> str:
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))


def _requested(browser: Any) -> list[str]:
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]


def _elsewhere(seen: Seen, served: Served) -> list[str]:
    here = urlsplit(served.url).netloc
    parts = ((url, urlsplit(url)) for url in seen.requested)
    return [url for url, part in parts if part.netloc != here and part.scheme not in FROM_THIS_HOST]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_the_operations_without_any_network(served: Served, browser: Any, path: str) -> None:
    for operation, title in OPERATIONS.items():
        seen = _open(browser, served.url + path + (operation if path == "/docs" else ""), title)
        assert f"{served.url}/openapi.json" in seen.requested
        assert _elsewhere(seen, served) == []
        assert seen.complaints == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_nothing_from_elsewhere(served: Served, path: str) -> None:
    answer = httpx.get(served.url + path, trust_env=False)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_swagger_ui_sends_a_request_and_shows_the_answer(served: Served, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.ui import WebDriverWait

    _open(browser, f"{served.url}/docs/swagger#/health/get_live", "Create a role")
    wait = WebDriverWait(browser, RENDERED_WITHIN_S)
    for button in (".try-out__btn", ".execute"):
        wait.until(expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, button))).click()
    wait.until(lambda driver: "The process answers." in _visible_text(driver))


def test_swagger_ui_signs_in_with_a_token_and_shows_what_it_opens(served: Served, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.ui import WebDriverWait

    _open(browser, f"{served.url}/docs/swagger#/auth/get_me", "Create a role")
    wait = WebDriverWait(browser, RENDERED_WITHIN_S)

    def press(selector: str) -> None:
        wait.until(expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, selector))).click()

    press(".btn.authorize")
    wait.until(expected_conditions.visibility_of_element_located((By.CSS_SELECTOR, ".auth-container input"))).send_keys(
        served.sign_in()
    )
    for button in (".auth-btn-wrapper .authorize", ".btn-done", ".try-out__btn", ".execute"):
        press(button)
    wait.until(lambda driver: f'"email": "{ADMIN_EMAIL}"' in _visible_text(driver))


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
        "redoc.js%00",
        "Redoc.js",
        "",
    ],
)
def test_no_other_file_is_served(served: Served, name: str) -> None:
    # Not by httpx, which would tidy the path up before sending it.
    import http.client

    connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
    connection.request("GET", f"/docs/assets/{name}")
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert b"root:" not in answer.read()
    connection.close()
