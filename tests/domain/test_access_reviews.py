"""Access reviews: who holds what, line by line, and what becomes of what nobody answers."""

import asyncio
import csv
import io
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.domain.access_reviews import due
from app.domain.upkeep.services import remove_due
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.rights import new_domain
from tests.domain.test_role_assignments import give, new_source, somebody

pytestmark = pytest.mark.anyio

REVIEWS = "/api/v1/access-reviews"
ADMIN_ROLE = "00000000-0000-7000-8000-000000000101"
PUBLIC_ROLE = "00000000-0000-7000-8000-000000000102"
LATER = "2100-01-01T00:00:00Z"


async def reviewed(client: httpx.AsyncClient, **given: Any) -> dict[str, Any]:
    made = await client.post(REVIEWS, json={"name": "Who may?", "due_at": LATER, "on_no_answer": "keep", **given})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def lines(hub: Hub, review: dict[str, Any], **asked: str) -> dict[str, dict[str, Any]]:
    """By the subject's id."""
    answer = await hub.admin.get(f"{REVIEWS}/{review['id']}/items", params={"limit": 200, **asked})
    assert answer.status_code == 200, answer.text
    return {line["subject"]["id"]: line for line in answer.json()["items"]}


async def answered(
    client: httpx.AsyncClient, review: dict[str, Any], line: dict[str, Any], how: str
) -> tuple[int, str]:
    answer = await client.post(f"{REVIEWS}/{review['id']}/items/{line['id']}/{how}", json={"reason": "Because."})
    return answer.status_code, answer.json()["state"] if answer.status_code == 200 else answer.json()["code"]


async def is_in_force(hub: Hub, line: dict[str, Any]) -> bool:
    return bool((await hub.admin.get(f"/api/v1/role-assignments/{line['assignment_id']}")).json()["ended_at"] is None)


async def over(records: Records, review: dict[str, Any]) -> None:
    await records.run(
        "UPDATE access_reviews SET due_at = now() - interval '1 second' WHERE id = $1::uuid", review["id"]
    )


