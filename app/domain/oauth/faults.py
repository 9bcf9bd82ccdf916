"""How requests to the token and revocation endpoints end badly, in the words of RFC 6749 section 5.2."""

from uuid import UUID

from app.core.answers import Answer, answer, headers_of, tells_errors_by
from app.core.errors import HubError
from app.core.exchange import Exchange
from app.core.outcomes import outcomes
from app.domain.oauth.schemas import FaultName, OAuthFault, plain

CHALLENGE = b'Basic realm="hub"'


class OAuthRefused(Exception):
    """Said to a client, which reads the name; the sentence is for whoever writes it."""

    def __init__(self, name: FaultName, sentence: str) -> None:
        self.name: FaultName = name
        self.sentence = sentence
        super().__init__(name)

    def answer(self, exchange: Exchange) -> Answer[OAuthFault]:
        """401 for a client that has not shown who it is, with a challenge where it has tried to by the header (RFC 6749
        section 5.2): a client that has sent a form reads the body, and a browser would ask its user for a password."""
        is_unknown = self.name == "invalid_client"
        told = answer(exchange, OAuthFault(self.name, plain(self.sentence)), status=401 if is_unknown else 400)
        if is_unknown and b"authorization" in exchange.headers:
            told.wire_headers.append((b"www-authenticate", CHALLENGE))
        return told


def told(exchange: Exchange, error: HubError) -> Answer[OAuthFault]:
    """What the hub has refused by itself."""
    found = answer(exchange, OAuthFault.telling(error), status=OAuthFault.status_of(error))
    found.wire_headers += headers_of(error)
    return found


TOLD = outcomes(errors_as=OAuthFault) | tells_errors_by(told)
"""For `opt`, of routes whose clients expect that shape."""


class NotShown(Exception):
    """A client has not shown who it is. What is known of it goes on record in its tenant."""

    def __init__(self, tenant_id: UUID | None = None, kind: str = "oauth_client", row_id: UUID | None = None) -> None:
        self.tenant_id, self.kind, self.row_id = tenant_id, kind, row_id
        super().__init__()


def invalid_client() -> OAuthRefused:
    """One sentence for whatever is wrong: nobody learns which clients there are."""
    return OAuthRefused("invalid_client", "The client is unknown, or has not shown who it is.")


def invalid_grant() -> OAuthRefused:
    return OAuthRefused("invalid_grant", "It is not valid, is over, was used, or was given to another client.")
