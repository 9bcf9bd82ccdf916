"""Keys of directories: who makes them, what they open, when they are dead; and what is tried against `/scim/v2`."""

import asyncio
import json
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.scim.definitions import USER
from app.domain.scim.paths import read_filter
from tests.conftest import PASSWORD, Hub
from tests.cpu_growth import CpuGrowth
from tests.domain.conftest import Records
from tests.domain.scim import KEYS, Directory, connected, told

pytestmark = pytest.mark.anyio
PATHS = ("/ServiceProviderConfig", "/ResourceTypes", "/Schemas", "/Users", "/Groups", "/Me", "/Bulk")


@pytest.fixture(scope="module")
async def directory(hub: Hub) -> Directory:
    return await connected(hub)


async def test_a_key_is_shown_once_and_kept_as_a_hash(hub: Hub, records: Records) -> None:
    made = await hub.admin.post(KEYS, json={"name": "  Entra   ID "})
    assert made.status_code == 201
    key = made.json()["key"]
    assert key.startswith("dfd_")
    assert made.json()["name"] == "Entra ID"
    listed = (await hub.admin.get(KEYS)).json()["items"][0]
    assert listed == {name: value for name, value in made.json().items() if name != "key"}
    stored = await records.one("SELECT scim_keys::text FROM scim_keys WHERE id = $1", UUID(made.json()["id"]))
    assert key not in stored
    (row,) = await records.audit(made)
    assert (row["action"], key in json.dumps(row["after"])) == ("scim_key.create", False)
    again = await hub.admin.post(KEYS, json={"name": "a", "no": 1})
    assert again.status_code == 400


