"""A secret goes only where it was given for: asked of each destination field of each type, on every path that could
move it."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from msgspec.structs import fields as fields_of

from app.connectors import registry
from app.connectors.contract.identity import destination
from app.connectors.contract.steps import Steps, TestResult
from app.domain.sources.secrets.uses import use_of_stored
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, SOURCES, faults, post_source, registered
from tests.domain.valid_configs import move_of
from tests.sampling import sampled

pytestmark = pytest.mark.anyio

WHERE = frozenset(
    {"host", "hosts", "port", "url", "uri", "server", "servers", "endpoint", "authority", "account", "bootstrap"}
    | {"user", "username", "tunnel", "proxy", "tls", "ssl", "verify", "insecure", "certificate", "mechanism", "auth"}
)


def with_secrets() -> Iterator[registry.AnyConnector]:
    yield from (connector for connector in registry.all() if fields_of(connector.secrets_type))


def every_destination() -> Iterator[Any]:
    """The first two of a type in the plain run; all of them are a hundred and more."""
    for connector in with_secrets():
        for number, name in enumerate(sorted(connector.destination_fields)):
            marks = [pytest.mark.slow] if number >= 2 else []
            yield pytest.param(connector.type, name, marks=marks)


@pytest.mark.parametrize("connector", list(with_secrets()), ids=lambda connector: connector.type)
def test_a_field_that_says_where_as_whom_or_how_safely_is_a_destination(connector: registry.AnyConnector) -> None:
    known = {field.name for field in fields_of(connector.config_type)}
    saying = {name for name in known if WHERE & set(name.split("_"))}
    assert saying <= connector.destination_fields, saying - connector.destination_fields
    assert connector.destination_fields <= known


@pytest.mark.parametrize(("type_name", "name"), sampled(every_destination(), every=4))
async def test_a_moved_source_asks_for_its_secrets(hub: Hub, type_name: str, name: str) -> None:
    move = move_of(type_name, name)
    assert move is not None, f"no two values of {name} were found that {type_name} takes"
    made = await registered(hub, type=type_name, config=move.config, secrets=move.secrets)
    path, change = f"{SOURCES}/{made['id']}", {"config": {name: move.to}}
    for answer in (await hub.admin.patch(path, json=change), await hub.admin.post(f"{path}/test", json=change)):
        assert (answer.status_code, answer.json()["code"]) == (409, "secret_reentry_required"), answer.text
        assert faults(answer) == {f"secrets.{secret}": "secret_reentry_required" for secret in move.secrets}
        assert name in answer.json()["errors"][0]["message"]
    first, *others = move.secrets
    partly = await hub.admin.patch(path, json=change | {"secrets": {first: move.secrets[first]}})
    assert partly.status_code == (409 if others else 200)
    assert set(faults(partly)) == {f"secrets.{secret}" for secret in others}
    if others:
        assert (await hub.admin.get(path)).json() == made
    moved = await hub.admin.patch(path, json=change | {"secrets": move.secrets})
    assert moved.status_code == 200, moved.text


SAME = [
    ("https://api.invalid/v1", "https://API.invalid/v1"),
    ("https://api.invalid/v1", "https://api.invalid:443/v1"),
    ("http://api.invalid", "http://api.invalid:80/"),
    ("https://api.invalid/a?x=1", "https://api.invalid/a?x=2#part"),
]
OTHER = [
    ("https://api.invalid/v1", "http://api.invalid/v1"),
    ("https://api.invalid/v1", "https://api.invalid:8443/v1"),
    ("https://api.invalid/v1", "https://evil.invalid/v1"),
    ("https://api.invalid/v1", "https://api.invalid.evil.invalid/v1"),
    ("https://api.invalid/v1", "https://api.invalid@evil.invalid/v1"),
    ("https://me@api.invalid/v1", "https://you@api.invalid/v1"),
    ("https://api.invalid/v1", "https://api.invalid/v2"),
    ("mongodb://db.invalid/a?tls=true", "mongodb://db.invalid/a?tls=false"),
    ("https://api.invalid:1/v1", "https://api.invalid:99999/v1"),
    ("db.invalid", "DB.invalid"),
    ("db.invalid", "db.invalid."),
    (["https://a.invalid"], ["https://b.invalid"]),
    (None, "https://api.invalid"),
    (5432, 5433),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_another_spelling_of_an_address_is_the_same_destination(one: str, other: str) -> None:
    assert destination(one) == destination(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_whatever_may_lead_elsewhere_is_another_destination(one: Any, other: Any) -> None:
    assert destination(one) != destination(other)


@pytest.mark.parametrize("value", ["disable", "prefer", None])
async def test_a_stored_secret_is_not_sent_less_safely(hub: Hub, value: str | None) -> None:
    made = await registered(hub, config=NOWHERE | {"tls_mode": "require"}, secrets={"password": "pw"})
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"config": {"tls_mode": value}})
    assert (answer.status_code, answer.json()["code"]) == (409, "secret_reentry_required")


async def test_a_setting_that_its_type_has_got_since_moves_nothing(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    await records.run("UPDATE data_sources SET config = config - 'tls_mode' WHERE id = $1::uuid", made["id"])
    answer = await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"config": {"connect_timeout_s": 2}})
    assert (answer.status_code, answer.json()["config"]["tls_mode"]) == (200, "prefer")


async def test_a_move_passes_where_the_secrets_are_cleared_or_there_were_none(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path = f"{SOURCES}/{made['id']}"
    cleared = await hub.admin.patch(path, json={"config": {"host": "a.invalid"}, "secrets": {"password": None}})
    assert (cleared.status_code, cleared.json()["secrets"]) == (200, {})
    assert (await hub.admin.patch(path, json={"config": {"host": "b.invalid"}})).status_code == 200


async def test_a_change_of_other_settings_asks_for_nothing(hub: Hub) -> None:
    made = await registered(hub, config=NOWHERE | {"port": 5433}, secrets={"password": "pw"})
    change = {"config": {"connect_timeout_s": 2, "include_schemas": ["a"], "port": 5433}}
    assert (await hub.admin.patch(f"{SOURCES}/{made['id']}", json=change)).status_code == 200


async def test_a_source_keeps_its_type(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path = f"{SOURCES}/{made['id']}"
    for answer in (
        await hub.admin.patch(path, json={"type": "rest", "config": {"base_url": "https://evil.invalid"}}),
        await hub.admin.post(f"{path}/test", json={"type": "rest", "config": {"base_url": "https://evil.invalid"}}),
        await hub.admin.put(path, json={"type": "rest"}),
    ):
        assert answer.status_code in (400, 405)
    assert (await hub.admin.get(path)).json() == made


async def test_a_new_source_takes_no_secret_of_another(hub: Hub) -> None:
    """Neither by id, nor by name, nor by the shape in which secrets are shown."""
    made = await registered(hub, secrets={"password": "pw"})
    for extra in ({"id": made["id"]}, {"secrets": made["secrets"]}, {"copy_of": made["id"]}):
        body = {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE, **extra}
        assert (await post_source(hub.admin, **body)).status_code == 400
        assert (await hub.admin.post(f"{SOURCES}/bulk", json={"data_sources": [body]})).status_code == 400


# --- a change that is tested before it is saved ---


async def test_a_change_is_tested_with_the_stored_secrets_and_saves_nothing(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path = f"{SOURCES}/{made['id']}"
    answer = await hub.admin.post(f"{path}/test", json={"config": {"connect_timeout_s": 2}})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert (await hub.admin.get(path)).json() == made
    assert (await hub.admin.get(f"{path}/tests")).json()["items"] == []
    use, row = await records.audit(answer)
    assert (use["action"], use["detail"]) == ("secret.use", "test: password v1")
    assert (row["action"], str(row["resource_id"])) == ("data_source.test_unsaved", made["id"])


async def test_a_tested_change_is_judged_like_a_saved_one(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path = f"{SOURCES}/{made['id']}/test"
    wrong: list[tuple[Any, dict[str, str]]] = [
        ({"config": {"port": "5"}}, {"config.port": "wrong_type"}),
        ({"secrets": {"password": "***"}}, {"secrets.password": "masked_secret"}),
        ({"secrets": {"pin": "x"}}, {"secrets.pin": "unknown_field"}),
        ({"name": "x"}, {"name": "unknown_field"}),
    ]
    for body, expected in wrong:
        answer = await hub.admin.post(path, json=body)
        assert (answer.status_code, faults(answer)) == (400, expected)


async def test_a_saved_test_says_which_version_of_a_secret_it_used(hub: Hub) -> None:
    made = await registered(hub, secrets={"password": "one"})
    path = f"{SOURCES}/{made['id']}"
    await hub.admin.patch(path, json={"secrets": {"password": "two"}})
    assert (await hub.admin.post(f"{path}/test")).status_code == 200
    (test,) = (await hub.admin.get(f"{path}/tests")).json()["items"]
    assert test["secret_versions"] == {"password": 2}


async def test_a_secret_that_is_given_with_a_move_never_goes_to_the_place_before(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the source for connector work while it is moved has both parts of before, or both of after."""
    made = await registered(hub, type="simulated", config={"host": "before.invalid"}, secrets={"password": "of before"})
    path = f"{SOURCES}/{made['id']}"
    moves: list[asyncio.Task[httpx.Response]] = []
    reading, used = use_of_stored, []

    async def reading_while_it_moves(*args: Any, **options: Any) -> Any:
        if not moves:
            change = {"config": {"host": "after.invalid"}, "secrets": {"password": "of after"}}
            moves.append(asyncio.create_task(hub.admin.patch(path, json=change)))
            await asyncio.wait(moves, timeout=0.5)
        return await reading(*args, **options)

    async def noting(_: str, config: Any, secrets: Any, *__: Any, **___: Any) -> TestResult:
        used.append((config["host"], secrets["password"]))
        return Steps().result(0.0)

    monkeypatch.setattr("app.domain.sources.reach.use_of_stored", reading_while_it_moves)
    monkeypatch.setattr(hub.parts.sandbox, "check", noting)
    assert (await hub.admin.post(f"{path}/test")).status_code == 200
    assert (await moves[0]).status_code == 200
    assert (await hub.admin.post(f"{path}/test")).status_code == 200
    assert used == [("before.invalid", "of before"), ("after.invalid", "of after")]
