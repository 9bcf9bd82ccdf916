"""XML of others: without document types, entities, network; of a size, a depth and a number of elements and
attributes that are known before anything looks at it."""

import re
from typing import Any, Final

from lxml import etree

from app.core.errors import BadRequest
from app.core.saml.names import NAMESPACES, qualified

Element = Any
"""lxml's `_Element`: it has no types of its own."""

MAX_DEPTH: Final = 40
MAX_ELEMENTS: Final = 20_000
MAX_ATTRIBUTES: Final = 100
"""Of one element: lxml looks for each from the first one on, and lets no other thread of the process run meanwhile."""
_DECLARED: Final = re.compile(rb"""\A<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
_DOCUMENT_TYPE: Final = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def parse(document: bytes) -> Element:
    """Its root. Raises BadRequest.

    A document type is looked for in the text before a parser sees it, and once more in what was parsed: in no message
    and no metadata is there a use for one.
    """
    document = document.removeprefix(b"\xef\xbb\xbf").strip()
    declared = _DECLARED.match(document)
    if declared is not None and declared[1].lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise BadRequest("The XML is not in UTF-8.", code="saml_malformed")
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The XML is not in UTF-8.", code="saml_malformed") from None
    if _DOCUMENT_TYPE.search(text):
        raise BadRequest(code="saml_forbidden_xml")
    root = _parsed(document)
    if root.getroottree().docinfo.doctype or next(root.iter(etree.Entity), None) is not None:
        raise BadRequest(code="saml_forbidden_xml")
    _refuse_deep(root)
    return root


def _parsed(document: bytes) -> Element:
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )
    try:
        return etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise BadRequest("The XML could not be read.", code="saml_malformed") from None


def _refuse_deep(root: Element) -> None:
    count, waiting = 0, [(root, 1)]
    while waiting:
        element, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS or len(element.attrib) > MAX_ATTRIBUTES:
            sentence = "The XML is nested too deeply, or has too many elements or attributes."
            raise BadRequest(sentence, code="saml_forbidden_xml")
        waiting += ((child, depth + 1) for child in element)


def refuse_comments(root: Element) -> None:
    """A comment or an instruction between two halves of a value: what signs passes over it, and readers disagree on
    what the value is. No maker of messages has a use for one. Raises BadRequest."""
    if next(root.iter(etree.Comment, etree.ProcessingInstruction), None) is not None:
        raise BadRequest(code="saml_comment")


def find(element: Element, path: str) -> Element | None:
    """`path` is as in `saml:Subject/saml:NameID`."""
    return element.find(path, NAMESPACES)


def find_all(element: Element, path: str) -> list[Element]:
    found: list[Element] = element.findall(path, NAMESPACES)
    return found


def everywhere(root: Element, *names: str) -> list[Element]:
    return list(root.iter(*(qualified(name) for name in names)))


def text_of(element: Element | None) -> str:
    """All of it, without white space at its ends; empty where there is no such element. Raises BadRequest where
    elements stand in it."""
    if element is None:
        return ""
    if len(element):
        raise BadRequest("Elements stand where a text is wanted.", code="saml_malformed")
    return "".join(element.itertext()).strip()


def serialized(element: Element) -> bytes:
    """With the namespaces that it has from above."""
    written: bytes = etree.tostring(element, with_tail=False)
    return written
