"""Tenants: who makes them, what they are born with, and that nobody of one sees anything of another."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.migrations import operator_permissions, permissions
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.roles.built_in import admin_role_id, public_role_id
from app.settings import SettingsError, load
from tests.conftest import ADMIN_EMAIL, PASSWORD, Hub, running_hub
from tests.domain.conftest import Records

pytestmark = pytest.mark.anyio

TENANTS = "/api/v1/tenants"
ROLES = "/api/v1/roles"
ADMIN = {"email": "ada@acme.example.org", "password": PASSWORD}


def body(slug: str | None = None, **given: Any) -> dict[str, Any]:
    slug = f"t{uuid4().hex}" if slug is None else slug
    return {
        "slug": slug,
        "name": f"Of {slug}",
        "admin": {"email": f"a@{slug}.example.org", "password": PASSWORD},
    } | given


async def made(hub: Hub, slug: str | None = None, **given: Any) -> dict[str, Any]:
    answer = await hub.admin.post(TENANTS, json=body(slug, **given))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def whose(hub: Hub) -> UUID:
    return UUID((await hub.admin.get("/api/v1/auth/me")).json()["tenant"]["id"])


# --- a tenant is made ---


async def test_a_tenant_is_shown_as_every_entity_is(hub: Hub) -> None:
    answer = await hub.admin.post(TENANTS, json=body("shown", name="  Shown   here "))
    tenant = answer.json()
    assert answer.headers["location"] == f"{TENANTS}/{tenant['id']}"
    assert answer.headers["etag"] == '"v1"'
    assert {name: tenant[name] for name in ("slug", "name", "is_active", "version")} == {
        "slug": "shown",
        "name": "Shown here",
        "is_active": True,
        "version": 1,
    }
    assert set(tenant) == {
        *("id", "created_at", "updated_at", "created_by", "updated_by", "version"),
        *("slug", "name", "is_active"),
    }
    assert (await hub.admin.get(answer.headers["location"])).json() == tenant
    known = await hub.admin.get(answer.headers["location"], headers={"If-None-Match": '"v1"'})
    assert known.status_code == 304


async def test_its_first_admin_holds_the_roles_that_follow_from_its_id(hub: Hub) -> None:
    other = await hub.new_tenant()
    me, tenant_id = (await other.admin.get("/api/v1/auth/me")).json(), await whose(other)
    assert [role["name"] for role in me["roles"]] == ["admin", "public"]
    assert {UUID(role["id"]) for role in me["roles"]} == {admin_role_id(tenant_id), public_role_id(tenant_id)}
    assert me["permissions"] == sorted(permissions().keys() - operator_permissions())
    assert me["user"]["created_by"] is None
    roles = (await other.admin.get(ROLES, params={"sort": "name"})).json()["items"]
    assert [(role["name"], role["is_system"]) for role in roles] == [("admin", True), ("public", True)]


async def test_the_birth_is_on_the_operators_record_and_the_admins_on_the_new_tenants(
    hub: Hub, records: Records
) -> None:
    answer = await hub.admin.post(TENANTS, json=body("on-record"))
    tenant_id = UUID(answer.json()["id"])
    (row,) = await records.audit(answer)
    assert (row["action"], row["resource_id"], row["tenant_id"]) == ("tenant.create", tenant_id, DEFAULT_TENANT_ID)
    assert PASSWORD not in str(row)
    admin = await hub.sign_in("a@on-record.example.org", tenant="on-record")
    log = (await admin.get("/api/v1/audit-events")).json()["items"]
    assert [event["action"] for event in log] == ["auth.login", "user.create"]
    assert [log[1][name] for name in ("actor_id", "actor_name", "address", "request_id")] == [None] * 4
    events = await records.run("SELECT type FROM outbox_events WHERE tenant_id = $1", tenant_id)
    assert [row["type"] for row in events] == ["org.datafusionhub.user.created"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        *(
            ({"slug": slug}, "slug")
            for slug in ("", "A", "acme.org", "-a", "a-", "a_b", "a" * 64, "аcme", "a b", "a\n", "xn--a")
        ),
        ({"name": "\u200b"}, "name"),
        ({"name": "Аcme sales"}, "name"),
        ({"admin": {"email": "nobody", "password": PASSWORD}}, "admin.email"),
        ({"admin": {"email": "a@example.org", "password": ""}}, "admin.password"),
        ({"admin": {"email": "a@example.org", "password": "short"}}, "admin.password"),
        ({"admin": {"email": "long.enough.address@example.org", "password": "long.enough.address"}}, "admin.password"),
        ({"is_active": False}, "is_active"),
        ({"admin": {**ADMIN, "first_name": "Ada"}}, "admin.first_name"),
    ],
)
async def test_what_does_not_fit_is_named_and_nothing_is_made(
    hub: Hub, records: Records, given: dict[str, Any], path: str
) -> None:
    before = await records.one("SELECT count(*) FROM tenants")
    answer = await hub.admin.post(TENANTS, json=body(**given))
    assert answer.status_code == 400, answer.text
    assert path in [fault["path"] for fault in answer.json()["errors"]]
    assert await records.one("SELECT count(*) FROM tenants") == before


@pytest.mark.parametrize(
    ("taken", "other"), [("paypal", "paypa1"), ("g00gle", "google"), ("modern", "modem"), ("vvww", "wvvw")]
)
async def test_a_slug_that_is_taken_or_looks_like_another_is_refused(hub: Hub, taken: str, other: str) -> None:
    await made(hub, taken)
    for slug in (taken, other):
        answer = await hub.admin.post(TENANTS, json=body(slug))
        assert (answer.status_code, answer.json()["code"]) == (409, "slug_taken")
        assert answer.json()["errors"][0]["path"] == "slug"
    assert (await hub.admin.post(TENANTS, json=body("default"))).status_code == 409
    assert (await hub.admin.post(TENANTS, json=body("defau1t"))).status_code == 409


async def test_the_same_key_makes_one_tenant(hub: Hub) -> None:
    given, key = body(), {"Idempotency-Key": uuid4().hex}
    first, second = [await hub.admin.post(TENANTS, json=given, headers=key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()


async def test_a_slug_of_another_form_is_told_which_one_is_taken(hub: Hub) -> None:
    answer = await hub.admin.post(TENANTS, json=body() | {"slug": "Acme Ltd"})
    assert answer.json()["errors"] == [
        {"path": "slug", "code": "wrong_form", "message": "takes small letters and digits, and dashes between them"}
    ]


async def test_a_tenant_is_renamed_and_keeps_its_slug(hub: Hub, records: Records) -> None:
    path = f"{TENANTS}/{(await made(hub))['id']}"
    stale = await hub.admin.patch(path, json={"name": "New"}, headers={"If-Match": '"v7"'})
    assert stale.status_code == 412
    answer = await hub.admin.patch(path, json={"name": "New"}, headers={"If-Match": '"v1"'})
    assert (answer.json()["name"], answer.headers["etag"]) == ("New", '"v2"')
    assert [row["action"] for row in await records.audit(answer)] == ["tenant.update"]
    for given in ({"slug": "new"}, {"name": None}, {"name": ""}, {"is_active": False}):
        assert (await hub.admin.patch(path, json=given)).status_code == 400


async def test_tenants_are_listed_by_slug_and_by_whether_they_are_active(hub: Hub) -> None:
    names = [(await made(hub, slug))["slug"] for slug in ("list-b", "list-a")]
    found = (await hub.admin.get(TENANTS, params={"sort": "slug", "limit": 200})).json()["items"]
    assert [each["slug"] for each in found if each["slug"] in names] == ["list-a", "list-b"]
    assert {each["is_active"] for each in found} == {True}
    assert "default" in {each["slug"] for each in found}
    assert (await hub.admin.get(TENANTS, params={"is_active": "false"})).json()["items"] == []


# --- what is the operators' alone ---


async def test_other_tenants_have_no_permission_of_the_operators(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    both = [
        {each["name"] for each in (await one.admin.get("/api/v1/permissions?limit=200")).json()["items"]}
        for one in (hub, other)
    ]
    assert both == [set(permissions()), permissions().keys() - operator_permissions()]
    for name in operator_permissions():
        answer = await other.admin.post(ROLES, json={"name": uuid4().hex, "permissions": ["users:read", name]})
        assert answer.status_code == 400
        assert [(each["path"], each["code"]) for each in answer.json()["errors"]] == [
            ("permissions[1]", "unknown_permission")
        ]
        role = await other.new_role()
        answer = await other.admin.patch(f"{ROLES}/{role['id']}", json={"permissions": [name]})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "unknown_permission")
        assert (await hub.admin.post(ROLES, json={"name": uuid4().hex, "permissions": [name]})).status_code == 201


async def test_to_other_tenants_no_tenant_is_there(two_tenants: tuple[Hub, Hub]) -> None:
    _, other = two_tenants
    mine = await whose(other)
    assert (await other.admin.get(TENANTS)).status_code == 403
    assert (await other.admin.post(TENANTS, json=body())).status_code == 403
    for tenant_id in (mine, DEFAULT_TENANT_ID, uuid4()):
        for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/suspend"), ("POST", "/resume")):
            given = {"json": {"name": "x"}} if method == "PATCH" else {}
            answer = await other.admin.request(method, f"{TENANTS}/{tenant_id}{path}", **given)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)


async def test_what_stands_in_a_role_makes_nobody_of_another_tenant_an_operator(hub: Hub, records: Records) -> None:
    """However it got there."""
    other, tenant = await hub.new_tenant(), await made(hub)
    mine = await whose(other)
    await records.run(
        "UPDATE roles SET permissions = $1 WHERE tenant_id = $2 AND name = 'public'",
        ["tenants:read", "tenants:write"],
        mine,
    )
    member = await other.user_with()
    assert "tenants:write" in (await member.get("/api/v1/auth/me")).json()["permissions"]
    assert (await member.get(TENANTS)).json()["items"] == []
    assert (await member.post(TENANTS, json=body())).status_code == 403
    for tenant_id in (tenant["id"], mine):
        for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/suspend"), ("POST", "/resume")):
            given = {"json": {"name": "x"}} if method == "PATCH" else {}
            answer = await member.request(method, f"{TENANTS}/{tenant_id}{path}", **given)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
    assert (await hub.admin.get(f"{TENANTS}/{tenant['id']}")).json() == tenant


async def test_operators_need_the_permission_too(hub: Hub) -> None:
    reader = await hub.user_with("tenants:read")
    tenant = await made(hub)
    assert (await reader.get(TENANTS)).status_code == 200
    assert (await reader.get(f"{TENANTS}/{tenant['id']}")).status_code == 200
    assert (await reader.post(TENANTS, json=body())).status_code == 403
    assert (await reader.post(f"{TENANTS}/{tenant['id']}/suspend")).status_code == 403


async def test_figures_of_the_whole_hub_are_the_operators(two_tenants: tuple[Hub, Hub]) -> None:
    """They count what all tenants have, and do."""
    hub, other = two_tenants
    assert [(await one.admin.get("/metrics")).status_code for one in (hub, other)] == [200, 403]


async def test_references_to_the_operators_secrets_are_not_for_other_tenants(two_tenants: tuple[Hub, Hub]) -> None:
    _, other = two_tenants
    source = {
        "name": "By reference",
        "type": "postgresql",
        "config": {"host": "db.example.org", "database": "d", "username": "u"},
        "secrets": {"password": {"ref": "env:ANYTHING"}},
    }
    assert (await other.admin.post("/api/v1/data-sources", json=source)).status_code == 403


# --- settings ---


async def test_each_tenant_decides_for_itself(two_tenants: tuple[Hub, Hub], records: Records) -> None:
    hub, other = two_tenants
    path = "/api/v1/tenant-settings"
    before = await other.admin.get(path)
    assert before.headers["etag"] == '"v1"'
    assert (before.json()["max_key_days"], before.json()["is_admin_requestable"]) == (366, False)
    answer = await other.admin.patch(path, json={"max_key_days": 30}, headers={"If-Match": '"v1"'})
    assert (answer.status_code, answer.json()["max_key_days"], answer.headers["etag"]) == (200, 30, '"v2"')
    (row,) = await records.audit(answer)
    assert (row["action"], row["tenant_id"]) == ("tenant_settings.update", await whose(other))
    assert (await other.admin.patch(path, json={}, headers={"If-Match": '"v1"'})).status_code == 412
    assert (await hub.admin.get(path)).json()["max_key_days"] == 366
    cleared = await other.admin.patch(path, json={"max_key_days": None, "is_admin_requestable": True})
    assert (cleared.json()["max_key_days"], cleared.json()["is_admin_requestable"]) == (366, True)
    for given in (
        {"max_key_days": 0},
        {"max_key_days": 3651},
        {"max_key_days": "5"},
        {"is_admin_requestable": 1},
        {"id": 1},
    ):
        assert (await other.admin.patch(path, json=given)).status_code == 400
    reader = await other.user_with("tenant-settings:read")
    assert (await reader.get(path)).status_code == 200
    assert (await reader.patch(path, json={})).status_code == 403
    assert (await (await other.user_with()).get(path)).status_code == 403


# --- signing in ---


async def attempt(hub: Hub, email: str, password: str = PASSWORD, **given: Any) -> int:
    headers = {"Host": given.pop("host")} if "host" in given else {}
    json = {"email": email, "password": password, **given}
    answer = await hub.client().post("/api/v1/auth/login", json=json, headers=headers)
    assert answer.status_code == 200 or answer.json()["code"] == "invalid_credentials"
    return answer.status_code


async def test_who_is_alone_with_an_address_need_not_name_a_tenant(
    two_tenants: tuple[Hub, Hub], records: Records
) -> None:
    hub, other = two_tenants
    alone = (await other.new_user(password=PASSWORD))["email"]
    answer = await hub.client().post("/api/v1/auth/login", json={"email": alone, "password": PASSWORD})
    assert answer.status_code == 200
    (row,) = await records.audit(answer)
    assert (row["tenant_id"], row["actor_name"]) == (await whose(other), alone)
    me = await hub.client(answer.json()["access_token"]).get("/api/v1/auth/me")
    assert me.json()["user"]["email"] == alone


async def test_who_is_not_has_to(two_tenants: tuple[Hub, Hub], records: Records) -> None:
    hub, other = two_tenants
    slug = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["slug"]
    email = f"{uuid4().hex}@example.org"
    for one, password in ((hub, PASSWORD), (other, PASSWORD + "!")):
        await one.new_user(email=email.upper() if one is hub else email, password=password)
    assert await attempt(hub, email) == 401
    assert await attempt(hub, email, PASSWORD + "!") == 401
    assert await records.one("SELECT sum(failed_logins) FROM users WHERE email_key = $1", email) == 0
    assert await attempt(hub, email, tenant="default") == 200
    assert await attempt(hub, email, PASSWORD + "!", tenant=slug) == 200
    assert await attempt(hub, email, tenant=slug) == 401
    assert await attempt(hub, email, PASSWORD + "!", tenant="default") == 401
    assert await attempt(hub, ADMIN_EMAIL, tenant=slug) == 401


@pytest.fixture(scope="module")
async def by_hosts(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Hub, Hub]]:
    """A hub whose hosts name tenants, and its tenant `acme`."""
    hosts = "acme.example.org=acme,Main.example.org=default,gone.example.org=nowhere"
    folder = tmp_path_factory.mktemp("hosts")
    async with running_hub(cluster, migrated, folder, HUB_TENANT_HOSTS=hosts) as running:
        yield running, await running.new_tenant("acme")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"host": "acme.example.org"}, 200),
        ({"host": "ACME.example.org.:8443"}, 200),
        ({"host": "main.example.org"}, 401),
        ({"host": "gone.example.org"}, 401),
        ({"host": "other.example.org"}, 401),
        ({"host": "main.example.org", "tenant": "acme"}, 200),
        ({"host": "acme.example.org", "tenant": "default"}, 401),
        ({"host": "evil.acme.example.org"}, 401),
    ],
)
async def test_a_host_names_a_tenant_unless_the_body_does(
    by_hosts: tuple[Hub, Hub], given: dict[str, str], wanted: int
) -> None:
    hub, acme = by_hosts
    email = f"{uuid4().hex}@example.org"
    await acme.new_user(email=email, password=PASSWORD)
    await hub.new_user(email=email, password=PASSWORD + "!")
    assert await attempt(hub, email, **given) == wanted


async def test_who_registers_does_so_with_the_tenant_of_the_body_or_the_host(by_hosts: tuple[Hub, Hub]) -> None:
    hub, acme = by_hosts

    async def register(host: str, **given: str) -> tuple[int, str]:
        email = f"{uuid4().hex}@example.org"
        json = {"email": email, "password": PASSWORD, **given}
        answer = await hub.client().post("/api/v1/auth/register", json=json, headers={"Host": host})
        return answer.status_code, email

    for host, given, one in (
        ("acme.example.org", {}, acme),
        ("hub.test", {"tenant": "acme"}, acme),
        ("hub.test", {}, hub),
        ("acme.example.org", {"tenant": "default"}, hub),
    ):
        status, email = await register(host, **given)
        assert status == 201
        found = await one.admin.get("/api/v1/users", params={"email": email})
        (user,) = found.json()["items"]
        assert [role["name"] for role in user["roles"]] == ["public"]
    for host, given in (("gone.example.org", {}), ("hub.test", {"tenant": "nowhere"})):
        assert (await register(host, **given))[0] == 403


@pytest.mark.parametrize("value", ["acme", "acme.example.org", "a=b=c", "*.example.org=acme", "a.example=A", "a=b,A=c"])
def test_hosts_that_name_no_tenant_stop_the_start(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"HUB_TENANT_HOSTS": value}, env_file=None)
    assert caught.value.problems[0].startswith("HUB_TENANT_HOSTS: ")


def test_hosts_of_tenants_that_the_hub_does_not_answer_to_stop_the_start() -> None:
    hosts = "acme.example.org=acme,Beta.example.net=beta"
    for allowed in ("", "*.example.org,beta.example.net", "acme.example.org,*.example.net"):
        load({"HUB_TENANT_HOSTS": hosts, "HUB_ALLOWED_HOSTS": allowed}, env_file=None)
    with pytest.raises(SettingsError) as caught:
        load({"HUB_TENANT_HOSTS": hosts, "HUB_ALLOWED_HOSTS": "*.example.org,example.net"}, env_file=None)
    (problem,) = caught.value.problems
    assert "beta.example.net" in problem


# --- files ---


def put(folder: Path, name: str, *rows: str) -> None:
    """A small database whose table holds the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / name)) as database:
        database.execute("CREATE TABLE whose (name text)")
        database.executemany("INSERT INTO whose VALUES (?)", [(row,) for row in rows])
        database.commit()


