"""Data domains: openspec/specs/data-domains/spec.md; AZ2, AZ4, AZ5, AU1, FT9."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.rights import DOMAINS, giving, in_domain, new_domain, somebody
from tests.domain.sources import SOURCES, faults, post_source, registered

pytestmark = pytest.mark.anyio

READ = "data-domains:read"
WRITE = "data-domains:write"
OWNING = [
    "data-sources:discover",
    "data-sources:preview",
    "data-sources:read",
    "data-sources:test",
    "data-sources:write",
]


async def chain(hub: Hub, depth: int) -> list[dict[str, Any]]:
    """Domains one in another, from the top."""
    made: list[dict[str, Any]] = []
    for _ in range(depth):
        made.append(await new_domain(hub, parent_id=made[-1]["id"] if made else None))
    return made


async def shown(hub: Hub, domain: dict[str, Any]) -> dict[str, Any]:
    return dict((await hub.admin.get(f"{DOMAINS}/{domain['id']}")).json())


async def move(client: httpx.AsyncClient, domain: dict[str, Any], parent: dict[str, Any] | None) -> httpx.Response:
    return await client.patch(f"{DOMAINS}/{domain['id']}", json={"parent_id": parent and parent["id"]})


async def lineages(records: Records, *domains: dict[str, Any]) -> list[list[str]]:
    rows = await records.run(
        "SELECT id, lineage FROM data_domains WHERE id = ANY($1)", [each["id"] for each in domains]
    )
    found = {str(row["id"]): [str(part) for part in row["lineage"]] for row in rows}
    return [found[each["id"]] for each in domains]


# --- one by one ---


async def test_a_created_domain_is_read_back_alike(hub: Hub) -> None:
    top = await new_domain(hub, name="Company")
    made = await hub.admin.post(DOMAINS, json={"name": "Sales", "parent_id": top["id"], "description": "What is sold."})
    assert made.status_code == 201
    assert made.json()["path"] == ["Company", "Sales"]
    read = await hub.admin.get(made.headers["location"])
    assert (read.content, read.headers["etag"]) == (made.content, made.headers["etag"])


async def test_every_change_is_on_record(hub: Hub, records: Records) -> None:
    mark = await records.mark()
    made = await hub.admin.post(DOMAINS, json={"name": uuid4().hex})
    path = made.headers["location"]
    changed = await hub.admin.patch(path, json={"description": "Of another kind."})
    deleted = await hub.admin.delete(path)
    rows = [row for answer in (made, changed, deleted) for row in await records.audit(answer)]
    assert [row["action"] for row in rows] == ["data_domain.create", "data_domain.update", "data_domain.delete"]
    assert rows[1]["after"]["description"] == "Of another kind."
    assert [event["type"].removeprefix("org.datafusionhub.") for event in await records.events(mark[1])] == [
        "data_domain.created", "data_domain.updated", "data_domain.deleted",
    ]  # fmt: skip
    assert (await hub.admin.get(path)).status_code == 404


async def test_a_patch_that_changes_nothing_leaves_no_trace(hub: Hub, records: Records) -> None:
    top, below = await chain(hub, 2)
    mark = await records.mark()
    for body in ({}, {"parent_id": top["id"]}, {"name": below["name"]}):
        answer = await hub.admin.patch(f"{DOMAINS}/{below['id']}", json=body)
        assert (answer.status_code, answer.json()) == (200, below)
    assert await records.mark() == mark


async def test_names_are_unique_among_siblings_alone(hub: Hub) -> None:
    one, other = await new_domain(hub), await new_domain(hub)
    await new_domain(hub, name="Straße", parent_id=one["id"])
    twice = await hub.admin.post(DOMAINS, json={"name": "STRASSE", "parent_id": one["id"]})
    assert (twice.status_code, faults(twice)) == (409, {"name": "name_taken"})
    elsewhere = await new_domain(hub, name="strasse", parent_id=other["id"])
    moved = await move(hub.admin, elsewhere, one)
    assert (moved.status_code, moved.json()["code"]) == (409, "name_taken")
    top = await new_domain(hub, name="Straße")
    assert (await hub.admin.post(DOMAINS, json={"name": "straße"})).status_code == 409, "siblings at the top, too"
    assert top["parent_id"] is None


async def test_names_that_look_alike_are_one_name_among_siblings(hub: Hub) -> None:
    parent = await new_domain(hub)
    await new_domain(hub, name="cope", parent_id=parent["id"])
    cyrillic = "соре"
    for answer in (
        await hub.admin.post(DOMAINS, json={"name": cyrillic, "parent_id": parent["id"]}),
        await move(hub.admin, await new_domain(hub, name=cyrillic), parent),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


async def test_parallel_creations_of_one_name_make_one_domain(hub: Hub) -> None:
    body = {"name": uuid4().hex}
    answers = await asyncio.gather(*(hub.admin.post(DOMAINS, json=body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5


@pytest.mark.parametrize("field", ["id", "path", "lineage", "tenant_id", "name_key", "version"])
async def test_a_field_that_is_not_in_the_schema_is_named(hub: Hub, field: str) -> None:
    answer = await hub.admin.post(DOMAINS, json={"name": uuid4().hex, field: "x"})
    assert (answer.status_code, [fault["path"] for fault in answer.json()["errors"]]) == (400, [field])


async def test_a_stale_version_is_a_412(hub: Hub) -> None:
    domain = await new_domain(hub)
    path = f"{DOMAINS}/{domain['id']}"
    tag = (await hub.admin.get(path)).headers["etag"]
    assert (await hub.admin.patch(path, json={"description": "x"}, headers={"If-Match": tag})).status_code == 200
    assert (await hub.admin.patch(path, json={"description": "y"}, headers={"If-Match": tag})).status_code == 412
    assert (await hub.admin.delete(path, headers={"If-Match": tag})).status_code == 412


# --- the tree ---


async def test_what_is_below_moves_along(hub: Hub, records: Records) -> None:
    a, b, c, d = await chain(hub, 4)
    elsewhere = await chain(hub, 2)
    moved = await move(hub.admin, b, elsewhere[1])
    assert moved.json()["path"] == [elsewhere[0]["name"], elsewhere[1]["name"], b["name"]]
    assert (await shown(hub, d))["path"] == [*moved.json()["path"], c["name"], d["name"]]
    ids = [elsewhere[0]["id"], elsewhere[1]["id"], b["id"], c["id"], d["id"]]
    assert await lineages(records, b, c, d) == [ids[:3], ids[:4], ids]
    back = await move(hub.admin, b, None)
    assert back.json()["path"] == [b["name"]]
    assert await lineages(records, a, d) == [[a["id"]], ids[2:]]


async def test_a_renamed_domain_changes_the_tags_of_those_below_and_not_their_versions(hub: Hub) -> None:
    top, below = await chain(hub, 2)
    path = f"{DOMAINS}/{below['id']}"
    tag = (await hub.admin.get(path)).headers["etag"]
    await hub.admin.patch(f"{DOMAINS}/{top['id']}", json={"name": "Renamed " + uuid4().hex})
    again = await hub.admin.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.json()["version"]) == (200, below["version"])
    stale = await hub.admin.patch(path, json={"description": "x"}, headers={"If-Match": tag})
    assert stale.status_code == 412


async def test_a_domain_is_not_moved_into_itself_or_below(hub: Hub, records: Records) -> None:
    a, b, c = await chain(hub, 3)
    before = await lineages(records, a, b, c)
    for target in (a, b, c):
        answer = await move(hub.admin, a, target)
        assert (answer.status_code, answer.json()["code"]) == (409, "domain_cycle")
    assert await lineages(records, a, b, c) == before


async def test_the_tree_is_at_most_eight_deep(hub: Hub) -> None:
    deep = await chain(hub, 8)
    ninth = await hub.admin.post(DOMAINS, json={"name": "ninth", "parent_id": deep[-1]["id"]})
    assert (ninth.status_code, ninth.json()["code"]) == (409, "domain_too_deep")
    short = await chain(hub, 3)
    assert (await move(hub.admin, short[0], deep[5])).json()["code"] == "domain_too_deep", "with what is below"
    assert (await move(hub.admin, short[0], deep[4])).status_code == 200


async def test_two_moves_at_once_make_no_circle(hub: Hub, records: Records) -> None:
    for _ in range(5):
        one, other = await new_domain(hub), await new_domain(hub)
        answers = await asyncio.gather(move(hub.admin, one, other), move(hub.admin, other, one))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        found = await lineages(records, one, other)
        assert sorted(len(lineage) for lineage in found) == [1, 2]


async def test_what_is_created_while_its_parent_moves_has_the_lineage_of_its_parent(hub: Hub, records: Records) -> None:
    for _ in range(5):
        parent, target = await new_domain(hub), await new_domain(hub)
        made, moved = await asyncio.gather(
            hub.admin.post(DOMAINS, json={"name": "child", "parent_id": parent["id"]}), move(hub.admin, parent, target)
        )
        assert (made.status_code, moved.status_code) == (201, 200)
        assert await lineages(records, made.json()) == [[target["id"], parent["id"], made.json()["id"]]]


@pytest.mark.parametrize("parent_id", ["01934f6e-7c1a-7b55-9d3e-5f0c2a9b1e01", "no id", 5])
async def test_a_parent_that_is_not_there_is_named(hub: Hub, parent_id: Any) -> None:
    answer = await hub.admin.post(DOMAINS, json={"name": uuid4().hex, "parent_id": parent_id})
    assert (answer.status_code, list(faults(answer))) == (400, ["parent_id"])


async def test_what_is_not_empty_is_not_deleted(hub: Hub) -> None:
    top, below = await chain(hub, 2)
    source = await registered(hub, data_domain_id=below["id"])
    for domain, within in ((top, "Other data domains are in this one."), (below, "Data sources are in this domain.")):
        answer = await hub.admin.delete(f"{DOMAINS}/{domain['id']}")
        assert (answer.status_code, answer.json()["code"]) == (409, "still_in_use")
        assert answer.json()["detail"] == f"{within} Move or delete them first."
    await hub.admin.delete(f"{SOURCES}/{source['id']}")
    for domain in (below, top):
        assert (await hub.admin.delete(f"{DOMAINS}/{domain['id']}")).status_code == 204


async def test_what_was_given_for_a_domain_ends_with_it(hub: Hub, records: Records) -> None:
    domain = await new_domain(hub)
    client = await somebody(hub, records, giving(domain, READ))
    assert (await client.get(f"{DOMAINS}/{domain['id']}")).status_code == 200
    assert (await hub.admin.delete(f"{DOMAINS}/{domain['id']}")).status_code == 204
    open_ones = "SELECT count(*) FROM role_assignments WHERE scope_id = $1::uuid AND ended_at IS NULL"
    assert await records.one(open_ones, domain["id"]) == 0
    assert await records.one("SELECT count(*) FROM role_assignments WHERE scope_id = $1::uuid", domain["id"]) == 1
    assert (await client.get(DOMAINS)).status_code == 403


async def test_a_list_is_narrowed_by_parent_owner_and_text(hub: Hub) -> None:
    role = await hub.new_role()
    top, below = await chain(hub, 2)
    await hub.admin.patch(f"{DOMAINS}/{below['id']}", json={"owner_role_id": role["id"], "description": "Zeppelins."})
    for asked in ({"parent_id": top["id"]}, {"owner_role_id": role["id"]}, {"q": "zeppelin"}):
        found = (await hub.admin.get(DOMAINS, params=asked)).json()["items"]
        assert [domain["id"] for domain in found] == [below["id"]], asked


# --- who may do what ---


async def test_whoever_has_rights_in_a_domain_sees_it_and_those_below(hub: Hub, records: Records) -> None:
    top, middle, leaf = await chain(hub, 3)
    sibling = await new_domain(hub, parent_id=top["id"])
    client = await somebody(hub, records, giving(middle, READ))
    found = (await client.get(DOMAINS, params={"count": "exact"})).json()
    assert ([domain["id"] for domain in found["items"]], found["total"]) == ([middle["id"], leaf["id"]], 2)
    assert found["items"][0]["path"] == [top["name"], middle["name"]], "of those above, the names"
    unseen = [await client.get(f"{DOMAINS}/{domain}") for domain in (top["id"], sibling["id"], uuid4())]
    assert [(answer.status_code, answer.json()["code"]) for answer in unseen] == [(404, "not_found")] * 3
    asked = (await client.get(DOMAINS, params={"q": sibling["name"], "count": "exact"})).json()
    assert (asked["items"], asked["total"]) == ([], 0)


async def test_what_one_sees_and_may_not_change_is_a_403(hub: Hub, records: Records) -> None:
    domain = await new_domain(hub)
    client = await somebody(hub, records, giving(domain, READ))
    for answer in (
        await client.patch(f"{DOMAINS}/{domain['id']}", json={"description": "x"}),
        await client.delete(f"{DOMAINS}/{domain['id']}"),
        await client.post(DOMAINS, json={"name": "x", "parent_id": domain["id"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")


async def test_who_may_write_in_a_domain_makes_others_there_and_nowhere_else(hub: Hub, records: Records) -> None:
    mine, seen, unseen = [await new_domain(hub) for _ in range(3)]
    client = await somebody(hub, records, giving(mine, READ, WRITE), giving(seen, READ))
    made = await client.post(DOMAINS, json={"name": "below", "parent_id": mine["id"]})
    assert made.status_code == 201
    assert (await client.get(made.headers["location"])).status_code == 200, "what is new below is theirs at once"
    answers = {
        "at the top": await client.post(DOMAINS, json={"name": "x"}),
        "seen": await client.post(DOMAINS, json={"name": "x", "parent_id": seen["id"]}),
        "moved to the top": await move(client, made.json(), None),
        "moved to what is seen": await move(client, made.json(), seen),
    }
    assert {name: answer.json()["code"] for name, answer in answers.items()} == dict.fromkeys(
        answers, "permission_missing"
    )
    hidden = await client.post(DOMAINS, json={"name": "x", "parent_id": unseen["id"]})
    absent = await client.post(DOMAINS, json={"name": "x", "parent_id": str(uuid4())})
    for answer in (hidden, absent, await move(client, made.json(), unseen)):
        assert (answer.status_code, faults(answer)) == (400, {"parent_id": "unknown_domain"})


async def test_a_move_takes_rights_with_it_within_the_request(hub: Hub, records: Records) -> None:
    one, other, moving = [await new_domain(hub) for _ in range(3)]
    client = await somebody(hub, records, giving(one, READ))
    path = f"{DOMAINS}/{moving['id']}"
    assert (await client.get(path)).status_code == 404
    await move(hub.admin, moving, one)
    assert (await client.get(path)).status_code == 200
    await move(hub.admin, moving, other)
    assert (await client.get(path)).status_code == 404


async def test_nobody_gives_what_they_lack_by_moving(hub: Hub, records: Records) -> None:
    """Somebody else may preview in the other domain: what comes there is shown to them."""
    mine, theirs = await new_domain(hub), await new_domain(hub)
    moving = await new_domain(hub, parent_id=mine["id"])
    client = await somebody(hub, records, giving(mine, READ, WRITE), giving(theirs, READ, WRITE))
    await somebody(hub, records, giving(theirs, "data-sources:preview"))
    refused = await move(client, moving, theirs)
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions")
    stronger = await somebody(
        hub, records, giving(mine, READ, WRITE, "data-sources:preview"), giving(theirs, READ, WRITE)
    )
    assert (await move(stronger, moving, theirs)).status_code == 200


@pytest.mark.parametrize("held", ["role-assignments:read", "role-assignments:write", "jobs:read", "jobs:write"])
async def test_nobody_gives_by_moving_what_is_done_about_a_thing_rather_than_with_it(
    hub: Hub, records: Records, held: str
) -> None:
    """To see and end the roles of others on it, and to see and cancel its jobs, are rights on it as any other."""
    mine, theirs = await new_domain(hub), await new_domain(hub)
    moving = await new_domain(hub, parent_id=mine["id"])
    source = await registered(hub, data_domain_id=mine["id"])
    write = (READ, WRITE, "data-sources:write")
    client = await somebody(hub, records, giving(mine, *write), giving(theirs, *write, held))
    for refused in (
        await move(client, moving, theirs),
        await client.patch(f"{SOURCES}/{source['id']}", json={"data_domain_id": theirs["id"]}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions"), held


# --- owners ---


async def test_the_owner_role_brings_all_that_is_done_with_sources_but_references(hub: Hub, records: Records) -> None:
    top, below = await chain(hub, 2)
    role, source = await hub.new_role(), await registered(hub, data_domain_id=below["id"])
    client = await somebody(hub, records, {"role": role})
    path = f"{SOURCES}/{source['id']}"
    assert (await client.get(path)).status_code == 404
    owned = await hub.admin.patch(f"{DOMAINS}/{top['id']}", json={"owner_role_id": role["id"]})
    assert owned.status_code == 200
    assert [each["id"] for each in (await client.get(SOURCES)).json()["items"]] == [source["id"]]
    assert (await client.patch(path, json={"description": "Ours."})).status_code == 200
    reference = {"secrets": {"password": {"ref": "env:SHOP_PASSWORD"}}}
    assert (await client.patch(path, json=reference)).json()["code"] == "permission_missing"
    assert (await client.get(f"{DOMAINS}/{top['id']}")).status_code == 404, "owning is about the sources"
    assert (await post_source(client, data_domain_id=below["id"])).status_code == 201
    await hub.admin.patch(f"{DOMAINS}/{top['id']}", json={"owner_role_id": None})
    assert (await client.get(path)).status_code == 404


async def test_an_owner_is_set_by_who_holds_what_owning_brings(hub: Hub, records: Records) -> None:
    domain, role = await new_domain(hub), await hub.new_role()
    weak = await somebody(hub, records, giving(domain, READ, WRITE, *OWNING[1:]))
    strong = await somebody(hub, records, giving(domain, READ, WRITE, *OWNING))
    path, body = f"{DOMAINS}/{domain['id']}", {"owner_role_id": role["id"]}
    for answer in (
        await weak.patch(path, json=body),
        await weak.post(DOMAINS, json={"name": "x", "parent_id": domain["id"], **body}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_own_permissions")
    assert (await strong.patch(path, json=body)).status_code == 200
    assert (await weak.patch(path, json={"owner_role_id": None})).status_code == 403, "nor taken away"
    assert (await weak.patch(path, json={"description": "x", **body})).status_code == 200, "it is the owner already"
    unknown = await strong.patch(path, json={"owner_role_id": str(uuid4())})
    assert faults(unknown) == {"owner_role_id": "unknown_role"}


async def test_a_role_that_owns_a_domain_is_not_deleted(hub: Hub) -> None:
    role = await hub.new_role()
    domain = await new_domain(hub, owner_role_id=role["id"])
    refused = (await hub.admin.delete(f"/api/v1/roles/{role['id']}")).json()
    assert (refused["code"], refused["detail"]) == (
        "still_in_use",
        "The role owns data domains. Give them another owner first.",
    )
    await hub.admin.delete(f"{DOMAINS}/{domain['id']}")
    assert (await hub.admin.delete(f"/api/v1/roles/{role['id']}")).status_code == 204


async def test_domains_of_another_tenant_are_not_there(hub: Hub, records: Records) -> None:
    tenant_id, mine, foreign = uuid4(), await new_domain(hub), await new_domain(hub, name=f"foreign {uuid4().hex}")
    insert = "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, $2, 'T', true, now(), now())"
    await records.run(insert, tenant_id, tenant_id.hex)
    await records.run("UPDATE data_domains SET tenant_id = $1 WHERE id = $2::uuid", tenant_id, foreign["id"])
    path = f"{DOMAINS}/{foreign['id']}"
    answers = [await hub.admin.get(path), await hub.admin.patch(path, json={}), await hub.admin.delete(path)]
    assert [answer.status_code for answer in answers] == [404] * 3
    refused = [await move(hub.admin, mine, foreign), await post_source(hub.admin, data_domain_id=foreign["id"])]
    assert [list(faults(answer).values()) for answer in refused] == [["unknown_domain"]] * 2
    listed = (await hub.admin.get(DOMAINS, params={"q": "foreign", "count": "exact"})).json()
    assert (listed["items"], listed["total"]) == ([], 0)
    assert (await hub.admin.post(DOMAINS, json={"name": foreign["name"]})).status_code == 201, "names are per tenant"


# --- sources in domains ---


async def test_a_source_is_in_one_domain_or_in_none(hub: Hub) -> None:
    domain = await new_domain(hub)
    source = await registered(hub, data_domain_id=domain["id"])
    assert source["data_domain_id"] == domain["id"]
    found = (await hub.admin.get(SOURCES, params={"data_domain_id": domain["id"]})).json()["items"]
    assert [each["id"] for each in found] == [source["id"]]
    outside = await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"data_domain_id": None})
    assert (outside.status_code, outside.json()["data_domain_id"]) == (200, None)
    unknown = await hub.admin.patch(f"{SOURCES}/{source['id']}", json={"data_domain_id": str(uuid4())})
    assert (unknown.status_code, faults(unknown)) == (400, {"data_domain_id": "unknown_domain"})


async def test_sources_are_registered_where_one_may_write(hub: Hub, records: Records) -> None:
    mine, seen, unseen = [await new_domain(hub) for _ in range(3)]
    client = await somebody(hub, records, giving(mine, "data-sources:write"), giving(seen, "data-sources:read"))
    assert (await post_source(client, data_domain_id=mine["id"])).status_code == 201
    for answer in (await post_source(client), await post_source(client, data_domain_id=seen["id"])):
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing")
    for domain_id in (unseen["id"], str(uuid4())):
        answer = await post_source(client, data_domain_id=domain_id)
        assert (answer.status_code, faults(answer)) == (400, {"data_domain_id": "unknown_domain"})


async def test_a_source_moves_between_domains_in_which_one_may_write(hub: Hub, records: Records) -> None:
    write = "data-sources:write"
    mine, too, seen, unseen = [await new_domain(hub) for _ in range(4)]
    source = await registered(hub, data_domain_id=mine["id"])
    client = await somebody(hub, records, giving(mine, write), giving(too, write), giving(seen, "data-sources:read"))
    path = f"{SOURCES}/{source['id']}"

    async def moved(domain_id: str | None) -> tuple[int, str]:
        answer = await client.patch(path, json={"data_domain_id": domain_id})
        return answer.status_code, answer.json().get("code", "")

    assert await moved(seen["id"]) == (403, "permission_missing")
    assert await moved(unseen["id"]) == (400, "invalid_request")
    assert await moved(None) == (403, "permission_missing")
    assert await moved(too["id"]) == (200, "")
    assert await moved(too["id"]) == (200, ""), "where it is already"
    await hub.admin.patch(path, json={"data_domain_id": seen["id"]})
    assert await moved(mine["id"]) == (403, "permission_missing"), "where it is, one only sees it"


async def test_nobody_gives_what_they_lack_by_moving_a_source(hub: Hub, records: Records) -> None:
    write = "data-sources:write"
    mine, theirs = await new_domain(hub), await new_domain(hub)
    source = await registered(hub, data_domain_id=mine["id"])
    client = await somebody(hub, records, giving(mine, write), giving(theirs, write, "data-sources:preview"))
    refused = await client.patch(f"{SOURCES}/{source['id']}", json={"data_domain_id": theirs["id"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "exceeds_own_permissions"), (
        "they could preview it then"
    )


async def test_the_owner_of_a_source_is_set_by_who_holds_what_owning_brings(hub: Hub, records: Records) -> None:
    domain, role = await new_domain(hub), await hub.new_role()
    weak = await somebody(hub, records, giving(domain, "data-sources:write"))
    strong = await somebody(hub, records, giving(domain, *OWNING))
    member = await somebody(hub, records, {"role": role})
    fields = {"data_domain_id": domain["id"], "owner_role_id": role["id"]}
    assert (await post_source(weak, **fields)).json()["code"] == "exceeds_own_permissions"
    made = await post_source(strong, **fields)
    assert made.status_code == 201
    path = f"{SOURCES}/{made.json()['id']}"
    assert (await weak.patch(path, json={"owner_role_id": None})).json()["code"] == "exceeds_own_permissions"
    assert (await member.get(path)).status_code == 200
    assert (await member.patch(path, json={"owner_role_id": None})).status_code == 200, "who owns it may give it away"
    assert (await member.get(path)).status_code == 404


async def test_of_many_sources_those_are_refused_that_one_may_not_place(hub: Hub, records: Records) -> None:
    mine, seen = await new_domain(hub), await new_domain(hub)
    client = await somebody(hub, records, giving(mine, "data-sources:write"), giving(seen, "data-sources:read"))
    items = [in_domain(domain_id) for domain_id in (mine["id"], seen["id"], None, str(uuid4()))]
    refused = await client.post(f"{SOURCES}/bulk", json={"data_sources": items})
    assert (refused.status_code, faults(refused)) == (
        400,
        {
            "data_sources[1].data_domain_id": "permission_missing",
            "data_sources[2].data_domain_id": "permission_missing",
            "data_sources[3].data_domain_id": "unknown_domain",
        },
    )
    partly = await client.post(f"{SOURCES}/bulk", json={"data_sources": items, "atomic": False})
    assert [item["status"] for item in partly.json()["items"]] == ["created", "failed", "failed", "failed"]
    assert partly.json()["items"][0]["data_source"]["data_domain_id"] == mine["id"]
    none = await client.post(f"{SOURCES}/bulk", json={"data_sources": items[1:3]})
    assert (none.status_code, none.json()["code"]) == (403, "permission_missing")


async def test_a_name_that_is_there_already_shows_nothing_of_an_unseen_source(hub: Hub, records: Records) -> None:
    mine, unseen = await new_domain(hub), await new_domain(hub)
    hidden = await registered(hub, data_domain_id=unseen["id"], description="A secret matter.")
    client = await somebody(hub, records, giving(mine, "data-sources:write"))
    item = in_domain(mine["id"]) | {"name": hidden["name"]}
    for on_conflict in ("skip", "update"):
        answer = await client.post(f"{SOURCES}/bulk", json={"data_sources": [item], "on_conflict": on_conflict})
        assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
        assert "secret matter" not in answer.text
    assert (await hub.admin.get(f"{SOURCES}/{hidden['id']}")).json()["version"] == 1


async def test_a_bulk_that_updates_moves_only_what_one_may_move(hub: Hub, records: Records) -> None:
    write = "data-sources:write"
    mine, seen = await new_domain(hub), await new_domain(hub)
    client = await somebody(hub, records, giving(mine, write), giving(seen, "data-sources:read"))
    ours, theirs = [await registered(hub, data_domain_id=domain["id"]) for domain in (mine, seen)]
    for source, domain_id in ((ours, seen["id"]), (theirs, mine["id"]), (ours, None)):
        item = in_domain(domain_id) | {"name": source["name"]}
        answer = await client.post(f"{SOURCES}/bulk", json={"data_sources": [item], "on_conflict": "update"})
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_missing"), domain_id
        assert (await hub.admin.get(f"{SOURCES}/{source['id']}")).json()["version"] == 1


async def test_a_connection_is_tested_by_who_could_register_it_and_test_it_then(hub: Hub, records: Records) -> None:
    mine, other = await new_domain(hub), await new_domain(hub)
    body = {"type": "simulated", "config": {}}
    both = await somebody(hub, records, giving(mine, "data-sources:test", "data-sources:write"))
    apart = await somebody(hub, records, giving(mine, "data-sources:test"), giving(other, "data-sources:write"))
    assert (await both.post(f"{SOURCES}/test", json=body)).status_code == 200
    refused = await apart.post(f"{SOURCES}/test", json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")
