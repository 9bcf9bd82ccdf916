"""Signing in by SAML in a real browser, against identity providers of two makers on a site of their own: what they make
the browser send is from another site, so that none of the hub's cookies come along with it."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from saml2 import BINDING_HTTP_POST

from tests.browser.conftest import WITHIN_S, Browser
from tests.browser.sites import site
from tests.domain.oidc_provider import LOGIN, VERIFIER
from tests.receivers import Answering, Received, answers, takes
from tests.saml_provider import KeyFiles, TestProvider, as_form_value
from tests.serving import Served, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NPM = ROOT / ".servers/npm/node_modules"
HTTP = httpx.Client(trust_env=False, timeout=WITHIN_S)
"""A hub makes its key for a provider when it is first asked for its metadata: on a busy machine that takes seconds."""
ELSEWHERE = "127.0.0.2"
"""Another site than the hub's."""
Shown = Callable[[dict[str, str]], str]
"""From the parameters, those of a form too, to the page."""


def shows(page: Shown) -> Answering:
    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(received.path)
        if parts.path == "/favicon.ico":
            await takes(received, writer)
            return
        given = dict(parse_qsl(parts.query)) | dict(parse_qsl(received.body.decode()))
        body = await asyncio.to_thread(page, given)
        await answers(200, body.encode(), content_type="text/html; charset=utf-8")(received, writer)

    return answer


class Client:
    """The program that somebody wants to use: it exchanges the code, and shows who one is."""

    def __init__(self) -> None:
        self.hub_url = ""
        self.url = ""

    def page(self, given: dict[str, str]) -> str:
        if "code" not in given:
            return f"<!doctype html><p>{escape(json.dumps(given))}"
        form = {
            "grant_type": "authorization_code",
            "code": given["code"],
            "redirect_uri": self.url,
            "code_verifier": VERIFIER,
        }
        token = HTTP.post(f"{self.hub_url}/api/v1/auth/token", data=form)
        headers = {"authorization": f"Bearer {token.json()['access_token']}"}
        me = HTTP.get(f"{self.hub_url}/api/v1/auth/me", headers=headers).json()
        return f"<!doctype html><p>You are {escape(me['user']['email'])}, state {escape(given['state'])}"

    @property
    def login(self) -> str:
        return urlencode(LOGIN | {"redirect_uri": self.url, "state": "kept"})


class ProviderPages:
    """The pages of the provider that is built on pysaml2."""

    def __init__(self) -> None:
        self.provider: TestProvider | None = None
        self.hub_url = ""
        self.attributes = {"mail": "ada@pysaml2.example.org", "givenName": "Ada", "groups": ["mathematicians"]}

    def page(self, given: dict[str, str]) -> str:
        provider = self.provider
        assert provider is not None
        if not provider.service_providers:
            provider.know(HTTP.get(f"{self.hub_url}/api/v1/auth/saml/corp/metadata").content)
        is_posted = "SigAlg" not in given
        read = provider.posted_request_of(given["SAMLRequest"]) if is_posted else provider.request_of(given)
        message = read.message
        response = provider.respond(
            audience=message.issuer.text,
            acs_url=message.assertion_consumer_service_url,
            request_id=message.id,
            name_id="pysaml2-ada",
            attributes=self.attributes,
        )
        fields = {"SAMLResponse": as_form_value(response), "RelayState": given["RelayState"]}
        inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
        action = message.assertion_consumer_service_url
        form = f'<form method="post" action="{action}">{inputs}<button>Continue</button></form>'
        return f"<!doctype html><title>Provider</title><p>The provider knows you.{form}"


@contextmanager
def hub_with(client: Client, metadata: bytes, folder: Path) -> Iterator[Served]:
    file = folder / "idp.xml"
    file.write_bytes(metadata)
    said = {
        "HUB_SAML_CORP_METADATA": str(file),
        "HUB_SAML_CORP_LABEL": "Corporate",
        "HUB_SAML_CORP_ATTRIBUTE_GROUPS": "groups",
        "HUB_SIGN_IN_REDIRECTS": client.url,
    }
    with serving(**said) as served:
        client.hub_url = served.url
        yield served


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    with site(shows(client.page)) as url:
        client.url = f"{url}/signed-in"
        yield client


