"""Responses (SAML Core section 3.3.3, Profiles section 4.1.4): what is asked of one before anything in it is believed.

There is one assertion, directly in the response, and no other anywhere: that alone ends all shapes of wrapping, in
which a reader finds another assertion than the check of the signature has found. It has a signature of its own,
whatever the response has; what is read is what the check of that signature returns.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import Struct

from app.core.errors import BadRequest
from app.core.saml.decryption import decrypted
from app.core.saml.names import BEARER, ENTITY, SUCCESS, TRANSIENT, qualified
from app.core.saml.parsing import Element, everywhere, find, find_all, parse, refuse_comments, text_of
from app.core.saml.signatures import signature_of, what_is_signed
from app.core.saml.times import instant

SKEW: Final = timedelta(seconds=60)
"""By which two clocks may differ."""
MAX_VALUE: Final = 1024
"""Bytes of an id, a NameID or a value of an attribute: an index of the database holds two of them, and not three."""
MAX_VALUES: Final = 2000
"""Of all attributes together."""
_CONDITIONS: Final = frozenset(
    qualified(name) for name in ("saml:AudienceRestriction", "saml:OneTimeUse", "saml:ProxyRestriction")
)


class Expected(Struct, frozen=True, kw_only=True):
    """What the response has to fit."""

    issuer: str
    """The identity provider's id."""
    certificates: tuple[x509.Certificate, ...]
    audience: str
    """Our id."""
    acs_url: str
    key: RSAPrivateKey
    """For encrypted assertions."""
    now: datetime


class Assertion(Struct, frozen=True, kw_only=True):
    """What a genuine assertion says."""

    id: str
    issuer: str
    name_id: str
    is_transient: bool
    """The NameID is another one at the next sign-in."""
    session_index: str | None
    contexts: tuple[str, ...]
    """In which they signed in there."""
    attributes: dict[str, list[str]]
    """By name."""
    expires_at: datetime
    """It is worth nothing after that, skew included."""


class Received(Struct, frozen=True):
    """A response of which nothing is believed yet."""

    root: Element
    in_response_to: str
    issuer: str | None
    status: str
    """The innermost status that it names."""
    is_success: bool

    @property
    def is_refusal(self) -> bool:
        """Nobody has signed in, and nobody is said to have."""
        return not self.is_success and not everywhere(self.root, "saml:Assertion", "saml:EncryptedAssertion")


def decode_form_value(text: str, most_bytes: int) -> bytes:
    """Of the field `SAMLResponse`. Raises BadRequest."""
    joined = "".join(text.split())
    if len(joined) > most_bytes * 4 // 3 + 4:
        raise BadRequest("The response is too long.", code="saml_forbidden_xml")
    try:
        return b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("The response is no base64.", code="saml_malformed") from None


def read_response(document: bytes) -> Received:
    """Raises BadRequest for what is no response to a request."""
    root = parse(document)
    if root.tag != qualified("samlp:Response") or root.get("Version") != "2.0":
        raise BadRequest("This is no response of SAML 2.0.", code="saml_malformed")
    refuse_comments(root)
    _refuse_repeated_ids(root)
    in_response_to = root.get("InResponseTo")
    if not in_response_to:
        raise BadRequest(code="saml_unsolicited")
    codes = [str(each.get("Value")) for each in everywhere(root, "samlp:StatusCode")]
    issuer = find(root, "saml:Issuer")
    return Received(
        root,
        in_response_to,
        None if issuer is None else text_of(issuer),
        codes[-1] if codes else "",
        is_success=codes == [SUCCESS] and find(root, "samlp:Status/samlp:StatusCode") is not None,
    )


def _refuse_repeated_ids(root: Element) -> None:
    """Two elements of one id are the means of all wrapping, whichever attribute a reader takes for it."""
    seen: set[str] = set()
    for element in root.iter("*"):
        for name, value in element.attrib.items():
            if name.rpartition("}")[2].lower() == "id":
                if value in seen:
                    raise BadRequest(code="saml_wrapped")
                seen.add(value)


