"""The sealer: one chain for each tenant, in the order of commits, of which nothing can be altered by the application."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from app.core.embedded import EmbeddedPostgres
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.events.sequencing import give_positions
from app.domain.seals import merkle, sealing
from app.domain.seals.canonical import COLUMNS, LATER_COLUMNS, encoded, encoded_row
from app.domain.seals.sealing import seal_rows
from app.runtime import load_sealing_keys
from tests.conftest import Hub, running_hub
from tests.domain.conftest import Records, write_and_undo
from tests.domain.seals import seal_all

pytestmark = pytest.mark.anyio

ROW = """INSERT INTO audit_events (id, tenant_id, occurred_at, action, resource_type, outcome, detail)
         VALUES ($1, $2, now(), 'x.do', 'x', 'success', $3)"""


@pytest.fixture(scope="module")
async def hub(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    """One that seals."""
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub")) as running:
        running.parts.sealing_keys = load_sealing_keys(running.settings)
        yield running


async def write(connection: "asyncpg.Connection[Any]", detail: str = "", tenant_id: UUID = DEFAULT_TENANT_ID) -> UUID:
    row_id = uuid4()
    await connection.execute(ROW, row_id, tenant_id, detail)
    return row_id


async def sealed(records: Records, tenant_id: UUID = DEFAULT_TENANT_ID) -> list[UUID]:
    rows = await records.run("SELECT event_id FROM audit_leaves WHERE tenant_id = $1 ORDER BY position", tenant_id)
    return [row["event_id"] for row in rows]


# --- the tree -----------------------------------------------------------------------------------------------------------

# Of leaves of which the first so many bytes count upwards (Certificate Transparency's own test vectors, RFC 6962).
LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]  # fmt: skip
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root_of([merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 100])
def test_every_leaf_has_a_path_to_the_root_and_no_other_has_it(size: int) -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(size)]
    root = merkle.root_of(leaves)
    for index, leaf in enumerate(leaves):
        path = merkle.inclusion_path(leaves, index)
        assert merkle.root_by_path(leaf, index, size, path) == root
        assert merkle.root_by_path(leaves[index - 1], index, size, path) != root or size == 1
        assert merkle.root_by_path(leaf, index, size, [*path, root]) is None
        assert merkle.root_by_path(leaf, size, size, path) is None


# --- how a row is written down ------------------------------------------------------------------------------------------


async def test_every_column_of_the_audit_log_is_written_down(records: Records) -> None:
    found = await records.run(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'audit_events' AND table_schema = 'public'"
    )
    assert {row[0] for row in found} == {*COLUMNS, *LATER_COLUMNS}


ODD = ['"\\/\b\f\n\r\t', "\x01\x1f\x7f\x80", "\u2028\u2029", "é \U0001f600 \ud7ff\ue000", "", "null", "a\u0000"[:1]]


async def test_the_database_hashes_what_the_specification_says(hub: Hub, records: Records) -> None:
    """With characters that JSON has to escape, and those that it may not."""
    ids = []
    for text in ODD:
        row_id = uuid4()
        ids.append(row_id)
        await records.run(
            """INSERT INTO audit_events (id, tenant_id, occurred_at, actor_id, actor_name, api_key_id, action, resource_type,
                                         resource_id, outcome, address, request_id, detail, before, after, chain_hash)
               VALUES ($1, $2, '0099-01-02T03:04:05.000006Z', $1, $3, $1, $3, $3, $1, 'success', $3, $3, $3, $4::jsonb,
                       'null', $5)""",
            row_id,
            DEFAULT_TENANT_ID,
            text,
            json.dumps({text: [1e3, 0.10, text], "b": None, "a": {}}),
            b"\x00\xff" if text else None,
        )
    await seal_all(hub)
    for row in await records.run("SELECT * FROM audit_events WHERE id = ANY ($1)", ids):
        columns = dict(row) | {"transaction_id": int(row["transaction_id"])}
        content = encoded_row(columns)
        assert json.loads(content)[COLUMNS.index("after")] == "null"
        hash_ = await records.one("SELECT leaf_hash FROM audit_leaves WHERE event_id = $1", row["id"])
        assert hash_ == hashlib.sha256(b"\x00" + content).digest()


@given(st.lists(st.one_of(st.none(), st.text(alphabet=st.characters(exclude_categories=["Cs"])))))
def test_what_is_written_down_is_json_without_anything_to_choose(texts: list[str | None]) -> None:
    written = encoded(texts)
    assert json.loads(written) == texts
    assert encoded(json.loads(written)) == written


# --- sealing ------------------------------------------------------------------------------------------------------------


async def test_every_row_is_sealed_once_and_chains_of_tenants_have_no_gaps(
    two_tenants: tuple[Hub, Hub], records: Records
) -> None:
    """However many write, two sealers at once, and transactions that are rolled back."""
    hub, _ = two_tenants
    other = await records.one("SELECT id FROM tenants WHERE id <> $1", DEFAULT_TENANT_ID)

    async def write_some(number: int) -> None:
        await write_and_undo(hub.owner_url, write, number, turns=15, tenant_ids=(DEFAULT_TENANT_ID, other))

    async def seal_meanwhile() -> None:
        for _ in range(25):
            await asyncio.gather(seal_rows(hub.parts, 7), seal_rows(hub.parts, 7))

    await asyncio.gather(seal_meanwhile(), *(write_some(number) for number in range(6)))
    await seal_all(hub)
    assert await records.one("SELECT count(*) FROM audit_events") == await records.one(
        "SELECT count(*) FROM audit_events JOIN audit_leaves ON event_id = audit_events.id"
        " AND audit_leaves.tenant_id = audit_events.tenant_id"
    )
    for tenant_id in (DEFAULT_TENANT_ID, other):
        seals = await records.run("SELECT * FROM audit_seals WHERE tenant_id = $1 ORDER BY number", tenant_id)
        assert [seal["number"] for seal in seals] == list(range(1, len(seals) + 1))
        ends = [0, *(seal["last_position"] for seal in seals)]
        assert [seal["first_position"] for seal in seals] == [end + 1 for end in ends[:-1]]
        assert [seal["count"] for seal in seals] == [end - start for start, end in itertools.pairwise(ends)]
        assert [seal["previous_hash"] for seal in seals[1:]] == [seal["hash"] for seal in seals[:-1]]
        places = await records.run(
            "SELECT position FROM audit_leaves WHERE tenant_id = $1 ORDER BY position", tenant_id
        )
        assert [place["position"] for place in places] == list(range(1, ends[-1] + 1))


async def test_nothing_is_sealed_that_an_open_transaction_could_come_in_front_of(hub: Hub, records: Records) -> None:
    await seal_all(hub)
    slow, quick = [await asyncpg.connect(hub.owner_url) for _ in range(2)]
    transaction = slow.transaction()
    await transaction.start()
    first = await write(slow, "slow")
    second = await write(quick, "meanwhile")
    assert await seal_rows(hub.parts) == 0
    await transaction.commit()
    assert await seal_all(hub) == 2
    assert (await sealed(records))[-2:] == [first, second]
    await asyncio.gather(slow.close(), quick.close())


async def test_a_sealer_that_is_lost_before_its_commit_leaves_nothing(
    hub: Hub, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seal_all(hub)
    row_id = await write(records._connection)
    state = """SELECT (SELECT count(*) FROM audit_leaves), (SELECT count(*) FROM audit_seals),
                      (SELECT sequence FROM audit_watermark), (SELECT count(*) FROM outbox_events)"""
    before = await records.run(state)
    for lost in ("_WRITE", "_NOTE_KEY"):
        with monkeypatch.context() as broken:
            broken.setattr(sealing, lost, "no statement at all")
            with pytest.raises(Exception):  # noqa: B017, PT011 - however it ends
                await seal_rows(hub.parts)
        assert await records.run(state) == before
    assert await seal_all(hub) == 1
    assert (await sealed(records))[-1] == row_id


async def test_rows_that_are_taken_without_a_seal_are_not_committed(hub: Hub, records: Records) -> None:
    """As somebody would do who got hold of the application's role, so that they are never sealed."""
    await seal_all(hub)
    row_id = await write(records._connection)
    app = await asyncpg.connect(hub.url)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await app.fetch("SELECT * FROM take_audit_rows(100)")
    await app.close()
    assert await seal_all(hub) == 1
    assert (await sealed(records))[-1] == row_id


