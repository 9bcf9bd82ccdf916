"""Whether an audit log is what was sealed: walks along each chain and names the first thing on it that is wrong.

What it walks along (`Item`) comes out of a database or out of a file, and is never held as a whole.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from app.domain.seals.anchors import HASH_DIGITS, Anchored
from app.domain.seals.canonical import COLUMNS, encoded
from app.domain.seals.merkle import Tree, leaf_hash
from app.domain.seals.signing import NO_SEAL, Drop, PublicKeys, Seal

NO_ROW = msgspec.Raw(b"null")
_DECODER = msgspec.json.Decoder(list[str | None])


class Beginning(Struct, kw_only=True, tag="audit-log", tag_field="kind"):
    version: int = 1
    exported_at: datetime
    sealed_until: UUID | None
    """The row that was sealed last, of whichever tenant."""
    sealed_transaction: int
    sealed_sequence: int
    """The watermark: what is below it and has no leaf was not there when its time was."""


class Key(Struct, kw_only=True, tag="key", tag_field="kind"):
    kid: str
    public_key: str


class Chain(Struct, kw_only=True, tag="chain", tag_field="kind"):
    tenant_id: UUID


class Row(Struct, kw_only=True, tag="row", tag_field="kind"):
    id: UUID
    position: int | None = None
    """None for a row without a leaf, which has neither hash nor seal."""
    leaf_hash: str | None = None
    seal_number: int | None = None
    row: msgspec.Raw = NO_ROW
    """The canonical array; null where the row is gone and its leaf is not."""


class End(Struct, kw_only=True, tag="end", tag_field="kind"):
    rows: int
    seals: int
    chains: int


Item = Beginning | Key | Chain | Seal | Row | End


class Wrong(Exception):
    """A sentence that names a row or a seal."""


class Verdict(Struct):
    """What was found."""

    wrong: list[str]
    """The first fault of each chain, and what is wrong with the whole."""
    rows: int = 0
    seals: int = 0
    chains: int = 0
    unsealed: int = 0
    dropped: int = 0
    not_anchored: int = 0


class Verifier:
    """Takes every item in turn. `pinned` are the only keys that are believed; without them those are that come with the
    log itself."""

    def __init__(self, *, pinned: PublicKeys | None = None, anchored: Anchored | None = None) -> None:
        self._keys = pinned or PublicKeys()
        self._is_pinned = pinned is not None
        self._anchored = anchored
        self._chain: _Chain | None = None
        self._is_broken = True
        """The chain, by what was found last; and whatever stands in front of the first one."""
        self._beginning: Beginning | None = None
        self._end: End | None = None
        self._last_sealed_seen = False
        self._tenants: set[UUID] = set()
        self._is_emptied = False
        self.verdict = Verdict(wrong=[])

    def take(self, item: Item) -> None:
        match item:
            case Beginning():
                self._beginning = item
                self._last_sealed_seen = item.sealed_until is None
            case Key():
                self._add_key(item)
            case Chain():
                self._finish_chain()
                self._begin_chain(item.tenant_id)
            case Seal() | Row():
                self._take_of_chain(item)
            case End():
                self._end = item

    def finish(self, *, is_file: bool = False) -> Verdict:
        self._finish_chain()
        self._judge_whole(is_file=is_file)
        return self.verdict

    def _add_key(self, key: Key) -> None:
        if self._is_pinned:
            return
        try:
            self._keys.add(key.kid, key.public_key)
        except ValueError as error:
            self.verdict.wrong.append(f"Key {key.kid}: {error}.")

    def _begin_chain(self, tenant_id: UUID) -> None:
        self._chain, self._is_broken = _Chain(tenant_id, self._keys, self._anchored, self._beginning), False
        self._tenants.add(tenant_id)
        self.verdict.chains += 1

    def _take_of_chain(self, item: Seal | Row) -> None:
        if isinstance(item, Seal):
            self.verdict.seals += 1
        else:
            self.verdict.rows += item.row != NO_ROW
            if self._beginning is not None and item.id == self._beginning.sealed_until and item.position is not None:
                self._last_sealed_seen = True
        if not self._is_broken:
            self._guarded(lambda chain: chain.take(item))

    def _finish_chain(self) -> None:
        if self._chain is None:
            return
        if not self._is_broken:
            self._guarded(lambda chain: chain.finish())
        self.verdict.unsealed += self._chain.unsealed
        self.verdict.dropped += self._chain.dropped
        self.verdict.not_anchored += self._chain.not_anchored
        self._is_emptied = self._is_emptied or self._chain.is_emptied
        self._chain, self._is_broken = None, True

    def _guarded(self, do: Any) -> None:
        assert self._chain is not None
        try:
            do(self._chain)
        except Wrong as wrong:
            self._break(str(wrong))
        except (ValueError, OverflowError, RecursionError):  # of hex, numbers, times or JSON in a file of anybody's
            self._break("something here cannot be read.")

    def _break(self, why: str) -> None:
        assert self._chain is not None
        self.verdict.wrong.append(f"Tenant {self._chain.tenant_id}: {why}")
        self._is_broken = True

    def _judge_whole(self, *, is_file: bool) -> None:
        verdict, beginning = self.verdict, self._beginning
        if is_file and beginning is None:
            verdict.wrong.append("The file is no export of an audit log, or its first line is missing.")
        if is_file and self._end is None:
            verdict.wrong.append("The file is cut off: its last line is missing.")
        found = End(rows=verdict.rows, seals=verdict.seals, chains=verdict.chains)
        if self._end not in (None, found):
            verdict.wrong.append(f"Lines of the file are missing, or too many: {found}, where {self._end} is wanted.")
        if beginning is not None and not self._last_sealed_seen and not self._is_emptied and not verdict.wrong:
            verdict.wrong.append(f"Row {beginning.sealed_until}, which was sealed last, is gone: the end is cut off.")
        if self._anchored is not None:
            for tenant_id in sorted(self._anchored.tenants() - self._tenants):
                verdict.wrong.append(f"Tenant {tenant_id}: the whole chain is gone; the anchor has seals of it.")


class _Chain:
    """Of one tenant: seals in their order, each before its rows, and last the rows that have no leaf."""

    def __init__(
        self, tenant_id: UUID, keys: PublicKeys, anchored: Anchored | None, beginning: Beginning | None
    ) -> None:
        self.tenant_id = tenant_id
        self.unsealed = 0
        self.not_anchored = 0
        self._keys = keys
        self._anchored = anchored
        self._beginning = beginning
        self._seal: Seal | None = None
        self._last: Seal | None = None
        self._through: Seal | None = None
        """The last one without rows."""
        self._drop = ("", "")
        """Key and signature of the latest row that tells of it."""
        self._tree = Tree()
        self._first_id: UUID | None = None
        self._last_id: UUID | None = None
        self._place: tuple[int, int] = (-1, -1)
        self._leaves_seen = 0

    @property
    def dropped(self) -> int:
        """Seals whose rows are gone, all of them at the beginning."""
        return self._through.number if self._through else 0

    @property
    def is_emptied(self) -> bool:
        return self.dropped > 0 and not self._leaves_seen

    def take(self, item: Seal | Row) -> None:
        if isinstance(item, Seal):
            self._finish_seal()
            self._begin_seal(item)
        elif item.position is None:
            self._finish_seal()
            self._take_unsealed(item)
        else:
            self._take_sealed(item)

    def finish(self) -> None:
        self._finish_seal()
        self._require_drops()
        self._look_beyond()

    # Seals ------------------------------------------------------------------------------------------------------------

    def _begin_seal(self, seal: Seal) -> None:
        expected = self._last.number + 1 if self._last else 1
        if seal.number != expected:
            raise Wrong(f"seal {expected} is gone; seal {seal.number} follows.")
        name, last = f"seal {seal.number}", self._last
        if seal.kid not in self._keys:
            raise Wrong(f"{name} is signed with key {seal.kid}, which is none of those that are believed: forged.")
        if seal.tenant_id != self.tenant_id or not self._keys.is_signed(seal.kid, seal.signed(), seal.signature):
            raise Wrong(f"{name} is forged: what it says is not what its signature was made over.")
        if seal.hash != seal.own_hash():
            raise Wrong(f"{name} is altered: it has another hash than its own.")
        if seal.previous_hash != (last.hash if last else NO_SEAL):
            raise Wrong(f"{name} does not follow from the one before it: one of the two was made anew.")
        if seal.first_position != (last.last_position + 1 if last else 1):
            raise Wrong(f"{name} does not begin where the one before it ends.")
        self._compare_with_anchor(seal)
        self._seal, self._tree, self._place = seal, Tree(), (-1, -1)
        self._first_id = self._last_id = None

    def _finish_seal(self) -> None:
        seal = self._seal
        if seal is None:
            return
        self._seal, self._last = None, seal
        if self._tree.size == 0 and not self._leaves_seen:
            self._through, self._drop = seal, ("", "")
            return
        if self._tree.size != seal.count:
            raise Wrong(
                f"seal {seal.number} covers the rows at {seal.first_position} to {seal.last_position}, and those from "
                f"{seal.first_position + self._tree.size} on are gone, with their leaves."
            )
        if (self._first_id, self._last_id) != (seal.first_id, seal.last_id) or self._tree.root().hex() != seal.root:
            raise Wrong(
                f"seal {seal.number} was made over other rows: one of {self._first_id} to {self._last_id} (positions "
                f"{seal.first_position} to {seal.last_position}) was altered together with its leaf."
            )

    def _compare_with_anchor(self, seal: Seal) -> None:
        if self._anchored is None:
            return
        found = self._anchored.hashes_of(self.tenant_id, seal.number)
        if not found:
            self.not_anchored += 1
        elif found != {seal.hash[:HASH_DIGITS]}:
            raise Wrong(
                f"seal {seal.number} is another one than the anchor has: an older state was put back, or the chain was "
                "sealed anew from there."
            )

    def _look_beyond(self) -> None:
        number = (self._last.number if self._last else 0) + 1
        if self._anchored is not None and self._anchored.hashes_of(self.tenant_id, number):
            raise Wrong(f"seal {number} is gone: the anchor has it, and here the chain is cut off before it.")

    # Rows -------------------------------------------------------------------------------------------------------------

    def _take_sealed(self, row: Row) -> None:
        if self._seal is not None and row.seal_number != self._seal.number:
            self._finish_seal()
        seal = self._seal
        if seal is None:
            raise Wrong(f"seal {row.seal_number} is gone, under which row {row.id} was.")
        expected = seal.first_position + self._tree.size
        if row.position != expected:
            raise Wrong(f"the row at position {expected} of seal {seal.number} is gone, with its leaf.")
        if row.row == NO_ROW:
            raise Wrong(f"row {row.id} at position {expected} of seal {seal.number} was deleted, or moved elsewhere.")
        texts = self._texts_of(row)
        if leaf_hash(bytes(row.row)).hex() != row.leaf_hash and leaf_hash(encoded(texts)).hex() != row.leaf_hash:
            raise Wrong(f"row {row.id} at position {expected} of seal {seal.number} was edited ({_told(texts)}).")
        if self._order_of(texts) <= self._place:
            raise Wrong(f"row {row.id} at position {expected} of seal {seal.number} was moved: it is out of order.")
        self._place = self._order_of(texts)
        self._first_id, self._last_id = self._first_id or row.id, row.id
        self._tree.add(bytes.fromhex(row.leaf_hash or ""))
        self._leaves_seen += 1
        self._note_drop(texts)

    def _take_unsealed(self, row: Row) -> None:
        texts = self._texts_of(row)
        mark = self._beginning
        if mark and self._order_of(texts) <= (mark.sealed_transaction, mark.sealed_sequence):
            raise Wrong(f"row {row.id} was inserted, among those that were sealed already ({_told(texts)}).")
        self.unsealed += 1
        self._note_drop(texts)

    def _texts_of(self, row: Row) -> list[str | None]:
        try:
            texts = _DECODER.decode(row.row)
        except msgspec.MsgspecError:
            raise Wrong(f"row {row.id} cannot be read.") from None
        if len(texts) < len(COLUMNS) or texts[:2] != [str(row.id), str(self.tenant_id)]:
            raise Wrong(f"row {row.id} says that it is another one, or of another tenant.")
        return texts

    @staticmethod
    def _order_of(texts: list[str | None]) -> tuple[int, int]:
        return int(texts[2] or 0), int(texts[3] or 0)

    # Rows that were dropped because of their age ----------------------------------------------------------------------

    def _note_drop(self, texts: list[str | None]) -> None:
        """Only the latest can tell of the last seal without rows, so no more is held of one."""
        if texts[COLUMNS.index("action")] != "audit.drop" or self._through is None:
            return
        after = msgspec.json.decode(texts[COLUMNS.index("after")] or "{}")
        if isinstance(after, dict) and after.get("last_seal") == self._through.number:
            self._drop = (str(after.get("kid")), str(after.get("signature")))

    def _require_drops(self) -> None:
        seal = self._through
        if seal is None:
            return
        kid, signature = self._drop
        drop = Drop(self.tenant_id, seal.number, seal.last_position, seal.hash)
        if not self._keys.is_signed(kid, drop.signed(), signature):
            raise Wrong(
                f"the rows of seals 1 to {seal.number} are gone, and no signed row of the log says that they were "
                "dropped because of their age."
            )


def _told(texts: list[str | None]) -> str:
    row = dict(zip(COLUMNS, texts, strict=False))
    return f"{row['action']}, {row['occurred_at']}, by {row['actor_name'] or 'nobody'}"


def not_excluded(*, is_pinned: bool, is_anchored: bool) -> Iterator[str]:
    """What no walk along the chains can tell."""
    if not is_anchored:
        yield (
            "that an older state, or an older backup, was put back as a whole, that the end of a chain was cut off "
            "with its seals, or that somebody who holds the sealing key sealed a chain anew: only copies of the seals "
            "elsewhere tell (HUB_AUDIT_ANCHOR, --anchor)"
        )
    if not is_pinned and not is_anchored:
        yield (
            "that a chain was sealed anew with another key, whose public half was put beside it: only public keys that "
            "you kept elsewhere tell (--key)"
        )
    yield "that rows were taken away, or put in, before they were sealed, which is within about a second"
