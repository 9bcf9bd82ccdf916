"""AZ1: who may call what, for every operation that there is, read from the application's own route table."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from app.api.v1 import routes
from app.asgi import create_app
from app.core.migrations import permissions
from app.core.security import Access
from app.runtime import prepare_parts
from app.settings import load
from tests.conftest import Hub
from tests.domain.conftest import Records, open_session

pytestmark = pytest.mark.anyio


class Operation(NamedTuple):
    method: str
    path: str
    access: Access

    @property
    def is_of_one_thing(self) -> bool:
        return "{" in self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def operations(tmp_path: Any) -> list[Operation]:
    """Every operation of the application as it is put together for serving."""
    app = create_app(
        prepare_parts(load({"HUB_DATA_DIR": str(tmp_path)}, env_file=None), "postgresql://nobody@127.0.0.1:1/x")
    )
    found = []
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler) and handler.http_methods != {"OPTIONS"}:
                found += [
                    Operation(method, route.path_format, handler.opt["access"]) for method in handler.http_methods
                ]
    return sorted(found, key=str)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    return operations(tmp_path_factory.mktemp("routes"))


@pytest.fixture(scope="module")
async def records(hub: Hub) -> AsyncIterator[Records]:
    import asyncpg

    connection = await asyncpg.connect(hub.owner_url)
    yield Records(connection)
    await connection.close()


class Member:
    """A user whose one role is changed before each call."""

    def __init__(self, hub: Hub, client: httpx.AsyncClient, role_id: str) -> None:
        self._hub = hub
        self._role_path = f"/api/v1/roles/{role_id}"
        self.client = client

    async def holds(self, names: list[str]) -> None:
        answer = await self._hub.admin.patch(self._role_path, json={"permissions": names})
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
async def member(hub: Hub, records: Records) -> Member:
    email = f"{uuid4().hex}@example.org"
    user = await hub.new_user(email=email)
    role = await hub.new_role()
    await hub.admin.put(f"/api/v1/users/{user['id']}/roles/{role['id']}")
    return Member(hub, await open_session(hub, records, email), role["id"])


async def call(client: httpx.AsyncClient, operation: Operation) -> httpx.Response:
    """With ids of nothing and a body that no call takes: whoever is let in gets no further than a 400 or a 404."""
    path = operation.path
    path = "".join(of_nothing(part[1:-1]) if part.endswith("}") else part for part in _pieces(path))
    body = {"json": {"no_such_field": 1}} if operation.method in ("POST", "PUT", "PATCH") else {}
    return await client.request(operation.method, path, **body)  # type: ignore[arg-type]


def of_nothing(name: str) -> str:
    """What a path may name so, and nothing has."""
    return "999999999" if name == "number" else str(uuid4())


def _pieces(path: str) -> list[str]:
    pieces, rest = [], path
    while "{" in rest:
        before, _, rest = rest.partition("{")
        name, _, rest = rest.partition("}")
        pieces += [before, "{" + name + "}"]
    return [*pieces, rest]


def test_every_operation_says_who_may_call_it(table: list[Operation]) -> None:
    assert len(table) > 25
    assert {operation.access.permission for operation in table} - {None} <= set(permissions())
    assert len({str(operation) for operation in table}) == len(table)
    assert routes()


LETTER_PAGES = ("forgotten", "reset", "invitation", "email")


def test_only_these_operations_are_open(table: list[Operation]) -> None:
    """Each is open for a reason; one more is a decision, not an omission."""
    allowed = {
        "POST /api/v1/auth/register",
        "POST /api/v1/auth/login",
        "POST /api/v1/auth/mfa",
        "POST /api/v1/auth/passkey",
        "POST /api/v1/auth/passkey/options",
        "POST /api/v1/auth/refresh",
        "GET /api/v1/auth/authorize",
        "POST /api/v1/auth/token",
        "POST /api/v1/auth/revoke",
        "GET /api/v1/auth/providers",
        "GET /api/v1/auth/saml/{provider_name}/metadata",
        "GET /api/v1/auth/saml/{provider_name}/login",
        "POST /api/v1/auth/saml/{provider_name}/acs",
        "GET /api/v1/auth/saml/{provider_name}/finish",
        "GET /api/v1/auth/oidc/{name}/login",
        "GET /api/v1/auth/oidc/{name}/callback",
        "POST /api/v1/auth/oidc/{name}/backchannel-logout",
        "GET /.well-known/jwks.json",
        "GET /.well-known/oauth-authorization-server",
        "GET /.well-known/oauth-protected-resource",
        "GET /health/live",
        "GET /health/ready",
        "GET /",
        *(f"POST /api/v1/auth/{name}" for name in ("forgot-password", "reset-password", "confirm-email")),
        "POST /api/v1/auth/accept-invitation",
        *(f"{method} /sign-in/{page}" for method in ("GET", "POST") for page in LETTER_PAGES),
        "GET /sign-in",
        "POST /sign-in",
        "GET /sign-in/organisation",
        "POST /sign-in/organisation",
        "GET /sign-in/passkey",
        "POST /sign-in/passkey",
        "GET /sign-in/{step}",
        "POST /sign-in/{step}",
        "GET /sign-in/assets/{name}",
    }
    found = {str(operation) for operation in table if operation.access.is_open}
    beyond = {name for name in found - allowed if not name.startswith(("GET /docs", "GET /openapi", "GET /asyncapi"))}
    assert (allowed - found, beyond) == (set(), set())


def test_permissions_are_named_after_the_path(table: list[Operation]) -> None:
    for operation in table:
        if operation.access.permission and operation.path.startswith("/api/v1/"):
            assert operation.access.permission.split(":")[0] == _subject(operation), operation
            if operation.method == "GET":
                assert operation.access.permission.endswith(":read"), operation


def _subject(operation: Operation) -> str:
    """What the operation is about: who may do what on a thing is about assignments, not about the thing, a seal is of
    the audit log, and a delivery a webhook's."""
    if operation.path.endswith("/access"):
        return "role-assignments"
    subject = operation.path.split("/")[3]
    return {"audit-seals": "audit-events", "deliveries": "webhooks"}.get(subject, subject)


