"""What tests do with sign-in by SAML all the time: a browser of httpx, and the provider of `tests.saml_provider`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from app.core.embedded import EmbeddedPostgres
from tests.conftest import Hub, running_hub
from tests.domain import oidc_provider
from tests.domain.oidc_provider import PAGE
from tests.saml_provider import TestProvider, as_form_value

URL = "http://hub.test"
SAML = "/api/v1/auth/saml/corp"
LOGIN = oidc_provider.LOGIN | {"state": "of the page"}


@dataclass
class Corporate:
    """A hub with the provider `corp`, each of which has the other's metadata."""

    hub: Hub
    provider: TestProvider
    own_metadata: bytes = b""
    base: str = SAML
    query: dict[str, str] = field(default_factory=dict)
    """The tenant, where it is not the default one."""

    @property
    def audience(self) -> str:
        return self._address("metadata")

    @property
    def acs_url(self) -> str:
        return self._address("acs")

    def _address(self, step: str) -> str:
        return str(httpx.URL(f"{URL}{self.base}/{step}", params=self.query or None))

    async def introduce(self) -> None:
        answer = await self.hub.client().get(f"{self.base}/metadata", params=self.query)
        assert answer.status_code == 200, answer.text
        self.own_metadata = answer.content
        self.provider.know(answer.content)

    def browser(self) -> "SamlBrowser":
        return SamlBrowser(self, self.hub.client())

    async def arrive(self, **said: Any) -> httpx.Response:
        """A whole sign-in of somebody whom the provider knows: the answer that leads to the client's page."""
        browser = self.browser()
        await browser.begin()
        return await browser.go_back(browser.response(**said))


@dataclass
class SamlBrowser:
    corporate: Corporate
    client: httpx.AsyncClient
    request_id: str = ""
    relay_state: str = ""
    sent_to: str = ""

    async def begin(self, **parameters: str) -> httpx.Response:
        given = {**LOGIN, **self.corporate.query, **parameters}
        answer = await self.client.get(f"{self.corporate.base}/login", params=given)
        assert answer.status_code == 302, answer.text
        self.sent_to = answer.headers["location"]
        query = dict(parse_qsl(urlsplit(self.sent_to).query))
        self.relay_state = query["RelayState"]
        self.request_id = self.corporate.provider.request_of(query).message.id
        return answer

    def response(self, **said: Any) -> bytes:
        corporate = self.corporate
        known = {"audience": corporate.audience, "acs_url": corporate.acs_url, "request_id": self.request_id}
        return corporate.provider.respond(**{**known, **said})

    async def post(self, document: bytes, **fields: str) -> httpx.Response:
        """As the form of another site: without cookies."""
        form = {"SAMLResponse": as_form_value(document), "RelayState": self.relay_state, **fields}
        elsewhere = self.corporate.hub.client()
        return await elsewhere.post(f"{self.corporate.base}/acs", params=self.corporate.query, data=form)

    async def go_back(self, document: bytes) -> httpx.Response:
        posted = await self.post(document)
        assert posted.status_code == 303, posted.text
        return await self.follow(posted)

    async def follow(self, posted: httpx.Response) -> httpx.Response:
        address = posted.headers["location"]
        assert address.startswith(f"{URL}{self.corporate.base}/finish?")
        return await self.client.get(address.removeprefix(URL))


def query_of(answer: httpx.Response) -> dict[str, str]:
    """Of the client's page to which the browser is led."""
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    assert address.startswith(f"{PAGE}?"), address
    return dict(parse_qsl(urlsplit(address).query))


@asynccontextmanager
async def corporate_hub(
    cluster: EmbeddedPostgres, template: str, folder: Path, provider: TestProvider | None = None, **variables: str
) -> AsyncIterator[Corporate]:
    """`variables` are HUB_* settings. The metadata is a file, unless they say otherwise."""
    provider = provider or TestProvider.made_in(folder / "idp")
    metadata = folder / "idp.xml"
    metadata.write_bytes(provider.metadata())
    said = {
        "HUB_PUBLIC_URL": URL,
        "HUB_SIGN_IN_REDIRECTS": PAGE,
        "HUB_SAML_CORP_METADATA": str(metadata),
        "HUB_SAML_CORP_ATTRIBUTE_GROUPS": "groups",
        "HUB_SAML_STAFF_METADATA": str(metadata),
        "HUB_SAML_STAFF_ATTRIBUTE_SUBJECT": "employeeNumber",
        **variables,
    }
    async with running_hub(cluster, template, folder / "hub", **said) as hub:
        corporate = Corporate(hub, provider)
        await corporate.introduce()
        yield corporate