async def test_seals_are_announced_and_sealing_comes_to_an_end(hub: Hub, records: Records) -> None:
    await write(records._connection)
    await seal_all(hub)
    assert await seal_rows(hub.parts) == 0
    while await give_positions(hub.parts):
        pass
    seals = (await hub.admin.get("/api/v1/audit-seals")).json()["items"]
    announced = await records.run(
        "SELECT subject, data, position FROM outbox_events WHERE type = 'org.datafusionhub.audit.sealed'"
        " AND tenant_id = $1 ORDER BY position DESC LIMIT 1",
        DEFAULT_TENANT_ID,
    )
    assert announced[0]["subject"] == f"audit-seals/{seals[0]['number']}"
    assert json.loads(announced[0]["data"]) == seals[0]


async def test_what_signed_is_the_key_and_the_key_is_kept(hub: Hub, records: Records) -> None:
    """By hand, as the specification has it."""
    await write(records._connection)
    await seal_all(hub)
    seal = (await hub.admin.get("/api/v1/audit-seals")).json()["items"][0]
    pem = await records.one("SELECT public_key FROM sealing_keys WHERE kid = $1", seal["kid"])
    names = ("number", "first_position", "last_position", "first_id", "last_id", "count", "root", "previous_hash", "sealed_at", "kid")  # fmt: skip
    told = ["data-fusion-hub/audit-seal/1", str(DEFAULT_TENANT_ID), *(str(seal[name]) for name in names)]
    told[10] = f"{seal['sealed_at'].removesuffix('Z'):0<26}"[:26] + "Z"
    content = json.dumps(told, separators=(",", ":")).encode()
    key: Any = load_pem_public_key(pem.encode())
    key.verify(bytes.fromhex(seal["signature"]), content)
    assert seal["hash"] == hashlib.sha256(content[:-1] + f',"{seal["signature"]}"]'.encode()).hexdigest()


