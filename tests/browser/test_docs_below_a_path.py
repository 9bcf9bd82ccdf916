"""The documentation pages of a hub that clients find below a path, behind a reverse proxy."""

from collections.abc import Iterator

import pytest

from tests.browser.conftest import Browser
from tests.browser.test_docs import PAGES, READY, answers_who_i_am, ask_who_i_am, is_signed_in, sign_in
from tests.reverse_proxy import ReverseProxy, reverse_proxy
from tests.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.found("U9")]


@pytest.fixture(scope="module")
def proxy() -> Iterator[ReverseProxy]:
    with reverse_proxy("/hub", strips=True) as proxy, serving(HUB_PUBLIC_URL=proxy.url) as served:
        proxy.target = served.url
        yield proxy


@pytest.mark.parametrize("path", PAGES)
def test_a_page_works_below_a_path(proxy: ReverseProxy, browser: Browser, path: str) -> None:
    browser.open(proxy.url + path, READY)
    sign_in(browser)
    browser.until(lambda: is_signed_in(browser), "somebody is signed in")
    if path == "/docs/swagger":
        ask_who_i_am(browser, proxy.url, path)
        browser.until(lambda: answers_who_i_am(browser), "the answer is shown")
    assert browser.complaints == []
    assert proxy.refused == []
