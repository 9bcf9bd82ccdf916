"""An identity provider built on pysaml2, which signs with the program xmlsec1: what it makes is genuine, and not of the
code that is tested."""

import asyncio
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, saml, xmldsig
from saml2.config import IdPConfig
from saml2.metadata import entity_descriptor
from saml2.server import Server

from tests.receivers import Received, answers, receiving

ENTITY_ID = "https://idp.test/metadata"
SSO_URL = "https://idp.test/sso"
PASSWORD_CONTEXT = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"


@dataclass
class KeyFiles:
    """A key and its certificate, in files of pysaml2's liking."""

    key: Path
    certificate: Path

    @classmethod
    def made_in(cls, folder: Path, name: str, *, ends_in: timedelta = timedelta(days=2)) -> "KeyFiles":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(private.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=9))
        certificate = builder.not_valid_after(now + ends_in).sign(private, hashes.SHA256())
        files = cls(folder / f"{name}.key", folder / f"{name}.pem")
        files.key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        return files

    @property
    def private(self) -> rsa.RSAPrivateKey:
        key = load_pem_private_key(self.key.read_bytes(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    @property
    def loaded(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())


@dataclass
class TestProvider:
    """Signs in whoever is asked for."""

    __test__ = False

    folder: Path
    keys: KeyFiles
    also_published: list[KeyFiles] = field(default_factory=list)
    """Keys that are in its metadata beside the one that signs."""
    entity_id: str = ENTITY_ID
    sso_url: str = SSO_URL
    bindings: tuple[str, ...] = (BINDING_HTTP_REDIRECT, BINDING_HTTP_POST)
    service_providers: dict[str, str] = field(default_factory=dict)
    """Metadata by entityID."""

    @classmethod
    def made_in(cls, folder: Path, **said: Any) -> "TestProvider":
        if shutil.which("xmlsec1") is None:
            tell = pytest.fail if os.environ.get("CI") else pytest.skip
            tell("xmlsec1 is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, KeyFiles.made_in(folder, "signing"), **said)

    def know(self, metadata: bytes) -> None:
        """What a service provider says of itself."""
        self.service_providers[f"sp{len(self.service_providers)}"] = metadata.decode()

    def metadata(self) -> bytes:
        """As it publishes it."""
        config = self._config()
        config.signing_key_descriptors = None
        described = str(entity_descriptor(config))
        for other in self.also_published:
            described = _with_certificate(described, other)
        return described.encode()

    def _config(self) -> IdPConfig:
        config = IdPConfig()
        config.load(
            {
                "entityid": self.entity_id,
                "service": {
                    "idp": {
                        "endpoints": {"single_sign_on_service": [(self.sso_url, each) for each in self.bindings]},
                        "name_id_format": [saml.NAMEID_FORMAT_PERSISTENT, saml.NAMEID_FORMAT_TRANSIENT],
                        "policy": {"default": {"lifetime": {"minutes": 5}, "attribute_restrictions": None}},
                        "want_authn_requests_signed": bool(self.service_providers),
                    }
                },
                "key_file": str(self.keys.key),
                "cert_file": str(self.keys.certificate),
                "metadata": {"inline": list(self.service_providers.values())} if self.service_providers else {},
            }
        )
        return config

    def server(self) -> Server:
        return Server(config=self._config())

    def respond(
        self,
        *,
        audience: str,
        acs_url: str,
        request_id: str,
        name_id: str = "id-of-ada",
        name_format: str = saml.NAMEID_FORMAT_PERSISTENT,
        attributes: dict[str, Any] | None = None,
        context: str = PASSWORD_CONTEXT,
        sign_response: bool = False,
        sign_assertion: bool = True,
        sign_alg: str = xmldsig.SIG_RSA_SHA256,
        digest_alg: str = xmldsig.DIGEST_SHA256,
    ) -> bytes:
        """The XML of a response, as it would be posted."""
        made = self.server().create_authn_response(
            attributes if attributes is not None else {"mail": ["ada@example.org"], "givenName": ["Ada"]},
            request_id,
            acs_url,
            sp_entity_id=audience,
            name_id=saml.NameID(format=name_format, text=name_id),
            authn={"class_ref": context, "authn_auth": self.entity_id},
            sign_response=sign_response,
            sign_assertion=sign_assertion,
            sign_alg=sign_alg,
            digest_alg=digest_alg,
        )
        return str(made).encode()

    def request_of(self, query: dict[str, str]) -> Any:
        """A request that came by HTTP-Redirect, with its signature checked."""
        return self.server().parse_authn_request(
            query["SAMLRequest"],
            BINDING_HTTP_REDIRECT,
            relay_state=query["RelayState"],
            sigalg=query["SigAlg"],
            signature=query["Signature"],
        )

    def posted_request_of(self, saml_request: str) -> Any:
        return self.server().parse_authn_request(saml_request, BINDING_HTTP_POST)


def _with_certificate(metadata: str, other: KeyFiles) -> str:
    """A further descriptor of a key, before the first one."""
    der = b64encode(other.loaded.public_bytes(Encoding.DER)).decode()
    start = metadata.index(":KeyDescriptor")
    start = metadata.rindex("<", 0, start)
    descriptor = (
        '<md:KeyDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" use="signing">'
        '<ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>'
        f"{der}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
    )
    return metadata[:start] + descriptor + metadata[start:]


def as_form_value(document: bytes) -> str:
    return b64encode(document).decode()


def from_form_value(text: str) -> bytes:
    return b64decode(text)


@dataclass
class MetadataSite:
    """Where a provider publishes its metadata, and what goes wrong there."""

    document: bytes = b""
    fault: str = ""
    asked: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address, for as long as the block lasts."""
        async with receiving(self._answer) as receiver:
            yield f"http://127.0.0.1:{receiver.port}/metadata"

    async def _answer(self, received: Received, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        bodies = {"broken": b"<EntityDescriptor", "empty": b"", "huge": b"<a>" + b" " * 2_000_000 + b"</a>"}
        body = bodies.get(self.fault, self.document)
        answering = answers(503 if self.fault == "away" else 200, body, content_type="application/samlmetadata+xml")
        if self.fault == "redirect":
            answering = answers(302, location="/elsewhere")
        await answering(received, writer)
