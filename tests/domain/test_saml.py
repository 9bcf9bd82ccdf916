"""Signing in by SAML: from the client's page to the provider and back, with a code at the end."""

import random
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from cryptography import x509
from lxml import etree
from saml2 import BINDING_HTTP_POST, saml

from app.core.embedded import EmbeddedPostgres
from app.core.saml.names import NAMESPACES
from app.core.saml.signatures import what_is_signed
from app.core.sealing import KeyRing
from app.domain.resealing import reseal
from app.domain.sign_in.pending import cookie_name, new_browser
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records
from tests.domain.oauth import ME
from tests.domain.oidc_provider import PAGE, exchange, groups_of
from tests.domain.saml import LOGIN, SAML, URL, Corporate, SamlBrowser, corporate_hub, query_of
from tests.pending import sealed
from tests.saml_encryption import encrypted
from tests.saml_provider import TestProvider, as_form_value
from tests.started import packages_of_a_start

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


async def member_of(corporate: Corporate, answer: httpx.Response) -> dict[str, Any]:
    """Who one is with the code at the end of a sign-in, as `GET /auth/me` shows it."""
    client = await signed_in(corporate, answer)
    shown = await client.get(ME)
    assert shown.status_code == 200, shown.text
    return dict(shown.json())


async def signed_in(corporate: Corporate, answer: httpx.Response) -> httpx.AsyncClient:
    answer = await exchange(corporate.hub, query_of(answer)["code"])
    assert answer.status_code == 200, answer.text
    return corporate.hub.client(answer.json()["access_token"])


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# A sign-in ------------------------------------------------------------------------------------------------------------


async def test_a_whole_sign_in_ends_at_the_clients_page(corporate: Corporate) -> None:
    said = query_of(await corporate.arrive(name_id="whole", attributes={"mail": "whole@example.org"}))
    assert said["state"] == "of the page"
    assert said["iss"] == URL
    assert said["code"].startswith("dfc_")


async def test_who_comes_for_the_first_time_becomes_a_member(corporate: Corporate) -> None:
    attributes = {
        "mail": "grace@example.org",
        "givenName": "Grace",
        "sn": "Hopper",
        "groups": ["engineers", "admirals"],
    }
    me = await member_of(corporate, await corporate.arrive(name_id="grace", attributes=attributes))
    assert me["user"]["email"] == "grace@example.org"
    assert (me["user"]["first_name"], me["user"]["last_name"]) == ("Grace", "Hopper")
    assert await groups_of(corporate.hub, me["user"]["id"]) == {"engineers", "admirals"}


async def test_the_second_sign_in_is_of_the_same_member_and_takes_the_groups_as_they_are_now(
    corporate: Corporate,
) -> None:
    at_first = {"mail": "joan@example.org", "groups": ["readers", "writers"]}
    before = await member_of(corporate, await corporate.arrive(name_id="joan", attributes=at_first))
    later = {"mail": "joan.clarke@example.org", "groups": ["writers"]}
    after = await member_of(corporate, await corporate.arrive(name_id="joan", attributes=later))
    assert after["user"]["id"] == before["user"]["id"]
    assert await groups_of(corporate.hub, after["user"]["id"]) == {"writers"}


async def test_an_address_that_somebody_has_here_leads_nobody_to_their_account(corporate: Corporate) -> None:
    user = await corporate.hub.new_user(password=PASSWORD)
    said = query_of(await corporate.arrive(name_id="stranger", attributes={"mail": user["email"]}))
    assert (said["error"], said["error_code"]) == ("access_denied", "email_taken")
    assert "code" not in said


async def test_who_is_signed_in_links_the_provider_to_their_account(corporate: Corporate) -> None:
    user = await corporate.hub.new_user(password=PASSWORD)
    client = await corporate.hub.sign_in(user["email"])
    begun = await client.post("/api/v1/auth/identities", json={"provider": "corp", "redirect_uri": PAGE})
    assert begun.status_code == 200, begun.text
    browser = corporate.browser()
    browser.client.cookies = client.cookies
    login = dict(parse_qsl(urlsplit(begun.json()["login_url"]).query))
    await browser.begin(**login)
    said = query_of(await browser.go_back(browser.response(name_id="linked", attributes={"mail": "x@example.org"})))
    assert said["linked"] == "corp"
    me = await member_of(corporate, await corporate.arrive(name_id="linked", attributes={}))
    assert me["user"]["id"] == user["id"]


