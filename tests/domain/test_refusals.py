"""AU1: whatever is refused to somebody known is on record before they are told, with whatever status they are told."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.core import embedded
from app.core.embedded import EmbeddedPostgres
from app.core.error_codes import BAD_REQUEST, CONFLICT, FORBIDDEN
from app.core.errors import BadRequest, Conflict, Fault, Forbidden, Hidden, NotFound, Unauthenticated
from app.domain.refusals import REFUSED, REFUSED_FAULTS, reason_of
from app.domain.roles.built_in import admin_role_id, public_role_id
from app.domain.tenants.models import DEFAULT_TENANT_ID
from tests.conftest import ADMIN_EMAIL, Hub
from tests.domain.conftest import Records, new_user, open_pair, open_session
from tests.domain.sources import NOWHERE, SOURCES, registered

pytestmark = [pytest.mark.anyio, pytest.mark.found("A5")]

JOBS, SESSIONS, USERS, ROLES = "/api/v1/jobs", "/api/v1/auth/sessions", "/api/v1/users", "/api/v1/roles"


async def refusal_of(records: Records, answer: httpx.Response) -> tuple[str, str, UUID | None]:
    """Action, reason and subject of the one row that a refused call left."""
    (row,) = await records.audit(answer)
    assert (row["outcome"], row["resource_type"]) == ("refused", "route")
    assert row["actor_id"] is not None
    assert row["request_id"] == answer.headers["x-request-id"]
    return row["action"], row["detail"], row["resource_id"]


async def me(client: httpx.AsyncClient) -> str:
    found: str = (await client.get("/api/v1/auth/me")).json()["user"]["id"]
    return found


@pytest.mark.found("U13")
@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("DELETE", f"{SOURCES}/{{id}}", "delete /api/v1/data-sources/{source_id}"),
        ("PATCH", f"{SOURCES}/{{id}}", "patch /api/v1/data-sources/{source_id}"),
        ("GET", f"{SOURCES}/{{id}}/objects/{{id}}", "get /api/v1/data-sources/{source_id}/objects/{object_id}"),
        ("POST", f"{SOURCES}/{{id}}/preview", "post /api/v1/data-sources/{source_id}/preview"),
        ("PUT", f"{USERS}/{{id}}/roles/{{id}}", "put /api/v1/users/{user_id}/roles/{role_id}"),
        ("HEAD", f"{ROLES}/{{id}}", "head /api/v1/roles/{role_id}"),
        ("GET", "/api/v1/data-source-types/postgresql", "get /api/v1/data-source-types/{type_name}"),
    ],
)
async def test_a_row_names_the_route_and_no_id(hub: Hub, records: Records, method: str, path: str, action: str) -> None:
    nobody, thing = await hub.user_with(), uuid4()
    answer = await nobody.request(method, path.replace("{id}", str(thing)))
    assert answer.status_code in (403, 404)
    subject = thing if "{id}" in path else None
    assert await refusal_of(records, answer) == (action, "permission_missing", subject)


async def test_to_carry_a_secret_off_is_refused_and_on_record(hub: Hub, records: Records) -> None:
    made = await registered(hub, secrets={"password": "pw"})
    path, change = f"{SOURCES}/{made['id']}", {"config": {"host": "elsewhere.invalid"}}
    for answer, action in (
        (await hub.admin.patch(path, json=change), "patch /api/v1/data-sources/{source_id}"),
        (await hub.admin.post(f"{path}/test", json=change), "post /api/v1/data-sources/{source_id}/test"),
    ):
        assert answer.status_code == 409
        assert await refusal_of(records, answer) == (action, "secret_reentry_required", UUID(made["id"]))


async def test_to_read_what_the_operator_did_not_allow_is_refused_and_on_record(hub: Hub, records: Records) -> None:
    body = {"type": "postgresql", "config": NOWHERE, "secrets": {"password": {"ref": "env:HUB_SECRET_KEY"}}}
    for path, sent in (
        (SOURCES, body | {"name": "x"}),
        (f"{SOURCES}/test", body),
        (f"{SOURCES}/bulk", {"data_sources": [body | {"name": "x"}, body | {"name": "y"}]}),
    ):
        answer = await hub.admin.post(path, json=sent)
        assert answer.status_code == 400
        assert await refusal_of(records, answer) == (f"post {path}", "reference_not_allowed", None)


@pytest.mark.parametrize("there", [True, False])
async def test_the_job_of_another_is_refused_alike_whether_it_is_there_or_not(
    hub: Hub, records: Records, there: bool
) -> None:
    job = (await hub.admin.post(f"{SOURCES}/{(await registered(hub))['id']}/discover")).json()
    job_id = job["id"] if there else str(uuid4())
    stranger = await hub.user_with("data-sources:discover")
    for method, below in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        answer = await stranger.request(method, f"{JOBS}/{job_id}{below}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        expected = (f"{method.lower()} {JOBS}/{{job_id}}{below}", "permission_missing", UUID(job_id))
        assert await refusal_of(records, answer) == expected


@pytest.mark.parametrize("permission", ["jobs:read", "jobs:write"])
async def test_a_job_that_is_not_there_is_no_refusal_to_those_who_may_see_all(
    hub: Hub, records: Records, permission: str
) -> None:
    client = await hub.user_with(permission)
    method, below = ("GET", "") if permission == "jobs:read" else ("POST", "/cancel")
    answer = await client.request(method, f"{JOBS}/{uuid4()}{below}")
    assert (answer.status_code, await records.audit(answer)) == (404, [])


async def test_the_session_of_another_is_refused_alike_whether_it_is_there_or_not(hub: Hub, records: Records) -> None:
    one = await open_session(hub, records, await new_user(hub, records))
    other = await open_session(hub, records, await new_user(hub, records))
    (session,) = (await other.get(SESSIONS)).json()["items"]
    for session_id in (session["id"], str(uuid4())):
        answer = await one.delete(f"{SESSIONS}/{session_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        expected = ("delete /api/v1/auth/sessions/{session_id}", "permission_missing", UUID(session_id))
        assert await refusal_of(records, answer) == expected
    assert (await other.get("/api/v1/auth/me")).status_code == 200


async def test_ones_own_session_that_has_ended_is_no_refusal(hub: Hub, records: Records) -> None:
    email = await new_user(hub, records)
    client, other = await open_session(hub, records, email), await open_session(hub, records, email)
    (gone,) = [each for each in (await client.get(SESSIONS)).json()["items"] if not each["is_current"]]
    assert (await client.delete(f"{SESSIONS}/{gone['id']}")).status_code == 204
    answer = await client.delete(f"{SESSIONS}/{gone['id']}")
    assert (answer.status_code, await records.audit(answer)) == (404, [])
    assert (await other.get("/api/v1/auth/me")).status_code == 401


async def test_to_take_the_last_admin_away_is_refused_and_on_record(hub: Hub, records: Records) -> None:
    admin = await me(hub.admin)
    for method, path, body in (
        ("DELETE", f"{USERS}/{admin}", None),
        ("PATCH", f"{USERS}/{admin}", {"is_active": False}),
        ("DELETE", f"{USERS}/{admin}/roles/{admin_role_id(DEFAULT_TENANT_ID)}", None),
    ):
        answer = await hub.admin.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
        action, reason, subject = await refusal_of(records, answer)
        assert (reason, subject) == ("last_admin", UUID(admin))
        assert action.startswith(f"{method.lower()} {USERS}/{{user_id}}")


async def test_to_change_what_is_built_in_is_refused_and_on_record(hub: Hub, records: Records) -> None:
    for method, path, body in (
        ("PATCH", f"{ROLES}/{admin_role_id(DEFAULT_TENANT_ID)}", {"name": "x"}),
        ("DELETE", f"{ROLES}/{public_role_id(DEFAULT_TENANT_ID)}", None),
        ("DELETE", f"{USERS}/{await me(hub.admin)}/roles/{public_role_id(DEFAULT_TENANT_ID)}", None),
    ):
        answer = await hub.admin.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "system_role")
        assert (await refusal_of(records, answer))[1] == "system_role"


async def test_what_goes_beyond_ones_own_permissions_is_refused_and_on_record(hub: Hub, records: Records) -> None:
    climber = await hub.user_with("roles:write")
    answer = await climber.post(ROLES, json={"name": uuid4().hex, "permissions": ["users:write"]})
    assert answer.status_code == 403
    assert await refusal_of(records, answer) == ("post /api/v1/roles", "exceeds_own_permissions", None)


async def test_what_does_not_fit_or_is_not_there_is_no_refusal(hub: Hub, records: Records) -> None:
    made = await registered(hub)
    for answer in (
        await hub.admin.get(f"{SOURCES}/{uuid4()}"),
        await hub.admin.get(f"{SOURCES}/{made['id']}/objects/{uuid4()}"),
        await hub.admin.post(SOURCES, json={"name": made["name"], "type": "postgresql", "config": NOWHERE}),
        await hub.admin.patch(f"{SOURCES}/{made['id']}", json={"name": "x"}, headers={"If-Match": '"v9"'}),
        await hub.admin.post(ROLES, json={"colour": 1}),
        await hub.client().get(SOURCES),
    ):
        assert 400 <= answer.status_code < 500
        assert await records.audit(answer) == []


async def test_a_refresh_repeated_in_its_grace_is_on_record(hub: Hub, records: Records) -> None:
    pair = await open_pair(hub, records, email := await new_user(hub, records))
    sent = {"refresh_token": pair["refresh_token"]}
    answers = [await hub.client().post("/api/v1/auth/refresh", json=sent) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    rows = [row for answer in answers for row in await records.audit(answer)]
    assert [(row["action"], row["outcome"], row["detail"], row["actor_name"]) for row in rows] == [
        ("auth.refresh", "success", None, email),
        ("auth.refresh", "success", "repeated", email),
    ]


async def test_who_registers_is_the_actor(hub: Hub, records: Records) -> None:
    email = f"{uuid4().hex}@example.org"
    answer = await hub.client().post("/api/v1/auth/register", json={"email": email, "password": "a quiet lamp in fog"})
    assert answer.status_code == 201
    (row,) = await records.audit(answer)
    assert (row["action"], row["actor_id"], row["actor_name"]) == ("user.create", UUID(answer.json()["id"]), email)


async def test_refusals_in_parallel_have_a_row_each(hub: Hub, records: Records) -> None:
    nobody = await hub.user_with()
    answers = await asyncio.gather(*(nobody.delete(f"{SOURCES}/{uuid4()}") for _ in range(20)))
    assert [len(await records.audit(answer)) for answer in answers] == [1] * 20


async def test_what_cannot_be_recorded_is_not_told(hub: Hub, cluster: EmbeddedPostgres) -> None:
    nobody = await hub.user_with()
    operator = await asyncpg.connect(cluster.url(embedded.SUPERUSER, hub.url.rpartition("/")[2]))
    try:
        await operator.execute("REVOKE INSERT ON audit_events FROM hub_app")
        answer = await nobody.delete(f"{SOURCES}/{uuid4()}")
        assert answer.status_code >= 500
    finally:
        await operator.execute("GRANT INSERT ON audit_events TO hub_app")
        await operator.close()
    assert (await nobody.delete(f"{SOURCES}/{uuid4()}")).status_code == 404


def reasons() -> list[tuple[Any, str | None]]:
    known: list[tuple[Any, str | None]] = [(Forbidden(code=code), code) for code in FORBIDDEN]
    known += [(Conflict(code=code), code if code in REFUSED else None) for code in CONFLICT]
    known += [(BadRequest(code=code), None) for code in BAD_REQUEST]
    known += [
        (BadRequest(errors=[Fault("a", "blank", ""), Fault("b", code, "")]), code) for code in sorted(REFUSED_FAULTS)
    ]
    return [*known, (NotFound(), None), (Hidden(), "permission_missing"), (Unauthenticated(), None)]


@pytest.mark.parametrize(("error", "reason"), reasons(), ids=lambda each: getattr(each, "code", None) or str(each))
def test_one_place_says_what_a_refusal_is(error: Any, reason: str | None) -> None:
    assert reason_of(error) == reason


async def test_the_log_can_be_searched_for_a_refused_route_and_for_what_it_was_about(hub: Hub) -> None:
    nobody, thing = await hub.user_with(), uuid4()
    await nobody.delete(f"{SOURCES}/{thing}")
    action = "delete /api/v1/data-sources/{source_id}"
    for query in ({"action": action, "resource_id": str(thing)}, {"outcome": "refused", "resource_id": str(thing)}):
        (found,) = (await hub.admin.get("/api/v1/audit-events", params=query)).json()["items"]
        assert (found["action"], found["actor_name"] != ADMIN_EMAIL) == (action, True)
