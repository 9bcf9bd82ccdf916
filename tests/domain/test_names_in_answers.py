"""SS4: a secret that was put into the wrong place, as the name of a field or as an address, is not repeated."""

from typing import Any

import msgspec
import pytest

from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records, new_user
from tests.domain.sources import NOWHERE, SOURCES, faults, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("A9")]

SECRETS = [
    *("hunter2-hunter2", "Tr0ub4dor&3", "correct horse battery staple", "correcthorsebatterystaple", "dfr_0123"),
    *(
        "0ef8b86119e040cc950d4f193f1837a4",
        "-----BEGIN PRIVATE KEY-----",
        "pässwörd-über-alles",
        "AKIAIOSFODNN7EXAMPLE",
        "s3cr3t",
    ),
]
SOURCE = {"name": "shop", "type": "postgresql", "config": NOWHERE}
ENCODERS = {"application/json": msgspec.json.encode, "application/msgpack": msgspec.msgpack.encode}


def bodies(secret: str) -> list[tuple[str, str, dict[str, Any], str]]:
    """Method, path, body, and the path of what is at fault."""
    return [
        ("POST", "/api/v1/auth/login", {"email": "a@example.org", "password": "x", secret: 1}, "?3"),
        ("POST", "/api/v1/auth/register", {secret: {}}, "?1"),
        ("POST", "/api/v1/users", {"email": "a@example.org", secret: None}, "?2"),
        ("POST", SOURCES, SOURCE | {"secrets": {"password": "a", secret: "b"}}, "secrets.?2"),
        ("POST", SOURCES, SOURCE | {"config": NOWHERE | {secret: "b"}}, f"config.?{len(NOWHERE) + 1}"),
        ("POST", f"{SOURCES}/bulk", {"data_sources": [SOURCE | {secret: 1}]}, "data_sources[0].?4"),
        ("PATCH", f"{SOURCES}/{{source}}", {"secrets": {secret: 5}}, "secrets.?1"),
        ("PATCH", f"{SOURCES}/{{source}}", {"secrets": {secret: "x"}}, "secrets.?1"),
        ("PATCH", f"{SOURCES}/{{source}}", {"secrets": {secret: "*****"}}, "secrets.?1"),
        ("PATCH", f"{SOURCES}/{{source}}", {"secrets": {secret: {"ref": "env:NOT_ALLOWED"}}}, "secrets.?.ref"),
        ("PATCH", f"{SOURCES}/{{source}}", {"config": {secret: "x"}}, ""),
        ("POST", f"{SOURCES}/{{source}}/test", {"config": {"host": "h", secret: 1}}, ""),
        ("POST", SOURCES, SOURCE | {"type": "http_file", "config": {"headers": {secret: 5}}}, "config.headers.?1"),
    ]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("media_type", ENCODERS)
async def test_a_secret_as_the_name_of_a_field_is_not_repeated(hub: Hub, secret: str, media_type: str) -> None:
    source = (await registered(hub))["id"]
    for method, path, body, at in bodies(secret):
        content = ENCODERS[media_type](body)
        headers = {"Content-Type": media_type}
        answer = await hub.admin.request(method, path.replace("{source}", source), content=content, headers=headers)
        assert answer.status_code == 400, (path, answer.text)
        assert secret not in str(answer.json()), path
        assert at in faults(answer) or (not at and "?" in str(faults(answer))), (path, faults(answer))


@pytest.mark.parametrize("secret", SECRETS)
async def test_a_secret_as_a_name_that_comes_twice_is_not_repeated(hub: Hub, secret: str) -> None:
    quoted = msgspec.json.encode(secret)
    content = b"{%s:1,%s:2}" % (quoted, quoted)
    headers = {"Content-Type": "application/json"}
    answer = await hub.client().post("/api/v1/auth/login", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "duplicate_field")
    assert secret not in str(answer.json())


async def test_a_secret_as_a_name_with_a_forbidden_character_is_not_repeated(hub: Hub) -> None:
    source = (await registered(hub))["id"]
    content = rb'{"config":{"hunter2\u0000hunter2":{"hunter2hunter2":"\u0000"}}}'
    headers = {"Content-Type": "application/json"}
    answer = await hub.admin.patch(f"{SOURCES}/{source}", content=content, headers=headers)
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("name", ["colour", "firstName", "datbase", "tenant_id", "pin", "zz", "private_key_passphrase"])
async def test_a_name_that_can_be_no_secret_is_repeated(hub: Hub, name: str) -> None:
    answer = await hub.admin.post(SOURCES, json=SOURCE | {"secrets": {name: 5}})
    assert faults(answer) == {f"secrets.{name}": "unknown_field"}


@pytest.mark.parametrize("typed", [PASSWORD, "hunter2", "nobody@example.org", "Tr0ub4dor&3 ", "a\x7fb"])
async def test_what_was_typed_as_an_address_that_nobody_has_is_not_recorded(
    hub: Hub, records: Records, typed: str
) -> None:
    answer = await hub.client().post("/api/v1/auth/login", json={"email": typed, "password": "wrong"})
    assert answer.status_code == 401
    (row,) = await records.audit(answer)
    assert (row["outcome"], row["actor_id"], row["actor_name"]) == ("failure", None, None)
    assert typed not in str(row)


@pytest.mark.parametrize("column", ["is_active", "password_hash", "locked_until"])
async def test_a_failed_login_at_an_account_is_on_record_under_its_name(
    hub: Hub, records: Records, column: str
) -> None:
    """Closed, without a password or locked: the account is known, and what was typed is its address in any spelling."""
    email = await new_user(hub, records)
    value = {"is_active": "false", "password_hash": "NULL", "locked_until": "now() + interval '1 hour'"}[column]
    await records.run(f"UPDATE users SET {column} = {value} WHERE email = $1", email)
    answer = await hub.client().post("/api/v1/auth/login", json={"email": email.upper(), "password": PASSWORD})
    assert answer.status_code == 401
    (row,) = await records.audit(answer)
    assert (row["outcome"], row["actor_name"], row["actor_id"] is not None) == ("failure", email, True)
    assert await records.one("SELECT failed_logins FROM users WHERE email = $1", email) == 0


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("path", [SOURCES, "/api/v1/permissions", "/api/v1/audit-events"])
async def test_a_secret_as_the_name_of_a_parameter_is_not_repeated(hub: Hub, path: str, secret: str) -> None:
    answer = await hub.admin.get(path, params={"limit": "5", secret: "x"})
    assert (answer.status_code, faults(answer)) == (400, {"?2": "invalid_parameter"})
    assert secret not in answer.text