async def test_the_session_says_how_it_was_opened(corporate: Corporate, records: Records) -> None:
    browser = corporate.browser()
    await browser.begin()
    response = browser.response(
        name_id="factor", attributes={"mail": "factor@example.org"}, context="https://refeds.org/profile/mfa"
    )
    await member_of(corporate, await browser.go_back(response))
    (session,) = await records.run("SELECT * FROM sessions WHERE provider_subject = 'factor'")
    assert (session["amr"], session["provider"]) == (["fed", "mfa"], "corp")
    index = etree.fromstring(response).find(".//saml:AuthnStatement", NAMESPACES).get("SessionIndex")
    assert session["provider_session"] == index


async def test_an_encrypted_assertion_is_taken(corporate: Corporate) -> None:
    browser = corporate.browser()
    await browser.begin()
    root = etree.fromstring(browser.response(name_id="sealed", attributes={"mail": "sealed@example.org"}))
    plain = root.find("saml:Assertion", NAMESPACES)
    certificate = read_own(corporate.own_metadata)
    root.replace(plain, etree.fromstring(encrypted(etree.tostring(plain), certificate)))
    assert "code" in query_of(await browser.go_back(etree.tostring(root)))


def read_own(metadata: bytes) -> Any:
    text = etree.fromstring(metadata).find(".//md:KeyDescriptor//ds:X509Certificate", NAMESPACES).text
    return x509.load_der_x509_certificate(b64decode(text))


async def test_a_transient_name_is_nobody(corporate: Corporate) -> None:
    browser = corporate.browser()
    await browser.begin()
    posted = await browser.post(browser.response(name_format=saml.NAMEID_FORMAT_TRANSIENT))
    assert code_of(posted) == (400, "saml_no_subject")


async def test_a_provider_that_says_to_be_another_one_lets_in_none_of_its_people(
    corporate: Corporate, tmp_path: Path
) -> None:
    impostor = TestProvider.made_in(tmp_path / "impostor")
    assert impostor.entity_id == corporate.provider.entity_id
    assert "code" in query_of(await corporate.arrive(name_id="of both"))
    new = {"kind": "saml", "name": "partner", "label": "Partner", "metadata_xml": impostor.metadata().decode()}
    made = await corporate.hub.admin.post("/api/v1/identity-providers", json=new)
    assert made.status_code == 201, made.text
    theirs = Corporate(corporate.hub, impostor, base="/api/v1/auth/saml/partner")
    await theirs.introduce()
    assert query_of(await theirs.arrive(name_id="of both"))["error_code"] == "identity_taken"
    own = {"mail": ["of-partner@example.org"]}
    assert "code" in query_of(await theirs.arrive(name_id="of partner", attributes=own))
    assert query_of(await corporate.arrive(name_id="of partner"))["error_code"] == "identity_taken"
    await corporate.hub.admin.delete(f"/api/v1/identity-providers/{made.json()['id']}")
    assert "code" in query_of(await corporate.arrive(name_id="of partner")), "the other one is gone"


async def test_a_name_that_no_index_can_hold_is_refused(corporate: Corporate) -> None:
    """Of so many bytes, and not of so many characters."""
    long = "".join(random.choices([chr(number) for number in range(0x4E00, 0x9FA5)], k=1024))
    browser = corporate.browser()
    await browser.begin()
    answer = await browser.post(browser.response(name_id=long))
    assert (answer.status_code, answer.json()["code"]) == (400, "saml_malformed")


async def test_an_attribute_says_who_it_is_where_one_is_configured(corporate: Corporate) -> None:
    """Whatever the NameID is, which may then be another one each time."""
    staff = replace(corporate, base="/api/v1/auth/saml/staff")
    await staff.introduce()
    said: dict[str, Any] = {"name_format": saml.NAMEID_FORMAT_TRANSIENT}
    attributes = {"mail": "number7@example.org", "employeeNumber": "7"}
    first = await member_of(staff, await staff.arrive(name_id="one", attributes=attributes, **said))
    second = await member_of(staff, await staff.arrive(name_id="two", attributes=attributes, **said))
    assert first["user"]["id"] == second["user"]["id"]
    browser = staff.browser()
    await browser.begin()
    assert code_of(await browser.post(browser.response(attributes={"mail": "x@example.org"}))) == (
        400,
        "saml_no_subject",
    )


