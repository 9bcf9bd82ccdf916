"""Signing in by SAML: from the client's page to the provider and back, with a code at the end."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import httpx
import pytest
from lxml import etree
from saml2 import saml

from app.core.embedded import EmbeddedPostgres
from app.core.saml.metadata import read_metadata
from app.domain.auth.schemas import TokenPair
from app.domain.requests import HubRequest
from app.domain.sign_in.codes import redeem_code
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.conftest import records as records
from tests.domain.saml import CHALLENGE, LOGIN, PAGE, SAML, URL, VERIFIER, Corporate, corporate_hub, query_of
from tests.saml_provider import TestProvider

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def corporate(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Corporate]:
    async with corporate_hub(cluster, migrated, tmp_path_factory.mktemp("saml")) as running:
        yield running


@pytest.fixture(scope="module")
def hub(corporate: Corporate) -> Hub:
    return corporate.hub


async def test_a_whole_sign_in_ends_at_the_clients_page(corporate: Corporate) -> None:
    said = query_of(await corporate.arrive(name_id="whole"))
    assert said["state"] == "of the page"
    assert said["iss"] == URL
    assert said["code"].startswith("dfc_")