def groups(served: Served) -> set[str]:
    headers = {"authorization": f"Bearer {served.sign_in()}"}
    answer = HTTP.get(f"{served.url}/api/v1/groups", headers=headers)
    return {group["name"] for group in answer.json()["items"] if group["managed_by"] == "saml:corp"}


def sign_in(browser: Browser, served: Served, client: Client, at_provider: str, email: str) -> None:
    browser.open(f"{served.url}/api/v1/auth/saml/corp/login?{client.login}", at_provider)
    browser.press("button")
    browser.until(lambda: f"You are {email}, state kept" in browser.text, "the client shows who one is")
    assert browser.complaints == []


@pytest.mark.parametrize("posts", [False, True], ids=["by redirect", "by a form"])
def test_with_a_provider_built_on_pysaml2(browser: Browser, client: Client, tmp_path: Path, posts: bool) -> None:
    pages = ProviderPages()
    with site(shows(pages.page), ELSEWHERE) as url:
        provider = TestProvider.made_in(tmp_path / "idp", entity_id=f"{url}/metadata", sso_url=f"{url}/sso")
        pages.provider = replace(provider, bindings=(BINDING_HTTP_POST,)) if posts else provider
        with hub_with(client, pages.provider.metadata(), tmp_path) as served:
            pages.hub_url = served.url
            sign_in(browser, served, client, "The provider knows you.", "ada@pysaml2.example.org")
            assert groups(served) == {"mathematicians"}
            pages.attributes["groups"] = ["analysts"]
            sign_in(browser, served, client, "The provider knows you.", "ada@pysaml2.example.org")
            assert groups(served) == {"analysts", "mathematicians"}


def test_what_another_browser_began_ends_nowhere(browser: Browser, client: Client, tmp_path: Path) -> None:
    """Whoever is sent to the end of somebody else's sign-in sees a page that says so."""
    pages = ProviderPages()
    with site(shows(pages.page), ELSEWHERE) as url:
        pages.provider = TestProvider.made_in(tmp_path / "idp", entity_id=f"{url}/metadata", sso_url=f"{url}/sso")
        with hub_with(client, pages.provider.metadata(), tmp_path) as served:
            pages.hub_url = served.url
            login = f"{served.url}/api/v1/auth/saml/corp/login?{client.login}"
            begun = HTTP.get(login)
            browser.driver.get(begun.headers["location"])
            browser.press("button")
            browser.until(lambda: "begun in another browser" in browser.text, "it is said that it began elsewhere")


@pytest.mark.parametrize("encrypted", ["no", "yes"], ids=["signed", "signed and encrypted"])
def test_with_samlify(browser: Browser, client: Client, tmp_path: Path, encrypted: str) -> None:
    with samlify(tmp_path, encrypted) as (url, metadata), hub_with(client, metadata, tmp_path) as served:
        own = HTTP.get(f"{served.url}/api/v1/auth/saml/corp/metadata").text
        known = HTTP.get(f"{url}/know", params={"metadata": own})
        assert known.text == "known"
        sign_in(browser, served, client, "Samlify knows you.", "ada@samlify.example.org")
        sign_in(browser, served, client, "Samlify knows you.", "ada@samlify.example.org")
        assert groups(served) == {"mathematicians"}


@contextmanager
def samlify(folder: Path, encrypted: str) -> Iterator[tuple[str, bytes]]:
    """Its address and its metadata."""
    node = shutil.which("node")
    if node is None or not (NPM / "samlify").is_dir():
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell("node or npm's samlify is not installed (`just services`)")
    assert node is not None
    keys = KeyFiles.made_in(folder, "samlify")
    command = [node, str(Path(__file__).with_name("samlify_provider.cjs")), str(NPM), ELSEWHERE]
    files = [str(keys.key), str(keys.certificate)]
    environment = os.environ | {"ENCRYPTED": encrypted}
    process = subprocess.Popen([*command, *files], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip(), process.stdout.readline()
    finally:
        process.terminate()
        process.wait(30)
