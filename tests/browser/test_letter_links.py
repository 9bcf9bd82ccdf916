"""A forgotten password in a real browser: from the sign-in page by a letter and its link to being signed in."""

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from tests.browser.conftest import Browser
from tests.browser.test_docs import READY, is_signed_in, send
from tests.mail_servers import LINK, MailServer, taking_mail
from tests.serving import ADMIN_EMAIL, Served, serving

pytestmark = pytest.mark.slow

NEW = "a heron waits where two rivers meet"


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(taking_mail()) as server:
        yield server


@pytest.fixture(scope="module")
def mailing(mail: MailServer) -> Iterator[Served]:
    with serving(HUB_SMTP_URL=mail.url(), HUB_SMTP_FROM="hub@example.org") as served:
        yield served


def test_who_forgot_their_password_comes_in_by_a_letter(mailing: Served, mail: MailServer, browser: Browser) -> None:
    browser.open(f"{mailing.url}/docs", READY)
    browser.press("#sign-in")
    browser.until(lambda: "Forgotten your password?" in browser.text, "the sign-in page")
    browser.press('a[href*="/sign-in/forgotten"]')
    browser.until(lambda: "Send the email" in browser.text, "the page that asks for the address")
    browser.fill("#email", ADMIN_EMAIL)
    browser.press("main button")
    browser.until(lambda: "Check your email" in browser.text, "the letter is on its way")
    browser.until(lambda: mail.to(ADMIN_EMAIL), "the letter is there")
    link = LINK.search(mail.to(ADMIN_EMAIL)[0].plain)
    assert link is not None
    assert link[0].startswith(mailing.url)
    browser.open(link[0], "Choose a new password")
    browser.fill("#password", "short")
    browser.press("main button")
    browser.until(lambda: "There is a problem" in browser.text, "what is wrong with it")
    browser.fill("#password", NEW)
    browser.press("main button")
    browser.until(lambda: "Your password is changed" in browser.text, "it is changed")
    browser.press("main a")
    browser.until(lambda: READY in browser.text, "the documentation")
    browser.press("#sign-in")
    browser.until(lambda: "Email address" in browser.text, "the sign-in page")
    send(browser, NEW)
    browser.until(lambda: is_signed_in(browser), "somebody is signed in")
    browser.until(lambda: len(mail.to(ADMIN_EMAIL)) == 2, "the notice")
    assert mail.to(ADMIN_EMAIL)[1].message["subject"] == "Your password was reset"
