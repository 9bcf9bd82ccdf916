"""A real browser that cannot reach anything but this machine, and what tests do with it all the time."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving import Served, serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
WITHIN_S = 60
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


class Browser:
    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, wanted: str) -> None:
        """The page once the wanted text is visible in it."""
        self.driver.get("about:blank")  # or another part of the same page would be no new page
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(url)
        self.until(lambda: wanted in self.text, f"{wanted!r} is shown at {url}")
        self.keep_screenshot(urlsplit(url).path.strip("/").replace("/", "-"))

    def keep_screenshot(self, name: str) -> None:
        """For whoever wants to look: HUB_TEST_SCREENSHOTS names the folder."""
        if folder := os.environ.get("HUB_TEST_SCREENSHOTS"):
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    @property
    def text(self) -> str:
        """What can be seen of the page."""
        return str(self.script("return document.body ? document.body.innerText : ''"))

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            return WebDriverWait(self.driver, WITHIN_S).until(lambda _: holds())
        except TimeoutException:
            pytest.fail(f"not within {WITHIN_S} s: {what}; seen: {self.text[:500]!r}; {self.driver.get_log('browser')}")

    def press(self, selector: str) -> None:
        self._once_clickable(selector).click()

    def fill(self, selector: str, text: str) -> None:
        field = self._once_clickable(selector)
        field.clear()
        field.send_keys(text)

    def _once_clickable(self, selector: str) -> Any:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support import expected_conditions

        condition = expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, selector))
        return self.until(lambda: condition(self.driver), f"{selector} can be clicked")

    @property
    def requested(self) -> list[str]:
        """Every address that was asked for since the last time that somebody looked."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[str]:
        """Errors and breaches of the Content-Security-Policy. What a bundle says of its own progress is neither."""
        return [
            said["message"]
            for said in self.driver.get_log("browser")
            if (said["level"] == "SEVERE" or "Content Security Policy" in said["message"])
            and '"Deprecated: ' not in said["message"]  # Swagger UI, of addresses that it makes itself
        ]

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`, as the system would."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def be_a_phone(self, yes: bool) -> None:
        if yes:
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        else:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture(scope="package")
def _driver() -> Iterator[Any]:
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
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE 127.0.0.2 , EXCLUDE localhost",
        "--proxy-server=127.0.0.1:9",
        "--proxy-bypass-list=127.0.0.1;127.0.0.2",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(_driver: Any) -> Iterator[Browser]:
    """Signed in nowhere, of a usual size, and light."""
    found = Browser(_driver)
    yield found
    found.prefer("light")
    found.be_a_phone(False)
    found.script("sessionStorage.clear()")
