"""Responses that somebody has tampered with: each is a genuine one, signed by xmlsec1, and then really changed.

The eight shapes of signature wrapping are those of Somorovsky et al., "On Breaking SAML" (2012), as SAML Raider has them.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from lxml import etree
from saml2 import saml, xmldsig

from app.core.errors import BadRequest
from app.core.saml.keys import new_key, read_key
from app.core.saml.metadata import ServiceProvider, read_metadata, write_metadata
from app.core.saml.names import NAMESPACES, qualified
from app.core.saml.responses import Assertion, Expected, decode_form_value, read_response, verified
from app.core.saml.signatures import sign
from tests.saml_encryption import encrypted
from tests.saml_provider import KeyFiles, TestProvider
from tests.sampling import sampled

HUB, ACS = "https://hub.test/metadata", "https://hub.test/acs"
REQUEST = "_a-request-of-ours"


@dataclass
class Parties:
    provider: TestProvider
    own: ServiceProvider
    expected: Expected
    other: TestProvider
    """A provider that the hub does not know, with the same id."""

    def respond(self, **said: Any) -> bytes:
        return self.provider.respond(**{"audience": HUB, "acs_url": ACS, "request_id": REQUEST, **said})

    def take(self, document: bytes, **differently: Any) -> Assertion:
        return verified(read_response(document), replace_in(self.expected, **differently))

    def code_of(self, document: bytes, **differently: Any) -> str:
        with pytest.raises(BadRequest) as raised:
            self.take(document, **differently)
        return raised.value.code

    def mutated(self, change: Callable[[Any], None], **said: Any) -> bytes:
        root = etree.fromstring(self.respond(**said))
        change(root)
        return bytes(etree.tostring(root))


def replace_in(expected: Expected, **differently: Any) -> Expected:
    known = {name: getattr(expected, name) for name in expected.__struct_fields__}
    return Expected(**{**known, "now": datetime.now(UTC), **differently})


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    folder = tmp_path_factory.mktemp("saml")
    provider, other = (TestProvider.made_in(folder / name) for name in ("idp", "other"))
    made = new_key("hub")
    own = ServiceProvider(HUB, ACS, read_key(made.private, made.certificate))
    provider.know(write_metadata(own))
    other.know(write_metadata(own))
    read = read_metadata(provider.metadata())
    expected = Expected(
        issuer=read.entity_id,
        certificates=read.certificates,
        audience=HUB,
        acs_url=ACS,
        key=own.key.private,
        now=datetime.now(UTC),
    )
    return Parties(provider, own, expected, other)


def first(root: Any, path: str) -> Any:
    found = root.find(path, NAMESPACES)
    assert found is not None, path
    return found


def assertion_of(root: Any) -> Any:
    return first(root, "saml:Assertion")


def evil(assertion: Any) -> Any:
    """A copy that says somebody else, under an id of its own, and has the signature still."""
    made = copy.deepcopy(assertion)
    made.set("ID", "_evil")
    first(made, "saml:Subject/saml:NameID").text = "id-of-mallory"
    return made


def unsigned(element: Any) -> Any:
    element.remove(first(element, "ds:Signature"))
    return element


# What is as it should be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign_response", [False, True])
def test_a_genuine_response_says_who_it_is(parties: Parties, sign_response: bool) -> None:
    found = parties.take(parties.respond(name_id="id-of-ada", sign_response=sign_response))
    assert found.name_id == "id-of-ada"
    assert found.attributes["mail"] == ["ada@example.org"]
    assert found.contexts == ("urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",)
    assert found.session_index


@pytest.mark.parametrize("algorithm", [xmldsig.SIG_RSA_SHA384, xmldsig.SIG_RSA_SHA512])
def test_stronger_signatures_are_taken(parties: Parties, algorithm: str) -> None:
    assert parties.take(parties.respond(sign_alg=algorithm, digest_alg=xmldsig.DIGEST_SHA512)).name_id == "id-of-ada"


# Signatures -----------------------------------------------------------------------------------------------------------


def test_an_unsigned_response_is_refused(parties: Parties) -> None:
    assert parties.code_of(parties.respond(sign_assertion=False)) == "saml_unsigned"


def test_a_signed_response_around_an_unsigned_assertion_is_refused(parties: Parties) -> None:
    assert parties.code_of(parties.respond(sign_assertion=False, sign_response=True)) == "saml_unsigned"


def test_an_assertion_whose_signature_was_cut_out_is_refused(parties: Parties) -> None:
    def cut(root: Any) -> None:
        unsigned(assertion_of(root))

    assert parties.code_of(parties.mutated(cut)) == "saml_unsigned"


def test_an_altered_name_is_refused(parties: Parties) -> None:
    def alter(root: Any) -> None:
        first(root, "saml:Assertion/saml:Subject/saml:NameID").text = "id-of-mallory"

    assert parties.code_of(parties.mutated(alter)) == "saml_altered"


def test_an_altered_attribute_is_refused(parties: Parties) -> None:
    def alter(root: Any) -> None:
        first(root, "saml:Assertion/saml:AttributeStatement/saml:Attribute/saml:AttributeValue").text = "admin"

    assert parties.code_of(parties.mutated(alter)) == "saml_altered"


def test_an_altered_signature_value_is_refused(parties: Parties) -> None:
    def alter(root: Any) -> None:
        value = first(root, "saml:Assertion/ds:Signature/ds:SignatureValue")
        text = value.text.strip()
        value.text = ("A" if text[0] != "A" else "B") + text[1:]

    assert parties.code_of(parties.mutated(alter)) == "saml_altered"


def test_an_altered_response_whose_own_signature_no_longer_fits_is_refused(parties: Parties) -> None:
    def alter(root: Any) -> None:
        root.set("IssueInstant", "2020-01-01T00:00:00Z")

    assert parties.code_of(parties.mutated(alter, sign_response=True)) == "saml_altered"


def test_the_key_of_somebody_else_is_refused(parties: Parties) -> None:
    forged = parties.other.respond(audience=HUB, acs_url=ACS, request_id=REQUEST)
    assert parties.code_of(forged) == "saml_wrong_key"


def test_a_certificate_in_the_signature_itself_is_no_reason_to_trust_it(parties: Parties) -> None:
    """KeyInfo says the provider's certificate, and the signature is somebody else's."""
    theirs = first(
        etree.fromstring(parties.respond()), "saml:Assertion/ds:Signature/ds:KeyInfo/ds:X509Data/ds:X509Certificate"
    ).text
    root = etree.fromstring(parties.other.respond(audience=HUB, acs_url=ACS, request_id=REQUEST))
    first(root, "saml:Assertion/ds:Signature/ds:KeyInfo/ds:X509Data/ds:X509Certificate").text = theirs
    assert parties.code_of(etree.tostring(root)) == "saml_altered"


def test_a_signature_that_names_no_key_is_checked_with_the_metadatas(parties: Parties) -> None:
    def cut(root: Any) -> None:
        signature = first(root, "saml:Assertion/ds:Signature")
        signature.remove(first(signature, "ds:KeyInfo"))

    assert parties.take(parties.mutated(cut)).name_id == "id-of-ada"


def test_while_a_provider_changes_its_key_both_are_taken(parties: Parties, tmp_path: Path) -> None:
    newer = replace(parties.provider, keys=KeyFiles.made_in(tmp_path, "newer"), also_published=[parties.provider.keys])
    both = read_metadata(newer.metadata()).certificates
    assert len(both) == 2
    said: dict[str, Any] = {"audience": HUB, "acs_url": ACS, "request_id": REQUEST}
    assert parties.take(newer.respond(**said), certificates=both).name_id == "id-of-ada"
    assert parties.take(parties.respond(), certificates=both).name_id == "id-of-ada"
    assert parties.code_of(newer.respond(**said)) == "saml_wrong_key"


@pytest.mark.parametrize(
    ("sign_alg", "digest_alg"),
    [(xmldsig.SIG_RSA_SHA1, xmldsig.DIGEST_SHA256), (xmldsig.SIG_RSA_SHA256, xmldsig.DIGEST_SHA1)],
)
def test_sha1_is_refused(parties: Parties, sign_alg: str, digest_alg: str) -> None:
    assert parties.code_of(parties.respond(sign_alg=sign_alg, digest_alg=digest_alg)) == "saml_weak_algorithm"


def test_a_mac_in_place_of_a_signature_is_refused(parties: Parties) -> None:
    """With the public certificate as its secret, anybody could make one."""

    def claim(root: Any) -> None:
        method = first(root, "saml:Assertion/ds:Signature/ds:SignedInfo/ds:SignatureMethod")
        method.set("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256")

    assert parties.code_of(parties.mutated(claim)) == "saml_weak_algorithm"


@pytest.mark.parametrize(
    "transform", ["http://www.w3.org/TR/1999/REC-xpath-19991116", "http://www.w3.org/TR/1999/REC-xslt-19991116"]
)
def test_a_transform_that_chooses_what_is_signed_is_refused(parties: Parties, transform: str) -> None:
    def choose(root: Any) -> None:
        transforms = first(root, "saml:Assertion/ds:Signature/ds:SignedInfo/ds:Reference/ds:Transforms")
        etree.SubElement(transforms, qualified("ds:Transform"), Algorithm=transform)

    assert parties.code_of(parties.mutated(choose)) == "saml_weak_algorithm"


def test_a_signature_over_nothing_is_refused(parties: Parties) -> None:
    def empty(root: Any) -> None:
        signed_info = first(root, "saml:Assertion/ds:Signature/ds:SignedInfo")
        signed_info.remove(first(signed_info, "ds:Reference"))

    assert parties.code_of(parties.mutated(empty)) == "saml_wrapped"


def test_a_signature_over_the_whole_document_is_no_signature_of_the_assertion(parties: Parties) -> None:
    def widen(root: Any) -> None:
        first(root, "saml:Assertion/ds:Signature/ds:SignedInfo/ds:Reference").set("URI", "")

    assert parties.code_of(parties.mutated(widen)) == "saml_wrapped"


# Wrapping -------------------------------------------------------------------------------------------------------------


def xsw1(root: Any) -> None:
    """The signed response lies in the signature of the evil one."""
    original = unsigned(copy.deepcopy(root))
    root.set("ID", "_evil")
    first(root, "saml:Assertion/saml:Subject/saml:NameID").text = "id-of-mallory"
    first(root, "ds:Signature").append(original)


def xsw2(root: Any) -> None:
    """The signed response lies before the signature that refers to it."""
    original = unsigned(copy.deepcopy(root))
    root.set("ID", "_evil")
    first(root, "saml:Assertion/saml:Subject/saml:NameID").text = "id-of-mallory"
    root.insert(root.index(first(root, "ds:Signature")), original)


def xsw3(root: Any) -> None:
    """An evil assertion before the signed one."""
    original = assertion_of(root)
    root.insert(root.index(original), unsigned(evil(original)))


def xsw4(root: Any) -> None:
    """The signed assertion lies in the evil one."""
    original = assertion_of(root)
    made = unsigned(evil(original))
    root.replace(original, made)
    made.append(original)


def xsw5(root: Any) -> None:
    """The evil assertion has the signature, and the signed one stands at the end."""
    original = assertion_of(root)
    root.replace(original, evil(original))
    root.append(unsigned(original))


def xsw6(root: Any) -> None:
    """The evil assertion has the signature, and in that the signed one."""
    original = assertion_of(root)
    made = evil(original)
    root.replace(original, made)
    first(made, "ds:Signature").append(unsigned(original))


def xsw7(root: Any) -> None:
    """The evil assertion lies in an element of extensions, where the schema asks for nothing."""
    original = assertion_of(root)
    extensions = etree.Element(qualified("samlp:Extensions"))
    extensions.append(unsigned(evil(original)))
    root.insert(root.index(original), extensions)


def xsw8(root: Any) -> None:
    """The signed assertion lies in an object of the evil one's signature."""
    original = assertion_of(root)
    made = evil(original)
    root.replace(original, made)
    etree.SubElement(first(made, "ds:Signature"), qualified("ds:Object")).append(unsigned(original))


