"""A SAML provider's metadata at a URL: fetched, kept, and fetched anew when it has to be."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.embedded import EmbeddedPostgres
from app.domain.identity_providers.registry import provider_named
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.saml import LOGIN, SAML, Corporate, SamlBrowser, corporate_hub, query_of
from tests.saml_provider import KeyFiles, MetadataSite, TestProvider
from tests.sampling import sampled

pytestmark = pytest.mark.anyio

DAY_S = 86_400


@pytest.fixture(scope="module")
def site() -> MetadataSite:
    return MetadataSite()


@pytest.fixture(scope="module")
async def corporate(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory, site: MetadataSite
) -> AsyncIterator[Corporate]:
    folder = tmp_path_factory.mktemp("saml")
    provider = TestProvider.made_in(folder / "idp")
    async with (
        site.serving() as url,
        corporate_hub(cluster, migrated, folder, provider, HUB_SAML_CORP_METADATA=url) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def hub(corporate: Corporate) -> Hub:
    return corporate.hub


@pytest.fixture(autouse=True)
async def nothing_is_known_yet(corporate: Corporate, site: MetadataSite, records: Records) -> None:
    site.document, site.fault, site.asked = corporate.provider.metadata(), "", 0
    corporate.hub.parts.saml.metadata.clear()
    await records.run("DELETE FROM saml_metadata")


async def code_of(browser: SamlBrowser, provider: TestProvider) -> str:
    """What becomes of a response of this provider's: the code of its refusal, or `taken`."""
    corporate = browser.corporate
    document = provider.respond(
        name_id="url",
        audience=corporate.audience,
        acs_url=corporate.acs_url,
        request_id=browser.request_id,
        attributes={"mail": "ada@example.org"},
    )
    answer = await browser.post(document)
    return "taken" if answer.status_code == 303 else str(answer.json()["code"])


def let_pass(corporate: Corporate, seconds: float) -> None:
    """As if everything had been done so much earlier."""
    for known in corporate.hub.parts.saml.metadata.values():
        known.asked_at -= seconds
        known.fetched_at -= seconds


async def begun(corporate: Corporate) -> SamlBrowser:
    browser = corporate.browser()
    await browser.begin()
    return browser


async def test_it_is_fetched_when_first_needed_and_not_at_every_sign_in(
    corporate: Corporate, site: MetadataSite
) -> None:
    assert site.asked == 0
    assert "code" in query_of(await corporate.arrive(name_id="url"))
    assert "code" in query_of(await corporate.arrive(name_id="url"))
    assert site.asked == 1
    let_pass(corporate, DAY_S + 1)
    await begun(corporate)
    assert site.asked == 2


@pytest.mark.slow
async def test_a_key_that_is_new_is_asked_for_once_a_minute(
    corporate: Corporate, site: MetadataSite, tmp_path: Path
) -> None:
    rolled = replace(
        corporate.provider, keys=KeyFiles.made_in(tmp_path, "newer"), also_published=[corporate.provider.keys]
    )
    browser = await begun(corporate)
    assert await code_of(browser, rolled) == "saml_wrong_key"
    assert site.asked == 1  # a moment ago, and it said nothing of that key
    site.document = rolled.metadata()
    let_pass(corporate, 61)
    assert await code_of(browser, rolled) == "taken"
    assert site.asked == 2
    assert await code_of(browser, corporate.provider) == "taken", "the key of before is still published"
    site.document = replace(rolled, also_published=[]).metadata()
    let_pass(corporate, DAY_S + 1)
    assert await code_of(await begun(corporate), corporate.provider) == "saml_wrong_key"


@pytest.mark.slow
async def test_responses_that_fit_no_key_do_not_make_the_hub_ask_more_often(
    corporate: Corporate, site: MetadataSite, tmp_path: Path
) -> None:
    stranger = replace(corporate.provider, keys=KeyFiles.made_in(tmp_path, "stranger"))
    browser = await begun(corporate)
    let_pass(corporate, 61)
    codes = [await code_of(browser, stranger) for _ in range(3)]
    assert codes == ["saml_wrong_key"] * 3
    assert site.asked == 2


