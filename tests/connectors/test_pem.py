"""Certificates and keys as people paste them: in every field that takes one, and up to the handshake."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Any

import certifi
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from app.connectors import registry
from app.connectors.contract import pem
from app.connectors.contract.config import ConnectorConfig, InvalidField, Pem, config_schema
from app.connectors.contract.failures import ConnectorError
from app.connectors.network.ssh import HostKey, SshTarget, _identity
from app.connectors.network.tls import tls_context
from app.connectors.types.gcs import GcsConfig, ServiceAccount
from app.connectors.types.snowflake import Snowflake, SnowflakeConfig, SnowflakeSecrets
from app.core.egress import EgressPolicy
from tests.connectors.servers.certificates import Authority
from tests.cpu_growth import CpuGrowth

pytestmark = pytest.mark.found("D16")

BAG = "Bag Attributes\n    friendlyName: Zoë's key\n    localKeyID: 01 AF\nKey Attributes: <No Attributes>\n"
DUMP = "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Subject: CN = Zoë -- a name ----\n"
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "a comment before": lambda text: f"# my CA\n{text}",
    "bag attributes": lambda text: BAG + text,
    "what openssl x509 -text writes": lambda text: DUMP + text,
    "words behind": lambda text: f"{text}\n-- \nSent from a phone\n",
    "CRLF": lambda text: ("subject=CN = x\n" + text).replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "blanks around lines": lambda text: "".join(f"  {line} \t\n" for line in text.splitlines()),
    "no line end at the end": lambda text: text.strip(),
    "one line": lambda text: " ".join(text.split("\n")),
    "line ends written out": lambda text: text.replace("\n", "\\n"),
    "line ends of Windows written out": lambda text: text.replace("\n", "\\r\\n"),
    "a text in JSON": json.dumps,
    "long lines": lambda text: "\n".join(str(block).replace("\n", "") for block in pem.blocks(text)),
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("PEM tests")


@pytest.fixture(scope="module")
def rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


SOME_FORMS = ("as it is", "bag attributes", "CRLF", "one line")
"""Where a check of the key costs half a second each time."""


@pytest.fixture(params=SOME_FORMS)
def pasted_key(request: pytest.FixtureRequest, rsa_key: str) -> str:
    return FORMS[request.param](rsa_key)


@pytest.fixture(params=FORMS.values(), ids=list(FORMS))
def pasted(request: pytest.FixtureRequest) -> Callable[[str], str]:
    form: Callable[[str], str] = request.param
    return form


def test_a_handshake_takes_every_form(pasted: Callable[[str], str], authority: Authority) -> None:
    certificate, key = (part.decode() for part in authority.certificate_for("shop.invalid"))
    context = tls_context(
        "shop.invalid",
        ca_certificate=pasted(authority.pem.decode()),
        client_certificate=pasted(certificate + authority.pem.decode()),
        client_key=pasted(key),
    )
    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "PEM tests"),),)]


def test_all_certificates_of_a_bundle_are_trusted(authority: Authority) -> None:
    other = Authority("Another")
    bundle = f"# one\n{authority.pem.decode()}\n# Ünother\n{other.pem.decode()}"
    assert len(tls_context("x", ca_certificate=bundle).get_ca_certs()) == 2
    with open(certifi.where(), encoding="utf-8") as file:
        whole = file.read()
    assert len(pem.blocks(whole)) == whole.count("-----BEGIN CERTIFICATE-----")


def test_every_field_that_takes_one_takes_every_form(pasted: Callable[[str], str], authority: Authority) -> None:
    text = pasted(authority.pem.decode())
    seen = 0
    for connector in registry.all():
        for name, schema in config_schema(connector.config_type)["properties"].items():
            if "application/x-pem-file" in json.dumps(schema):
                _judged(connector.config_type, name, text)
                seen += 1
    assert seen > 15


def _judged(struct: type[ConnectorConfig], name: str, text: str) -> None:
    """By the type of that field alone, whatever else the config would need."""
    annotation = next(field.type for field in msgspec.structs.fields(struct) if field.name == name)
    alone = msgspec.defstruct("Alone", [(name, annotation)], bases=(ConnectorConfig,), frozen=True, kw_only=True)
    assert getattr(msgspec.convert({name: text}, alone), name) == text


@pytest.mark.parametrize("text", ["MIIB\nAAAA", "ssh-ed25519 AAAA\n", "\n"])
def test_what_has_line_breaks_and_no_block_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidField, match="not in PEM form") as caught:
        _Trusting(ca_certificate=text)
    assert caught.value.path == ("ca_certificate",)


def test_a_private_key_is_refused_where_it_would_be_shown(pasted: Callable[[str], str], authority: Authority) -> None:
    certificate, key = (part.decode() for part in authority.certificate_for("shop.invalid"))
    with pytest.raises(InvalidField, match="holds a private key") as caught:
        _Trusting(ca_certificate=pasted(certificate + key))
    assert key.splitlines()[1] not in caught.value.message


@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"])
@pytest.mark.parametrize(
    "form",
    [
        "see -----BEGIN CERTIFICATE----- below\n{block}",
        "{block}-----END CERTIFICATE-----\n",
        "-----BEGIN {label}-----\nAAAA\n",
        "-----begin {label}-----\nAAAA\n-----end {label}-----\n",
        "-----BEGIN {label}-----\nAA!A\n-----END {label}-----\n",
    ],
)
def test_so_is_one_that_cannot_be_read(form: str, label: str) -> None:
    block = f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"
    with pytest.raises(InvalidField) as caught:
        _Trusting(ca_certificate=form.format(block=block, label=label))
    assert "AAAA" not in caught.value.message


def test_other_texts_still_hold_no_line_break(authority: Authority) -> None:
    """A block of PEM opens no door for them."""
    with pytest.raises(InvalidField, match="line break"):
        _Trusting(name=authority.pem.decode())
    with pytest.raises(InvalidField, match="control character"):
        _Trusting(ca_certificate=authority.pem.decode() + "\x1b[2J")


class _Trusting(ConnectorConfig, frozen=True, kw_only=True):
    name: str = ""
    ca_certificate: Pem | None = None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-----BEGIN CERTIFICATE-----\nMIIB\n", "ca_certificate is not"),
        ("-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----", "ca_certificate is not"),
        ("-----BEGIN CERTIFICATE-----\n-----END PUBLIC KEY-----", "ca_certificate is not"),
        ("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", "ca_certificate is not"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "ca_certificate is not"),
        ("no block at all", "ca_certificate is not"),
    ],
)
def test_what_is_damaged_is_named(text: str, sentence: str) -> None:
    with pytest.raises(ConnectorError, match=sentence) as caught:
        tls_context("x", ca_certificate=text)
    assert caught.value.code == "invalid_configuration"


def test_an_encrypted_key_without_its_passphrase_is_said_to_be(authority: Authority) -> None:
    certificate, key = (part.decode() for part in authority.certificate_for("shop.invalid"))
    loaded = serialization.load_pem_private_key(key.encode(), None)
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        locked = loaded.private_bytes(
            serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"open sesame")
        ).decode()
        with pytest.raises(ConnectorError, match="needs client_key_passphrase"):
            tls_context("x", client_certificate=certificate, client_key=BAG + locked)
        opened = tls_context(
            "x", client_certificate=certificate, client_key=BAG + locked, client_key_passphrase="open sesame"
        )
        assert isinstance(opened, ssl.SSLContext)


# Keys among the secrets ----------------------------------------------------------------------------------------------


def test_snowflake_signs_in_with_a_key_of_several_forms(pasted_key: str) -> None:
    config = SnowflakeConfig(account="a", username="u", database="d", auth="key_pair")
    made = Snowflake(config, SnowflakeSecrets(private_key=pasted_key), EgressPolicy())
    assert serialization.load_der_private_key(made._private_key(), None)


def test_google_signs_in_with_a_key_of_several_forms(pasted_key: str) -> None:
    account = {"type": "service_account", "client_email": "a@b.example", "private_key": pasted_key}
    parsed = ServiceAccount.parse(json.dumps(account), GcsConfig(bucket="shop"))
    assert parsed.assertion().count(".") == 2


@pytest.mark.parametrize("form", ["PKCS8", "OpenSSH"])
def test_ssh_signs_in_with_a_key_of_every_form(pasted: Callable[[str], str], form: str) -> None:
    import asyncssh

    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), serialization.NoEncryption()
    ).decode()
    assert isinstance(_identity(_target(pasted(text))), asyncssh.SSHKey)


def _target(private_key: str) -> SshTarget:
    values: dict[str, Any] = {"password": None, "passphrase": None, "host_key": HostKey("SHA256:" + "A" * 43)}
    return SshTarget(
        host="x",
        port=22,
        username="u",
        auth="private_key",
        private_key=private_key,
        may_be_weak=False,
        connect_timeout_s=1,
        read_timeout_s=1,
        **values,
    )


# Hostile texts -------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], str]] = {
    "many beginnings": lambda size: "-----BEGIN A-----" * (size // 17),
    "beginnings without an end": lambda size: "-----BEGIN " * (size // 11),
    "a long label": lambda size: "-----BEGIN " + "A " * (size // 2),
    "dashes": lambda size: "-" * size,
    "white space": lambda size: "-----BEGIN A-----" + " " * size + "-----END A-----",
    "headers": lambda size: "-----BEGIN A-----\n" + "a: b\n" * (size // 5) + "-----END A-----",
    "ends of others": lambda size: "-----BEGIN A-----" + "-----END B-----" * (size // 15),
}


@pytest.mark.parametrize("shape", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_work_is_linear_in_the_text(shape: Callable[[int], str]) -> None:
    growth = CpuGrowth(200_000, 400_000, floor_s=0.02)
    for size in growth.sizes():
        text = shape(size)
        with growth.look(size):
            pem.holds_private_key(text)
    growth.assert_bounded()