SHAPES = [(xsw1, True), (xsw2, True), *((shape, False) for shape in (xsw3, xsw4, xsw5, xsw6, xsw7, xsw8))]


@pytest.mark.parametrize(("shape", "sign_response"), SHAPES, ids=[f"XSW{n}" for n in range(1, 9)])
def test_a_wrapped_response_is_refused(parties: Parties, shape: Callable[[Any], None], sign_response: bool) -> None:
    document = parties.mutated(shape, sign_response=sign_response)
    assert b"id-of-mallory" in document
    assert parties.code_of(document) == "saml_wrapped"


@pytest.mark.parametrize(("shape", "sign_response"), sampled(SHAPES, every=4), ids=[f"XSW{n}" for n in range(1, 9)])
def test_a_wrapped_response_of_one_id_is_refused(
    parties: Parties, shape: Callable[[Any], None], sign_response: bool
) -> None:
    """With the id of what was signed at the evil one as well, so that the reference leads to both."""
    root = etree.fromstring(parties.respond(sign_response=sign_response))
    signed = (root if sign_response else assertion_of(root)).get("ID")
    shape(root)
    for element in root.iter("*"):
        if element.get("ID") == "_evil":
            element.set("ID", signed)
    assert parties.code_of(etree.tostring(root)) == "saml_wrapped"


