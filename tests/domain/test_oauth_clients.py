"""Programs to which people sign in: registered, changed and deleted, with redirect URIs that nobody has to guess at."""

import asyncio
from uuid import UUID

import pytest

from app.domain.oauth import services
from app.domain.oauth.redirects import is_loopback, is_registered, why_not_allowed
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.oauth import (
    CLIENTS,
    WEB,
    Flow,
    assert_refused,
    flow_of_registered,
    registered_client,
    somebody,
    works,
)

pytestmark = pytest.mark.anyio


async def test_a_client_is_registered_shown_changed_and_deleted(hub: Hub, records: Records) -> None:
    _, before = await records.mark()
    body = {"name": " The  reports ", "redirect_uris": [WEB], "is_confidential": True}
    made = await hub.admin.post(CLIENTS, json=body)
    client = made.json()
    assert made.headers["location"] == f"{CLIENTS}/{client['id']}"
    assert (client["name"], client["redirect_uris"], client["is_confidential"]) == ("The reports", [WEB], True)
    path, secret = made.headers["location"], client.pop("client_secret")
    shown = await hub.admin.get(path)
    assert (shown.json(), shown.headers["etag"]) == (client, '"v1"')
    assert (await hub.admin.get(CLIENTS, params={"name": "the REPORTS"})).json()["items"] == [client]
    changed = await hub.admin.patch(path, json={"name": "Sums"}, headers={"If-Match": '"v1"'})
    assert (changed.json()["name"], changed.json()["client_id"]) == ("Sums", client["client_id"])
    assert (await hub.admin.patch(path, json={"name": "x"}, headers={"If-Match": '"v1"'})).status_code == 412
    assert (await hub.admin.patch(path, json={"is_confidential": False})).json()["errors"][0]["code"] == "unknown_field"
    deleted = await hub.admin.delete(path)
    assert deleted.status_code == 204
    assert (await hub.admin.get(path)).status_code == 404
    rows = [row for answer in (made, changed, deleted) for row in await records.audit(answer)]
    assert [row["action"] for row in rows] == ["oauth_client.create", "oauth_client.update", "oauth_client.delete"]
    events = await records.events(before)
    assert [event["type"].rpartition("hub.")[2] for event in events] == [
        "oauth_client.created",
        "oauth_client.updated",
        "oauth_client.deleted",
    ]
    assert secret not in str(rows) + str(events) + shown.text