async def test_a_key_is_made_by_who_may_do_what_it_may(hub: Hub) -> None:
    clerk = await hub.user_with("scim-keys:write", "scim-keys:read", "users:write", "groups:write")
    refused = await clerk.post(KEYS, json={"name": "mine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")
    directory = await connected(hub)
    assert (await clerk.get(KEYS)).status_code == 200
    assert (await clerk.delete(f"{KEYS}/{directory.key_id}")).status_code == 204


async def test_a_deleted_key_is_dead_at_once(hub: Hub) -> None:
    directory = await connected(hub)
    assert (await directory.call("GET", "/Users?count=0")).status_code == 200
    assert (await hub.admin.delete(f"{KEYS}/{directory.key_id}")).status_code == 204
    refused = await directory.call("GET", "/Users?count=0")
    assert told(refused) == (401, None)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert (await hub.admin.delete(f"{KEYS}/{directory.key_id}")).status_code == 404


async def test_a_key_that_another_worker_has_deleted_is_dead_within_a_second(hub: Hub, records: Records) -> None:
    directory = await connected(hub)
    await directory.call("GET", "/Users?count=0")
    await records.run("DELETE FROM scim_keys WHERE id = $1", UUID(directory.key_id))
    await records.run("SELECT pg_notify('hub_principals', $1)", f"scim_key:{directory.key_id}")
    began = monotonic()
    while (await directory.call("GET", "/Users?count=0")).status_code != 401:
        assert monotonic() - began < 1
        await asyncio.sleep(0.02)


async def test_a_suspended_tenant_has_no_directory(hub: Hub) -> None:
    tenant = await hub.new_tenant()
    directory = await connected(tenant)
    await directory.new_user()
    mine = (await tenant.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    assert (await hub.admin.post(f"/api/v1/tenants/{mine}/suspend")).status_code == 200
    assert told(await directory.call("GET", "/Users")) == (401, None)
    assert (await hub.admin.post(f"/api/v1/tenants/{mine}/resume")).status_code == 200
    assert (await directory.call("GET", "/Users")).status_code == 200


async def test_the_last_use_is_noted_to_the_hour(hub: Hub) -> None:
    directory = await connected(hub)
    await directory.call("GET", "/Users?count=0")
    await hub.parts.scim_key_uses.write()
    (key,) = [each for each in (await hub.admin.get(KEYS)).json()["items"] if each["id"] == directory.key_id]
    used = datetime.fromisoformat(key["last_used_at"])
    assert (used.minute, used.second) == (0, 0)
    assert 0 <= (datetime.now(UTC) - used).total_seconds() < 3700
    assert key["version"] == 1


async def test_a_key_opens_the_directory_and_nothing_else(hub: Hub, directory: Directory) -> None:
    for path in ("/users", "/auth/me", "/scim-keys", "/audit-events", "/groups"):
        refused = await hub.client(directory.key).get(f"/api/v1{path}")
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token"), path
    introspected = await hub.admin.post("/api/v1/auth/introspect", data={"token": directory.key})
    assert introspected.json() == {"active": False}


async def test_nothing_else_opens_the_directory(hub: Hub, directory: Directory) -> None:
    api_key = (await hub.admin.post("/api/v1/api-keys", json={"name": "a"})).json()["key"]
    token = hub.admin.headers["authorization"].removeprefix("Bearer ")
    forged = directory.key[:-4] + "AAAA"
    for credential in (api_key, token, forged, directory.key + "=", directory.key.upper(), "dfd_", "x" * 5000, "dfd_ü"):
        for path in PATHS:
            headers = [(b"authorization", b"Bearer " + credential.encode())]
            assert told(await hub.client().get(f"/scim/v2{path}", headers=headers)) == (401, None), credential[:12]
    for basic in ({}, {"Authorization": f"Basic {directory.key}"}):
        assert told(await hub.client().get("/scim/v2/Users", headers=basic)) == (401, None)


async def test_one_tenants_directory_knows_nothing_of_anothers(two_tenants: tuple[Hub, Hub]) -> None:
    one, other = two_tenants
    mine, theirs = await connected(one), await connected(other)
    user = await theirs.new_user(externalId="e")
    group = await theirs.new_group(user["id"])
    own = await mine.new_user(userName=user["userName"])  # the same address in another tenant is somebody else
    for path, body in ((f"/Users/{user['id']}", {"userName": "x"}), (f"/Groups/{group['id']}", {"displayName": "x"})):
        for method in ("GET", "PUT", "DELETE"):
            assert told(await mine.call(method, path, body if method == "PUT" else None)) == (404, None)
        assert told(await mine.patch(path, {"op": "replace", "path": "externalId", "value": "x"})) == (404, None)
        assert (await theirs.call("GET", path)).status_code == 200
    assert [each["id"] for each in await mine.found("Users", f'userName eq "{user["userName"]}"')] == [own["id"]]
    for condition in (f'id eq "{user["id"]}"', 'externalId eq "e"', f'emails.value eq "{user["userName"]}"'):
        assert await mine.found("Users", condition) == []
    assert await mine.found("Groups", f'members.value eq "{user["id"]}"') == []
    assert (await one.admin.delete(f"{KEYS}/{theirs.key_id}")).status_code == 404


async def test_errors_are_in_scims_shape_from_every_layer(hub: Hub, directory: Directory) -> None:
    for method, path, status in (
        ("GET", f"/{uuid4()}", 404), ("GET", "/Users/no-id", 404), ("GET", f"/Users/{uuid4()}", 404),
        ("GET", f"/Users/{str(uuid4()).upper()}", 404), ("PUT", "/Users", 405), ("POST", "/Schemas", 405),
        ("DELETE", "/ServiceProviderConfig", 405), ("GET", "/Schemas/urn:x", 404), ("GET", "/ResourceTypes/x", 404),
        ("GET", "/Me", 501), ("PATCH", "/Me", 501), ("POST", "/Bulk", 501), ("POST", "/.search", 501),
    ):  # fmt: skip
        assert told(await directory.call(method, path)) == (status, None), path
    assert (await directory.call("PUT", "/Users")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    huge = b'{"userName": "' + b"x" * hub.settings.max_body_bytes + b'"}'
    assert told(await directory.client.post("/scim/v2/Users", content=huge)) == (413, None)
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/msgpack", ""):
        sent = await directory.client.post("/scim/v2/Users", content=b"{}", headers={"content-type": content_type})
        assert told(sent) == (415, None), content_type
    plain = await directory.client.post("/scim/v2/Users", content=b"{}", headers={"content-type": "application/json"})
    assert told(plain) == (400, "invalidValue")


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", "invalidSyntax"), (b"{", "invalidSyntax"), (b"\xff\xfe", "invalidSyntax"), (b"[" * 100_000, "invalidSyntax"),
        (b'{"userName": "a", "userName": "b"}', "invalidSyntax"), (b"[" + b"1," * 60_000 + b"1]", "invalidSyntax"),
        (b"[]", "invalidValue"), (b"null", "invalidValue"), (b"{}", "invalidValue"), (b'{"userName": null}', "invalidValue"),
        (b'{"userName": "a\\u0000b"}', "invalidValue"), (b'{"userName": "a\\ud800b"}', "invalidSyntax"),
        (b'{"userName": "a", "nickName": "\\udfff"}', "invalidSyntax"), (b'{"userName": ["a", "b"]}', "invalidValue"),
        (b'{"userName": {"value": "a"}}', "invalidValue"), (b'{"userName": "\\u200b"}', "invalidValue"),
        (b'{"userName": "a", "emails": "x", "active": 1}', "invalidValue"), (b'{"userName": "a", "name": []}', None),
        (b'{"userName": "a", "emails": [{"primary": true, "value": "1"}, {"primary": true, "value": "2"}]}', "invalidValue"),
    ],
)  # fmt: skip
async def test_no_body_is_too_odd_for_an_answer(directory: Directory, body: bytes, wanted: str | None) -> None:
    answer = await directory.client.post("/scim/v2/Users", content=body)
    if wanted is None:
        assert answer.status_code == 201
    else:
        assert told(answer) == (400, wanted)


async def test_operations_are_counted_before_they_are_done(directory: Directory) -> None:
    user = await directory.new_user()
    many = [{"op": "add", "path": "title", "value": "x"}] * 1001
    assert told(await directory.patch(f"/Users/{user['id']}", *many)) == (413, None)
    short = json.dumps({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [0] * 50_000})
    refused = await directory.client.patch(f"/scim/v2/Users/{user['id']}", content=short.encode())
    assert told(refused) == (400, "invalidSyntax")
    for operations in ([], "add", None, [None]):
        body: dict[str, Any] = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations}
        assert told(await directory.call("PATCH", f"/Users/{user['id']}", body)) == (400, "invalidSyntax")
    assert told(await directory.call("PATCH", f"/Users/{user['id']}", {"Operations": []})) == (400, "invalidSyntax")


async def test_reading_a_filter_costs_what_it_is_long() -> None:
    growth = CpuGrowth(1900, 3800, floor_s=0.0005, at_most_s=0.02)
    for size in growth.sizes():
        text = 'userName eq "' + "\\\\" * (size // 2 - 10) + '"'
        with growth.look(size):
            read_filter(USER, text)
    growth.assert_bounded()


async def test_a_directory_has_a_quota_of_its_own(directory: Directory) -> None:
    answer = await directory.call("GET", "/Users?count=0")
    assert answer.headers["ratelimit-policy"].startswith('"directory";q=')


async def test_what_the_hub_can_do_is_told(directory: Directory) -> None:
    config = (await directory.call("GET", "/ServiceProviderConfig")).json()
    supported = {
        name: config[name]["supported"] for name in ("patch", "bulk", "filter", "sort", "etag", "changePassword")
    }
    assert supported == {
        "patch": True,
        "bulk": False,
        "filter": True,
        "sort": True,
        "etag": True,
        "changePassword": False,
    }
    schemas = (await directory.call("GET", "/Schemas")).json()["Resources"]
    types = (await directory.call("GET", "/ResourceTypes")).json()["Resources"]
    assert {each["schema"] for each in types} <= {each["id"] for each in schemas}
    for each in schemas:
        assert (await directory.call("GET", f"/Schemas/{each['id']}")).json() == each
    assert {"Users", "Groups"} == {each["endpoint"].strip("/") for each in types}


async def test_nobody_signs_in_as_a_key(hub: Hub, directory: Directory) -> None:
    user = await directory.new_user()
    refused = await hub.client().post("/api/v1/auth/login", json={"email": user["userName"], "password": PASSWORD})
    assert refused.status_code == 401
