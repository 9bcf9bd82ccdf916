"""Authentication requests (SAML Core section 3.4), by HTTP-Redirect or by HTTP-POST (Bindings sections 3.4 and 3.5)."""

import zlib
from base64 import b64encode
from datetime import datetime
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree

from app.core.saml.metadata import IdentityProvider, ServiceProvider
from app.core.saml.names import ASSERTION, PERSISTENT, POST, PROTOCOL, RSA_SHA256, qualified
from app.core.saml.parsing import Element, serialized
from app.core.saml.signatures import sign
from app.core.saml.times import written


def redirect_address(
    own: ServiceProvider, idp: IdentityProvider, *, request_id: str, relay_state: str, now: datetime
) -> str:
    """Where the browser goes, by the redirect binding: it signs the query and not the XML."""
    assert idp.redirect_url is not None
    message = serialized(_request(own, idp, idp.redirect_url, request_id, now))
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = compressor.compress(message) + compressor.flush()
    query = urlencode({"SAMLRequest": b64encode(deflated).decode(), "RelayState": relay_state, "SigAlg": RSA_SHA256})
    signature = own.key.private.sign(query.encode(), padding.PKCS1v15(), hashes.SHA256())
    separator = "&" if urlsplit(idp.redirect_url).query else "?"
    return f"{idp.redirect_url}{separator}{query}&{urlencode({'Signature': b64encode(signature).decode()})}"


def posted_message(own: ServiceProvider, idp: IdentityProvider, *, request_id: str, now: datetime) -> str:
    """The field `SAMLRequest` of the form that the browser sends, by the POST binding."""
    assert idp.post_url is not None
    request = _request(own, idp, idp.post_url, request_id, now)
    return b64encode(serialized(sign(request, own.key.private, own.key.certificate, at=1))).decode()


def _request(own: ServiceProvider, idp: IdentityProvider, destination: str, request_id: str, now: datetime) -> Element:
    request = etree.Element(
        f"{{{PROTOCOL}}}AuthnRequest",
        {
            "ID": request_id,
            "Version": "2.0",
            "IssueInstant": written(now),
            "Destination": destination,
            "ProtocolBinding": POST,
            "AssertionConsumerServiceURL": own.acs_url,
        },
        nsmap={"samlp": PROTOCOL, "saml": ASSERTION},
    )
    etree.SubElement(request, qualified("saml:Issuer")).text = own.entity_id
    wanted = {"Format": PERSISTENT} if idp.knows_persistent else {}
    etree.SubElement(request, qualified("samlp:NameIDPolicy"), {**wanted, "AllowCreate": "true"})
    return request
