"""Identity providers of tenants: openspec/specs/identity-providers/spec.md."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.embedded import EmbeddedPostgres
from app.domain.identity_providers.registry import provider_named
from app.domain.resealing import TABLES
from tests.conftest import Hub, running_hub
from tests.started import packages_of_a_start

pytestmark = pytest.mark.anyio

PROVIDERS = "/api/v1/identity-providers"
SECRET = "sesame 4711 of the provider"
OF_SETTINGS = {
    "HUB_OIDC_CORP_ISSUER": "https://login.example.org",
    "HUB_OIDC_CORP_CLIENT_ID": "hub",
    "HUB_OIDC_CORP_CLIENT_SECRET": "set by the operator",
    "HUB_OIDC_CORP_LABEL": "Corporate login",
    "HUB_SAML_ACME_METADATA": "https://idp.acme.example.org/metadata",
    "HUB_SAML_ACME_TENANT": "acme",
}


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub"), **OF_SETTINGS) as running:
        yield running


def new_provider(**given: Any) -> dict[str, Any]:
    usual = {
        "kind": "oidc",
        "name": f"p{uuid4().hex}",
        "label": "Staff",
        "issuer": "https://idp.example.org",
        "client_id": "hub",
        "client_secret": SECRET,
    }
    return {name: value for name, value in (usual | given).items() if value is not ...}


async def made(client: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    answer = await client.post(PROVIDERS, json=new_provider(**given))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def faults_of(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 400, answer.text
    return [(fault["path"], fault["code"]) for fault in answer.json()["errors"]]


async def test_a_provider_is_made_listed_changed_and_deleted(hub: Hub) -> None:
    provider = await made(hub.admin)
    assert provider["has_client_secret"] is True
    assert provider["scopes"] == ["openid", "email", "profile"]
    path = f"{PROVIDERS}/{provider['id']}"
    assert (await hub.admin.get(path)).json() == provider
    changed = await hub.admin.patch(path, json={"label": "All staff", "groups_claim": "groups"})
    assert (changed.json()["label"], changed.json()["groups_claim"], changed.json()["version"]) == (
        "All staff",
        "groups",
        2,
    )
    listed = (await hub.admin.get(PROVIDERS, params={"q": provider["name"]})).json()["items"]
    assert listed == [changed.json()]
    assert (await hub.admin.delete(path)).status_code == 204
    assert (await hub.admin.get(path)).status_code == 404


async def test_the_secret_is_in_no_answer_no_event_and_no_audit_row(hub: Hub) -> None:
    answer = await hub.admin.post(PROVIDERS, json=new_provider())
    shown = answer.text
    shown += (await hub.admin.get(f"{PROVIDERS}/{answer.json()['id']}")).text + (await hub.admin.get(PROVIDERS)).text
    shown += (await hub.admin.get("/api/v1/events", params={"type": "identity_provider.created"})).text
    shown += (await hub.admin.get("/api/v1/audit-events", params={"action": "identity_provider.create"})).text
    assert answer.json()["name"] in shown
    assert SECRET not in shown


async def test_the_secret_is_opened_for_whoever_signs_in_and_resealed_with_the_others(hub: Hub) -> None:
    provider = await made(hub.admin)
    found = await provider_named(hub.parts, "oidc", provider["name"], "default")
    assert found is not None
    assert found.client_secret == SECRET
    assert "identity_providers" in {table.model.__tablename__ for table in TABLES}


async def test_another_issuer_needs_the_secret_again(hub: Hub) -> None:
    path = f"{PROVIDERS}/{(await made(hub.admin))['id']}"
    refused = await hub.admin.patch(path, json={"issuer": "https://elsewhere.example.org"})
    assert (refused.status_code, refused.json()["code"]) == (409, "secret_reentry_required")
    both = {"issuer": "https://elsewhere.example.org", "client_secret": "another"}
    assert (await hub.admin.patch(path, json=both)).json()["issuer"] == "https://elsewhere.example.org"


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        ({"issuer": ...}, [("issuer", "required")]),
        ({"client_id": ..., "client_secret": ...}, [("client_id", "required"), ("client_secret", "required")]),
        ({"issuer": "http://idp.example.org"}, [("issuer", "invalid")]),
        ({"issuer": "https://idp.example.org?x=1"}, [("issuer", "invalid")]),
        ({"scopes": ["email"]}, [("scopes", "invalid")]),
        ({"metadata_url": "https://idp.example.org/metadata"}, [("metadata_url", "not_allowed")]),
        ({"kind": "saml"}, [("issuer", "not_allowed"), ("client_id", "not_allowed"), ("client_secret", "not_allowed"), ("metadata_xml", "required")]),
    ],
)  # fmt: skip
async def test_a_provider_needs_what_its_kind_needs(hub: Hub, given: dict[str, Any], faults: list[Any]) -> None:
    assert faults_of(await hub.admin.post(PROVIDERS, json=new_provider(**given))) == faults


async def test_a_saml_provider_has_metadata_and_no_secret(hub: Hub) -> None:
    saml = {"kind": "saml", "issuer": ..., "client_id": ..., "client_secret": ...}
    provider = await made(hub.admin, **saml, metadata_xml="<EntityDescriptor/>", attribute_email="mail")
    assert (provider["has_client_secret"], provider["attribute_email"]) == (False, "mail")
    found = await provider_named(hub.parts, "saml", provider["name"], "default")
    assert found is not None
    assert found.metadata_xml == "<EntityDescriptor/>"


async def test_a_name_is_given_once_in_a_tenant_and_not_one_of_the_settings(two_tenants: tuple[Hub, Hub]) -> None:
    one, other = two_tenants
    name = (await made(one.admin))["name"]
    again = await one.admin.post(PROVIDERS, json=new_provider(name=name))
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert (await made(other.admin, name=name))["name"] == name
    of_settings = await one.admin.post(PROVIDERS, json=new_provider(name="corp"))
    assert (of_settings.status_code, of_settings.json()["code"]) == (409, "name_taken")


async def test_those_of_the_settings_are_shown_and_stay_as_they_are(hub: Hub) -> None:
    (corp,) = (await hub.admin.get(PROVIDERS, params={"q": "corp"})).json()["items"]
    assert (corp["managed_by"], corp["issuer"], corp["has_client_secret"]) == (
        "settings",
        "https://login.example.org",
        True,
    )
    path = f"{PROVIDERS}/{corp['id']}"
    assert (await hub.admin.get(path)).json() == corp
    for refused in (await hub.admin.patch(path, json={"label": "x"}), await hub.admin.delete(path)):
        assert (refused.status_code, refused.json()["code"]) == (409, "managed_by_settings")


async def test_another_tenants_provider_is_not_there(two_tenants: tuple[Hub, Hub]) -> None:
    one, other = two_tenants
    path = f"{PROVIDERS}/{(await made(one.admin))['id']}"
    for hidden in (
        await other.admin.get(path),
        await other.admin.patch(path, json={"label": "x"}),
        await other.admin.delete(path),
    ):
        assert hidden.status_code == 404


async def test_reading_and_writing_take_a_permission_each(hub: Hub) -> None:
    reader, nobody = await hub.user_with("identity-providers:read"), await hub.user_with()
    assert (await reader.get(PROVIDERS)).status_code == 200
    assert (await reader.post(PROVIDERS, json=new_provider())).status_code == 403
    assert (await nobody.get(PROVIDERS)).status_code == 403


async def test_ways_to_sign_in_are_shown_to_everybody_without_secrets(hub: Hub) -> None:
    hidden = await made(hub.admin, is_active=False)
    shown = await made(hub.admin, label="Aardvark login")
    answer = await hub.client().get("/api/v1/auth/providers")
    items = {item["name"]: item for item in answer.json()["items"]}
    assert items["corp"] == {
        "name": "corp",
        "kind": "oidc",
        "label": "Corporate login",
        "login_url": f"{hub.settings.url}/api/v1/auth/oidc/corp/login",
    }
    assert hidden["name"] not in items
    assert answer.json()["items"][0]["name"] == shown["name"]
    assert "acme" not in items
    assert "secret" not in answer.text


async def test_each_tenant_has_its_own(hub: Hub) -> None:
    await hub.new_tenant("acme")
    answer = await hub.client().get("/api/v1/auth/providers", params={"tenant": "acme"})
    (item,) = answer.json()["items"]
    assert item["login_url"] == f"{hub.settings.url}/api/v1/auth/saml/acme/login?tenant=acme"
    nobodys = await hub.client().get("/api/v1/auth/providers", params={"tenant": "nobodys"})
    assert nobodys.json()["items"] == []
    assert await provider_named(hub.parts, "saml", "acme", "default") is None


async def test_a_parameter_that_is_none_is_refused(hub: Hub) -> None:
    answer = await hub.client().get("/api/v1/auth/providers", params={"tenants": "acme"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_a_tenant_has_twenty_at_most(hub: Hub) -> None:
    full = await hub.new_tenant()
    for _ in range(20):
        await made(full.admin)
    refused = await full.admin.post(PROVIDERS, json=new_provider())
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_providers")


def test_a_start_does_without_the_libraries_of_sign_in() -> None:
    assert not packages_of_a_start() & {"authlib", "joserfc", "saml2", "httpx"}