# The request ----------------------------------------------------------------------------------------------------------


async def test_a_request_is_signed_and_says_where_to_answer(corporate: Corporate) -> None:
    browser = corporate.browser()
    await browser.begin()
    query = dict(parse_qsl(urlsplit(browser.sent_to).query))
    request = corporate.provider.request_of(query).message  # pysaml2 has checked the signature
    assert browser.sent_to.startswith(corporate.provider.sso_url)
    assert (request.issuer.text, request.assertion_consumer_service_url) == (corporate.audience, corporate.acs_url)
    assert request.destination == corporate.provider.sso_url
    assert len(query["RelayState"]) <= 80  # Bindings section 3.4.3
    assert query["RelayState"] == request.id
    altered = query | {"RelayState": "_another"}
    with pytest.raises(Exception, match=r".*"):
        corporate.provider.request_of(altered)


async def test_to_a_provider_without_the_redirect_binding_the_browser_posts_the_request(
    cluster: EmbeddedPostgres, migrated: str, tmp_path: Path
) -> None:
    provider = TestProvider.made_in(tmp_path / "idp", bindings=(BINDING_HTTP_POST,))
    async with corporate_hub(cluster, migrated, tmp_path, provider) as corporate:
        browser = corporate.browser()
        shown = await browser.client.get(f"{SAML}/login", params=LOGIN)
        assert shown.status_code == 200
        policy = shown.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        page = etree.HTML(shown.text)
        form = page.find(".//form")
        fields = {field.get("name"): field.get("value") for field in form.iter("input")}
        assert (form.get("action"), form.get("method")) == (provider.sso_url, "post")
        request = provider.posted_request_of(fields["SAMLRequest"]).message  # its signature is in it
        browser.request_id, browser.relay_state = request.id, fields["RelayState"]
        said = query_of(await browser.go_back(browser.response(name_id="posted", attributes={"mail": "p@example.org"})))
        assert "code" in said


@pytest.mark.parametrize(
    "changed",
    [
        {"redirect_uri": "https://evil.example.org/"},
        {"redirect_uri": f"{PAGE}/more"},
        {"redirect_uri": ""},
        {"code_challenge": "short"},
        {"code_challenge_method": "plain"},
        {"state": "x" * 4000},
        {"request": "of nobody"},
        {"link": "of nobody"},
    ],
)
async def test_a_sign_in_that_may_not_end_so_does_not_begin(corporate: Corporate, changed: dict[str, str]) -> None:
    answer = await corporate.hub.client().get(f"{SAML}/login", params=LOGIN | changed)
    assert code_of(answer) == (400, "sign_in_invalid")


async def test_a_sign_in_that_means_one_tenant_does_not_go_to_another_ones_provider(corporate: Corporate) -> None:
    hub, browser = corporate.hub, new_browser()
    for tenant, status in ((None, 302), ("default", 302), ("another", 400)):
        given = {"request": sealed(hub.parts.key_ring, browser, redirect_uri=PAGE, tenant=tenant)}
        headers = {"cookie": f"{cookie_name(hub.settings)}={browser}"}
        answer = await hub.client().get(f"{SAML}/login", params=given, headers=headers)
        assert answer.status_code == status, answer.text


async def test_parameters_that_are_not_known_are_passed_over(corporate: Corporate) -> None:
    answer = await corporate.hub.client().get(f"{SAML}/login", params=LOGIN | {"utm_source": "mail"})
    assert answer.status_code == 302


@pytest.mark.parametrize("step", ["metadata", "login", "finish"])
async def test_a_provider_that_is_not_there_is_not_found(corporate: Corporate, step: str) -> None:
    assert code_of(await corporate.hub.client().get(f"/api/v1/auth/saml/nobody/{step}")) == (404, "not_found")
    form = {"SAMLResponse": "PHgvPg==", "RelayState": "x"}
    assert code_of(await corporate.hub.client().post("/api/v1/auth/saml/nobody/acs", data=form)) == (404, "not_found")


async def test_the_sign_in_page_has_a_button_for_the_provider(corporate: Corporate) -> None:
    shown = await corporate.hub.client().get("/api/v1/auth/providers")
    provider, staff = shown.json()["items"]
    assert (provider["name"], provider["kind"], staff["name"]) == ("corp", "saml", "staff")
    assert provider["login_url"] == f"{URL}{SAML}/login"


