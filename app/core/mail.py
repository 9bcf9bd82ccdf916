"""One way out for mail: a letter is handed to the operator's SMTP server, or it is known why not (RFC 5321).

The server is a setting of the operator's, like the broker, so that the egress policy has no say in it. It is dialled
for each letter anew: there are few, and a connection that is kept may be dead when the next one comes.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from app.core.loopback import is_loopback

if TYPE_CHECKING:
    from aiosmtplib import SMTP

DEADLINE_S = 30.0
"""For a letter, from the first packet to the server's last word."""
STEP_S = 15.0
"""For one answer of the server's."""

Tls = Literal["implicit", "starttls", "none"]
MailFailure = Literal[
    "authentication_failed", "deferred", "disconnected", "refused", "timeout", "tls_failed", "unreachable"
]


class MailNotTaken(Exception):
    """The server has not said that it takes the letter. The text says why, and holds nothing of the letter."""

    def __init__(self, failure: MailFailure, sentence: str, *, is_for_good: bool = False) -> None:
        """`is_for_good`: the server will say the same of this letter whenever it is asked."""
        super().__init__(sentence)
        self.failure = failure
        self.is_for_good = is_for_good


class SmtpServer(Struct, frozen=True):
    host: str
    port: int
    user: str | None
    password: str | None
    tls: Tls
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str, ca_file: str | None = None) -> "SmtpServer":
        """Of `smtp://user:password@host:587` or `smtps://...:465`. `smtp` begins TLS by STARTTLS, and sends nothing to
        a server that has none; to this machine it goes without, unless `?tls=starttls` says otherwise. `?tls=none` goes
        without it anywhere. Raises ValueError."""
        parts = urlsplit(url)
        asked = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        is_fit = parts.scheme in ("smtp", "smtps") and parts.hostname and parts.path in ("", "/") and not parts.fragment
        if not is_fit or parts.port == 0 or not set(asked) <= {"tls"}:
            raise ValueError("smtp://user:password@host:587 or smtps://user:password@host:465 is wanted")
        host = str(parts.hostname)
        tls = _tls_of(parts.scheme, host, asked.get("tls"))
        user = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        return cls(host, parts.port or (465 if tls == "implicit" else 587), user, password, tls, ca_file)

    @property
    def is_exposed(self) -> bool:
        """Whether letters, and the password, go over a network as they are."""
        return self.tls == "none" and not is_loopback(self.host)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _tls_of(scheme: str, host: str, asked: list[str] | None) -> Tls:
    if scheme == "smtps":
        if asked is not None:
            raise ValueError("`tls` is for smtp://; smtps:// is TLS from the first byte")
        return "implicit"
    if asked is None:
        return "none" if is_loopback(host) else "starttls"
    if asked == ["none"]:
        return "none"
    if asked == ["starttls"]:
        return "starttls"
    raise ValueError("`tls` is `starttls` or `none`")


async def send_mail(server: SmtpServer, message: EmailMessage, *, sender: str, recipient: str, name: str) -> None:
    """Returns once the server has taken it. `name` is how the hub calls itself (EHLO). Raises MailNotTaken.

    Where the connection is lost after the letter and before the answer, the letter may have been taken or not: it is
    sent again, with the same `Message-ID`.
    """
    async with _signed_in(server, name) as client:
        await client.send_message(message, sender=sender, recipients=[recipient])


async def try_server(server: SmtpServer, name: str) -> None:
    """As far as to the sign-in. Raises MailNotTaken."""
    async with _signed_in(server, name):
        pass


@asynccontextmanager
async def _signed_in(server: SmtpServer, name: str) -> AsyncIterator["SMTP"]:
    """A connection for one letter, closed at the end of the block. Raises MailNotTaken, for what the block raises of
    the server's too."""
    from aiosmtplib import SMTP, SMTPException

    try:
        async with asyncio.timeout(DEADLINE_S):
            client = SMTP(
                hostname=server.host,
                port=server.port,
                use_tls=server.tls == "implicit",
                start_tls=False,
                tls_context=_context(server) if server.tls != "none" else None,
                local_hostname=name,
                timeout=STEP_S,
            )
            try:
                await client.connect()
                if server.tls == "starttls":
                    await _begin_tls(client, server)
                if server.user is not None:
                    await client.login(server.user, server.password or "")
                yield client
            finally:
                client.close()
    except (SMTPException, OSError) as error:  # TimeoutError and ssl.SSLError are OSErrors
        raise _explained(server, error) from None


async def _begin_tls(client: "SMTP", server: SmtpServer) -> None:
    """By the context that the client has. Raises MailNotTaken."""
    await client.ehlo()
    if not client.supports_extension("starttls"):
        sentence = f"{server} offers no STARTTLS, and letters do not go out without TLS"
        raise MailNotTaken("tls_failed", sentence)
    await client.starttls()


def _context(server: SmtpServer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=server.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _explained(server: SmtpServer, error: BaseException) -> MailNotTaken:
    """What the server itself says is told by its number alone: it may repeat addresses, or what it was sent."""
    import aiosmtplib

    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            sentence = f"the certificate of {server} is not valid: {cause.verify_message}; HUB_SMTP_CA_FILE names the "
            return MailNotTaken("tls_failed", sentence + "authority that signed it")
        if isinstance(cause, ssl.SSLError):
            return MailNotTaken("tls_failed", f"TLS with {server} fails; is it a port for that?")
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return MailNotTaken("authentication_failed", f"{server} does not accept user and password ({error.code})")
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return _refused(server, error.recipients[0].code)
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return MailNotTaken("refused", f"{server} does not take addresses of that kind", is_for_good=True)
    if isinstance(error, aiosmtplib.SMTPConnectResponseError):
        return MailNotTaken("deferred", f"{server} takes nobody now ({error.code})")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return _refused(server, error.code)
    if isinstance(error, TimeoutError):
        return MailNotTaken("timeout", f"{server} does not answer in time")
    if isinstance(error, aiosmtplib.SMTPServerDisconnected):
        return MailNotTaken("disconnected", f"{server} hung up")
    if isinstance(error, OSError):
        return MailNotTaken("unreachable", f"{server} cannot be reached")
    return MailNotTaken("authentication_failed", f"{server} lets nobody sign in in a way that the hub knows")


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _refused(server: SmtpServer, code: int) -> MailNotTaken:
    if 500 <= code < 600:
        return MailNotTaken("refused", f"{server} refuses the letter ({code})", is_for_good=True)
    return MailNotTaken("deferred", f"{server} asks for patience ({code})")
