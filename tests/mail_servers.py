"""Mail servers on loopback, in the loop of the test: aiosmtpd, which keeps what it takes, and some that misbehave."""

import asyncio
import email
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.connectors.servers.certificates import authority

LINK = re.compile(r"http\S+/sign-in/(\w+)\?token=([A-Za-z0-9_-]+)")


@dataclass
class Taken:
    sender: str
    recipient: str
    message: EmailMessage
    is_over_tls: bool
    user: str | None

    @property
    def plain(self) -> str:
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content())

    @property
    def html(self) -> str:
        part = self.message.get_body(("html",))
        assert part is not None
        return str(part.get_content())

    @property
    def token(self) -> str:
        found = LINK.search(self.plain)
        assert found, self.plain
        return found[2]


@dataclass
class MailServer:
    port: int = 0
    ca_file: Path | None = None
    taken: list[Taken] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """To the next recipients, in place of `250 OK`."""
    after_data: list[str] = field(default_factory=list)
    """To the next letters, in place of `250 OK`: they are not taken."""
    hangs_up_after: int = 0
    """So many letters are taken, and never confirmed."""

    def url(self, *, user: str = "", tls: str = "none") -> str:
        return f"smtp://{user}127.0.0.1:{self.port}?tls={tls}"

    def to(self, address: str) -> list[Taken]:
        return [each for each in self.taken if each.recipient == address]

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.answers:
            return self.answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.after_data:
            return self.after_data.pop(0)
        content = envelope.original_content or b""
        message = email.message_from_bytes(content, policy=SMTPUTF8)
        assert isinstance(message, EmailMessage)
        user = session.auth_data.login.decode() if session.auth_data else None
        is_over_tls = session.ssl is not None
        self.taken += [Taken(str(envelope.mail_from), to, message, is_over_tls, user) for to in envelope.rcpt_tos]
        if self.hangs_up_after:
            self.hangs_up_after -= 1
            assert server.transport is not None
            server.transport.abort()  # type: ignore[attr-defined]  # it is a socket's
        return "250 OK"


def knows(user: str, password: str) -> Callable[..., AuthResult]:
    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        fits = isinstance(given, LoginPassword) and (given.login, given.password) == (user.encode(), password.encode())
        return AuthResult(success=fits, handled=fits, auth_data=given if fits else None)

    return check


@asynccontextmanager
async def taking_mail(
    *,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    is_implicit: bool = False,
    login: tuple[str, str] | None = None,
    server: MailServer | None = None,
) -> AsyncIterator[MailServer]:
    server = server or MailServer()
    options: dict[str, Any] = {"hostname": "mail.test", "enable_SMTPUTF8": True, "loop": asyncio.get_running_loop()}
    if tls is not None and not is_implicit:
        options |= {"tls_context": tls, "require_starttls": True}
    if login is not None:
        options |= {"authenticator": knows(*login), "auth_required": True, "auth_require_tls": tls is not None}
    with tempfile.TemporaryDirectory() as folder:
        server.ca_file = Path(folder) / "authority.pem"
        server.ca_file.write_bytes(authority().pem)
        listening = await asyncio.get_running_loop().create_server(
            lambda: SMTP(server, **options), "127.0.0.1", port, ssl=tls if is_implicit else None
        )
        server.port = listening.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            listening.close()


Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(behave: Serving) -> AsyncIterator[int]:
    """The port of a server that does what a test wants of it."""
    listening = await asyncio.start_server(behave, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def keeps_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting that goes on and on."""
    while not reader.at_eof():
        try:
            writer.write(b"220-wait\r\n")
            await writer.drain()
        except OSError:
            return
        await asyncio.sleep(0.02)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