async def test_each_assignment_in_force_is_a_line_with_what_is_known(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    (active, _), silent = await somebody(hub, records), await hub.new_user()
    for user in (active, silent["id"]):
        await give(hub, user, role["id"])
    (gone, _) = await somebody(hub, records)
    ended = await give(hub, gone, role["id"])
    await hub.admin.delete(f"/api/v1/role-assignments/{ended['id']}")
    made = await hub.admin.post(
        REVIEWS, json={"name": " Jobs  of May ", "role_id": role["id"], "due_at": LATER, "on_no_answer": "end"}
    )
    review = made.json()
    assert (review["name"], review["status"], made.headers["location"]) == (
        "Jobs of May",
        "open",
        f"{REVIEWS}/{review['id']}",
    )
    assert [row["action"] for row in await records.audit(made)] == ["access_review.create"]
    found = await lines(hub, review)
    assert set(found) == {active, silent["id"]}
    line = found[active]
    me = (await hub.admin.get("/api/v1/auth/me")).json()["user"]
    assert (line["role"], line["via"]) == ({"id": role["id"], "name": role["name"]}, {"type": "person", "id": me["id"]})
    assert line["last_active_at"] is not None
    assert found[silent["id"]]["last_active_at"] is None
    assert found[silent["id"]]["subject"]["name"] == silent["email"]


async def test_a_domain_is_reviewed_with_all_that_is_in_it_and_below(hub: Hub, records: Records) -> None:
    top = await new_domain(hub)
    below = await new_domain(hub, parent_id=top["id"])
    source, other = await new_source(hub), await new_source(hub)
    await hub.admin.patch(f"/api/v1/data-sources/{source}", json={"data_domain_id": below["id"]})
    role = await hub.new_role(permissions=["data-sources:read"])
    users = [(await somebody(hub, records))[0] for _ in range(5)]
    scopes = [
        {"type": "data_domain", "id": top["id"]},
        {"type": "data_domain", "id": below["id"]},
        {"type": "data_source", "id": source},
        {"type": "data_source", "id": other},
        {"type": "tenant"},
    ]
    for user, scope in zip(users, scopes, strict=True):
        await give(hub, user, role["id"], scope=scope)
    assert set(await lines(hub, await reviewed(hub.admin, scope=scopes[0]))) == set(users[:3])
    assert set(await lines(hub, await reviewed(hub.admin, scope=scopes[1]))) == set(users[1:3])
    assert set(await lines(hub, await reviewed(hub.admin, scope=scopes[3]))) == {users[3]}


async def test_lines_are_kept_and_ended(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    (kept, _), (ended, client) = await somebody(hub, records), await somebody(hub, records)
    for user in (kept, ended):
        await give(hub, user, role["id"])
    review = await reviewed(hub.admin, role_id=role["id"])
    found = await lines(hub, review)
    assert (await client.get("/api/v1/jobs")).status_code == 200
    assert await answered(hub.admin, review, found[kept], "keep") == (200, "kept")
    assert await answered(hub.admin, review, found[ended], "end") == (200, "ended")
    assert (await client.get("/api/v1/jobs")).status_code == 403
    assert await is_in_force(hub, found[kept])
    assert await answered(hub.admin, review, found[ended], "keep") == (409, "assignment_ended")
    assert set(await lines(hub, review, state="kept")) == {kept}
    line = (await lines(hub, review))[kept]
    assert (line["reason"], line["answered_at"] is not None) == ("Because.", True)
    assert await answered(hub.admin, review, found[kept], "end") == (200, "ended")


@pytest.mark.parametrize(("on_no_answer", "state"), [("keep", "kept"), ("end", "ended")])
async def test_without_an_answer_by_the_day_it_goes_as_the_review_says(
    hub: Hub, records: Records, on_no_answer: str, state: str
) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    users = [(await somebody(hub, records))[0] for _ in range(3)]
    given = [await give(hub, user, role["id"]) for user in users]
    review = await reviewed(hub.admin, role_id=role["id"], on_no_answer=on_no_answer)
    found = await lines(hub, review)
    assert await answered(hub.admin, review, found[users[0]], "keep") == (200, "kept")
    await hub.admin.delete(f"/api/v1/role-assignments/{given[1]['id']}")
    await over(records, review)
    assert (await hub.admin.get(f"{REVIEWS}/{review['id']}")).json()["status"] == "closing"
    assert await answered(hub.admin, review, found[users[2]], "end") == (409, "review_closed")
    await remove_due(hub.parts, datetime.now(UTC))
    assert (await hub.admin.get(f"{REVIEWS}/{review['id']}")).json()["status"] == "closed"
    after = await lines(hub, review)
    assert [after[user]["state"] for user in users] == ["kept", "gone", state]
    assert after[users[2]]["answered_by"] is None
    assert await is_in_force(hub, found[users[2]]) == (state == "kept")
    report = (await hub.admin.get(f"{REVIEWS}/{review['id']}/report")).json()
    wanted = {"open": 0, "kept": 1, "ended": 0, "gone": 1}
    assert report["totals"] == wanted | {state: wanted[state] + 1}


async def test_a_review_is_closed_before_its_day(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    user, _ = await somebody(hub, records)
    await give(hub, user, role["id"])
    review = await reviewed(hub.admin, role_id=role["id"], on_no_answer="end")
    closed = await hub.admin.post(f"{REVIEWS}/{review['id']}/close")
    assert (closed.status_code, closed.json()["status"]) == (200, "closed")
    rows = await records.audit(closed)
    assert [row["action"] for row in rows] == ["access_review.close", "role_assignment.end", "access_review.finish"]
    assert rows[-1]["after"]["lines"] == {"ended": 1}
    assert (await lines(hub, review))[user]["state"] == "ended"
    again = await hub.admin.post(f"{REVIEWS}/{review['id']}/close")
    assert (again.status_code, again.json()["code"]) == (409, "review_closed")


async def test_many_lines_are_carried_out_some_at_a_time(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "AT_ONCE", 2)
    role = await hub.new_role(permissions=["jobs:read"])
    for _ in range(5):
        await give(hub, (await hub.new_user())["id"], role["id"])
    review = await reviewed(hub.admin, role_id=role["id"], on_no_answer="end")
    await over(records, review)
    await remove_due(hub.parts, datetime.now(UTC))
    assert {line["state"] for line in (await lines(hub, review)).values()} == {"ended"}
    assert (await hub.admin.get(f"{REVIEWS}/{review['id']}")).json()["status"] == "closed"


async def test_the_report_stays_as_json_and_csv(hub: Hub, records: Records) -> None:
    role = await hub.new_role(name=f"=cmd {uuid4().hex}", permissions=["jobs:read"])
    user = await hub.new_user()
    await give(hub, user["id"], role["id"])
    review = await reviewed(hub.admin, role_id=role["id"])
    await hub.admin.post(f"{REVIEWS}/{review['id']}/close")
    await hub.admin.delete(f"/api/v1/users/{user['id']}")
    await hub.admin.delete(f"/api/v1/roles/{role['id']}")
    path = f"{REVIEWS}/{review['id']}/report"
    report = (await hub.admin.get(path)).json()
    assert (report["review"]["id"], report["totals"]["kept"], report["next_cursor"]) == (review["id"], 1, None)
    assert report["items"][0]["subject"]["name"] == user["email"]
    answer = await hub.admin.get(path, headers={"accept": "text/csv"})
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["subject_name"], row["state"]) == (user["email"], "kept")
    assert row["role_name"] == f"'{role['name']}"


async def test_one_reviews_what_one_could_give(hub: Hub, records: Records) -> None:
    role, strong = await hub.new_role(permissions=["jobs:read"]), await hub.new_role(permissions=["users:write"])
    reviewer = await hub.user_with("access-reviews:read", "access-reviews:write", "jobs:read")
    me = (await reviewer.get("/api/v1/auth/me")).json()["user"]["id"]
    other = (await hub.new_user())["id"]
    for user in (me, other):
        await give(hub, user, role["id"])
    body = {"name": "Who may?", "due_at": LATER, "on_no_answer": "end", "role_id": strong["id"]}
    await give(hub, other, strong["id"])
    refused = await reviewer.post(REVIEWS, json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")
    review = await reviewed(reviewer, role_id=role["id"])
    found = await lines(hub, review)
    assert await answered(reviewer, review, found[me], "keep") == (403, "own_assignment")
    assert await answered(reviewer, review, found[other], "keep") == (200, "kept")
    of_admins = await reviewed(hub.admin, role_id=strong["id"])
    (line,) = (await lines(hub, of_admins)).values()
    for how in ("keep", "end"):
        assert await answered(reviewer, of_admins, line, how) == (403, "exceeds_own_permissions")


async def test_who_reviews_an_owner_role_could_own(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=[])
    (owner, _), source = await somebody(hub, records), await new_source(hub)
    await give(hub, owner, role["id"])
    owned = await hub.admin.patch(f"/api/v1/data-sources/{source}", json={"owner_role_id": role["id"]})
    assert owned.status_code == 200, owned.text
    reviewer = await hub.user_with("access-reviews:read", "access-reviews:write")
    body = {"name": "Who may?", "due_at": LATER, "on_no_answer": "end", "role_id": role["id"]}
    refused = await reviewer.post(REVIEWS, json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")
    review = await reviewed(hub.admin, role_id=role["id"])
    (line,) = (await lines(hub, review)).values()
    for how in ("keep", "end"):
        assert await answered(reviewer, review, line, how) == (403, "exceeds_own_permissions")


async def test_who_closes_a_review_could_give_what_is_reviewed(hub: Hub, records: Records) -> None:
    role, domain = await hub.new_role(permissions=["users:write"]), (await new_domain(hub))["id"]
    user, _ = await somebody(hub, records)
    await give(hub, user, role["id"])
    await give(hub, user, role["id"], scope={"type": "data_domain", "id": domain})
    reviewer = await hub.user_with("access-reviews:read", "access-reviews:write")
    for what in ({"role_id": role["id"]}, {"scope": {"type": "data_domain", "id": domain}}):
        review = await reviewed(hub.admin, on_no_answer="end", **what)
        refused = await reviewer.post(f"{REVIEWS}/{review['id']}/close")
        assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")
        assert [line["state"] for line in (await lines(hub, review)).values()] == ["open"]


async def test_nobody_keeps_what_they_hold_by_a_group(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    reviewer = await hub.user_with("access-reviews:read", "access-reviews:write", "jobs:read")
    me = (await reviewer.get("/api/v1/auth/me")).json()["user"]["id"]
    team = (await hub.admin.post("/api/v1/groups", json={"name": f"Team {uuid4()}"})).json()["id"]
    assert (await hub.admin.put(f"/api/v1/groups/{team}/members/{me}")).status_code in (200, 204)
    given = {"subject": {"type": "group", "id": team}, "role_id": role["id"], "scope": {"type": "tenant"}}
    assert (await hub.admin.post("/api/v1/role-assignments", json=given)).status_code == 201
    review = await reviewed(hub.admin, role_id=role["id"])
    (line,) = (await lines(hub, review)).values()
    assert await answered(reviewer, review, line, "keep") == (403, "own_assignment")
    assert await answered(hub.admin, review, line, "keep") == (200, "kept")
    assert await answered(reviewer, review, line, "end") == (200, "ended")


async def test_a_key_decides_nothing(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    await give(hub, (await somebody(hub, records))[0], role["id"])
    review = await reviewed(hub.admin, role_id=role["id"])
    (line,) = (await lines(hub, review)).values()
    permissions = ["access-reviews:read", "access-reviews:write", "jobs:read"]
    made = await hub.admin.post("/api/v1/api-keys", json={"name": f"k{uuid4()}", "permissions": permissions})
    assert made.status_code == 201, made.text
    key = {"authorization": f"Bearer {made.json()['key']}"}
    for path in (f"items/{line['id']}/keep", f"items/{line['id']}/end", "close"):
        refused = await hub.admin.post(f"{REVIEWS}/{review['id']}/{path}", headers=key)
        assert (refused.status_code, refused.json()["code"]) == (403, "session_required")


async def test_the_last_admin_stays(hub: Hub) -> None:
    review = await reviewed(hub.admin, role_id=ADMIN_ROLE, on_no_answer="end")
    (line,) = (await lines(hub, review)).values()
    assert await answered(hub.admin, review, line, "end") == (409, "last_admin")
    await hub.admin.post(f"{REVIEWS}/{review['id']}/close")
    (line,) = (await lines(hub, review)).values()
    assert line["state"] == "kept"
    assert (await hub.admin.get("/api/v1/users")).status_code == 200


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, "scope"),
        ({"role_id": ADMIN_ROLE, "scope": {"type": "data_source", "id": str(uuid4())}}, "scope"),
        ({"role_id": str(uuid4())}, "role_id"),
        ({"scope": {"type": "data_source", "id": str(uuid4())}}, "scope.id"),
        ({"scope": {"type": "tenant", "id": str(uuid4())}}, "scope.type"),
        ({"role_id": ADMIN_ROLE, "due_at": "2020-01-01T00:00:00Z"}, "due_at"),
        ({"role_id": ADMIN_ROLE, "name": " "}, "name"),
    ],
)
async def test_what_does_not_fit_is_named(hub: Hub, given: dict[str, Any], path: str) -> None:
    body = {"name": "Who may?", "due_at": LATER, "on_no_answer": "keep", **given}
    answer = await hub.admin.post(REVIEWS, json=body)
    assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, [path])


async def test_public_is_not_reviewed(hub: Hub) -> None:
    answer = await hub.admin.post(
        REVIEWS, json={"name": "All", "role_id": PUBLIC_ROLE, "due_at": LATER, "on_no_answer": "keep"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "role_is_public")


async def test_answers_and_the_end_at_once_leave_no_line_open(hub: Hub, records: Records) -> None:
    role = await hub.new_role(permissions=["jobs:read"])
    users = [(await hub.new_user())["id"] for _ in range(6)]
    for user in users:
        await give(hub, user, role["id"])
    review = await reviewed(hub.admin, role_id=role["id"], on_no_answer="end")
    found = await lines(hub, review)
    answers = await asyncio.gather(
        *(answered(hub.admin, review, found[user], "keep") for user in users[:3]),
        hub.admin.post(f"{REVIEWS}/{review['id']}/close"),
        hub.admin.post(f"{REVIEWS}/{review['id']}/close"),
        *(answered(hub.admin, review, found[user], "keep") for user in users[3:]),
    )
    closings = [answer.status_code for answer in answers if isinstance(answer, httpx.Response)]
    assert sorted(closings) == [200, 409]
    told = [answer for answer in answers if isinstance(answer, tuple)]
    assert {status for status, _ in told} <= {200, 409}
    states = [line["state"] for line in (await lines(hub, review)).values()]
    assert states.count("kept") == sum(status == 200 for status, _ in told)
    assert states.count("ended") == 6 - states.count("kept")
    for line in (await lines(hub, review)).values():
        assert await is_in_force(hub, line) == (line["state"] == "kept")
