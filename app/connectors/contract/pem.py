"""Keys and certificates in PEM form as people have them: from files with words around the blocks (RFC 7468, section 2).

`openssl pkcs12` writes "Bag Attributes" before each block, bundles of CAs have a comment for each, Windows ends lines
by CRLF, and a mail client may leave blanks. Whatever reads PEM behind this gets its blocks and nothing else, in the
form that every reader takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

BEGIN: Final = "-----BEGIN "
CERTIFICATE_LABELS: Final = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "X.509 CERTIFICATE"})
_BOUNDARY: Final = re.compile(r"-----(BEGIN|END) ([!-,.-~](?:[ -]?[!-,.-~])*)-----")
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*: *[^\r\n]*")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_PRIVATE_BEGIN: Final = re.compile(r"BEGIN [A-Z0-9 ]*PRIVATE KEY", re.IGNORECASE)
_WRITTEN_OUT: Final = re.compile(r"\\[rn]")
"""Line ends as environment files and JSON have them. Base64 has no backslash."""
_LINE: Final = 64


class Block(Struct, frozen=True):
    label: str
    """What stands behind BEGIN, such as `CERTIFICATE`."""
    headers: tuple[str, ...]
    """Lines of RFC 1421 that say how an old key is encrypted."""
    content: str
    """Base64 without white space."""

    def __str__(self) -> str:
        lines = [self.content[start : start + _LINE] for start in range(0, len(self.content), _LINE)]
        head = [*self.headers, ""] if self.headers else []
        return "\n".join([f"-----BEGIN {self.label}-----", *head, *lines, f"-----END {self.label}-----", ""])


def blocks(text: str) -> list[Block]:
    """The blocks in their order. Raises `ValueError` for one that is damaged or has no end."""
    return list(_blocks(text))


def certificates(text: str) -> str:
    """All of them, and nothing else that may stand in the file. Raises `ValueError` where there is none."""
    return _joined(block for block in blocks(text) if block.label in CERTIFICATE_LABELS)


def private_key(text: str) -> str:
    """The first one; a file may hold its certificate as well. Raises `ValueError` where there is none."""
    return _joined([block for block in blocks(text) if _is_private(block.label)][:1])


def public_key(text: str) -> str:
    """Raises `ValueError` where there is none."""
    return _joined([block for block in blocks(text) if block.label.endswith("PUBLIC KEY")][:1])


def or_as_it_is(extract: Callable[[str], str], text: str) -> str:
    """For readers that know more forms than PEM, and say themselves what is wrong with a text."""
    try:
        return extract(text)
    except ValueError:
        return text


def labels(text: str) -> frozenset[str]:
    """What its blocks are called. Raises nothing: what cannot be read as PEM has none."""
    try:
        return frozenset(block.label for block in blocks(text))
    except ValueError:
        return frozenset()


def holds_private_key(text: str) -> bool:
    """Or something that somebody may have meant for one, were it damaged."""
    return _PRIVATE_BEGIN.search(text) is not None


def _is_private(label: str) -> bool:
    return label.endswith("PRIVATE KEY")


def is_encrypted(block: Block) -> bool:
    """PKCS 8 says so in the label, older forms in a header. OpenSSH's form hides it inside."""
    return block.label == "ENCRYPTED PRIVATE KEY" or any("ENCRYPTED" in header for header in block.headers)


def _joined(found: Iterator[Block] | list[Block]) -> str:
    text = "".join(str(block) for block in found)
    if not text:
        raise ValueError("there is no such block")
    return text


def _blocks(text: str) -> Iterator[Block]:
    """Each boundary is looked at once, so that the work is linear in the text."""
    text = _WRITTEN_OUT.sub("\n", text)
    opened: re.Match[str] | None = None
    for boundary in _BOUNDARY.finditer(text):
        is_end = boundary[1] == "END"
        if opened is None and not is_end:
            opened = boundary
        elif opened is not None and is_end and boundary[2] == opened[2]:
            yield _block(opened[2], text[opened.end() : boundary.start()])
            opened = None
        else:
            raise ValueError("a block has no end")
    if opened is not None:
        raise ValueError("a block has no end")


def _block(label: str, inside: str) -> Block:
    headers: list[str] = []
    content: list[str] = []
    for line in inside.splitlines():
        if not content and _HEADER.fullmatch(line.strip()):
            headers.append(line.strip())
        elif line.strip():
            content.append(line)
    joined = "".join("".join(content).split())
    if not _BASE64.fullmatch(joined):
        raise ValueError("a block is damaged")
    return Block(label, tuple(headers), joined)