def verified(received: Received, expected: Expected) -> Assertion:
    """What it says, once all of it holds. Raises BadRequest with the code of what does not."""
    root = received.root
    _refuse_wrapped(root)
    if not received.is_success:
        raise BadRequest(code="saml_not_successful")
    if received.issuer not in (None, expected.issuer):
        raise BadRequest(code="saml_unknown_issuer")
    destination = root.get("Destination")
    if destination is not None and destination != expected.acs_url:
        raise BadRequest(code="saml_wrong_destination")
    is_signed = signature_of(root) is not None
    if is_signed:
        what_is_signed(root, expected.certificates)
        if destination is None:
            raise BadRequest("A signed response has to say where it is sent.", code="saml_wrong_destination")
    assertion = what_is_signed(_only_assertion(root, expected, is_signed=is_signed), expected.certificates)
    return _read(assertion, received.in_response_to, expected)


def _refuse_wrapped(root: Element) -> None:
    assertions = everywhere(root, "saml:Assertion", "saml:EncryptedAssertion")
    if not assertions:
        return
    if len(assertions) > 1 or assertions[0].getparent() is not root:
        raise BadRequest(code="saml_wrapped")
    if len(everywhere(root, "samlp:Response")) > 1:
        raise BadRequest(code="saml_wrapped")
    at_home = (root, assertions[0])
    if any(signature.getparent() not in at_home for signature in everywhere(root, "ds:Signature")):
        raise BadRequest(code="saml_wrapped")


def _only_assertion(root: Element, expected: Expected, *, is_signed: bool) -> Element:
    encrypted = find(root, "saml:EncryptedAssertion")
    if encrypted is None:
        plain = find(root, "saml:Assertion")
        if plain is None:
            raise BadRequest("There is no assertion in the response.", code="saml_malformed")
        return plain
    opened = decrypted(encrypted, expected.key, is_authenticated=is_signed)
    if opened.tag != qualified("saml:Assertion"):
        raise BadRequest(code="saml_undecipherable")
    refuse_comments(opened)
    _refuse_repeated_ids(opened)
    if len(everywhere(opened, "saml:Assertion", "saml:EncryptedAssertion", "samlp:Response")) > 1:
        raise BadRequest(code="saml_wrapped")
    return opened


def _read(assertion: Element, request_id: str, expected: Expected) -> Assertion:
    if assertion.get("Version") != "2.0":
        raise BadRequest("This is no assertion of SAML 2.0.", code="saml_malformed")
    issuer = find(assertion, "saml:Issuer")
    if text_of(issuer) != expected.issuer or (issuer is not None and issuer.get("Format", ENTITY) != ENTITY):
        raise BadRequest(code="saml_unknown_issuer")
    ends = [_confirmed_until(assertion, request_id, expected), *_conditions_until(assertion, expected)]
    statements = find_all(assertion, "saml:AuthnStatement")
    if not statements:
        raise BadRequest("The assertion does not say that anybody has signed in.", code="saml_malformed")
    for statement in statements:
        _refuse_late(statement.get("SessionNotOnOrAfter"), expected.now)
    name = find(assertion, "saml:Subject/saml:NameID")
    if name is None or not text_of(name):
        raise BadRequest(code="saml_no_subject")
    contexts = (find_all(each, "saml:AuthnContext/saml:AuthnContextClassRef") for each in statements)
    return Assertion(
        id=_bounded(assertion.get("ID")),
        issuer=expected.issuer,
        name_id=_bounded(text_of(name)),
        is_transient=name.get("Format") == TRANSIENT,
        session_index=statements[0].get("SessionIndex"),
        contexts=tuple(text_of(each) for found in contexts for each in found),
        attributes=_attributes(assertion),
        expires_at=max(ends) + SKEW,
    )