# The answer -----------------------------------------------------------------------------------------------------------


async def test_an_assertion_is_worth_something_once(corporate: Corporate) -> None:
    browser = corporate.browser()
    await browser.begin()
    response = browser.response(name_id="once", attributes={"mail": "once@example.org"})
    first = await browser.post(response)
    assert first.status_code == 303
    assert code_of(await browser.post(response)) == (400, "saml_replayed")
    assert "code" in query_of(await browser.follow(first))
    assert code_of(await browser.follow(first)) == (400, "sign_in_invalid")


async def test_another_worker_knows_an_assertion_that_was_used(corporate: Corporate, other_worker: Hub) -> None:
    browser = corporate.browser()
    await browser.begin()
    response = browser.response(name_id="workers", attributes={"mail": "workers@example.org"})
    assert (await browser.post(response)).status_code == 303
    form = {"SAMLResponse": as_form_value(response), "RelayState": browser.relay_state}
    answer = await other_worker.client().post(f"{SAML}/acs", data=form)
    assert code_of(answer) == (400, "saml_replayed")


async def test_another_browser_cannot_end_what_somebody_began(corporate: Corporate) -> None:
    """Nobody can be signed in as whoever has sent them a response of their own."""
    browser, other = corporate.browser(), corporate.browser()
    await browser.begin()
    await other.begin()
    posted = await browser.post(browser.response(name_id="thief", attributes={"mail": "thief@example.org"}))
    assert code_of(await other.follow(posted)) == (400, "sign_in_invalid")
    assert code_of(await corporate.browser().follow(posted)) == (400, "sign_in_invalid")
    assert "code" in query_of(await browser.follow(posted))


async def test_the_cookies_of_two_tabs_do_not_meet(corporate: Corporate) -> None:
    client = corporate.hub.client()
    one, other = SamlBrowser(corporate, client), SamlBrowser(corporate, client)
    await one.begin(state="one")
    await other.begin(state="other")
    attributes = {"mail": "tabs@example.org"}
    assert query_of(await one.go_back(one.response(name_id="tabs", attributes=attributes)))["state"] == "one"
    assert query_of(await other.go_back(other.response(name_id="tabs", attributes=attributes)))["state"] == "other"


@pytest.mark.parametrize("relay_state", ["", "_another"])
async def test_a_relay_state_that_is_not_the_requests_is_refused(corporate: Corporate, relay_state: str) -> None:
    browser = corporate.browser()
    await browser.begin()
    posted = await browser.post(browser.response(), RelayState=relay_state)
    assert code_of(posted) == (400, "saml_wrong_request")


@pytest.mark.parametrize("request_id", ["_made-up", "x", "_" + "A" * 48, "é"])
async def test_an_answer_to_a_request_that_is_not_ours_is_refused(corporate: Corporate, request_id: str) -> None:
    browser = corporate.browser()
    browser.request_id = browser.relay_state = request_id
    assert code_of(await browser.post(browser.response())) == (400, "saml_wrong_request")


async def test_a_refusal_of_the_provider_ends_at_the_clients_page(corporate: Corporate, records: Records) -> None:
    browser = corporate.browser()
    await browser.begin()
    root = etree.fromstring(browser.response())
    root.remove(root.find("saml:Assertion", NAMESPACES))
    status = "urn:oasis:names:tc:SAML:2.0:status:Responder"
    root.find("samlp:Status/samlp:StatusCode", NAMESPACES).set("Value", status)
    said = query_of(await browser.go_back(etree.tostring(root)))
    assert (said["error"], said["error_code"]) == ("access_denied", "saml_not_successful")
    assert said["state"] == "of the page"


async def test_a_member_who_is_switched_off_is_told_at_the_clients_page(corporate: Corporate) -> None:
    me = await member_of(corporate, await corporate.arrive(name_id="off", attributes={"mail": "off@example.org"}))
    changed = await corporate.hub.admin.patch(f"/api/v1/users/{me['user']['id']}", json={"is_active": False})
    assert changed.status_code == 200
    assert query_of(await corporate.arrive(name_id="off", attributes={}))["error_code"] == "user_inactive"