async def outcome(hub: Hub, path: str) -> str:
    """The code of the step that failed, or `passed`."""
    body = {"type": "sqlite", "config": {"path": path}}
    result = (await hub.admin.post("/api/v1/data-sources/test", json=body)).json()
    return next((step["code"] for step in result["steps"] if step["status"] == "failed"), str(result["status"]))


async def previewed(hub: Hub, path: str) -> list[list[Any]]:
    body = {"name": uuid4().hex, "type": "sqlite", "config": {"path": path}}
    source = (await hub.admin.post("/api/v1/data-sources", json=body)).json()
    answer = await hub.admin.post(f"/api/v1/data-sources/{source['id']}/preview", json={"object": "whose"})
    return list(answer.json()["rows"])


async def test_each_tenant_reads_its_own_folder_for_files(hub: Hub) -> None:
    root, other = hub.settings.files_root, await hub.new_tenant("files")
    put(root, "a.db", "default's")
    assert await outcome(other, "a.db") == "invalid_configuration", "its folder is not there yet"
    put(root / "files", "a.db", "theirs")
    (root / "to-files").symlink_to("files")
    assert [await previewed(one, "a.db") for one in (hub, other)] == [[["default's"]], [["theirs"]]]
    for path in ("files/a.db", f"{root}/files/a.db", "to-files/a.db", "files/nothing.db", "FILES/a.db"):
        assert await outcome(hub, path) == "not_found", path
    for path in ("../a.db", f"{root}/a.db", f"{root}/files/../a.db"):
        assert await outcome(other, path) == "egress_refused", path
    tenant_id = (await other.admin.get("/api/v1/auth/me")).json()["tenant"]["id"]
    await hub.admin.delete(f"{TENANTS}/{tenant_id}")
    assert await outcome(hub, "files/a.db") == "not_found", "what a deleted tenant leaves is no more for default to see"


