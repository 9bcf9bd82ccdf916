"""Assertions that were encrypted for the service provider (XML-Enc 1.1).

Encryption stands outside of the assertion's signature, so anybody can change it and ask what comes of it. AES-GCM finds
that out by itself. AES-CBC does not, and an answer that depends on its padding gives the text away one byte at a time
(Jager and Somorovsky, 2011): it is opened only where the response around it is signed, and that signature was checked.
The key is wrapped by RSA-OAEP; RSA PKCS #1 v1.5 has the same hole and is refused. All that can go wrong is one code.
"""

import binascii
from base64 import b64decode
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.core.errors import BadRequest
from app.core.saml.names import DSIG, XENC, XENC11
from app.core.saml.parsing import Element, find, find_all, parse, text_of

_GCM: Final = {f"{XENC11}aes128-gcm": 16, f"{XENC11}aes192-gcm": 24, f"{XENC11}aes256-gcm": 32}
_CBC: Final = {f"{XENC}aes128-cbc": 16, f"{XENC}aes192-cbc": 24, f"{XENC}aes256-cbc": 32}
_OAEP: Final = frozenset((f"{XENC}rsa-oaep-mgf1p", f"{XENC11}rsa-oaep"))
_DIGESTS: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    f"{DSIG}sha1": hashes.SHA1,  # as a part of OAEP nobody has to find two texts of one digest
    f"{XENC}sha256": hashes.SHA256,
    "http://www.w3.org/2001/04/xmldsig-more#sha384": hashes.SHA384,
    f"{XENC}sha512": hashes.SHA512,
}
_MASKS: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    f"{XENC11}mgf1sha1": hashes.SHA1,
    f"{XENC11}mgf1sha256": hashes.SHA256,
    f"{XENC11}mgf1sha384": hashes.SHA384,
    f"{XENC11}mgf1sha512": hashes.SHA512,
}


def decrypted(encrypted: Element, key: RSAPrivateKey, *, is_authenticated: bool) -> Element:
    """The root of what an `EncryptedAssertion` holds. `is_authenticated`: a signature around it was checked. Raises
    BadRequest."""
    data = find(encrypted, "xenc:EncryptedData")
    if data is None:
        raise BadRequest(code="saml_undecipherable")
    algorithm = _algorithm(data)
    if algorithm in _CBC and not is_authenticated:
        detail = "An assertion that is encrypted with AES-CBC has to come in a response that is signed; or use AES-GCM."
        raise BadRequest(detail, code="saml_weak_algorithm")
    length = {**_GCM, **_CBC}.get(algorithm)
    if length is None:
        raise BadRequest("The assertion is encrypted with an algorithm that is not taken.", code="saml_weak_algorithm")
    try:
        content_key = _content_key(encrypted, data, key)
        if len(content_key) != length:
            raise ValueError
        plain = (_from_gcm if algorithm in _GCM else _from_cbc)(content_key, _value(data))
        return parse(plain)
    except (BadRequest, InvalidTag, ValueError) as error:
        if isinstance(error, BadRequest) and error.code == "saml_weak_algorithm":
            raise
        raise BadRequest(code="saml_undecipherable") from None


def _content_key(encrypted: Element, data: Element, key: RSAPrivateKey) -> bytes:
    """`EncryptedKey` stands within the data or beside it (errata of 2012, E43)."""
    wrapped = find_all(data, "ds:KeyInfo/xenc:EncryptedKey") or find_all(encrypted, "xenc:EncryptedKey")
    if len(wrapped) != 1:
        raise ValueError
    return key.decrypt(_value(wrapped[0]), _oaep_of(wrapped[0]))


def _oaep_of(wrapped: Element) -> padding.OAEP:
    algorithm = _algorithm(wrapped)
    method = find(wrapped, "xenc:EncryptionMethod")
    if algorithm not in _OAEP or text_of(find(method, "xenc:OAEPparams")):
        raise BadRequest("The key is wrapped in a way that is not taken.", code="saml_weak_algorithm")
    digest = find(method, "ds:DigestMethod")
    mask = find(method, "xenc11:MGF") if algorithm == f"{XENC11}rsa-oaep" else None
    hashed = hashes.SHA1 if digest is None else _DIGESTS[_known(digest, _DIGESTS)]
    masked = hashes.SHA1 if mask is None else _MASKS[_known(mask, _MASKS)]
    return padding.OAEP(mgf=padding.MGF1(masked()), algorithm=hashed(), label=None)


def _known(element: Element, known: dict[str, type[hashes.HashAlgorithm]]) -> str:
    name = str(element.get("Algorithm"))
    if name not in known:
        raise BadRequest("The key is wrapped in a way that is not taken.", code="saml_weak_algorithm")
    return name


def _algorithm(element: Element) -> str:
    method = find(element, "xenc:EncryptionMethod")
    return "" if method is None else str(method.get("Algorithm"))


def _value(element: Element) -> bytes:
    try:
        return b64decode("".join(text_of(find(element, "xenc:CipherData/xenc:CipherValue")).split()), validate=True)
    except binascii.Error:
        raise ValueError from None


def _from_gcm(key: bytes, value: bytes) -> bytes:
    return AESGCM(key).decrypt(value[:12], value[12:], None)


def _from_cbc(key: bytes, value: bytes) -> bytes:
    """The last byte says how many are no part of the text (XML-Enc section 5.2)."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(value[:16])).decryptor()
    plain = decryptor.update(value[16:]) + decryptor.finalize()
    if not plain or not 1 <= plain[-1] <= 16:
        raise ValueError
    return plain[: -plain[-1]]