async def test_a_refused_response_is_on_record_with_its_code(corporate: Corporate, records: Records) -> None:
    browser = corporate.browser()
    await browser.begin()
    posted = await browser.post(browser.response(sign_assertion=False))
    assert code_of(posted) == (400, "saml_unsigned")
    (row,) = await records.audit(posted)
    assert (row["action"], row["outcome"], row["detail"]) == ("auth.login", "failure", "saml:corp: saml_unsigned")


async def test_a_person_is_shown_a_page(corporate: Corporate) -> None:
    browser = corporate.browser()
    await browser.begin()
    form = {"SAMLResponse": as_form_value(browser.response(sign_assertion=False)), "RelayState": browser.relay_state}
    posted = await corporate.hub.client().post(f"{SAML}/acs", data=form, headers={"accept": "text/html,*/*;q=0.8"})
    assert posted.status_code == 400
    assert posted.headers["content-type"] == "text/html; charset=utf-8"
    assert "is not signed" in posted.text


async def test_a_form_that_is_too_long_is_not_read(corporate: Corporate) -> None:
    form = {"SAMLResponse": "A" * 600_000, "RelayState": "x"}
    assert code_of(await corporate.hub.client().post(f"{SAML}/acs", data=form)) == (413, "too_large")


# The hub's own side ---------------------------------------------------------------------------------------------------


async def test_the_metadata_is_signed_with_the_key_that_is_in_it(corporate: Corporate) -> None:
    answer = await corporate.hub.client().get(f"{SAML}/metadata")
    assert answer.headers["content-type"] == "application/samlmetadata+xml"
    root = etree.fromstring(answer.content)
    assert what_is_signed(root, [read_own(answer.content)]).get("entityID") == corporate.audience
    role = root.find("md:SPSSODescriptor", NAMESPACES)
    assert (role.get("AuthnRequestsSigned"), role.get("WantAssertionsSigned")) == ("true", "true")
    consumer = role.find("md:AssertionConsumerService", NAMESPACES)
    assert consumer.get("Location") == corporate.acs_url


async def test_all_workers_have_one_key(corporate: Corporate, other_worker: Hub) -> None:
    theirs = await other_worker.client().get(f"{SAML}/metadata")
    assert read_own(theirs.content) == read_own(corporate.own_metadata)


async def test_the_key_is_sealed_and_sealed_anew_with_the_others(corporate: Corporate, records: Records) -> None:
    (stored, *_) = await records.run("SELECT * FROM saml_keys ORDER BY created_at")
    assert b"PRIVATE" not in stored["sealed"]
    ring = corporate.hub.parts.key_ring
    corporate.hub.parts.key_ring = KeyRing([("newer", bytes(range(32))), *ring._keys.items()])
    await reseal(corporate.hub.parts)
    (after, *_) = await records.run("SELECT * FROM saml_keys ORDER BY created_at")
    assert (after["key_id"], after["certificate"]) == ("newer", stored["certificate"])
    corporate.hub.parts.saml.keys.clear()
    assert (await corporate.hub.client().get(f"{SAML}/metadata")).status_code == 200


def test_a_start_of_the_hub_imports_nothing_of_it() -> None:
    assert not packages_of_a_start() & {"lxml", "signxml"}


async def test_a_provider_that_a_tenant_keeps_itself_signs_in_its_members(corporate: Corporate, tmp_path: Path) -> None:
    tenant = await corporate.hub.new_tenant("acme")
    provider = TestProvider.made_in(tmp_path / "acme", entity_id="https://acme.test/idp")
    body = {"kind": "saml", "name": "corp", "label": "Acme", "metadata_xml": provider.metadata().decode()}
    made = await tenant.admin.post("/api/v1/identity-providers", json=body)
    assert made.status_code == 201, made.text
    theirs = Corporate(corporate.hub, provider, query={"tenant": "acme"})
    await theirs.introduce()
    assert read_own(theirs.own_metadata) != read_own(corporate.own_metadata)
    attributes = {"mail": "wile@acme.test"}
    me = await member_of(theirs, await theirs.arrive(name_id="wile", attributes=attributes))
    assert me["user"]["email"] == "wile@acme.test"
    assert me["tenant"]["slug"] == "acme"
    # and a response to the other tenant's request is worth nothing here
    browser = corporate.browser()
    await browser.begin()
    answer = replace(browser, corporate=theirs)
    posted = await answer.post(answer.response(name_id="wile"))
    assert code_of(posted) == (400, "saml_wrong_request")