def test_an_assertion_beside_an_encrypted_one_is_refused(parties: Parties) -> None:
    root = etree.fromstring(parties.respond())
    sealed = encrypted(etree.tostring(assertion_of(root)), parties.own.key.certificate)
    root.append(etree.fromstring(sealed))
    assert parties.code_of(etree.tostring(root)) == "saml_wrapped"


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inserted", ["<!---->", "<!-- x -->", "<?x y?>"])
def test_a_comment_inside_of_the_name_is_refused(parties: Parties, inserted: str) -> None:
    """The signature still fits: what signs passes over comments, and some readers stop at them."""
    document = parties.respond(name_id="admin@example.org.evil.example")
    split = document.replace(b"admin@example.org.evil", f"admin@example.org{inserted}.evil".encode())
    assert split != document
    assert parties.code_of(split) == "saml_comment"


def test_an_element_inside_of_the_name_is_no_way_to_split_it(parties: Parties) -> None:
    document = parties.respond(name_id="admin@example.org.evil.example")
    split = document.replace(b"admin@example.org.evil", b"admin@example.org<x/>.evil")
    assert parties.code_of(split) in ("saml_altered", "saml_malformed")


def test_a_name_in_sections_of_character_data_is_read_whole(parties: Parties) -> None:
    document = parties.respond(name_id="admin@example.org.evil.example")
    split = document.replace(b"admin@example.org.evil", b"admin@<![CDATA[example.org]]>.evil")
    assert parties.take(split).name_id == "admin@example.org.evil.example"


