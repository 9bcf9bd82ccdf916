"""Data sources: registered with what their type takes, listed, changed and deleted."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, faults, post_source, registered

pytestmark = pytest.mark.anyio

S3 = {"bucket": "shop-data", "endpoint_url": "http://127.0.0.1:9"}
REST = {"base_url": "http://nowhere.invalid/v1"}


# --- registering ---


async def test_a_registered_source_is_read_back_alike(hub: Hub) -> None:
    made = await post_source(
        hub.admin,
        name="  Shop  ",
        description="orders",
        tags=["b", "a", " b "],
        secrets={"password": "pw"},
        is_paused=True,
    )
    read = await hub.admin.get(made.headers["location"])
    assert made.status_code == 201
    assert made.content == read.content
    assert made.headers["location"] == f"{SOURCES}/{made.json()['id']}"
    assert made.headers["etag"] == read.headers["etag"] == '"v1"'
    shown = made.json()
    assert UUID(shown["id"]).version == 7
    assert (shown["name"], shown["tags"], shown["status"], shown["category"]) == (
        "Shop",
        ["b", "a"],
        "untested",
        "database",
    )
    assert shown["config"]["port"] == 5432
    assert shown["config"]["tls_mode"] == "prefer"
    assert (shown["secrets"]["password"]["set"], shown["secrets"]["password"]["version"]) == (True, 1)
    assert shown["created_at"].endswith("Z")
    assert shown["secrets"]["password"]["updated_at"] == shown["created_at"]


FAULTY: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "postgresql",
        {"config": {"host": "", "port": "5432", "zz": 1, "database": "d"}, "secrets": {"password": 5, "pin": "x"}},
        {
            "config.host": "too_short",
            "config.port": "wrong_type",
            "config.zz": "unknown_field",
            "config.username": "required",
            "secrets.password": "wrong_type",
            "secrets.pin": "unknown_field",
        },
    ),
    (
        "postgresql",
        {"config": NOWHERE | {"port": 0, "tls_mode": "maybe", "include_schemas": ["a", 5]}, "tags": ["a", ""]},
        {
            "config.port": "too_small",
            "config.tls_mode": "not_allowed",
            "config.include_schemas[1]": "wrong_type",
            "tags[1]": "too_short",
        },
    ),
    ("postgresql", {"config": NOWHERE | {"ca_certificate": "x"}}, {"config.ca_certificate": "invalid"}),
    ("postgresql", {"config": NOWHERE | {"host": "/tmp/socket"}}, {"config.host": "invalid"}),
    (
        "postgresql",
        {"config": NOWHERE | {"client_certificate": "x", "tls_mode": "require"}},
        {"secrets.client_key": "invalid"},
    ),
    ("postgresql", {"config": NOWHERE | {"username": "a\r\nb"}}, {"config.username": "invalid"}),
    (
        "rest",
        {"config": {"base_url": "ftp://x.example", "resources": [{"name": "a"}], "auth": 1}},
        {"config.base_url": "wrong_form", "config.resources[0].path": "required", "config.auth": "not_allowed"},
    ),
    ("rest", {"config": REST | {"auth": "bearer"}}, {"secrets.token": "invalid"}),
    ("rest", {"config": REST | {"auth": "basic"}, "secrets": {"password": "p"}}, {"config.username": "invalid"}),
    ("rest", {"config": REST | {"headers": {"Authorization": "x"}}}, {"config.headers.Authorization": "invalid"}),
    ("s3", {"config": {"bucket": "a/b", "region": "EU"}}, {"config.bucket": "wrong_form", "config.region": "wrong_form"}),
    ("s3", {"config": S3 | {"access_key_id": "AK"}}, {"secrets.secret_access_key": "invalid"}),
    ("s3", {"config": S3, "secrets": {"secret_access_key": "s"}}, {"config.access_key_id": "invalid"}),
    ("postgresql", {"config": None}, {"config": "wrong_type"}),
    ("postgresql", {"config": [], "name": " "}, {"config": "wrong_type", "name": "blank"}),
    ("postgresql", {"name": " "}, {"name": "blank"}),
    ("postgresql", {"status": "passed", "category": "x", "id": "x", "tenant_id": "x"}, dict.fromkeys(("status", "category", "id", "tenant_id"), "unknown_field")),
]  # fmt: skip


@pytest.mark.parametrize(("type_name", "fields", "wanted"), FAULTY)
async def test_every_fault_is_named_at_once(
    hub: Hub, type_name: str, fields: dict[str, Any], wanted: dict[str, str]
) -> None:
    answer = await post_source(hub.admin, **{"type": type_name, **fields})
    assert answer.status_code == 400, answer.text
    found = faults(answer)
    if "config.auth" in wanted:
        found["config.auth"] = wanted["config.auth"] if "config.auth" in found else ""
    assert found == wanted


@pytest.mark.parametrize("given", ["oracle8", "", "PostgreSQL", None, 5, ["s3"]])
async def test_an_unknown_type_is_a_400_at_type(hub: Hub, given: Any) -> None:
    answer = await post_source(hub.admin, type=given)
    assert answer.status_code == 400
    assert list(faults(answer)) == ["type"]


async def test_a_missing_type_is_a_400_at_type(hub: Hub) -> None:
    answer = await hub.admin.post(SOURCES, json={"name": "x", "config": {}})
    assert (answer.status_code, faults(answer)) == (400, {"type": "required"})


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"5", b"", b"{", b'{"type": "s3", "type": "rest"}'])
async def test_a_body_that_is_no_source_is_a_400(hub: Hub, body: bytes) -> None:
    answer = await hub.admin.post(SOURCES, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("twin", ["STRASSE 5", "straße 5", "ＳＴＲＡＳＳＥ 5", " Straße 5 ", "Stra\u00adße 5"])
async def test_names_are_unique_whatever_their_case(hub: Hub, twin: str) -> None:
    await post_source(hub.admin, name="Straße 5")
    answer = await post_source(hub.admin, name=twin)
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_a_source_may_change_the_case_of_its_own_name(hub: Hub) -> None:
    made = await registered(hub, name="Own Name")
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"name": "OWN NAME"})
    assert (answer.status_code, answer.json()["name"], answer.json()["version"]) == (200, "OWN NAME", 2)


async def test_renaming_to_a_taken_name_is_a_409(hub: Hub) -> None:
    await registered(hub, name="Taken One")
    made = await registered(hub)
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"name": "taken one"})
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_of_parallel_registrations_under_one_name_one_wins(hub: Hub) -> None:
    answers = await asyncio.gather(*(post_source(hub.admin, name="Race") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]


async def test_an_unknown_owner_role_is_a_400_at_its_field(hub: Hub) -> None:
    answer = await post_source(hub.admin, owner_role_id=str(uuid4()))
    assert (answer.status_code, faults(answer)) == (400, {"owner_role_id": "unknown_role"})


async def test_the_owner_role_of_another_tenant_is_unknown(hub: Hub, records: Records) -> None:
    role = await foreign_role(records)
    answer = await post_source(hub.admin, owner_role_id=str(role))
    assert (answer.status_code, faults(answer)) == (400, {"owner_role_id": "unknown_role"})
    made = await registered(hub)
    patched = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"owner_role_id": str(role)})
    assert (patched.status_code, faults(patched)) == (400, {"owner_role_id": "unknown_role"})


async def foreign_tenant(records: Records) -> UUID:
    tenant = uuid4()
    await records.run(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'x', true, now(), now())",
        tenant,
        tenant.hex,
    )
    return tenant


async def foreign_role(records: Records) -> UUID:
    role = uuid4()
    await records.run(
        """INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at)
           VALUES ($1, $2, 'x', 'x', '{}', false, now(), now())""",
        role,
        await foreign_tenant(records),
    )
    return role


async def test_registering_is_idempotent_by_key(hub: Hub, records: Records) -> None:
    body = {"name": "Once", "type": "postgresql", "config": NOWHERE, "secrets": {"password": "once-canary"}}
    headers = {"Idempotency-Key": uuid4().hex}
    first, again = [await hub.admin.post(SOURCES, json=body, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code, first.content) == (201, 201, again.content)
    assert again.headers["location"] == first.headers["location"]
    other = await hub.admin.post(SOURCES, json=body | {"name": "Twice"}, headers=headers)
    assert other.status_code == 422
    assert await records.one("SELECT count(*) FROM data_sources WHERE name_key IN ('once', 'twice')") == 1
    assert len(await records.audit(first)) == 1
    assert await records.audit(again) == []


async def test_a_key_whose_request_failed_can_be_used_again(hub: Hub) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    body = {"name": "Mended", "type": "postgresql", "config": {}}
    assert (await hub.admin.post(SOURCES, json=body, headers=headers)).status_code == 400
    assert (await hub.admin.post(SOURCES, json=body | {"config": NOWHERE}, headers=headers)).status_code == 201


# --- listing ---


@pytest.fixture(scope="module")
async def assorted(hub: Hub, records: Records) -> dict[str, Any]:
    """A role, and sources that differ in what lists filter by; all of them are tagged `assorted`."""
    role = (await hub.admin.post("/api/v1/roles", json={"name": "Stewards"})).json()["id"]
    await registered(hub, name="Alpha", tags=["assorted", "50% off"], owner_role_id=role, description="Ünder the sea")
    await registered(hub, name="Beta", type="s3", config=S3, tags=["assorted", "cold"], is_paused=True)
    gamma = await registered(hub, name="Gamma_x", type="rest", config=REST, tags=["assorted", "cold"])
    await records.run("UPDATE data_sources SET status = 'failed' WHERE id = $1::uuid", gamma["id"])
    return {"role": role}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("type=s3", ["Beta"]),
        ("category=api", ["Gamma_x"]),
        ("status=failed", ["Gamma_x"]),
        ("status=untested&sort=-name", ["Beta", "Alpha"]),
        ("is_paused=true", ["Beta"]),
        ("name=ALPHA", ["Alpha"]),
        ("name=alph", []),
        ("q=sea", ["Alpha"]),
        ("q=BET", ["Beta"]),
        ("q=%25", []),
        ("q=a_x", ["Gamma_x"]),
        ("q=l_h", []),
        ("type=rest&is_paused=true", []),
    ],
)
async def test_lists_are_narrowed(hub: Hub, assorted: Any, query: str, names: list[str]) -> None:
    answer = await hub.admin.get(f"{SOURCES}?tag=assorted&count=exact&{query}")
    assert answer.status_code == 200, answer.text
    assert [item["name"] for item in answer.json()["items"]] == names
    assert answer.json()["total"] == len(names)


async def test_a_list_is_narrowed_by_tag_and_owner(hub: Hub, assorted: dict[str, Any]) -> None:
    tagged = await hub.admin.get(SOURCES, params={"tag": "50% off"})
    owned = await hub.admin.get(SOURCES, params={"owner_role_id": assorted["role"]})
    assert [item["name"] for item in tagged.json()["items"]] == ["Alpha"]
    assert owned.json() == tagged.json()
    assert (await hub.admin.get(SOURCES, params={"tag": "COLD"})).json()["items"] == []


@pytest.mark.parametrize(
    "query",
    ["type=oracle", "status=ok", "category=x", "owner_role_id=5", "is_paused=1", "tags=a", "sort=status", "limit=0"],
)
async def test_a_filter_that_makes_no_sense_is_a_400_that_names_it(hub: Hub, query: str) -> None:
    answer = await hub.admin.get(f"{SOURCES}?{query}")
    assert answer.status_code == 400
    assert list(faults(answer)) == [query.partition("=")[0]]


async def test_pages_hold_every_source_once(hub: Hub, assorted: Any) -> None:
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await hub.admin.get(f"{SOURCES}?limit=2&sort=name" + (f"&cursor={cursor}" if cursor else ""))).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    total = (await hub.admin.get(f"{SOURCES}?count=exact&limit=1")).json()["total"]
    assert len(seen) == len(set(seen)) == total


async def test_sources_of_another_tenant_do_not_exist(hub: Hub, records: Records) -> None:
    made, tenant = await registered(hub, tags=["foreign"]), await foreign_tenant(records)
    await records.run("UPDATE data_sources SET tenant_id = $1 WHERE id = $2::uuid", tenant, made["id"])
    path = f"{SOURCES}/{made['id']}"
    assert (await hub.admin.get(f"{SOURCES}?tag=foreign&count=exact")).json()["total"] == 0
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None), ("PATCH", "", {"name": "mine"}), ("DELETE", "", None), ("POST", "/test", None), ("GET", "/tests", None),
        ("POST", "/discover", None), ("GET", "/objects", None), ("POST", "/preview", {"object": "a"}),
    ]  # fmt: skip
    for method, below, body in calls:
        theirs = await hub.admin.request(method, path + below, json=body)
        nobodys = await hub.admin.request(method, f"{SOURCES}/{uuid4()}{below}", json=body)
        assert theirs.status_code == nobodys.status_code == 404, (method, below)
        assert theirs.json() | {"request_id": ""} == nobodys.json() | {"request_id": ""}
    # The name stays free for this tenant.
    assert (await post_source(hub.admin, name=made["name"])).status_code == 201


# --- changing ---


async def patched(hub: Hub, source: dict[str, Any], body: Any, **headers: str) -> httpx.Response:
    return await hub.admin.patch(f"{SOURCES}/{source['id']}", json=body, headers=headers)


async def test_a_patch_merges_config_key_by_key(hub: Hub) -> None:
    config = REST | {
        "headers": {"X-A": "1", "X-B": "2"},
        "resources": [{"name": "a", "path": "a"}],
        "pagination": "page",
    }
    made = await registered(hub, type="rest", config=config)
    change = {
        "headers": {"X-B": None, "X-C": "3"},
        "resources": [{"name": "b", "path": "b"}],
        "pagination": None,
        "read_timeout_s": 3,
    }
    after = (await patched(hub, made, {"config": change})).json()
    expected = made["config"] | {
        "headers": {"X-A": "1", "X-C": "3"},
        "resources": [{"name": "b", "path": "b", "items_pointer": None}],
        "pagination": "none",
        "read_timeout_s": 3.0,
    }
    assert after["config"] == expected
    assert (after["version"], after["name"]) == (2, made["name"])


async def test_null_clears_and_absent_keeps(hub: Hub) -> None:
    made = await registered(hub, description="d", tags=["a"], is_paused=True)
    assert (await patched(hub, made, {})).json() == made
    cleared = (await patched(hub, made, {"description": None, "tags": None, "is_paused": None})).json()
    assert (cleared["description"], cleared["tags"], cleared["is_paused"]) == (None, [], False)
    for body in ({"name": None}, {"config": None}, {"config": {"host": None}}):
        answer = await patched(hub, made, body)
        assert answer.status_code == 400, body
        assert len(faults(answer)) == 1


async def test_a_patch_back_to_the_default_is_what_leaving_it_out_was(hub: Hub) -> None:
    made = await registered(hub)
    there = await patched(hub, made, {"config": {"port": 5433, "include_schemas": ["a"]}})
    back = await patched(hub, made, {"config": {"port": None, "include_schemas": None}})
    assert there.json()["config"]["port"] == 5433
    assert back.json()["config"] == made["config"]
    assert back.json()["version"] == 3


async def test_a_patch_that_changes_nothing_counts_no_version_and_leaves_no_record(hub: Hub, records: Records) -> None:
    made = await registered(hub, tags=["a"])
    before = await records.mark()
    same = {name: made[name] for name in ("name", "description", "tags", "owner_role_id", "is_paused", "config")}
    answer = await patched(hub, made, same | {"secrets": {"password": None}})
    assert (answer.status_code, answer.json()) == (200, made)
    assert await records.mark() == before


@pytest.mark.parametrize(
    "body",
    [
        {"type": "s3"},
        {"status": "passed"},
        {"version": 9},
        {"tenant_id": str(uuid4())},
        {"config": {"zz": 1}},
        {"config": []},
        {"config": {"port": "5"}},
        {"secrets": {"pin": "x"}},
        {"secrets": {"password": 5}},
        {"secrets": {"password": {"ref": True}}},
        {"tags": ["a", None]},
    ],
)
async def test_a_patch_takes_what_is_in_its_schema_alone(hub: Hub, body: Any) -> None:
    made = await registered(hub)
    answer = await patched(hub, made, body)
    assert answer.status_code == 400, answer.text
    assert len(faults(answer)) == 1
    assert (await hub.admin.get(f"{SOURCES}/{made['id']}")).json() == made


async def test_what_is_shown_of_a_secret_is_no_secret(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "x"})
    answer = await patched(hub, made, {"secrets": made["secrets"]})
    unknown = dict.fromkeys(made["secrets"]["password"].keys() - {"ref"}, "unknown_field")
    expected = {f"secrets.password.{name}": code for name, code in (unknown | {"ref": "wrong_type"}).items()}
    assert (answer.status_code, faults(answer)) == (400, expected)


@pytest.mark.parametrize("depth", [50, 300, 600, 800, 900, 960, 5000])
async def test_a_deeply_nested_patch_is_a_400(hub: Hub, depth: int) -> None:
    made = await registered(hub)
    body = b'{"config": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    answer = await hub.admin.patch(
        f"{SOURCES}/{made['id']}", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400


async def test_a_stale_if_match_is_a_412_and_changes_nothing(hub: Hub) -> None:
    made = await registered(hub)
    assert (await patched(hub, made, {"description": "1"}, **{"If-Match": '"v1"'})).headers["etag"] == '"v2"'
    stale = await patched(hub, made, {"description": "2"}, **{"If-Match": '"v1"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"v2"')
    deleted = await hub.admin.delete(f"{SOURCES}/{made['id']}", headers={"If-Match": '"v1"'})
    assert deleted.status_code == 412
    read = await hub.admin.get(f"{SOURCES}/{made['id']}", headers={"If-None-Match": '"v2"'})
    assert read.status_code == 304
    assert (await hub.admin.get(f"{SOURCES}/{made['id']}")).json()["description"] == "1"


async def test_of_parallel_changes_on_one_version_one_wins(hub: Hub) -> None:
    made = await registered(hub)
    changes = (patched(hub, made, {"description": str(n)}, **{"If-Match": '"v1"'}) for n in range(5))
    assert sorted(answer.status_code for answer in await asyncio.gather(*changes)) == [200, *[412] * 4]


async def test_a_reader_may_not_change(hub: Hub, records: Records) -> None:
    made, reader = await registered(hub), await hub.user_with("data-sources:read")
    path = f"{SOURCES}/{made['id']}"
    assert (await reader.get(path)).json() == made
    for answer in (
        await reader.patch(path, json={"name": "x"}),
        await reader.delete(path),
        await post_source(reader),
        await reader.post(f"{path}/test"),
        await reader.post(f"{SOURCES}/test", json={}),
        await reader.post(f"{path}/discover"),
        await reader.post(f"{path}/preview", json={"object": "a"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")
        assert [row["outcome"] for row in await records.audit(answer)] == ["refused"]
    stranger = await hub.user_with()
    assert (await stranger.get(SOURCES)).status_code == 403


# --- deleting ---


async def test_deleting_takes_secrets_tests_and_objects_along(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    key = (made["id"],)
    await records.run(
        """INSERT INTO data_source_tests (id, tenant_id, data_source_id, status, steps, server, duration_ms, created_at)
           SELECT gen_random_uuid(), tenant_id, id, 'passed', '[]', '{}', 1, now() FROM data_sources WHERE id = $1::uuid""",
        *key,
    )
    await records.run(
        """INSERT INTO source_objects
             (id, tenant_id, data_source_id, name, path, qualified_name, kind, is_active, fields, discovered_at)
           SELECT gen_random_uuid(), tenant_id, id, 'a', '{a}', 'a', 'table', true, '[]', now()
           FROM data_sources WHERE id = $1::uuid""",
        *key,
    )
    answer = await hub.admin.delete(f"{SOURCES}/{made['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    for table in ("data_source_secrets", "data_source_tests", "source_objects"):
        assert await records.one(f"SELECT count(*) FROM {table} WHERE data_source_id = $1::uuid", *key) == 0
    assert (await hub.admin.get(f"{SOURCES}/{made['id']}")).status_code == 404
    assert (await hub.admin.delete(f"{SOURCES}/{made['id']}")).status_code == 404


async def test_an_owner_role_that_is_in_use_stays(hub: Hub) -> None:
    role = (await hub.new_role())["id"]
    made = await registered(hub, owner_role_id=role)
    assert (await hub.admin.delete(f"/api/v1/roles/{role}")).status_code == 409
    assert (await patched(hub, made, {"owner_role_id": None})).json()["owner_role_id"] is None
    assert (await hub.admin.delete(f"/api/v1/roles/{role}")).status_code == 204


# --- types ---


async def test_each_type_has_schemas_without_a_readable_secret(hub: Hub) -> None:
    page = (await hub.admin.get("/api/v1/data-source-types?limit=200")).json()
    assert {"postgresql", "rest", "s3"} <= {item["type"] for item in page["items"]}
    for item in page["items"]:
        assert all(field.get("writeOnly") for field in item["secrets_schema"].get("properties", {}).values()), item[
            "type"
        ]
        assert (await hub.admin.get(f"/api/v1/data-source-types/{item['type']}")).json() == item
    assert (await hub.admin.get("/api/v1/data-source-types/nope")).status_code == 404