async def test_anonymous_callers_get_what_is_open_and_no_more(hub: Hub, table: list[Operation]) -> None:
    for operation in table:
        answer = await call(hub.client(), operation)
        if operation.access.is_open:
            assert answer.status_code not in (401, 403), operation
        else:
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), operation


async def test_each_operation_asks_for_its_own_permission(hub: Hub, table: list[Operation], member: Member) -> None:
    """All permissions but one: that one is asked for, whatever else the caller holds."""
    guarded = sorted(
        (operation for operation in table if operation.access.permission), key=lambda one: one.access.permission or ""
    )
    for operation in guarded:
        await member.holds([name for name in permissions() if name != operation.access.permission])
        answer = await call(member.client, operation)
        is_read = operation.is_of_one_thing and str(operation.access.permission).endswith(":read")
        hidden = is_read and not operation.path.endswith("/access")  # of a thing that one sees
        wanted = (404, "not_found") if hidden else (403, "permission_missing")
        assert (answer.status_code, answer.json()["code"]) == wanted, operation


async def test_to_who_holds_nothing_single_things_are_not_there(
    hub: Hub, table: list[Operation], member: Member, records: Records
) -> None:
    await member.holds([])
    for operation in table:
        if operation.access.permission:
            answer = await call(member.client, operation)
            assert answer.status_code == (404 if operation.is_of_one_thing else 403), operation
            (row,) = await records.audit(answer)
            assert (row["outcome"], row["detail"]) == ("refused", "permission_missing"), operation


@pytest.mark.slow
async def test_each_operation_asks_for_nothing_else(hub: Hub, table: list[Operation], member: Member) -> None:
    for operation in table:
        await member.holds([operation.access.permission] if operation.access.permission else [])
        answer = await call(member.client, operation)
        if operation.access.takes_directory_key:
            assert answer.status_code == 401, operation  # whoever somebody is, they are no directory
            continue
        assert answer.status_code not in (401, 403, 405), operation
        assert answer.status_code < 500, (operation, answer.text)


async def test_head_is_guarded_like_get(hub: Hub, table: list[Operation], member: Member) -> None:
    await member.holds([])
    for operation in table:
        if operation.method == "GET" and not operation.access.is_open:
            head = operation._replace(method="HEAD")
            assert (await call(hub.client(), head)).status_code == 401, operation
            if operation.access.permission:
                answer = await call(member.client, head)
                wanted = 404 if operation.is_of_one_thing else 403
                assert (answer.status_code, answer.content) == (wanted, b""), operation