async def test_a_slug_that_names_files_of_default_is_refused(hub: Hub) -> None:
    root = hub.settings.files_root
    put(root / "Warehouse", "a.db", "default's")
    (root / "notes").write_text("default's")
    (root / "shortcut").symlink_to("Warehouse")
    for slug in ("warehouse", "notes", "shortcut"):
        answer = await hub.admin.post(TENANTS, json=body(slug))
        assert (answer.status_code, answer.json()["code"]) == (409, "folder_taken")
        assert answer.json()["errors"][0]["path"] == "slug"
    (root / "waiting").mkdir()
    await made(hub, "waiting")


# --- everything else is each one's own ---


async def test_names_are_each_tenants_own(two_tenants: tuple[Hub, Hub]) -> None:
    name = uuid4().hex
    source = {"name": name, "type": "rest", "config": {"base_url": "https://a.example"}}
    for path, given in (
        (ROLES, {"name": name}),
        ("/api/v1/users", {"email": f"{name}@example.org"}),
        ("/api/v1/data-sources", source),
    ):
        statuses = [(await one.admin.post(path, json=given)).status_code for one in two_tenants for _ in range(2)]
        assert statuses == [201, 409, 201, 409], path


async def test_warnings_of_twins_name_no_source_of_another_tenant(two_tenants: tuple[Hub, Hub]) -> None:
    place = {"type": "postgresql", "config": {"host": f"{uuid4().hex}.example.org", "database": "d", "username": "u"}}
    for one in two_tenants:
        made_here = await one.admin.post("/api/v1/data-sources", json=place | {"name": uuid4().hex})
        assert made_here.json().get("warnings", []) == []