# XML ------------------------------------------------------------------------------------------------------------------

EXTERNAL = b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
PARAMETER = b'<!DOCTYPE r [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]>'
LAUGHS = (
    b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)
QUADRATIC = b'<!DOCTYPE r [<!ENTITY a "' + b"a" * 50_000 + b'">]>'


@pytest.mark.parametrize("prologue", [EXTERNAL, PARAMETER, LAUGHS, QUADRATIC, b"<!DOCTYPE r>", b"<!doctype r>"])
def test_a_document_type_is_refused(parties: Parties, prologue: bytes) -> None:
    document = parties.respond().replace(b'<?xml version="1.0"?>', b"")
    assert parties.code_of(prologue + document) == "saml_forbidden_xml"
    assert parties.code_of(b'<?xml version="1.0"?>\n' + prologue + document) == "saml_forbidden_xml"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-7", "ebcdic-cp-us", "iso-8859-1"])
def test_other_encodings_in_which_a_document_type_could_hide_are_refused(parties: Parties, encoding: str) -> None:
    text = EXTERNAL.decode() + "<r>&x;</r>"
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(
        "utf-16" if encoding == "utf-16" else "ascii"
    )
    assert parties.code_of(declared) == "saml_malformed"


def test_deep_nesting_is_refused(parties: Parties) -> None:
    assert parties.code_of(b"<a>" * 100 + b"</a>" * 100) == "saml_forbidden_xml"
    assert parties.code_of(b"<a>" * 20_000 + b"</a>" * 20_000) in ("saml_forbidden_xml", "saml_malformed")


def test_too_many_elements_are_refused(parties: Parties) -> None:
    assert parties.code_of(b"<a>" + b"<b/>" * 30_000 + b"</a>") == "saml_forbidden_xml"


def test_too_many_attributes_of_one_element_are_refused(parties: Parties) -> None:
    """Before anything looks at each of them: thirty thousand would hold the whole process up for two seconds."""

    def name(root: Any) -> None:
        for number in range(101):
            root.set(f"a{number}", "")

    assert parties.code_of(parties.mutated(name)) == "saml_forbidden_xml"


