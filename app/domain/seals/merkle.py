"""Merkle trees as Certificate Transparency has them (RFC 6962 section 2.1, RFC 9162 section 2.1)."""

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32


def leaf_hash(content: bytes) -> bytes:
    return sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """Takes leaves one by one, and holds no more than one hash for each of its levels."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []
        """Roots of the complete trees that the size is the sum of, the largest first."""

    def add(self, leaf: bytes) -> None:
        self._peaks.append(leaf)
        carried = self.size
        while carried & 1:
            right = self._peaks.pop()
            self._peaks.append(node_hash(self._peaks.pop(), right))
            carried >>= 1
        self.size += 1

    def root(self) -> bytes:
        """Raises ValueError for a tree without leaves."""
        if not self._peaks:
            raise ValueError("a tree without leaves has no root here")
        found = self._peaks[-1]
        for left in reversed(self._peaks[:-1]):
            found = node_hash(left, found)
        return found


def root_of(leaves: Sequence[bytes]) -> bytes:
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from that leaf to the root, from below (RFC 9162 section 2.1.3.1)."""
    if len(leaves) == 1:
        return []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = leaves[:half], leaves[half:]
    if index < half:
        return [*inclusion_path(left, index), root_of(right)]
    return [*inclusion_path(right, index - half), root_of(left)]


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root to which the path leads; None where it is none of such a leaf (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    place, last, found = index, size - 1, leaf
    for beside in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            found = node_hash(beside, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, beside)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None


def split(hashes: bytes) -> list[bytes]:
    """Of many that stand one behind the other."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
