"""Assertions encrypted as a provider does it (XML-Enc 1.1), in every way that the tests want, the bad ones too."""

import os
from base64 import b64encode

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

XENC, XENC11 = "http://www.w3.org/2001/04/xmlenc#", "http://www.w3.org/2009/xmlenc11#"
URIS = {
    "aes128-gcm": f"{XENC11}aes128-gcm",
    "aes256-gcm": f"{XENC11}aes256-gcm",
    "aes256-cbc": f"{XENC}aes256-cbc",
    "rsa-oaep-mgf1p": f"{XENC}rsa-oaep-mgf1p",
    "rsa-oaep": f"{XENC11}rsa-oaep",
    "rsa-1_5": f"{XENC}rsa-1_5",
}


def encrypted(
    assertion: bytes,
    certificate: x509.Certificate,
    *,
    algorithm: str = "aes256-gcm",
    wrapping: str = "rsa-oaep-mgf1p",
    spoil: bool = False,
) -> bytes:
    """An `EncryptedAssertion`. `spoil`: with the last byte another one."""
    key = os.urandom(16 if "128" in algorithm else 32)
    value = (_by_gcm if algorithm.endswith("gcm") else _by_cbc)(key, assertion)
    if spoil:
        value = value[:-1] + bytes([value[-1] ^ 1])
    public = certificate.public_key()
    assert isinstance(public, RSAPublicKey)
    digest, wrapped = _wrapped(public, key, wrapping)
    return f"""<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"
        ><xenc:EncryptedData xmlns:xenc="{XENC}" Type="{XENC}Element"
        ><xenc:EncryptionMethod Algorithm="{URIS[algorithm]}"/><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"
        ><xenc:EncryptedKey><xenc:EncryptionMethod Algorithm="{URIS[wrapping]}">{digest}</xenc:EncryptionMethod
        ><xenc:CipherData><xenc:CipherValue>{b64encode(wrapped).decode()}</xenc:CipherValue></xenc:CipherData
        ></xenc:EncryptedKey></ds:KeyInfo><xenc:CipherData><xenc:CipherValue>{b64encode(value).decode()}</xenc:CipherValue
        ></xenc:CipherData></xenc:EncryptedData></saml:EncryptedAssertion>""".encode()


def _wrapped(public: RSAPublicKey, key: bytes, wrapping: str) -> tuple[str, bytes]:
    if wrapping == "rsa-1_5":
        return "", public.encrypt(key, padding.PKCS1v15())
    if wrapping == "rsa-oaep-mgf1p":
        return "", public.encrypt(key, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
    said = f'<ds:DigestMethod Algorithm="{XENC}sha256"/><m:MGF xmlns:m="{XENC11}" Algorithm="{XENC11}mgf1sha256"/>'
    return said, public.encrypt(key, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))


def _by_gcm(key: bytes, text: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, text, None)


def _by_cbc(key: bytes, text: bytes) -> bytes:
    count = 16 - len(text) % 16
    start = os.urandom(16)
    encryptor = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
    return start + encryptor.update(text + bytes([0] * (count - 1) + [count])) + encryptor.finalize()