@pytest.mark.parametrize("fault", sampled(["away", "broken", "empty", "redirect", "huge"], every=3))
async def test_a_provider_whose_metadata_cannot_be_had_goes_on_with_the_last_copy(
    corporate: Corporate, site: MetadataSite, fault: str
) -> None:
    await begun(corporate)
    site.fault = fault
    let_pass(corporate, DAY_S + 1)
    assert "code" in query_of(await corporate.arrive(name_id="url"))
    assert site.asked == 2


@pytest.mark.parametrize("is_restarted", sampled([False, True], every=2))
async def test_what_is_published_there_does_not_become_another_provider(
    corporate: Corporate, site: MetadataSite, tmp_path: Path, is_restarted: bool
) -> None:
    """Whose people it would sign in then."""
    await begun(corporate)
    other = replace(corporate.provider, keys=KeyFiles.made_in(tmp_path, "o"), entity_id="https://other.example.org/idp")
    site.document = other.metadata()
    let_pass(corporate, DAY_S + 1)
    if is_restarted:
        corporate.hub.parts.saml.metadata.clear()
    assert await code_of(await begun(corporate), other) != "taken"
    let_pass(corporate, 61)
    assert await code_of(await begun(corporate), other) != "taken"
    assert "code" in query_of(await corporate.arrive(name_id="url"))


async def test_the_last_copy_outlives_the_process(corporate: Corporate, site: MetadataSite, records: Records) -> None:
    await begun(corporate)
    (kept,) = await records.run("SELECT * FROM saml_metadata")
    assert kept["document"].encode() == site.document
    site.fault = "away"
    corporate.hub.parts.saml.metadata.clear()
    assert "code" in query_of(await corporate.arrive(name_id="url"))
    assert site.asked == 1


async def test_without_any_copy_that_sign_in_alone_is_unavailable(corporate: Corporate, site: MetadataSite) -> None:
    site.fault = "away"
    answer = await corporate.hub.client().get(f"{SAML}/login", params=LOGIN)
    assert (answer.status_code, answer.json()["code"]) == (503, "saml_metadata_unavailable")
    assert answer.headers["retry-after"]
    assert (await corporate.hub.client().get(f"{SAML}/metadata")).status_code == 200
    assert (await corporate.hub.admin.get("/api/v1/auth/me")).status_code == 200


async def test_it_is_fetched_through_the_egress_policy(
    cluster: EmbeddedPostgres, migrated: str, tmp_path: Path, site: MetadataSite
) -> None:
    site.document = TestProvider.made_in(tmp_path / "other").metadata()
    async with site.serving() as url:
        said = {"HUB_SAML_CORP_METADATA": url, "HUB_EGRESS_DENY": "127.0.0.1/32"}
        async with corporate_hub(cluster, migrated, tmp_path, None, **said) as corporate:
            answer = await corporate.hub.client().get(f"{SAML}/login", params=LOGIN)
    assert answer.status_code == 503
    assert site.asked == 0


async def test_metadata_that_has_run_out_is_not_used(corporate: Corporate, site: MetadataSite) -> None:
    site.document = site.document.replace(b" entityID=", b' validUntil="2020-01-01T00:00:00Z" entityID=', 1)
    answer = await corporate.hub.client().get(f"{SAML}/login", params=LOGIN)
    assert (answer.status_code, answer.json()["code"]) == (503, "saml_metadata_unavailable")


async def test_a_file_is_read_anew_when_it_was_changed_and_kept_when_it_is_gone(
    cluster: EmbeddedPostgres, migrated: str, tmp_path: Path
) -> None:
    async with corporate_hub(cluster, migrated, tmp_path) as corporate:
        provider = await provider_named(corporate.hub.parts, "saml", "corp", "default")
        assert provider is not None
        file = provider.metadata_file
        assert file is not None
        rolled = replace(corporate.provider, keys=KeyFiles.made_in(tmp_path, "newer"))
        browser = await begun(corporate)
        assert await code_of(browser, rolled) == "saml_wrong_key"
        file.write_bytes(rolled.metadata())
        assert await code_of(browser, rolled) == "taken"
        file.unlink()
        assert await code_of(await begun(corporate), rolled) == "taken"
