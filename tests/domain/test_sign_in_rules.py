"""What a tenant wants of those who sign in: openspec/specs/tenants/spec.md."""

import httpx
import pytest

from tests.conftest import PASSWORD, Hub

pytestmark = pytest.mark.anyio

SETTINGS = "/api/v1/tenant-settings"
DAY_S = 86_400


async def changed(hub: Hub, **given: object) -> dict[str, object]:
    answer = await hub.admin.patch(SETTINGS, json=given)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def fault_of(answer: httpx.Response) -> tuple[str, str]:
    assert answer.status_code == 400, answer.text
    (fault,) = answer.json()["errors"]
    return fault["path"], fault["code"]


async def test_a_tenant_that_has_decided_nothing_goes_by_the_deployment(hub: Hub) -> None:
    shown = (await hub.admin.get(SETTINGS)).json()
    names = ("password_min_length", "requires_mfa", "allowed_email_domains", "session_idle_days", "session_days")
    assert [shown[name] for name in names] == [None, False, [], 7, 30]


async def test_passwords_are_as_long_as_the_tenant_wants_them(two_tenants: tuple[Hub, Hub]) -> None:
    one, other = two_tenants
    await changed(other, password_min_length=40)
    new = {"email": "a@long.example.org", "password": PASSWORD}
    assert fault_of(await other.admin.post("/api/v1/users", json=new)) == ("password", "weak_password")
    assert (
        await other.admin.post("/api/v1/users", json=new | {"password": f"{PASSWORD}, and wide"})
    ).status_code == 201
    assert (await one.admin.post("/api/v1/users", json=new)).status_code == 201
    await changed(other, password_min_length=None)


async def test_a_tenant_asks_for_no_less_than_the_deployment(hub: Hub) -> None:
    refused = await hub.admin.patch(SETTINGS, json={"password_min_length": 14})
    assert fault_of(refused) == ("password_min_length", "too_small")


async def test_new_members_are_of_the_domains_that_the_tenant_takes(hub: Hub) -> None:
    own = await hub.new_tenant("picky")
    await changed(own, allowed_email_domains=["example.org"])
    elsewhere, here = {"email": "a@example.com"}, {"email": "a@example.org"}
    assert fault_of(await own.admin.post("/api/v1/users", json=elsewhere)) == ("email", "domain_not_allowed")
    user = (await own.admin.post("/api/v1/users", json=here)).json()
    moved = await own.admin.patch(f"/api/v1/users/{user['id']}", json=elsewhere)
    assert fault_of(moved) == ("email", "domain_not_allowed")
    names = {"first_name": "", "last_name": "", "password": PASSWORD, "tenant": "picky"}
    for given, status in ((elsewhere, 400), ({"email": "b@example.org"}, 201)):
        registered = await hub.client().post("/api/v1/auth/register", json=given | names)
        assert registered.status_code == status, registered.text


async def test_sessions_last_as_long_as_the_tenant_lets_them(two_tenants: tuple[Hub, Hub]) -> None:
    _, other = two_tenants
    user = (await other.admin.post("/api/v1/users", json={"email": "s@s.example.org", "password": PASSWORD})).json()
    await changed(other, session_idle_days=2, session_days=3)
    opened = await other.client().post("/api/v1/auth/login", json={"email": user["email"], "password": PASSWORD})
    assert opened.json()["refresh_expires_in"] == 2 * DAY_S
    await changed(other, session_idle_days=5)
    refreshed = await other.client().post(
        "/api/v1/auth/refresh", json={"refresh_token": opened.json()["refresh_token"]}
    )
    assert 3 * DAY_S - 60 < refreshed.json()["refresh_expires_in"] <= 3 * DAY_S


@pytest.mark.parametrize(
    "given",
    [
        {"session_days": 0},
        {"session_idle_days": 366},
        {"allowed_email_domains": ["Example.org"]},
        {"allowed_email_domains": ["*.example.org"]},
        {"password_min_length": 129},
        {"requires_mfa": "yes"},
    ],
)
async def test_what_makes_no_sense_is_refused(hub: Hub, given: dict[str, object]) -> None:
    assert (await hub.admin.patch(SETTINGS, json=given)).status_code == 400