async def test_a_secret_is_shown_once_and_kept_as_its_digest(hub: Hub, records: Records) -> None:
    body = {"name": "Once", "redirect_uris": [WEB], "is_confidential": True}
    first, again = [await hub.admin.post(CLIENTS, json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert first.json() == again.json()
    assert first.json()["client_secret"].startswith("dfs_")
    row = await records.run("SELECT * FROM oauth_clients WHERE id = $1", UUID(first.json()["id"]))
    assert first.json()["client_secret"] not in str(dict(row[0]))


async def test_a_public_client_has_no_secret(hub: Hub) -> None:
    assert (await registered_client(hub))["client_secret"] is None


async def test_a_client_id_says_whose_client_it_is(two_tenants: tuple[Hub, Hub]) -> None:
    one, other = [await registered_client(hub, name="The same") for hub in two_tenants]
    assert one["client_id"][:4] == "dfo_"
    assert one["client_id"][4:25] != other["client_id"][4:25]
    assert (await two_tenants[1].admin.get(f"{CLIENTS}/{one['id']}")).status_code == 404


async def test_names_are_taken_once(hub: Hub) -> None:
    await registered_client(hub, name="Dashboard")
    for name in ("DASHBOARD", "Dаshboard"):
        answer = await hub.admin.post(CLIENTS, json={"name": name, "redirect_uris": [WEB]})
        assert answer.status_code in (400, 409)
        assert answer.json()["errors"][0]["path"] == "name"


async def test_reading_and_writing_need_their_permissions(hub: Hub) -> None:
    client = await registered_client(hub)
    reader, nobody = await hub.user_with("oauth-clients:read"), await hub.user_with()
    path, body = f"{CLIENTS}/{client['id']}", {"name": "y", "redirect_uris": [WEB]}
    assert [(await reader.get(place)).status_code for place in (CLIENTS, path)] == [200, 200]
    assert (await reader.post(CLIENTS, json=body)).status_code == 403
    assert (await reader.delete(path)).status_code == 403
    assert [(await nobody.get(place)).status_code for place in (CLIENTS, path)] == [403, 404]


async def test_a_tenant_has_so_many_clients_at_most(
    two_tenants: tuple[Hub, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "MOST", 0)
    answer = await two_tenants[1].admin.post(CLIENTS, json={"name": "More", "redirect_uris": [WEB]})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_clients")


async def test_a_code_that_is_exchanged_while_its_client_is_deleted_opens_no_session_that_stays(hub: Hub) -> None:
    for _ in range(5):
        client, who = await registered_client(hub), await somebody(hub)
        flow = Flow(hub, client["client_id"], WEB)
        code = await flow.code(who)
        redeemed, deleted = await asyncio.gather(flow.redeem(code), hub.admin.delete(f"{CLIENTS}/{client['id']}"))
        assert deleted.status_code == 204, deleted.text
        assert redeemed.status_code in (200, 400, 401), redeemed.text
        assert redeemed.status_code != 200 or not await works(hub, redeemed.json()["access_token"])


async def test_whoever_is_signed_in_to_a_client_is_signed_out_with_it(hub: Hub, records: Records) -> None:
    flow = await flow_of_registered(hub)
    who = await somebody(hub)
    tokens, others = await flow.sign_in(who), await Flow(hub).sign_in(who)
    assert await works(hub, tokens["access_token"])
    row_id = await records.one("SELECT id FROM oauth_clients WHERE client_id = $1", flow.client_id)
    assert (await hub.admin.delete(f"{CLIENTS}/{row_id}")).status_code == 204
    assert not await works(hub, tokens["access_token"])
    assert_refused(await flow.refresh(tokens["refresh_token"]), "invalid_client", 401)
    assert await works(hub, others["access_token"])


ALLOWED = [
    "https://app.example.org",
    "https://app.example.org/signed-in?from=hub",
    "https://app.example.org:8443/a/b",
    "http://127.0.0.1/callback",
    "http://127.0.0.1:8080/",
    "http://[::1]:8080/cb",
    "http://localhost:3000/cb",
    "org.example.app:/signed-in",
    "org.example.app://signed-in/",
]
NOT_ALLOWED = [
    "http://app.example.org/",
    "http://127.0.0.1.example.org/",
    "http://127.0.0.1@example.org/",
    "http://127.0.0.1:8080@example.org/",
    "http://localhost.example.org/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:/",
    "http://0.0.0.0/",
    "https://app.example.org/#fragment",
    "https://*.example.org/",
    "https://app.example.org/*",
    "https://user@app.example.org/",
    "https://user:word@app.example.org/",
    "https:///no-host",
    "https://",
    "https://app.example.org:port/",
    "https://app.example.org\\@evil.example.org/",
    "https://app.example.org/a b",
    "https://app.example.org/\r\nLocation: x",
    "https://ａpp.example.org/",
    "javascript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "app:/no-dot",
    "org.example.app:no-slash",
    "//app.example.org/",
    "/relative",
    "HTTPS://app.example.org/",
    "https://app.example.org/" + "a" * 1000,
]


@pytest.mark.parametrize("uri", ALLOWED)
def test_such_a_redirect_uri_may_be_registered(uri: str) -> None:
    assert why_not_allowed(uri) is None


@pytest.mark.parametrize("uri", NOT_ALLOWED)
def test_such_a_redirect_uri_may_not(uri: str) -> None:
    assert why_not_allowed(uri)
    assert not is_loopback(uri)


async def test_each_faulty_redirect_uri_is_named(hub: Hub) -> None:
    body = {"name": "Faulty", "redirect_uris": [WEB, "http://app.example.org/", "javascript:x", WEB]}
    answer = await hub.admin.post(CLIENTS, json=body)
    assert answer.status_code == 400
    assert [(fault["path"], fault["code"]) for fault in answer.json()["errors"]] == [
        ("redirect_uris[1]", "invalid_redirect_uri"),
        ("redirect_uris[2]", "invalid_redirect_uri"),
        ("redirect_uris[3]", "duplicate"),
    ]


@pytest.mark.parametrize(
    ("asked", "registered", "is_it"),
    [
        (WEB, WEB, True),
        (f"{WEB}/", WEB, False),
        (f"{WEB}?x=1", WEB, False),
        (WEB.upper(), WEB, False),
        ("https://app.example.org:443/signed-in", WEB, False),
        ("https://app.example.org/x/../signed-in", WEB, False),
        ("https://app.example.org/signed%2din", WEB, False),
        ("http://127.0.0.1:5000/cb", "http://127.0.0.1/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5000/cb", True),
        ("http://[::1]:5000/cb", "http://[::1]:1/cb", True),
        ("http://127.0.0.1:5000/other", "http://127.0.0.1/cb", False),
        ("http://localhost:5000/cb", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1:5000@evil.example.org/cb", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1:70000/cb", "http://127.0.0.1/cb", False),
        ("https://127.0.0.1:5000/cb", "http://127.0.0.1/cb", False),
    ],
)
def test_what_is_asked_for_is_what_was_registered_but_for_the_port_of_loopback(
    asked: str, registered: str, is_it: bool
) -> None:
    assert is_registered(asked, [registered]) is is_it
