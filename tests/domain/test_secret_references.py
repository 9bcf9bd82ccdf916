"""Secrets by reference: variables and files of the operator's, read when they are used, stored and shown nowhere."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.embedded import EmbeddedPostgres
from app.domain.resealing import count_unopened, reseal, secrets_by_key
from app.domain.sources.schemas import SecretReference
from app.domain.sources.secrets import references
from app.settings import SettingsError, load
from tests.conftest import Hub, running_hub
from tests.domain.conftest import Records
from tests.domain.sources import (
    NOWHERE,
    SOURCES,
    Shop,
    discovered,
    faults,
    open_shop,
    post_source,
    registered,
)

pytestmark = pytest.mark.anyio

VARIABLE = "SHOP_PASSWORD"
ALLOWED = {"ref": f"env:{VARIABLE}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
async def hub(
    cluster: EmbeddedPostgres, migrated: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    """A hub whose operator allows references; the hub of other tests allows none. `HUB_` among them says the operator,
    and is not heard."""
    variables = {"HUB_SECRET_ENV_PREFIXES": "SHOP_,HUB_,H", "HUB_SECRET_FILES_ROOT": str(folder)}
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub"), **variables) as running:
        yield running


@pytest.fixture(scope="module")
async def shop(cluster: EmbeddedPostgres) -> Shop:
    return await open_shop(cluster)


async def of_shop(hub: Hub, shop: Shop, ref: str) -> str:
    return f"{SOURCES}/{(await registered(hub, config=shop.config, secrets={'password': {'ref': ref}}))['id']}"


async def whole_use(hub: Hub, path: str) -> tuple[httpx.Response, dict[str, Any], httpx.Response]:
    """A test, a discovery and a preview."""
    tested = await hub.admin.post(f"{path}/test")
    job = await discovered(hub, path)
    return tested, job, await hub.admin.post(f"{path}/preview", json={"object": "public.orders"})


# --- read when they are used ---


async def test_a_variable_is_used_shown_by_its_name_and_never_stored(
    hub: Hub, records: Records, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, shop.password)
    path = await of_shop(hub, shop, f"env:{VARIABLE}")
    tested, job, preview = await whole_use(hub, path)
    assert (tested.json()["status"], job["status"], preview.status_code) == ("passed", "succeeded", 200)
    shown = (await hub.admin.get(path)).json()["secrets"]["password"]
    assert (shown["set"], shown["source"], shown["ref"], shown["version"]) == (
        True,
        "reference",
        "env:SHOP_PASSWORD",
        1,
    )
    (row,) = await records.run(
        "SELECT * FROM data_source_secrets WHERE data_source_id = $1::uuid", path.rpartition("/")[2]
    )
    assert (row["sealed"], row["key_id"], row["reference"]) == (None, None, "env:SHOP_PASSWORD")
    assert shop.password not in tested.text + preview.text + str(job)


async def test_a_file_is_used_with_its_line_end_taken_off(hub: Hub, shop: Shop, folder: Path) -> None:
    (folder / "shop").mkdir(exist_ok=True)
    for ending in ("", "\n", "\r\n"):
        (folder / "shop" / "password").write_bytes(f"{shop.password}{ending}".encode())
        path = await of_shop(hub, shop, "file:shop/password")
        assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"


async def test_a_changed_variable_counts_from_the_next_use(
    hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "not yet")
    path = await of_shop(hub, shop, f"env:{VARIABLE}")
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "failed"
    monkeypatch.setenv(VARIABLE, shop.password)
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"


async def test_a_source_that_is_not_saved_may_refer_too(hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, shop.password)
    body = {"type": "postgresql", "config": shop.config, "secrets": {"password": ALLOWED}}
    assert (await hub.admin.post(f"{SOURCES}/test", json=body)).json()["status"] == "passed"
    path = f"{SOURCES}/{(await registered(hub, config=shop.config))['id']}"
    changed = await hub.admin.post(f"{path}/test", json={"secrets": {"password": ALLOWED}})
    assert changed.json()["status"] == "passed"


async def test_a_reference_and_a_stored_value_take_each_others_place(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "stored"})
    path = f"{SOURCES}/{made['id']}"
    referred = (await hub.admin.patch(path, json={"secrets": {"password": ALLOWED}})).json()["secrets"]["password"]
    assert (referred["version"], referred["source"], referred["ref"]) == (2, "reference", ALLOWED["ref"])
    again = (await hub.admin.patch(path, json={"secrets": {"password": "stored"}})).json()["secrets"]["password"]
    assert (again["version"], again["source"], again["ref"]) == (3, "stored", None)
    assert again["updated_by"] == made["created_by"]


async def test_references_are_nothing_that_a_new_key_would_touch(hub: Hub) -> None:
    await registered(hub, secrets={"password": ALLOWED, "client_key_passphrase": "k"})
    async with hub.parts.sessions(None) as session:
        assert await count_unopened(session, hub.parts.key_ring) == 0
        assert set(await secrets_by_key(session)) == {hub.parts.key_ring.current_id}
    assert (await reseal(hub.parts)).done == 0


# --- what is not there is said, with what to do ---


async def test_a_missing_variable_fails_each_use_with_what_to_do(
    hub: Hub, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    path = await of_shop(hub, shop, f"env:{VARIABLE}")
    tested, job, preview = await whole_use(hub, path)
    assert tested.status_code == 200
    steps = {step["name"]: step for step in tested.json()["steps"]}
    assert (tested.json()["status"], steps["authenticate"]["code"]) == ("failed", "invalid_configuration")
    assert {steps[name]["status"] for name in ("resolve", "connect", "tls", "list")} == {"skipped"}
    assert (
        "env:SHOP_PASSWORD, which is not set where the hub runs. Ask the operator" in steps["authenticate"]["message"]
    )
    assert (preview.status_code, preview.json()["code"]) == (409, "secret_unresolved")
    assert faults(preview) == {"secrets.password": "secret_unresolved"}
    assert (job["status"], job["error"]["code"]) == ("failed", "secret_unresolved")
    assert (await hub.admin.get(path)).json()["status"] == "failed"


def in_folder(folder: Path, name: str) -> None:
    """The files that no secret may come from."""
    outside = folder.parent / "outside.txt"
    outside.write_text("canary")
    match name:
        case "link":
            (folder / name).symlink_to(outside)
        case "folder_link":
            (folder / name).symlink_to(folder.parent)
        case "pipe":
            os.mkfifo(folder / name)
        case "device":
            (folder / name).symlink_to("/dev/zero")
        case "long":
            (folder / name).write_bytes(b"a" * (references.MAX_BYTES + 1))
        case "empty":
            (folder / name).write_bytes(b"\n")
        case "binary":
            (folder / name).write_bytes(b"\xff\xfe")
        case "nul":
            (folder / name).write_bytes(b"a\x00b")
        case "folder":
            (folder / name).mkdir()


@pytest.mark.parametrize(
    ("name", "path", "why"),
    [
        ("absent", "absent", "is not there"),
        ("link", "link", "leads out of"),
        ("folder_link", "folder_link/outside.txt", "leads out of"),
        ("pipe", "pipe", "not a plain file"),
        ("device", "device", "leads out of"),
        ("long", "long", "longer than 16,384 bytes"),
        ("empty", "empty", "is empty"),
        ("binary", "binary", "not UTF-8"),
        ("nul", "nul", "NUL"),
        ("folder", "folder", "not a plain file"),
    ],
)
async def test_a_file_that_is_none_to_read_is_a_failed_test(
    hub: Hub, folder: Path, name: str, path: str, why: str
) -> None:
    in_folder(folder, name)
    body = {"type": "postgresql", "config": NOWHERE, "secrets": {"password": {"ref": f"file:{path}"}}}
    answer = await hub.admin.post(f"{SOURCES}/test", json=body)
    (failed,) = [step for step in answer.json()["steps"] if step["status"] == "failed"]
    assert why in failed["message"]
    assert "Ask the operator" in failed["message"]
    assert "canary" not in answer.text


async def test_a_link_inside_of_the_folder_is_followed(hub: Hub, shop: Shop, folder: Path) -> None:
    """As Kubernetes lays out mounted secrets."""
    (folder / "..data").mkdir()
    (folder / "..data" / "password").write_text(shop.password)
    (folder / "mounted").symlink_to("..data/password")
    path = await of_shop(hub, shop, "file:mounted")
    assert (await hub.admin.post(f"{path}/test")).json()["status"] == "passed"


async def test_a_value_that_the_type_does_not_take_is_not_echoed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "canary with spaces\n")
    body = {
        "type": "rest", "config": {"base_url": "http://nowhere.invalid", "auth": "bearer"}, "secrets": {"token": ALLOWED}
    }  # fmt: skip
    answer = await hub.admin.post(f"{SOURCES}/test", json=body)
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert "secret token" in answer.text
    assert "canary" not in answer.text


# --- what may be referred to ---


REFUSED = [
    "env:HUB_SECRET_KEYS",
    "env:HUB_ADMIN_PASSWORD",
    "env:hub_secret_keys",
    "env:Hub_X",
    "env:PATH",
    "env:SHOP",
    "env:XSHOP_A",
    "file:../outside.txt",
    "file:a/../../outside.txt",
    "file:..",
]
MALFORMED = [
    "SHOP_PASSWORD", "env:", "env:SHOP PASSWORD", "env:SHOP_A\n", "env:$(id)", "file:", "file:/etc/passwd", "vault:x",
    "", "file:a\x01",
]  # fmt: skip


@pytest.mark.parametrize("ref", REFUSED)
async def test_what_the_operator_did_not_allow_is_refused_on_every_path(
    hub: Hub, ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_ADMIN_PASSWORD", "canary")
    given = {"password": {"ref": ref}}
    made = await registered(hub)
    body = {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE, "secrets": given}
    for answer, below in (
        (await post_source(hub.admin, secrets=given), ""),
        (await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"secrets": given}), ""),
        (await hub.admin.post(f"{SOURCES}/{made['id']}/test", json={"secrets": given}), ""),
        (
            await hub.admin.post(f"{SOURCES}/test", json={name: body[name] for name in ("type", "config", "secrets")}),
            "",
        ),
        (await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": [body]}), "data_sources[0]."),
    ):
        assert (answer.status_code, faults(answer)) == (400, {f"{below}secrets.password.ref": "reference_not_allowed"})
        assert "canary" not in answer.text


@pytest.mark.parametrize("ref", MALFORMED)
async def test_a_malformed_reference_is_refused(hub: Hub, ref: str) -> None:
    answer = await post_source(hub.admin, secrets={"password": {"ref": ref}})
    assert answer.status_code == 400
    assert {path.removesuffix(".ref") for path in faults(answer)} == {"secrets.password"}


async def test_an_allowance_that_was_taken_back_counts_at_once(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVATE", "canary")
    made = await registered(hub, secrets={"password": ALLOWED})
    await records.run(
        "UPDATE data_source_secrets SET reference = 'env:PRIVATE' WHERE data_source_id = $1::uuid", made["id"]
    )
    tested = await hub.admin.post(f"{SOURCES}/{made['id']}/test")
    assert tested.json()["status"] == "failed"
    assert "may not be used" in tested.text
    assert "canary" not in tested.text


async def test_without_settings_nothing_can_be_referred_to(
    cluster: EmbeddedPostgres, migrated: str, tmp_path: Path
) -> None:
    async with running_hub(cluster, migrated, tmp_path) as plain:
        for ref in (ALLOWED["ref"], "file:password"):
            answer = await post_source(plain.admin, secrets={"password": {"ref": ref}})
            assert (answer.status_code, faults(answer)) == (400, {"secrets.password.ref": "reference_not_allowed"})


async def test_the_hubs_own_key_file_cannot_be_read(folder: Path, hub: Hub) -> None:
    (folder / "signing-keys.pem").write_text("canary")
    settings = load(
        {
            "HUB_SECRET_FILES_ROOT": str(folder),
            "HUB_SIGNING_KEYS_FILE": str(folder / "signing-keys.pem"),
        },
        env_file=None,
    )
    os.link(folder / "signing-keys.pem", folder / "by-another-name")
    for name in ("signing-keys.pem", "by-another-name"):
        values = {"password": SecretReference(ref=f"file:{name}")}
        with pytest.raises(references.UnresolvedReference) as caught:
            await references.resolved(settings, "postgresql", values)
        assert "is the hub's own" in caught.value.detail


@pytest.mark.parametrize(
    "variables",
    [
        {"HUB_SECRET_FILES_ROOT": "/srv/hub", "HUB_DATA_DIR": "/srv/hub"},
        {"HUB_SECRET_FILES_ROOT": "/srv", "HUB_DATA_DIR": "/srv/hub"},
        {"HUB_SECRET_FILES_ROOT": "/srv/hub/secrets", "HUB_DATA_DIR": "/srv/hub"},
        {"HUB_SECRET_FILES_ROOT": "/data/secrets", "HUB_FILES_ROOT": "/data"},
        {"HUB_SECRET_ENV_PREFIXES": "SHOP-"},
        {"HUB_SECRET_ENV_PREFIXES": "*"},
    ],
)
def test_settings_that_would_expose_the_hub_stop_the_start(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(variables, env_file=None)
    assert "HUB_SECRET_" in str(caught.value)


# --- who may refer ---


async def test_a_reference_needs_a_permission_of_its_own(hub: Hub, records: Records) -> None:
    """Whoever may write sources could otherwise have the operator's secrets sent to a server of theirs."""
    writer = await hub.user_with("data-sources:read", "data-sources:write", "data-sources:test")
    made = await registered(hub)
    given = {"password": ALLOWED}
    body = {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE, "secrets": given}
    for answer in (
        await post_source(writer, secrets=given),
        await writer.patch(f"{SOURCES}/{made['id']}", json={"secrets": given}),
        await writer.post(f"{SOURCES}/{made['id']}/test", json={"secrets": given}),
        await writer.post(f"{SOURCES}/test", json={name: body[name] for name in ("type", "config", "secrets")}),
        await writer.post(f"{SOURCES}/bulk", json={"data_sources": [body], "atomic": False}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")
        assert [row["outcome"] for row in await records.audit(answer)] == ["refused"]
    trusted = await hub.user_with("data-sources:read", "data-sources:write", references.PERMISSION)
    assert (await post_source(trusted, secrets=given)).status_code == 201


async def test_a_source_with_a_reference_cannot_be_led_elsewhere(hub: Hub) -> None:
    """By nobody without giving the reference again, and so by nobody without the permission."""
    made = await registered(hub, secrets={"password": ALLOWED})
    writer = await hub.user_with("data-sources:read", "data-sources:write", "data-sources:test")
    path, change = f"{SOURCES}/{made['id']}", {"config": {"host": "evil.invalid"}}
    for answer in (
        await writer.patch(path, json=change),
        await writer.post(f"{path}/test", json=change),
        await hub.admin.patch(path, json=change),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "secret_reentry_required")
    assert (await writer.patch(path, json=change | {"secrets": {"password": ALLOWED}})).status_code == 403
    assert (await hub.admin.patch(path, json=change | {"secrets": {"password": ALLOWED}})).status_code == 200
    moved = await writer.patch(path, json={"config": {"host": "b.invalid"}, "secrets": {"password": None}})
    assert (moved.status_code, moved.json()["secrets"]) == (200, {})
