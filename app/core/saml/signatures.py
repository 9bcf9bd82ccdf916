"""Signatures: made with the service provider's key, and checked with the certificates of the provider's metadata alone.

What is checked is of one form (SAML Core section 5.4): one enveloped signature, a child of what it signs, with one
reference to it by its ID, canonicalized exclusively. From there on only what the check returns is read: it was made
anew from the very bytes that were signed.
"""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.exceptions import InvalidDigest, SignXMLException
from signxml.signer import XMLSigner
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from app.core.errors import BadRequest
from app.core.saml.names import DSIG, ENVELOPED, EXCLUSIVE
from app.core.saml.parsing import Element, find, find_all, serialized

METHODS: Final = frozenset(
    (
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.SHA256_RSA_MGF1,
        SignatureMethod.SHA384_RSA_MGF1,
        SignatureMethod.SHA512_RSA_MGF1,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    )
)
DIGESTS: Final = frozenset((DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512))
_METHOD_URIS: Final = frozenset(method.value for method in METHODS)
_DIGEST_URIS: Final = frozenset(digest.value for digest in DIGESTS)
_TRANSFORMS: Final = frozenset((ENVELOPED, EXCLUSIVE, f"{EXCLUSIVE}WithComments"))
_EXPECTED: Final = SignatureConfiguration(location="./", signature_methods=METHODS, digest_algorithms=DIGESTS)


def signature_of(element: Element) -> Element | None:
    """Raises BadRequest for more than one."""
    found = find_all(element, "ds:Signature")
    if len(found) > 1:
        raise BadRequest(code="saml_wrapped")
    return found[0] if found else None


def what_is_signed(element: Element, certificates: Sequence[x509.Certificate]) -> Element:
    """The element as it was signed by who holds the key of one of the certificates. Raises BadRequest."""
    signature = signature_of(element)
    if signature is None:
        raise BadRequest(code="saml_unsigned")
    _refuse_other_forms(element, signature)
    standing_alone = serialized(element)
    for certificate in certificates:
        found = _checked(standing_alone, certificate)
        if found is not None:
            return _same(element, found)
    raise BadRequest(code="saml_altered" if _is_of_one_of(signature, certificates) else "saml_wrong_key")


def _refuse_other_forms(element: Element, signature: Element) -> None:
    references = find_all(signature, "ds:SignedInfo/ds:Reference")
    if len(references) != 1 or not element.get("ID") or references[0].get("URI") != f"#{element.get('ID')}":
        raise BadRequest("The signature is of something else than what it stands in.", code="saml_wrapped")
    if find(signature, "ds:Object") is not None:
        raise BadRequest(code="saml_wrapped")
    transforms = {each.get("Algorithm") for each in find_all(references[0], "ds:Transforms/ds:Transform")}
    method = _algorithm(signature, "ds:SignedInfo/ds:CanonicalizationMethod")
    if ENVELOPED not in transforms or not transforms <= _TRANSFORMS or method not in _TRANSFORMS - {ENVELOPED}:
        raise BadRequest("The signature is of a form that SAML does not know.", code="saml_weak_algorithm")
    is_strong = _algorithm(signature, "ds:SignedInfo/ds:SignatureMethod") in _METHOD_URIS
    if not is_strong or _algorithm(references[0], "ds:DigestMethod") not in _DIGEST_URIS:
        raise BadRequest(code="saml_weak_algorithm")


def _algorithm(element: Element, path: str) -> str | None:
    found = find(element, path)
    return None if found is None else found.get("Algorithm")


def _checked(standing_alone: bytes, certificate: x509.Certificate) -> Element | None:
    """None where it is not signed with this key. Raises BadRequest where it was, and altered after that.

    When a certificate runs out says nothing here: whether its key is trusted is for the metadata to say (SAML V2.0
    Metadata Interoperability Profile, section 2.6.1).
    """
    config = replace(_EXPECTED, verification_time=certificate.not_valid_before_utc)
    try:
        result = XMLVerifier().verify(standing_alone, x509_cert=certificate, expect_config=config)
    except InvalidDigest:
        raise BadRequest(code="saml_altered") from None
    except (SignXMLException, etree.LxmlError, ValueError, TypeError, NotImplementedError):
        return None
    assert isinstance(result, VerifyResult)
    return result.signed_xml


def _same(element: Element, signed: Element) -> Element:
    """Raises BadRequest where something else was signed than what stands there."""
    if signed.tag != element.tag or signed.get("ID") != element.get("ID"):
        raise BadRequest(code="saml_wrapped")
    return signed


def _is_of_one_of(signature: Element, certificates: Sequence[x509.Certificate]) -> bool:
    """What the signature says of its key is no reason to trust it: it only tells what is wrong."""
    said = find(signature, "ds:KeyInfo/ds:X509Data/ds:X509Certificate")
    if said is None:
        return True
    try:
        given = b64decode("".join((said.text or "").split()))
    except (binascii.Error, ValueError):
        return False
    return any(certificate.public_bytes(Encoding.DER) == given for certificate in certificates)


def sign(element: Element, key: RSAPrivateKey, certificate: x509.Certificate, *, at: int) -> Element:
    """Enveloped; `at` is the place among the children at which the schema wants the signature."""
    placeholder = etree.Element(f"{{{DSIG}}}Signature", nsmap={"ds": DSIG}, Id="placeholder")
    element.insert(at, placeholder)
    signer = XMLSigner(
        signature_algorithm=SignatureMethod.RSA_SHA256,
        digest_algorithm=DigestAlgorithm.SHA256,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )
    return signer.sign(element, key=key, cert=[certificate], reference_uri=f"#{element.get('ID')}", id_attribute="ID")
