"""`hub check` of identity providers: those of the settings, and those that tenants keep."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.commands.provider_checks import Case, examine, of_settings
from app.core.sealing import KeyRing
from app.domain.identity_providers.registry import Provider as KeptProvider
from app.settings import load
from tests.commands.hubs import Serve, Served, run
from tests.domain.oidc_provider import Provider, as_json, serving_provider
from tests.receivers import answers, keeps_silent
from tests.saml_provider import KeyFiles, MetadataSite, TestProvider
from tests.silent_names import SilentNames

AWAY = "http://127.0.0.1:1"


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as loop:
        yield loop


@pytest.fixture
def openid(portal: BlockingPortal) -> Iterator[Provider]:
    with portal.wrap_async_context_manager(serving_provider()) as provider:
        yield provider


@contextmanager
def published(portal: BlockingPortal, site: MetadataSite) -> Iterator[str]:
    with portal.wrap_async_context_manager(site.serving()) as url:
        yield url


def of_openid(issuer: str, name: str = "CORP") -> dict[str, str]:
    given = {"ISSUER": issuer, "CLIENT_ID": "hub", "CLIENT_SECRET": "hunter22"}
    return {f"HUB_OIDC_{name}_{part}": text for part, text in given.items()}


def told(data_dir: Path, **variables: str) -> tuple[int, list[str]]:
    """The exit code, and what it says of identity providers."""
    ended = run(data_dir, "check", **variables)
    assert ended.stderr == ""
    assert "hunter22" not in ended.stdout
    return ended.returncode, [line for line in ended.stdout.splitlines() if "  identity provider" in line]


def examined(**variables: str) -> tuple[int, list[str]]:
    """The same of those of the settings, without a command and what it takes to start."""
    settings = load(variables, env_file=None)
    found = asyncio.run(examine(settings, of_settings(settings)))
    code = 1 if any(finding.verdict == "wrong" for finding in found) else 0
    return code, [f"{finding.verdict:5}  {finding.subject}: {finding.sentence}" for finding in found]


# --- OpenID Connect ---


def test_a_provider_that_answers_is_right(data_dir: Path, openid: Provider) -> None:
    said = f"right  identity provider corp: {openid.issuer} answers, and its keys can be fetched: 1"
    assert told(data_dir, **of_openid(openid.issuer)) == (0, [said])
    assert [each.path for each in openid.asked] == ["/.well-known/openid-configuration", "/jwks"]
    assert not data_dir.exists()


def test_nothing_is_said_where_there_is_no_provider(data_dir: Path) -> None:
    assert told(data_dir) == (0, [])


def test_a_provider_that_is_away_is_wrong_like_everything_that_is_away(data_dir: Path) -> None:
    said = f"wrong  identity provider corp: {AWAY}: its discovery document cannot be used (connection refused)"
    assert told(data_dir, **of_openid(AWAY)) == (1, [said])


def test_a_provider_where_the_policy_lets_nobody_go_is_wrong(openid: Provider) -> None:
    code, said = examined(**of_openid(openid.issuer), HUB_EGRESS_DENY="127.0.0.0/8")
    assert code == 1
    assert said[0].endswith("(the egress policy lets the hub not go there: HUB_EGRESS_ALLOW)")
    assert openid.asked == []


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"discovery": {"issuer": "https://other.example.org"}}, "its discovery document .*it names another issuer"),
        ({"discovery": {"jwks_uri": "http://elsewhere.example.org"}}, "its discovery document .*jwks uri is not https"),
        ({"instead": {"/.well-known/openid-configuration": answers(503)}}, "its discovery document .*http error"),
        ({"instead": {"/jwks": answers(404)}}, "its keys .*http error"),
        ({"instead": {"/jwks": as_json({"keys": "none"})}}, "its keys .*malformed"),
        ({"keys": []}, "publishes no key"),
        ({"instead": {"/jwks": as_json({"keys": [{"x": 1}, {"kty": "oct", "k": "AA"}]})}}, "publishes no key"),
    ],
    ids=["another issuer", "endpoint", "no discovery", "no keys", "keys that are none", "no key", "no key of use"],
)
def test_what_a_provider_says_wrongly_is_named(openid: Provider, spoilt: dict[str, Any], reason: str) -> None:
    for name, value in spoilt.items():
        setattr(openid, name, value)
    code, (said,) = examined(**of_openid(openid.issuer))
    assert code == 1
    assert said.startswith(f"wrong  identity provider corp: {openid.issuer}")
    assert re.search(reason, said)


@pytest.mark.slow
def test_providers_that_keep_silent_cost_ten_seconds_together(openid: Provider) -> None:
    openid.instead["/.well-known/openid-configuration"] = keeps_silent
    given = of_openid(openid.issuer) | of_openid(openid.issuer.replace("127.0.0.1", "localhost"), "OTHER")
    began = time.monotonic()
    code, said = examined(**given)
    assert time.monotonic() - began < 18
    assert (code, len(said)) == (1, 2)
    assert all("did not answer within 10 s" in each or "(timeout)" in each for each in said)


# --- SAML ---


def test_metadata_in_a_file_is_read(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "idp.xml"
    file.write_bytes(TestProvider.made_in(tmp_path / "idp").metadata())
    said = f"right  identity provider office: {file} can be read; certificates to sign with: 1"
    assert told(data_dir, HUB_SAML_OFFICE_METADATA=str(file)) == (0, [said])
    file.write_bytes(b"<EntityDescriptor")
    code, (said,) = told(data_dir, HUB_SAML_OFFICE_METADATA=str(file))
    assert code == 1
    assert said.startswith(f"wrong  identity provider office: {file}: The metadata cannot be used")


def test_metadata_without_a_certificate_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "idp.xml"
    document = TestProvider.made_in(tmp_path / "idp").metadata()
    file.write_bytes(document.replace(b"X509Certificate>", b"X509SKI>"))
    code, (said,) = examined(HUB_SAML_OFFICE_METADATA=str(file))
    assert (code, "a certificate to sign with" in said) == (1, True)


def test_a_certificate_that_has_expired_is_worth_a_note(tmp_path: Path) -> None:
    provider, file = TestProvider.made_in(tmp_path / "idp"), tmp_path / "idp.xml"
    old = KeyFiles.made_in(provider.folder, "old", ends_in=-timedelta(days=3))
    provider.also_published = [old]
    file.write_bytes(provider.metadata())
    code, (right, note) = examined(HUB_SAML_OFFICE_METADATA=str(file))
    day = (datetime.now(UTC) - timedelta(days=3)).date()
    assert (code, right[:5]) == (0, "right")
    assert note.startswith("note   identity provider office: a certificate that it signs with expired on ")
    assert f"{day}" in note


def test_metadata_that_has_run_out_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "idp.xml"
    document = TestProvider.made_in(tmp_path / "idp").metadata().decode()
    file.write_text(document.replace("entityID=", 'validUntil="2020-02-02T00:00:00Z" entityID=', 1))
    code, (said,) = examined(HUB_SAML_OFFICE_METADATA=str(file))
    assert (code, said.partition(": ")[2]) == (1, f"{file} ran out on 2020-02-02: nobody signs in by it")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("away", "cannot be fetched (http error)"),
        ("redirect", "cannot be fetched (redirected)"),
        ("huge", "cannot be fetched (too large)"),
        ("broken", "The metadata cannot be used"),
    ],
)
def test_metadata_at_a_url_is_fetched(tmp_path: Path, portal: BlockingPortal, fault: str, reason: str) -> None:
    site = MetadataSite(TestProvider.made_in(tmp_path / "idp").metadata())
    with published(portal, site) as url:
        code, (said,) = examined(HUB_SAML_OFFICE_METADATA=url)
        assert (code, said) == (
            0,
            f"right  identity provider office: {url} can be read; certificates to sign with: 1",
        )
        site.fault = fault
        code, (said,) = examined(HUB_SAML_OFFICE_METADATA=url)
    assert (code, reason in said) == (1, True)
    assert site.asked == 2


# --- those that the database knows of ---


def kept_by(hub: Served, tenant: str | None, **provider: Any) -> None:
    """`tenant` is one to make; None: the admin's own."""
    with hub.client() as client:
        if tenant is not None:
            admin = {"email": "ada@example.org", "password": "a long sentence for ada"}
            made = client.post("/tenants", json={"slug": tenant, "name": tenant, "admin": admin})
            assert made.status_code == 201, made.text
            login = client.post("/auth/login", json=admin | {"tenant": tenant})
            client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        made = client.post("/identity-providers", json=provider)
        assert made.status_code == 201, made.text