# --- over HTTP ----------------------------------------------------------------------------------------------------------


async def test_a_row_is_proven_by_the_path_to_its_seals_root(hub: Hub, records: Records) -> None:
    ids = [await write(records._connection, str(number)) for number in range(11)]
    await seal_all(hub)
    for row_id in (ids[0], ids[4], ids[-1]):
        answer = await hub.admin.get(f"/api/v1/audit-events/{row_id}/proof")
        assert answer.status_code == 200, answer.text
        proof = answer.json()
        seal = (await hub.admin.get(f"/api/v1/audit-seals/{proof['seal_number']}")).json()
        assert (proof["root"], proof["tree_size"]) == (seal["root"], seal["count"])
        path = [bytes.fromhex(each) for each in proof["path"]]
        leaf = bytes.fromhex(proof["leaf_hash"])
        found = merkle.root_by_path(leaf, proof["leaf_index"], proof["tree_size"], path)
        assert found is not None
        assert found.hex() == seal["root"]


async def test_a_row_that_is_not_sealed_yet_says_so_and_one_that_is_not_there_is_a_404(
    two_tenants: tuple[Hub, Hub], records: Records
) -> None:
    hub, other = two_tenants
    await seal_all(hub)
    row_id = await write(records._connection)
    early = await hub.admin.get(f"/api/v1/audit-events/{row_id}/proof")
    assert (early.status_code, early.json()["code"]) == (409, "not_sealed_yet")
    for client, asked in ((hub.admin, uuid4()), (other.admin, row_id)):
        absent = await client.get(f"/api/v1/audit-events/{asked}/proof")
        assert (absent.status_code, absent.json()["code"]) == (404, "not_found")
    for number in ("0", "-1", "99999999", "9" * 30):
        assert (await hub.admin.get(f"/api/v1/audit-seals/{number}")).status_code == 404