def _confirmed_until(assertion: Element, request_id: str, expected: Expected) -> datetime:
    """Profiles section 4.1.4.2: one confirmation for a bearer has to hold. Raises BadRequest with what is wrong with
    the last one."""
    refused = BadRequest("The assertion is not for a bearer.", code="saml_no_subject")
    for confirmation in find_all(assertion, "saml:Subject/saml:SubjectConfirmation"):
        data = find(confirmation, "saml:SubjectConfirmationData")
        if confirmation.get("Method") != BEARER or data is None:
            continue
        try:
            return _confirmed(data, request_id, expected)
        except BadRequest as error:
            refused = error
    raise refused


def _confirmed(data: Element, request_id: str, expected: Expected) -> datetime:
    if data.get("Recipient") != expected.acs_url:
        raise BadRequest(code="saml_wrong_recipient")
    if not data.get("InResponseTo"):
        raise BadRequest(code="saml_unsolicited")
    if data.get("InResponseTo") != request_id:
        raise BadRequest(code="saml_wrong_request")
    _refuse_early(data.get("NotBefore"), expected.now)
    until = _refuse_late(data.get("NotOnOrAfter"), expected.now)
    if until is None:
        raise BadRequest("The assertion does not say how long it is good for.", code="saml_malformed")
    return until


def _conditions_until(assertion: Element, expected: Expected) -> Iterator[datetime]:
    found = find_all(assertion, "saml:Conditions")
    if len(found) != 1:
        raise BadRequest(code="saml_wrong_audience")
    conditions = found[0]
    if any(each.tag not in _CONDITIONS for each in conditions):
        raise BadRequest("The assertion has a condition that is not known.", code="saml_malformed")
    _refuse_early(conditions.get("NotBefore"), expected.now)
    until = _refuse_late(conditions.get("NotOnOrAfter"), expected.now)
    restrictions = find_all(conditions, "saml:AudienceRestriction")
    audiences = [{text_of(each) for each in find_all(one, "saml:Audience")} for one in restrictions]
    if not audiences or any(expected.audience not in among for among in audiences):
        raise BadRequest(code="saml_wrong_audience")
    if until is not None:
        yield until


def _refuse_early(text: str | None, now: datetime) -> None:
    if text is not None and _instant(text) > now + SKEW:
        raise BadRequest(code="saml_not_yet_valid")


def _refuse_late(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    until = _instant(text)
    if until + SKEW <= now:
        raise BadRequest(code="saml_expired")
    return until


def _instant(text: str) -> datetime:
    try:
        return instant(text)
    except (ValueError, OverflowError):
        raise BadRequest("A time in the assertion is none.", code="saml_malformed") from None


def _attributes(assertion: Element) -> dict[str, list[str]]:
    """By name, and by the friendly name where no other attribute is called so. Values that hold elements are left
    out: they are no texts."""
    named: dict[str, list[str]] = {}
    friendly: dict[str, list[str]] = {}
    count = 0
    for attribute in find_all(assertion, "saml:AttributeStatement/saml:Attribute"):
        values = [text_of(each) for each in find_all(attribute, "saml:AttributeValue") if not len(each)]
        count += len(values)
        if count > MAX_VALUES or any(len(value.encode()) > MAX_VALUE for value in values):
            raise BadRequest(
                "The assertion has more attributes, or longer ones, than are taken.", code="saml_malformed"
            )
        named.setdefault(attribute.get("Name") or "", []).extend(values)
        if attribute.get("FriendlyName"):
            friendly.setdefault(attribute.get("FriendlyName"), []).extend(values)
    return {**friendly, **named}


def _bounded(text: str) -> str:
    if len(text.encode()) > MAX_VALUE or not text.isprintable():
        raise BadRequest("An id or a name in the assertion is too long, or cannot be printed.", code="saml_malformed")
    return text
