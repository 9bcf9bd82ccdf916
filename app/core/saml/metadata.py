"""Metadata (SAML Metadata, 2005): the identity provider's as it is read, and our own as it is written."""

import binascii
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from msgspec import Struct

from app.core.errors import BadRequest
from app.core.saml.keys import ProviderKey
from app.core.saml.names import DSIG, METADATA, PERSISTENT, POST, PROTOCOL, REDIRECT, XENC, XENC11, qualified
from app.core.saml.parsing import Element, everywhere, find, find_all, parse, text_of
from app.core.saml.signatures import sign
from app.core.saml.times import instant

MAX_BYTES: Final = 1_048_576
MAX_ENTITY_ID: Final = 1024
"""Core section 8.3.6."""
MAX_CERTIFICATES: Final = 8


class IdentityProvider(Struct, frozen=True, kw_only=True):
    """What the metadata says of it."""

    entity_id: str
    redirect_url: str | None
    post_url: str | None
    certificates: tuple[x509.Certificate, ...]
    """With whose keys it signs: two and more while it changes from one to the next."""
    knows_persistent: bool
    """It lists NameIDs that stay the same for us: others it would refuse to give when asked for them."""
    valid_until: datetime | None


def read_metadata(document: bytes) -> IdentityProvider:
    """Of the one identity provider in it. Raises BadRequest `saml_bad_metadata`."""
    if len(document) > MAX_BYTES:
        raise _unfit("it is longer than 1 MiB")
    try:
        root = parse(document)
    except BadRequest as error:
        raise _unfit(error.detail) from None
    found = [each for each in everywhere(root, "md:EntityDescriptor") if find(each, "md:IDPSSODescriptor") is not None]
    if len(found) != 1:
        raise _unfit(f"one identity provider is wanted in it, and there are {len(found)}")
    return _read(found[0], root)


def _read(entity: Element, root: Element) -> IdentityProvider:
    role = find(entity, "md:IDPSSODescriptor")
    assert role is not None
    certificates = _certificates(role)
    redirect_url, post_url = (_address(role, binding) for binding in (REDIRECT, POST))
    entity_id = (entity.get("entityID") or "").strip()
    if not entity_id or not certificates or (redirect_url is None and post_url is None):
        raise _unfit("it lacks the entityID, a certificate to sign with, or an address for HTTP-Redirect or HTTP-POST")
    if len(entity_id.encode()) > MAX_ENTITY_ID:
        raise _unfit(f"its entityID is longer than {MAX_ENTITY_ID} bytes")
    ends = [each.get("validUntil") for each in (root, entity, role) if each.get("validUntil")]
    try:
        valid_until = min(map(instant, ends), default=None)
    except ValueError:
        raise _unfit("its validUntil is no time") from None
    return IdentityProvider(
        entity_id=entity_id,
        redirect_url=redirect_url,
        post_url=post_url,
        certificates=certificates,
        knows_persistent=any(text_of(each) == PERSISTENT for each in find_all(role, "md:NameIDFormat")),
        valid_until=valid_until,
    )


def _certificates(role: Element) -> tuple[x509.Certificate, ...]:
    descriptors = [each for each in find_all(role, "md:KeyDescriptor") if each.get("use", "signing") == "signing"]
    texts = [text_of(each) for of in descriptors for each in find_all(of, "ds:KeyInfo/ds:X509Data/ds:X509Certificate")]
    return tuple(_certificate(text) for text in dict.fromkeys("".join(text.split()) for text in texts))[
        :MAX_CERTIFICATES
    ]


def _certificate(text: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise _unfit("one of its certificates is none") from None


def _address(role: Element, binding: str) -> str | None:
    """An address that a browser can be sent to. Raises BadRequest for one of another kind."""
    for each in find_all(role, "md:SingleSignOnService"):
        if each.get("Binding") == binding:
            location = (each.get("Location") or "").strip()
            if not location.startswith(("https://", "http://")) or any(sign <= " " for sign in location):
                raise _unfit("the address to sign in at is no web address")
            return str(location)
    return None


def _unfit(reason: str) -> BadRequest:
    return BadRequest(f"The metadata cannot be used: {reason}", code="saml_bad_metadata")


class ServiceProvider(Struct, frozen=True):
    """What we are to one identity provider."""

    entity_id: str
    acs_url: str
    key: ProviderKey


def write_metadata(own: ServiceProvider) -> bytes:
    """Signed with the key that is in it, so that whoever has it from elsewhere can hold it against its first copy."""
    root = etree.Element(
        f"{{{METADATA}}}EntityDescriptor", nsmap={"md": METADATA, "ds": DSIG}, ID="_metadata", entityID=own.entity_id
    )
    role = etree.SubElement(
        root,
        f"{{{METADATA}}}SPSSODescriptor",
        AuthnRequestsSigned="true",
        WantAssertionsSigned="true",
        protocolSupportEnumeration=PROTOCOL,
    )
    _describe_key(role, own.key, "signing")
    encryption = _describe_key(role, own.key, "encryption")
    for algorithm in (f"{XENC11}aes256-gcm", f"{XENC11}aes128-gcm", f"{XENC}rsa-oaep-mgf1p"):
        etree.SubElement(encryption, qualified("md:EncryptionMethod"), Algorithm=algorithm)
    etree.SubElement(role, qualified("md:NameIDFormat")).text = PERSISTENT
    consumer = {"Binding": POST, "Location": own.acs_url, "index": "0", "isDefault": "true"}
    etree.SubElement(role, qualified("md:AssertionConsumerService"), consumer)
    signed = sign(root, own.key.private, own.key.certificate, at=0)
    written: bytes = etree.tostring(signed, xml_declaration=True, encoding="utf-8")
    return written


def _describe_key(role: Element, key: ProviderKey, use: str) -> Element:
    described = etree.SubElement(role, qualified("md:KeyDescriptor"), use=use)
    data = etree.SubElement(etree.SubElement(described, qualified("ds:KeyInfo")), qualified("ds:X509Data"))
    certificate = etree.SubElement(data, qualified("ds:X509Certificate"))
    certificate.text = b64encode(key.certificate.public_bytes(Encoding.DER)).decode()
    return described