async def test_idempotency_keys_are_each_callers_own(two_tenants: tuple[Hub, Hub]) -> None:
    key, name = {"Idempotency-Key": uuid4().hex}, uuid4().hex
    made_here = [await one.admin.post(ROLES, json={"name": name}, headers=key) for one in two_tenants]
    assert [answer.status_code for answer in made_here] == [201, 201]
    assert made_here[0].json()["id"] != made_here[1].json()["id"]


async def test_a_role_of_another_tenant_is_no_role(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    theirs, user = await other.new_role(), await hub.new_user()
    owned = {"name": uuid4().hex, "owner_role_id": theirs["id"]}
    assert (await hub.admin.post(ROLES, json=owned)).status_code == 400
    mine = await hub.new_role()
    approvers = await hub.admin.put(f"{ROLES}/{mine['id']}/approver-roles", json={"items": [theirs["id"]]})
    assert approvers.status_code == 400
    assert (await hub.admin.put(f"/api/v1/users/{user['id']}/roles/{theirs['id']}")).status_code == 404
    foreign_admin = admin_role_id(await whose(other))
    assert (await hub.admin.put(f"/api/v1/users/{user['id']}/roles/{foreign_admin}")).status_code == 404


async def test_a_token_of_another_tenant_is_not_active(two_tenants: tuple[Hub, Hub]) -> None:
    hub, other = two_tenants
    token = other.admin.headers["authorization"].removeprefix("Bearer ")
    answer = await hub.admin.post("/api/v1/auth/introspect", data={"token": token})
    assert answer.json() == {"active": False}
