"""Ten thousand people: a directory brings them all, puts them into one group, and asks for one of them."""

from time import perf_counter, thread_time
from uuid import UUID

import pytest

from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.scim import Directory, connected

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
MANY = 10_000
FILL = """
    INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, failed_logins, created_at,
      updated_at, version, managed_by, user_name_key, address_keys, display_name_key, directory)
    SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', name, name, '', '', true, 0, now(), now(), 1, 'scim',
      name, ARRAY[name], name, jsonb_build_object('userName', name, 'active', true, 'title', 'T' || number)
    FROM generate_series(1, $1::int) AS number, LATERAL (SELECT 'many' || number || '@example.org' AS name) AS named
    RETURNING id"""


@pytest.fixture(scope="module")
async def directory(hub: Hub) -> Directory:
    return await connected(hub)


@pytest.fixture(scope="module")
async def ids(directory: Directory, records: Records) -> list[str]:
    rows = await records.run(FILL, MANY)
    await records.run("ANALYZE users")
    return [str(row["id"]) for row in rows]


async def test_the_next_user_costs_what_the_first_did(directory: Directory, ids: list[str]) -> None:
    began = perf_counter()
    for _ in range(50):
        await directory.new_user()
    assert (perf_counter() - began) / 50 < 0.2


async def test_one_of_many_is_found_at_once(directory: Directory, ids: list[str]) -> None:
    for condition in (
        'userName eq "many77@example.org"',
        'displayName eq "many77@example.org"',
        'emails.value eq "many77@example.org"',
        'title eq "T77"',
        'userName sw "many77@"',
    ):
        began = perf_counter()
        found = await directory.found("Users", condition)
        taken = perf_counter() - began
        assert [each["userName"] for each in found] == ["many77@example.org"]
        assert taken < 1.0, condition


async def test_all_of_them_are_put_into_a_group_and_taken_out(
    directory: Directory, ids: list[str], records: Records
) -> None:
    group = await directory.new_group()
    path = f"/Groups/{group['id']}"
    count = "SELECT count(*) FROM group_members WHERE group_id = $1 AND ended_at IS NULL"
    began = perf_counter()
    body = [{"value": each} for each in ids]
    assert (await directory.patch(path, {"op": "add", "path": "members", "value": body})).status_code == 204
    assert perf_counter() - began < 15
    assert await records.one(count, UUID(group["id"])) == MANY
    busy = thread_time()
    one_more = (await directory.new_user())["id"]
    joined = await directory.patch(path, {"op": "add", "path": "members", "value": [{"value": one_more}]})
    assert joined.status_code == 204
    assert thread_time() - busy < 1.0  # nobody has looked at the ten thousand
    read = await directory.call("GET", path)
    assert len(read.json()["members"]) == MANY + 1
    assert (await directory.patch(path, {"op": "replace", "path": "members", "value": []})).status_code == 204
    assert await records.one(count, UUID(group["id"])) == 0
