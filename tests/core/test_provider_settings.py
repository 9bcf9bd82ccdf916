"""Identity providers of the settings: openspec/specs/identity-providers/spec.md."""

from pathlib import Path

import pytest

from app.core.provider_settings import ConfiguredProvider
from app.settings import SettingsError, load

OIDC = {
    "HUB_OIDC_ACME_ISSUER": "https://login.acme.example.org/realms/a",
    "HUB_OIDC_ACME_CLIENT_ID": "hub",
    "HUB_OIDC_ACME_CLIENT_SECRET": "sesame 4711",
}


def problems_of(**variables: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(variables, env_file=None)
    return caught.value.problems


def test_an_oidc_provider_is_read_with_all_that_is_said_of_it() -> None:
    more = {
        "HUB_OIDC_ACME_SCOPES": "openid email groups",
        "HUB_OIDC_ACME_GROUPS_CLAIM": "groups",
        "HUB_OIDC_ACME_TENANT": "acme",
        "HUB_OIDC_ACME_ALLOWED_DOMAINS": "acme.example.org, Acme.example.com",
        "HUB_OIDC_ACME_LABEL": "Acme staff",
    }
    assert load(OIDC | more, env_file=None).providers == (
        ConfiguredProvider(
            kind="oidc",
            name="acme",
            tenant="acme",
            label="Acme staff",
            issuer="https://login.acme.example.org/realms/a",
            client_id="hub",
            client_secret="sesame 4711",
            scopes=("openid", "email", "groups"),
            groups_claim="groups",
            allowed_domains=("acme.example.org", "acme.example.com"),
        ),
    )


def test_what_is_not_said_has_its_default() -> None:
    (provider,) = load(OIDC, env_file=None).providers
    assert (provider.tenant, provider.label, provider.scopes) == ("default", "Acme", ("openid", "email", "profile"))
    assert (provider.groups_claim, provider.allowed_domains) == (None, ())


def test_a_saml_provider_has_its_metadata_in_a_file_or_at_a_url(tmp_path: Path) -> None:
    (tmp_path / "idp.xml").write_text("<EntityDescriptor/>")
    given = {
        "HUB_SAML_ONE_METADATA": str(tmp_path / "idp.xml"),
        "HUB_SAML_TWO_METADATA": "https://idp.example.org/metadata",
        "HUB_SAML_TWO_ATTRIBUTE_EMAIL": "mail",
    }
    one, two = load(given, env_file=None).providers
    assert (one.metadata_file, one.metadata_url) == (tmp_path / "idp.xml", None)
    assert (two.metadata_file, two.metadata_url, two.attribute_email) == (
        None,
        "https://idp.example.org/metadata",
        "mail",
    )


@pytest.mark.parametrize("missing", sorted(OIDC))
def test_a_variable_that_is_missing_is_named(missing: str) -> None:
    given = {name: text for name, text in OIDC.items() if name != missing}
    assert problems_of(**given) == [f"{missing}: is needed for this provider"]


def test_each_fault_has_a_line_of_its_own() -> None:
    found = problems_of(HUB_OIDC_X_SCOPES="email", HUB_OIDC_X_COLOUR="red", HUB_SAML_Y_LABEL="Y")
    assert [line.split(":")[0] for line in found] == [
        "HUB_OIDC_X_COLOUR",
        "HUB_OIDC_X_SCOPES",
        "HUB_OIDC_X_ISSUER",
        "HUB_OIDC_X_CLIENT_ID",
        "HUB_OIDC_X_CLIENT_SECRET",
        "HUB_SAML_Y_METADATA",
    ]


WRONG = {
    "HUB_OIDC_ACME_ISSUER": [
        "login.example.org",
        "http://login.example.org",
        "https://login.example.org?x=1",
        "https://login.example.org/#a",
        "https://user:word@login.example.org",
        "https://login.example.org:99999",
        "https://a b",
    ],
    "HUB_OIDC_ACME_SCOPES": ["email", "openid \u00e4"],
    "HUB_OIDC_ACME_TENANT": ["Acme", "a_b", "-a"],
    "HUB_OIDC_ACME_ALLOWED_DOMAINS": ["@acme.example.org", "acme", "*.example.org"],
    "HUB_OIDC_ACME_LABEL": ["x" * 101],
    "HUB_SAML_ACME_METADATA": ["/there/is/none.xml", "ftp://x/y", "http://idp.example.org/metadata"],
}


@pytest.mark.parametrize(("variable", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_a_value_that_does_not_fit_stops_the_start(variable: str, text: str) -> None:
    own = {} if variable.startswith("HUB_SAML") else OIDC
    assert [line.split(":")[0] for line in problems_of(**(own | {variable: text}))] == [variable]


def test_an_issuer_on_this_machine_may_be_plain_in_development_only() -> None:
    given = OIDC | {"HUB_OIDC_ACME_ISSUER": "http://127.0.0.1:4000"}
    assert load(given, env_file=None).providers[0].issuer == "http://127.0.0.1:4000"
    assert any("HUB_OIDC_ACME_ISSUER" in line for line in problems_of(HUB_ENV="production", **given))


def test_two_kinds_may_not_share_a_name_within_a_tenant() -> None:
    saml = {"HUB_SAML_ACME_METADATA": "https://idp.example.org/metadata"}
    assert "has a provider of this name" in problems_of(**OIDC, **saml)[0]
    assert len(load(OIDC | saml | {"HUB_SAML_ACME_TENANT": "other"}, env_file=None).providers) == 2


def test_no_problem_shows_a_secret() -> None:
    found = problems_of(**(OIDC | {"HUB_OIDC_ACME_ISSUER": "nonsense", "HUB_OIDC_ACME_NOTHING": "sesame 4711"}))
    assert "sesame" not in "".join(found)
