"""The service provider's own key: RSA, since that is what identity providers take for signatures and for encryption
alike, with a certificate that nobody has to trust but who reads our metadata."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID
from msgspec import Struct

BITS = 3072
"""Until 2030 and after (NIST SP 800-57 part 1)."""
VALID_FOR = timedelta(days=3650)


class NewKey(Struct, frozen=True):
    private: bytes
    """PKCS #8, DER."""
    certificate: bytes
    """DER."""


class ProviderKey(Struct, frozen=True):
    private: RSAPrivateKey
    certificate: x509.Certificate


def new_key(name: str) -> NewKey:
    """Takes about half a second of a processor. `name` is of at most 64 characters."""
    private = generate_private_key(public_exponent=65537, key_size=BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID_FOR)
        .sign(private, hashes.SHA256())
    )
    written = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return NewKey(written, certificate.public_bytes(Encoding.DER))


def read_key(private: bytes, certificate: bytes) -> ProviderKey:
    key = load_der_private_key(private, password=None)
    assert isinstance(key, RSAPrivateKey)
    return ProviderKey(key, x509.load_der_x509_certificate(certificate))
