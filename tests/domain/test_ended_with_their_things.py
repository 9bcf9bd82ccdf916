"""Assignments end with what they hang on: nobody holds what is not there, and the past can be asked."""

from typing import Any
from uuid import uuid4

import pytest

from app.domain.assignments import end_of_roles
from app.domain.assignments.kinds import SCOPES, SUBJECTS
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import ended, working
from tests.domain.test_role_assignments import ASSIGNMENTS, body_for, give, new_domain, new_source, somebody

pytestmark = pytest.mark.anyio

V1 = "/api/v1"


async def made(hub: Hub, path: str, **body: Any) -> str:
    answer = await hub.admin.post(f"{V1}/{path}", json={"name": uuid4().hex, **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def thing(hub: Hub, records: Records, kind: str) -> tuple[str, str]:
    """The id of a new one, and its path."""
    match kind:
        case "user":
            row_id, path = (await somebody(hub, records))[0], "users"
        case "group":
            row_id, path = await made(hub, "groups"), "groups"
        case "service_account":
            row_id, path = await made(hub, "service-accounts"), "service-accounts"
        case "data_domain":
            row_id, path = await new_domain(records), "data-domains"
        case "data_source":
            row_id, path = await new_source(hub), "data-sources"
        case _:
            row_id, path = await made(hub, "roles"), "roles"
    return row_id, f"{V1}/{path}/{row_id}"


@pytest.mark.parametrize("kind", sorted({*SUBJECTS, *SCOPES, "role"}))
async def test_what_was_given_ends_with_the_thing(hub: Hub, records: Records, kind: str) -> None:
    """Of each kind that there is: a new one is held to this from the moment at which roles can be given to it."""
    row_id, path = await thing(hub, records, kind)
    body = body_for((await somebody(hub, records))[0], await made(hub, "roles"))
    if kind in SUBJECTS:
        body["subject"] = {"type": kind, "id": row_id}
    elif kind in SCOPES:
        body["scope"] = {"type": kind, "id": row_id}
    else:
        body["role_id"] = row_id
    given = await hub.admin.post(ASSIGNMENTS, json=body)
    assert given.status_code == 201, given.text
    deleted = await hub.admin.delete(path)
    assert deleted.status_code == 204, deleted.text
    read = (await hub.admin.get(f"{ASSIGNMENTS}/{given.json()['id']}")).json()
    assert read["ended_at"] is not None
    assert read["ended_by"] == (await hub.admin.get(f"{V1}/auth/me")).json()["user"]["id"]
    assert await open_ones_of_nothing(records) == 0


async def open_ones_of_nothing(records: Records) -> int:
    tables = {"user": "users", "group": "groups", "service_account": "service_accounts"}
    places = {"data_domain": "data_domains", "data_source": "data_sources"}
    is_gone = [
        f"subject_type = '{kind}' AND subject_id NOT IN (SELECT id FROM {name})" for kind, name in tables.items()
    ]
    is_gone += [f"scope_type = '{kind}' AND scope_id NOT IN (SELECT id FROM {name})" for kind, name in places.items()]
    is_gone += ["role_id NOT IN (SELECT id FROM roles)"]
    return int(
        await records.one(
            f"SELECT count(*) FROM role_assignments WHERE ended_at IS NULL AND ({' OR '.join(f'({each})' for each in is_gone)})"
        )
    )


async def test_of_a_role_that_very_many_hold_the_rest_is_ended_by_a_job(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rights are gone with the request: a role that is not there brings nothing."""
    monkeypatch.setattr(end_of_roles, "AT_ONCE", 20)
    user, client = await somebody(hub, records)
    role = await hub.new_role(permissions=["roles:read"])
    await give(hub, user, role["id"])
    await records.run(
        """INSERT INTO role_assignments (id, subject_type, subject_id, role_id, scope_type, scope_id, tenant_id, starts_at,
             created_at, updated_at)
           SELECT gen_random_uuid(), 'group', gen_random_uuid(), id, 'data_source', gen_random_uuid(), tenant_id, now(),
             now(), now()
           FROM roles, generate_series(1, 69) WHERE id = $1::uuid""",
        role["id"],
    )
    assert (await client.get(f"{V1}/roles")).status_code == 200
    assert (await hub.admin.delete(f"{V1}/roles/{role['id']}")).status_code == 204
    assert (await client.get(f"{V1}/roles")).status_code == 403
    left = "SELECT count(*) FROM role_assignments WHERE role_id = $1::uuid AND ended_at IS NULL"
    assert await records.one(left, role["id"]) == 50
    (job,) = (await hub.admin.get(f"{V1}/jobs", params={"subject_id": role["id"]})).json()["items"]
    async with working(hub.parts):
        done = await ended(hub.admin, job["id"])
    assert (done["kind"], done["status"], done["result"]) == ("role.end_assignments", "succeeded", {"ended": 50})
    assert await records.one(left, role["id"]) == 0
    by = "SELECT count(DISTINCT ended_by) FROM role_assignments WHERE role_id = $1::uuid"
    assert await records.one(by, role["id"]) == 1