def test_the_time_for_attributes_does_not_grow_with_their_square() -> None:
    many = "".join(f" a{number:x}=''" for number in range(28_000))
    assert len(many) < 262_144
    began = time.process_time()
    with pytest.raises(BadRequest):
        read_response(f"<p:Response xmlns:p='{NAMESPACES['samlp']}' Version='2.0'{many}/>".encode())
    assert time.process_time() - began < 0.5


def test_a_response_that_is_too_long_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BadRequest) as raised:
        decode_form_value("A" * 400_000, 262_144)
    assert raised.value.code == "saml_forbidden_xml"


@pytest.mark.parametrize("document", [b"", b"<", b"no xml", b"\xff\xfe", b"<a/>", b"<a></b>", b"\x00" * 10])
def test_what_is_no_response_is_refused(parties: Parties, document: bytes) -> None:
    assert parties.code_of(document) == "saml_malformed"


@pytest.mark.parametrize("text", ["*", "PHg", "é"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode_form_value(text, 1000)
    assert raised.value.code == "saml_malformed"


# What it says ---------------------------------------------------------------------------------------------------------


def test_an_assertion_for_another_service_is_refused(parties: Parties) -> None:
    """Of the same provider, and genuine."""
    assert parties.code_of(parties.respond(), audience="https://other.test/metadata") == "saml_wrong_audience"


def test_a_response_that_was_sent_elsewhere_is_refused(parties: Parties) -> None:
    assert parties.code_of(parties.respond(), acs_url="https://hub.test/other") == "saml_wrong_destination"


def test_an_assertion_for_another_recipient_is_refused_in_a_response_that_was_sent_here(parties: Parties) -> None:
    document = parties.respond(acs_url="https://other.test/acs")
    sent_here = document.replace(b'Destination="https://other.test/acs"', f'Destination="{ACS}"'.encode())
    assert sent_here != document
    assert parties.code_of(sent_here) == "saml_wrong_recipient"


def test_a_signed_response_that_does_not_say_where_it_is_sent_is_refused(parties: Parties) -> None:
    def cut(root: Any) -> None:
        del root.attrib["Destination"]

    assert parties.code_of(parties.mutated(cut, sign_response=True)) == "saml_altered"
    assert parties.take(parties.mutated(cut)).name_id == "id-of-ada"  # the recipient is signed


def test_an_expired_assertion_is_refused(parties: Parties) -> None:
    document = parties.respond()
    assert parties.code_of(document, now=datetime.now(UTC) + timedelta(minutes=7)) == "saml_expired"
    assert parties.take(document, now=datetime.now(UTC) + timedelta(minutes=5, seconds=50)).name_id == "id-of-ada"


def test_an_assertion_of_the_future_is_refused(parties: Parties) -> None:
    document = parties.respond()
    assert parties.code_of(document, now=datetime.now(UTC) - timedelta(seconds=70)) == "saml_not_yet_valid"
    assert parties.take(document, now=datetime.now(UTC) - timedelta(seconds=50)).name_id == "id-of-ada"


def test_an_unsolicited_response_is_refused(parties: Parties) -> None:
    def cut(root: Any) -> None:
        del root.attrib["InResponseTo"]

    assert parties.code_of(parties.mutated(cut)) == "saml_unsolicited"


def test_an_unsolicited_assertion_in_a_response_to_a_request_is_refused(parties: Parties) -> None:
    """Genuine, and made for nobody's request: whoever stole it cannot put it under one of their own."""
    document = parties.provider.respond(audience=HUB, acs_url=ACS, request_id="")
    root = etree.fromstring(document)
    root.set("InResponseTo", REQUEST)
    assert parties.code_of(etree.tostring(root)) == "saml_unsolicited"


def test_an_assertion_for_another_request_is_refused(parties: Parties) -> None:
    def move(root: Any) -> None:
        root.set("InResponseTo", "_another-request")

    assert parties.code_of(parties.mutated(move)) == "saml_wrong_request"


def test_another_issuer_is_refused(parties: Parties) -> None:
    assert parties.code_of(parties.respond(), issuer="https://other.test/idp") == "saml_unknown_issuer"


def test_an_issuer_of_the_assertion_alone_is_refused_too(parties: Parties) -> None:
    def cut(root: Any) -> None:
        root.remove(first(root, "saml:Issuer"))

    document = parties.mutated(cut)
    assert parties.take(document).name_id == "id-of-ada"
    assert parties.code_of(document, issuer="https://other.test/idp") == "saml_unknown_issuer"


def test_a_status_other_than_success_is_refused_whatever_comes_with_it(parties: Parties) -> None:
    def fail(root: Any) -> None:
        status = "urn:oasis:names:tc:SAML:2.0:status:Responder"
        first(root, "samlp:Status/samlp:StatusCode").set("Value", status)

    assert parties.code_of(parties.mutated(fail)) == "saml_not_successful"


def test_an_assertion_that_holds_for_others_than_a_bearer_is_refused(parties: Parties) -> None:
    document = parties.respond().replace(b"cm:bearer", b"cm:holder-of-key")
    assert parties.code_of(document) == "saml_altered"


def test_a_transient_name_is_told_as_such(parties: Parties) -> None:
    assert parties.take(parties.respond(name_format=saml.NAMEID_FORMAT_TRANSIENT)).is_transient


# Encryption -----------------------------------------------------------------------------------------------------------


def with_encrypted(parties: Parties, certificate: x509.Certificate | None = None, **said: Any) -> Callable[[Any], None]:
    def encrypt(root: Any) -> None:
        plain = assertion_of(root)
        sealed = encrypted(etree.tostring(plain), certificate or parties.own.key.certificate, **said)
        root.replace(plain, etree.fromstring(sealed))

    return encrypt


@pytest.mark.parametrize("algorithm", ["aes128-gcm", "aes256-gcm"])
@pytest.mark.parametrize("wrapping", ["rsa-oaep-mgf1p", "rsa-oaep"])
def test_an_encrypted_assertion_is_opened(parties: Parties, algorithm: str, wrapping: str) -> None:
    document = parties.mutated(with_encrypted(parties, algorithm=algorithm, wrapping=wrapping))
    assert b"id-of-ada" not in document
    assert parties.take(document).name_id == "id-of-ada"


def test_an_encrypted_assertion_without_a_signature_in_it_is_refused(parties: Parties) -> None:
    """Anybody can encrypt for us."""
    document = parties.mutated(with_encrypted(parties), sign_assertion=False)
    assert parties.code_of(document) == "saml_unsigned"


def test_an_altered_encryption_is_refused(parties: Parties) -> None:
    document = parties.mutated(with_encrypted(parties, spoil=True))
    assert parties.code_of(document) == "saml_undecipherable"


def test_an_assertion_that_is_encrypted_for_somebody_else_is_refused(parties: Parties) -> None:
    document = parties.mutated(with_encrypted(parties, parties.provider.keys.loaded))
    assert parties.code_of(document) == "saml_undecipherable"


@pytest.mark.parametrize("spoil", [False, True])
def test_cbc_is_refused_without_a_signature_around_it_whether_it_opens_or_not(parties: Parties, spoil: bool) -> None:
    """So that no answer tells whether a padding was right."""
    document = parties.mutated(with_encrypted(parties, algorithm="aes256-cbc", spoil=spoil))
    assert parties.code_of(document) == "saml_weak_algorithm"


def test_cbc_is_opened_in_a_response_that_is_signed_around_it(parties: Parties) -> None:
    document = parties.mutated(with_encrypted(parties, algorithm="aes256-cbc"))
    key = parties.provider.keys
    signed = sign(etree.fromstring(document), key.private, key.loaded, at=1)
    assert parties.take(etree.tostring(signed)).name_id == "id-of-ada"


def test_the_older_way_to_wrap_a_key_is_refused(parties: Parties) -> None:
    document = parties.mutated(with_encrypted(parties, wrapping="rsa-1_5"))
    assert parties.code_of(document) == "saml_weak_algorithm"


def test_an_encrypted_response_is_no_assertion(parties: Parties) -> None:
    whole = parties.respond()
    root = etree.fromstring(whole)
    root.replace(assertion_of(root), etree.fromstring(encrypted(whole, parties.own.key.certificate)))
    assert parties.code_of(etree.tostring(root)) == "saml_undecipherable"


def test_an_id_of_a_provider_that_no_index_can_hold_is_refused(parties: Parties) -> None:
    long = replace(parties.provider, entity_id="https://idp.example.org/" + "\u4e2d" * 400)
    with pytest.raises(BadRequest, match="entityID"):
        read_metadata(long.metadata())