@pytest.mark.slow
def test_those_of_every_tenant_are_told_of_with_what_the_database_knows(
    data_dir: Path, tmp_path: Path, serve: Serve, openid: Provider, portal: BlockingPortal
) -> None:
    site = MetadataSite(TestProvider.made_in(tmp_path / "idp").metadata())
    xml = TestProvider.made_in(tmp_path / "idp2").metadata().decode()
    client = {"client_id": "hub", "client_secret": "hunter22"}
    with published(portal, site) as url:
        hub = serve(data_dir, HUB_SAML_OFFICE_METADATA=url)
        kept_by(hub, None, kind="oidc", name="off", label="Off", issuer=AWAY, is_active=False, **client)
        kept_by(hub, None, kind="saml", name="text", label="Text", metadata_xml=xml)
        kept_by(hub, "acme", kind="oidc", name="partner", label="Partner", issuer=openid.issuer, **client)
        with hub.client() as browser:
            asked = {"redirect_uri": "http://127.0.0.1:9/", "code_challenge": "A" * 43, "code_challenge_method": "S256"}
            begun = browser.get("/auth/saml/office/login", params=asked)
            assert begun.status_code == 302, begun.text
        code, said = told(data_dir, HUB_SAML_OFFICE_METADATA=url)
        assert (code, sorted(line.partition(": ")[0] for line in said)) == (
            0,
            [
                "right  identity provider office",
                "right  identity provider partner of acme",
                "right  identity provider text",
            ],
        )
        site.fault = "away"
        given = {"HUB_SAML_OFFICE_METADATA": url, "HUB_OIDC_X_TENANT": "nowhere"} | of_openid(openid.issuer, "X")
        other_key = KeyRing.generate("k1")
        code, said = told(data_dir, HUB_SECRET_KEYS=other_key, **given)
    assert code == 1
    wrong = [line for line in said if line.startswith("wrong")]
    assert [line.partition(": ")[0].removeprefix("wrong  identity provider ") for line in wrong] == [
        "x of nowhere",
        "partner of acme",
        "office",
        "office",
    ]
    assert wrong[0].endswith("there is no tenant nowhere")
    assert "its client secret opens with no key of the ring" in wrong[1]
    assert "the hub's own key to it opens with no key of the ring" in wrong[2]
    assert "cannot be fetched (http error); the copy of 20" in wrong[3]
    assert hub.process.poll() is None


def test_silent_name_servers_make_no_other_provider_wrong(openid: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one of the same tenant, which has one share of look-ups where people sign in."""
    names, tenant_id = SilentNames(monkeypatch), uuid4()
    openid.issuer = openid.issuer.replace("127.0.0.1", "localhost")
    issuers = [*(f"https://{number}.unanswered.example" for number in range(5)), openid.issuer]
    cases = [
        Case(
            provider=KeptProvider(
                id=uuid4(), tenant_id=tenant_id, tenant="acme", kind="oidc", name=f"a{number}", label="A", issuer=issuer
            )
        )
        for number, issuer in enumerate(issuers)
    ]
    try:
        found = asyncio.run(examine(load({}, env_file=None), cases))
    finally:
        names.release()
    assert [finding.verdict for finding in found] == ["wrong"] * 5 + ["right"], found
