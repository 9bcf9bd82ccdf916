"""A superuser of the database tampers with the audit log: each way is found, and the first thing that is wrong is named.

Of each tampered database an export is verified, too, without the database.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from app.core.embedded import EmbeddedPostgres
from app.core.signing_keys import generate_signing_key, read_signing_keys
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.seals.anchors import Anchored, AnchorUnavailable, Folder, anchor_seals, open_anchor
from app.domain.seals.canonical import COLUMNS
from app.domain.seals.merkle import leaf_hash, root_of
from app.domain.seals.reading import items_in_database, items_in_file, write_items
from app.domain.seals.sealing import seal_rows
from app.domain.seals.signing import NO_SEAL, Seal, pem_of, public_pems, read_public_keys, sign
from app.domain.seals.verifying import Verdict, Verifier, not_excluded
from app.runtime import load_sealing_keys, prepare_parts
from app.settings import load
from tests.postgres import create_database, drop_database
from tests.sampling import sampled

pytestmark = pytest.mark.anyio

OTHER = UUID("01900000-0000-7000-8000-00000000000b")
ROWS = 4
"""Of the default tenant under each seal."""
SEALS = 4
ADD = """INSERT INTO audit_events (id, tenant_id, occurred_at, actor_name, action, resource_type, outcome, detail, after)
         VALUES ($1, $2, now(), 'ada@example.org', 'role.update', 'role', 'success', $3, '{"name": "a"}')"""


@dataclass
class Log:
    """An audit log of two tenants, sealed, and a copy of its seals."""

    cluster: EmbeddedPostgres
    name: str
    folder: Path
    rows: list[UUID]
    """Of the default tenant, as they were written."""

    @property
    def anchor(self) -> Path:
        return self.folder / "anchor"

    def row(self, seal: int, place: int = 1) -> UUID:
        """Counted from 1."""
        return self.rows[(seal - 1) * ROWS + place - 1]


async def add_rows(url: str, tenant_id: UUID, count: int) -> list[UUID]:
    connection = await asyncpg.connect(url)
    ids = [uuid4() for _ in range(count)]
    for number, row_id in enumerate(ids):
        await connection.execute(ADD, row_id, tenant_id, f"the {number}. change")
    await connection.close()
    return ids


async def seal_and_copy(cluster: EmbeddedPostgres, name: str, folder: Path) -> None:
    """All that is there, with the keys and the anchor of the folder."""
    settings = load({"HUB_DATA_DIR": str(folder), "HUB_AUDIT_ANCHOR": str(folder / "anchor")}, env_file=None)
    parts = prepare_parts(settings, cluster.url("hub_app", name))
    parts.sealing_keys = load_sealing_keys(settings)
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    while await owner.fetchval(
        "SELECT EXISTS (SELECT FROM audit_events WHERE id NOT IN (SELECT event_id FROM audit_leaves))"
    ):
        if not await seal_rows(parts):
            await asyncio.sleep(0.02)  # somebody else's transaction is still open in the cluster
    await owner.close()
    while await anchor_seals(parts, str(folder / "anchor")):
        pass
    await parts.close()


@pytest.fixture(scope="module")
async def log(cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Log]:
    name, folder = await create_database(cluster, migrated), tmp_path_factory.mktemp("log")
    (folder / "anchor").mkdir()
    owner = await asyncpg.connect(cluster.url("hub_owner", name))
    await owner.execute(
        "INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at) VALUES ($1, 'b', 'B', true, now(), now())",
        OTHER,
    )
    await owner.close()
    rows: list[UUID] = []
    for _ in range(SEALS):
        rows += await add_rows(cluster.url("hub_owner", name), DEFAULT_TENANT_ID, ROWS)
        await add_rows(cluster.url("hub_owner", name), OTHER, 2)
        await seal_and_copy(cluster, name, folder)
    made = Log(cluster, name, folder, rows)
    public = "".join(public_pems(read_signing_keys(folder / "sealing-keys.pem")).values())
    (folder / "public.pem").write_text(public)
    yield made
    await drop_database(cluster, name)


class Tampered:
    """A copy of the database, which a superuser may do anything with."""

    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name
        self.url = log.cluster.url("hub_app", name)

    async def do(self, *statements: str, arguments: tuple[Any, ...] = ()) -> None:
        connection = await asyncpg.connect(self.log.cluster.url("postgres", self.name))
        await connection.execute("SET session_replication_role = replica")  # no foreign key hinders them
        for statement in statements:
            done = await connection.execute(statement, *arguments)
            assert not done.endswith(" 0"), statement
        await connection.close()

    async def fetch(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.log.cluster.url("postgres", self.name))
        found = await connection.fetch(sql)
        await connection.close()
        return list(found)

    async def verdict(self, *, pinned: bool = False, anchored: bool = False) -> Verdict:
        verifier = self._verifier(pinned, anchored)
        connection = await asyncpg.connect(self.url)
        async for item in items_in_database(connection):
            verifier.take(item)
        await connection.close()
        return verifier.finish()

    async def verdict_of_export(self, file: Path, *, pinned: bool = False, anchored: bool = False) -> Verdict:
        connection = await asyncpg.connect(self.url)
        with file.open("wb") as out:
            await write_items(out, items_in_database(connection))
        await connection.close()
        verifier = self._verifier(pinned, anchored)
        for item in items_in_file(file):
            verifier.take(item)
        return verifier.finish(is_file=True)

    def _verifier(self, pinned: bool, anchored: bool) -> Verifier:
        keys = read_public_keys(self.log.folder / "public.pem") if pinned else None
        return Verifier(pinned=keys, anchored=Anchored(Folder(self.log.anchor)) if anchored else None)


@pytest.fixture
async def copy(log: Log) -> AsyncIterator[Tampered]:
    name = await create_database(log.cluster, log.name)
    yield Tampered(log, name)
    await drop_database(log.cluster, name)


async def test_an_honest_log_verifies(copy: Tampered, tmp_path: Path) -> None:
    for pinned in (False, True):
        verdict = await copy.verdict(pinned=pinned, anchored=True)
        assert verdict == await copy.verdict_of_export(tmp_path / f"{pinned}", pinned=pinned, anchored=True)
        assert verdict.wrong == []
        assert (verdict.seals, verdict.chains, verdict.unsealed, verdict.not_anchored) == (2 * SEALS, 2, 0, 0)
        assert verdict.rows == SEALS * (ROWS + 2)


async def test_rows_that_are_not_sealed_yet_are_counted_and_nothing_is_wrong(copy: Tampered, tmp_path: Path) -> None:
    await add_rows(copy.log.cluster.url("hub_owner", copy.name), OTHER, 3)
    for verdict in (await copy.verdict(anchored=True), await copy.verdict_of_export(tmp_path / "log")):
        assert (verdict.wrong, verdict.unsealed) == ([], 3)


# --- ways to tamper -----------------------------------------------------------------------------------------------------

LEAVES = "audit_leaves WHERE tenant_id = '{default}' AND"
INSERTED = """
    INSERT INTO audit_events (id, tenant_id, transaction_id, sequence, occurred_at, action, resource_type, outcome)
    OVERRIDING SYSTEM VALUE
    SELECT '{new}', tenant_id, transaction_id, 0, occurred_at, 'role.update', 'role', 'success'
    FROM audit_events WHERE id = '{row_2_2}'"""

WAYS = {
    "a row is edited": (
        ["UPDATE audit_events SET detail = 'nothing to see' WHERE id = '{row_2_3}'"],
        "row {row_2_3} at position 7 of seal 2 was edited .role.update, .*, by ada@example.org.",
    ),
    "a column that nobody shows is edited": (
        ["UPDATE audit_events SET chain_hash = '\\x00' WHERE id = '{row_2_3}'"],
        "row {row_2_3} at position 7 of seal 2 was edited",
    ),
    "two rows are edited": (
        ["UPDATE audit_events SET occurred_at = occurred_at - interval '1 day' WHERE id IN ('{row_3_1}', '{row_1_2}')"],
        "row {row_1_2} at position 2 of seal 1 was edited",
    ),
    "a row is deleted": (
        ["DELETE FROM audit_events WHERE id = '{row_3_1}'"],
        "row {row_3_1} at position 9 of seal 3 was deleted",
    ),
    "a row is deleted with its leaf": (
        ["DELETE FROM audit_events WHERE id = '{row_3_2}'", f"DELETE FROM {LEAVES} position = 10"],
        "the row at position 10 of seal 3 is gone, with its leaf",
    ),
    "a row is inserted": ([INSERTED], "row {new} was inserted, among those that were sealed already"),
    "a row is inserted with a leaf": (
        [
            INSERTED,
            f"UPDATE {LEAVES} position = 6".replace(" WHERE", " SET event_id = '{new}' WHERE"),
        ],
        "row {new} at position 6 of seal 2 was edited",
    ),
    "two rows are swapped": (
        [
            "UPDATE audit_events AS one SET transaction_id = (SELECT other.transaction_id FROM audit_events AS other WHERE"
            " other.id = CASE one.id WHEN '{row_2_2}' THEN '{row_2_3}'::uuid ELSE '{row_2_2}' END)"
            " WHERE id IN ('{row_2_2}', '{row_2_3}')",
        ],
        "row {row_2_2} at position 6 of seal 2 was edited",
    ),
    "two rows are swapped with their leaves": (
        [
            "UPDATE audit_leaves SET position = position + 1000 WHERE tenant_id = '{default}' AND position IN (6, 7)",
            "UPDATE audit_leaves SET position = 7 WHERE tenant_id = '{default}' AND position = 1006",
            "UPDATE audit_leaves SET position = 6 WHERE tenant_id = '{default}' AND position = 1007",
        ],
        "row {row_2_2} at position 7 of seal 2 was moved: it is out of order",
    ),
    "the end is cut off": (
        [
            "DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_leaves WHERE seal_number = 4)",
            "DELETE FROM audit_leaves WHERE seal_number = 4",
            "DELETE FROM audit_seals WHERE number = 4",
        ],
        "Row {last}, which was sealed last, is gone: the end is cut off",
    ),
    "the last rows are cut off, and their seal is not": (
        [
            "DELETE FROM audit_events WHERE id = '{row_4_4}'",
            f"DELETE FROM {LEAVES} position = 16",
        ],
        "seal 4 covers the rows at 13 to 16, and those from 16 on are gone",
    ),
    "a row and its leaf are edited together": (
        [
            "UPDATE audit_events SET detail = 'nothing to see' WHERE id = '{row_2_3}'",
            "UPDATE audit_leaves SET leaf_hash = {leaf_of_2_3} WHERE event_id = '{row_2_3}'",
        ],
        "seal 2 was made over other rows: one of {row_2_1} to {row_2_4} .positions 5 to 8.",
    ),
    "a seal is deleted": (
        ["DELETE FROM audit_seals WHERE tenant_id = '{default}' AND number = 2"],
        "seal 2 is gone",
    ),
    "the last seal is deleted": (
        ["DELETE FROM audit_seals WHERE tenant_id = '{default}' AND number = 4"],
        "seal 4 is gone, under which row {row_4_1} was",
    ),
    "a signature is forged": (
        ["UPDATE audit_seals SET signature = repeat('ab', 64) WHERE tenant_id = '{default}' AND number = 3"],
        "seal 3 is forged",
    ),
    "what a seal says is edited": (
        [
            "UPDATE audit_seals SET sealed_at = sealed_at - interval '1 day' WHERE tenant_id = '{default}' AND number = 3"
        ],
        "seal 3 is forged",
    ),
    "the hash of a seal is edited": (
        ["UPDATE audit_seals SET hash = repeat('0', 64) WHERE tenant_id = '{default}' AND number = 3"],
        "seal 3 is altered",
    ),
    "a row is moved to another tenant": (
        ["UPDATE audit_events SET tenant_id = '{other}' WHERE id = '{row_2_3}'"],
        "row {row_2_3} at position 7 of seal 2 was deleted, or moved elsewhere",
    ),
    "the beginning is taken away, as if it were too old": (
        [
            "DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_leaves WHERE seal_number = 1)",
            "DELETE FROM audit_leaves WHERE seal_number = 1",
        ],
        "the rows of seals 1 to 1 are gone, and no signed row of the log says that they were dropped",
    ),
    "the public key is replaced": (
        ["UPDATE sealing_keys SET public_key = '{strange_key}'"],
        "is another one than its name says",
    ),
    "the public key is taken away": (["DELETE FROM sealing_keys"], "seal 1 is signed with key .*, which is none of"),
}


def names_in(log: Log) -> dict[str, str]:
    rows = {f"row_{seal}_{place}": str(log.row(seal, place)) for seal in range(1, 5) for place in range(1, 5)}
    strange = strange_key(log.folder)
    return rows | {
        "new": "01900000-0000-7000-8000-0000000000ee",
        "default": str(DEFAULT_TENANT_ID),
        "other": str(OTHER),
        "strange_key": pem_of(strange.public),
    }


def strange_key(folder: Path) -> Any:
    file = folder / "strange.pem"
    if not file.exists():
        file.write_bytes(generate_signing_key())
    return read_signing_keys(file)[0]


async def canonical_of(copy: Tampered, row_id: UUID) -> bytes:
    """As somebody would compute it who has read the specification."""
    from app.domain.seals.canonical import SQL

    ((content,),) = await copy.fetch(f"SELECT {SQL} FROM audit_events AS event WHERE id = '{row_id}'")
    return str(content).encode()


@pytest.mark.parametrize("way", sampled(WAYS, every=4))
async def test_what_was_tampered_with_is_named(copy: Tampered, tmp_path: Path, way: str) -> None:
    statements, wanted = WAYS[way]
    names = names_in(copy.log)
    ((names["last"],),) = await copy.fetch("SELECT event_id::text FROM audit_watermark")
    for statement in statements:
        if "{leaf_of_2_3}" in statement:
            forged = leaf_hash(await canonical_of(copy, copy.log.row(2, 3)))
            names["leaf_of_2_3"] = f"'\\x{forged.hex()}'"
        await copy.do(statement.format(**names))
    for verdict in (await copy.verdict(), await copy.verdict_of_export(tmp_path / "log")):
        assert len(verdict.wrong) >= 1
        assert re.search(wanted.format(**names), verdict.wrong[0]), verdict.wrong


# --- what only keys or copies kept elsewhere tell -----------------------------------------------------------------------


async def seal_anew(copy: Tampered, key: Any) -> None:
    """Edit a row, and make all that hangs on it fit again, as somebody would who may do anything with the database."""
    await copy.do(f"UPDATE audit_events SET detail = 'nothing to see' WHERE id = '{copy.log.row(2, 3)}'")
    forged = leaf_hash(await canonical_of(copy, copy.log.row(2, 3)))
    await copy.do(f"UPDATE audit_leaves SET leaf_hash = '\\x{forged.hex()}' WHERE event_id = '{copy.log.row(2, 3)}'")
    for tenant_id in (DEFAULT_TENANT_ID, OTHER):
        previous = NO_SEAL
        for row in await copy.fetch(f"SELECT * FROM audit_seals WHERE tenant_id = '{tenant_id}' ORDER BY number"):
            hashes = await copy.fetch(
                f"SELECT leaf_hash FROM audit_leaves WHERE tenant_id = '{tenant_id}'"
                f" AND seal_number = {row['number']} ORDER BY position"
            )
            made = {name: row[name] for name in Seal.__struct_fields__ if name not in ("signature", "hash")}
            made |= {"root": root_of([each[0] for each in hashes]).hex(), "previous_hash": previous, "kid": key.kid}
            seal = sign(Seal(**made), key)
            await copy.do(
                f"""UPDATE audit_seals SET root = '{seal.root}', previous_hash = '{previous}', kid = '{key.kid}',
                      signature = '{seal.signature}', hash = '{seal.hash}'
                    WHERE tenant_id = '{tenant_id}' AND number = {seal.number}"""
            )
            previous = seal.hash
    pem = pem_of(key.public)
    await copy.do(
        f"INSERT INTO sealing_keys VALUES ('{key.kid}', '{pem}', now()) ON CONFLICT (kid) DO UPDATE SET first_used_at = now()"
    )


async def test_a_chain_that_was_sealed_anew_with_another_key_is_told_by_a_pinned_one(
    copy: Tampered, tmp_path: Path
) -> None:
    await seal_anew(copy, strange_key(copy.log.folder))
    assert (await copy.verdict()).wrong == []
    for verdict in (await copy.verdict(pinned=True), await copy.verdict_of_export(tmp_path / "log", pinned=True)):
        assert "seal 1 is signed with key" in verdict.wrong[0]
    assert "seal 1 is another one than the anchor has" in (await copy.verdict(anchored=True)).wrong[0]


async def test_a_chain_that_was_sealed_anew_with_the_very_key_is_told_by_the_anchor(copy: Tampered) -> None:
    await seal_anew(copy, read_signing_keys(copy.log.folder / "sealing-keys.pem")[0])
    assert (await copy.verdict(pinned=True)).wrong == []
    assert "seal 2 is another one than the anchor has" in (await copy.verdict(anchored=True)).wrong[0]


CUT = (
    "DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_leaves WHERE seal_number >= 3)",
    "DELETE FROM audit_leaves WHERE seal_number >= 3",
    "DELETE FROM audit_seals WHERE number >= 3",
    """UPDATE audit_watermark SET (transaction_id, sequence, event_id) =
         (SELECT transaction_id, sequence, id FROM audit_events ORDER BY sequence DESC LIMIT 1)""",
)


async def test_an_older_state_that_was_put_back_is_told_by_the_anchor(copy: Tampered, tmp_path: Path) -> None:
    await copy.do(*CUT)
    assert (await copy.verdict(pinned=True)).wrong == []
    for verdict in (
        await copy.verdict(anchored=True),
        await copy.verdict_of_export(tmp_path / "log", anchored=True),
    ):
        assert "seal 3 is gone: the anchor has it, and here the chain is cut off before it" in verdict.wrong[0]


async def test_an_older_backup_with_which_work_went_on_is_told_by_the_anchor(log: Log, copy: Tampered) -> None:
    """The anchor then has two seals of one number."""
    await copy.do(*CUT)
    await add_rows(log.cluster.url("hub_owner", copy.name), DEFAULT_TENANT_ID, 1)
    folder = log.folder / "forked"
    folder.mkdir()
    for name in ("sealing-keys.pem", "secret-keys", "signing-keys.pem"):
        (folder / name).write_bytes((log.folder / name).read_bytes())
    (folder / "anchor").mkdir()
    for file in log.anchor.rglob("*.json"):
        there = folder / "anchor" / file.relative_to(log.anchor)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(file.read_bytes())
    await copy.do(
        "UPDATE audit_anchors SET last_ordinal = (SELECT max(ordinal) FROM audit_seals), place = '%s'"
        % (folder / "anchor")
    )
    await seal_and_copy(log.cluster, copy.name, folder)
    assert (await copy.verdict()).wrong == []
    verifier = Verifier(anchored=Anchored(Folder(folder / "anchor")))
    connection = await asyncpg.connect(copy.url)
    async for item in items_in_database(connection):
        verifier.take(item)
    await connection.close()
    assert "seal 3 is another one than the anchor has" in verifier.finish().wrong[0]
    assert len(list((folder / "anchor").rglob("000000000003-*.json"))) == 3  # two of one tenant, one of the other


async def test_a_tenant_that_was_taken_away_as_a_whole_is_told_by_the_anchor(copy: Tampered) -> None:
    tables = ("audit_events", "audit_leaves", "audit_seals")
    await copy.do(*(f"DELETE FROM {table} WHERE tenant_id = '{OTHER}'" for table in tables))
    await copy.do(f"DELETE FROM tenants WHERE id = '{OTHER}'")
    await copy.do(CUT[3])
    assert (await copy.verdict()).wrong == []
    verdict = await copy.verdict(anchored=True)
    assert verdict.wrong == [f"Tenant {OTHER}: the whole chain is gone; the anchor has seals of it."]


def test_what_cannot_be_excluded_is_said() -> None:
    assert [len(list(not_excluded(is_pinned=pinned, is_anchored=False))) for pinned in (False, True)] == [3, 2]
    assert len(list(not_excluded(is_pinned=True, is_anchored=True))) == 1


# --- exports ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def exported(copy: Tampered, tmp_path: Path) -> Path:
    await copy.verdict_of_export(tmp_path / "log")
    return tmp_path / "log"


def verdict_of(lines: list[bytes], file: Path) -> Verdict:
    file.write_bytes(b"".join(lines))
    verifier = Verifier()
    for item in items_in_file(file):
        verifier.take(item)
    return verifier.finish(is_file=True)


def kinds_of(lines: list[bytes]) -> list[str]:
    return [msgspec.json.decode(line)["kind"] for line in lines]


async def test_a_file_that_lost_a_line_is_not_believed(exported: Path) -> None:
    lines = exported.read_bytes().splitlines(keepends=True)
    assert kinds_of(lines)[:4] == ["audit-log", "key", "chain", "seal"]
    for number, kind in enumerate(kinds_of(lines)):
        verdict = verdict_of(lines[:number] + lines[number + 1 :], exported)
        assert verdict.wrong, kind
    for number in range(len(lines)):
        assert verdict_of(lines[:number], exported).wrong


async def test_a_file_that_was_written_anew_by_another_program_says_the_same(exported: Path) -> None:
    """With other spaces and escapes."""
    import json

    lines = [json.dumps(json.loads(line), indent=None).encode() + b"\n" for line in exported.read_bytes().splitlines()]
    assert verdict_of(lines, exported).wrong == []


async def test_what_is_no_export_is_named(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text('{"kind": "audit-log"}\n')
    with pytest.raises(ValueError, match="line 1 is none of an export"):
        list(items_in_file(file))


HOSTILE = (
    lambda line: {**line, "sealed_at": "0001-01-01T00:00:00+14:00"} if line["kind"] == "seal" else line,
    lambda line: {**line, "hash": "zz"} if line["kind"] == "seal" else line,
    lambda line: {**line, "leaf_hash": "zz"} if line["kind"] == "row" else line,
    lambda line: {**line, "row": "[" * 5000} if line["kind"] == "row" else line,
)


@pytest.mark.parametrize("alter", HOSTILE)
async def test_whatever_a_file_holds_it_is_wrong_and_nothing_breaks(exported: Path, alter: Any) -> None:
    lines = [alter(msgspec.json.decode(line)) for line in exported.read_bytes().splitlines()]
    assert verdict_of([msgspec.json.encode(line) + b"\n" for line in lines], exported).wrong


async def test_a_drop_that_names_nothing_is_no_drop(exported: Path) -> None:
    """All rows gone, and one that says so in a list."""
    lines = [msgspec.json.decode(line) for line in exported.read_bytes().splitlines()]
    rows = [line for line in lines if line["kind"] == "row" and line["position"] is not None]
    last = {"kind": "row", "id": rows[-1]["id"], "position": None, "leaf_hash": None, "seal_number": None}
    row = [*rows[-1]["row"]]
    row[2] = "9" * 15  # later than all that are sealed
    row[COLUMNS.index("action")], row[COLUMNS.index("after")] = "audit.drop", "[1]"
    lines.insert(lines.index(rows[-1]) + 1, {**last, "row": row})
    lines = [line for line in lines if line not in rows]
    verdict = verdict_of([msgspec.json.encode(line) + b"\n" for line in lines], exported)
    assert any("no signed row of the log says" in sentence for sentence in verdict.wrong), verdict.wrong


async def test_a_line_nested_without_end_is_none_of_an_export(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text('{"kind": ' + "[" * 100_000)
    with pytest.raises(ValueError, match="line 1 is none of an export"):
        list(items_in_file(file))


# --- the anchor ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_never_written_over_and_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add("a/b.json", b"first")
    folder.add("a/b.json", b"second")
    assert (tmp_path / "a/b.json").read_bytes() == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    with pytest.raises(AnchorUnavailable, match="is no folder"):
        Folder(tmp_path / "nowhere").add("a.json", b"")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In moto, found by the variables that Amazon's own tools read."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket("seals", "us-east-1")
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield "s3://seals/of the hub"
    server.stop()


@pytest.mark.slow
async def test_an_anchor_can_be_a_bucket(copy: Tampered, bucket: str) -> None:
    """Which is never written over either, and tells the same."""
    settings = load({"HUB_DATA_DIR": str(copy.log.folder)}, env_file=None)
    parts = prepare_parts(settings, copy.url)
    while await anchor_seals(parts, bucket):
        pass
    await parts.close()
    anchor = open_anchor(bucket)
    assert sorted(anchor.folders()) == sorted(Folder(copy.log.anchor).folders())
    names = sorted(name for folder in anchor.folders() for name in anchor.names(f"{folder}/000000000"))
    assert names == sorted(str(file.relative_to(copy.log.anchor)) for file in copy.log.anchor.rglob("*.json"))
    anchor.add(names[0], b"another")
    await copy.do(*CUT)
    verifier = Verifier(anchored=Anchored(anchor))
    connection = await asyncpg.connect(copy.url)
    async for item in items_in_database(connection):
        verifier.take(item)
    await connection.close()
    assert "seal 3 is gone: the anchor has it" in verifier.finish().wrong[0]
    from obstore.store import from_url

    kept = from_url(bucket).get(names[0]).bytes()
    assert bytes(kept) == (copy.log.anchor / names[0]).read_bytes()
    with pytest.raises(AnchorUnavailable, match="s3://no-bucket"):
        open_anchor("s3://no-bucket/x").folders()


async def test_what_an_anchor_missed_is_caught_up_with(copy: Tampered, tmp_path: Path) -> None:
    """Two at a time; and again from the beginning, with nothing done twice."""
    settings = load({"HUB_DATA_DIR": str(copy.log.folder)}, env_file=None)
    parts = prepare_parts(settings, copy.url)
    with pytest.raises(AnchorUnavailable):
        await anchor_seals(parts, str(tmp_path / "late"))
    (tmp_path / "late").mkdir()
    done = [await anchor_seals(parts, str(tmp_path / "late"), 2) for _ in range(SEALS + 1)]
    assert done == [2] * SEALS + [0]
    there = {file.relative_to(tmp_path / "late"): file.read_bytes() for file in (tmp_path / "late").rglob("*.json")}
    assert there == {file.relative_to(copy.log.anchor): file.read_bytes() for file in copy.log.anchor.rglob("*.json")}
    await copy.do(f"DELETE FROM audit_anchors WHERE place = '{tmp_path / 'late'}'")
    assert await anchor_seals(parts, str(tmp_path / "late")) == 2 * SEALS
    await parts.close()