async def test_seals_are_for_who_may_read_the_log_and_of_their_own_tenant(
    two_tenants: tuple[Hub, Hub], records: Records
) -> None:
    hub, other = two_tenants
    await seal_all(hub)
    nobody = await hub.user_with()
    assert (await nobody.get("/api/v1/audit-seals")).status_code == 403
    reader = await hub.user_with("audit-events:read")
    ours = (await reader.get("/api/v1/audit-seals?sort=number&limit=2")).json()["items"]
    assert [seal["number"] for seal in ours] == [1, 2]
    theirs = (await other.admin.get("/api/v1/audit-seals")).json()["items"]
    assert theirs
    assert not {seal["root"] for seal in theirs} & {seal["root"] for seal in ours}


# --- what the application's role may not (AU3) --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET detail = 'x'",
        "DELETE FROM audit_events",
        "UPDATE audit_seals SET root = 'x'",
        "DELETE FROM audit_seals",
        "INSERT INTO audit_seals (number) VALUES (1)",
        "TRUNCATE audit_seals CASCADE",
        "UPDATE audit_leaves SET leaf_hash = ''",
        "DELETE FROM audit_leaves",
        "INSERT INTO audit_leaves VALUES ($1, 1, $1, '', 1)",
        "SELECT * FROM audit_watermark",
        "UPDATE audit_watermark SET sequence = 0",
        "DELETE FROM audit_watermark",
        "UPDATE sealing_keys SET public_key = 'x'",
        "DELETE FROM sealing_keys",
        "DELETE FROM audit_anchors",
        "ALTER TABLE audit_leaves DROP CONSTRAINT audit_leaves_seal_fkey",
        "SET session_replication_role = replica",
        "SELECT drop_audit_rows('{tenant}', 1, gen_random_uuid(), 'x', 'x')",
    ],
)
async def test_the_application_role_can_alter_nothing(hub: Hub, records: Records, statement: str) -> None:
    await write(records._connection)
    await seal_all(hub)
    app = await asyncpg.connect(hub.url, server_settings={"hub.tenant_id": str(DEFAULT_TENANT_ID)})
    arguments = [uuid4()] if "$1" in statement else []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement.format(tenant=DEFAULT_TENANT_ID), *arguments)
    await app.close()


FORGED = {
    "the one that is there": {},
    "before the first one": {"number": -1, "first_position": 1, "last_position": 999_999_999, "count": 999_999_999},
    "none": {"number": 0},
    "far ahead": {"number": 2**63 - 1},
    "the next one, over no rows": {"number": 2, "first_position": 2, "last_position": 2},
    "the next one, over rows of others": {"number": 2, "first_position": 1, "last_position": 1},
    "of a time that cannot be shown": {"number": 2, "sealed_at": "294000-01-01T00:00:00Z"},
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_a_seal_follows_from_the_one_before_it_or_is_refused(
    hub: Hub, records: Records, forged: dict[str, object]
) -> None:
    """Whatever the application's role says: with one that covers everything it could drop the log, with one that is far
    ahead nobody would seal any more."""
    await write(records._connection)
    await seal_all(hub)
    app = await asyncpg.connect(hub.url)
    there = await records.one(
        "SELECT to_jsonb(seal) FROM audit_seals AS seal WHERE tenant_id = $1 AND number = 1", DEFAULT_TENANT_ID
    )
    said = msgspec.json.encode({**msgspec.json.decode(there), "event_id": str(uuid4()), **forged}).decode()
    rows = await records.one("SELECT count(*) FROM audit_events")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="follows from the one before"):
        await app.execute("SELECT write_audit_seals(jsonb_build_array($1::text::jsonb))", said)
    with pytest.raises(asyncpg.PostgresError):
        await app.execute(
            "SELECT drop_audit_rows($1, $2, gen_random_uuid(), 'x', 'y')", DEFAULT_TENANT_ID, forged.get("number", 1)
        )
    assert await records.one("SELECT count(*) FROM audit_events") == rows
    await app.close()
