"""Handing a letter to an SMTP server: by TLS, signed in, and what is known of it where that fails."""

import asyncio
from email.message import EmailMessage
from typing import Any

import pytest

from app.core import mail
from app.core.mail import MailNotTaken, SmtpServer, send_mail, try_server
from tests.connectors.servers.certificates import Authority, authority
from tests.mail_servers import MailServer, drips, hangs_up, keeps_silent, serving, taking_mail
from tests.started import packages_of_a_start

pytestmark = pytest.mark.anyio

LOGIN = ("hub", "p@ss/word")
USER = "hub:p%40ss%2Fword@"
ADA = "ada@example.org"
HERE = "127.0.0.1"


def letter(**headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "hub@example.org", ADA, "Hello"
    message.set_content("Hello")
    for name, value in headers.items():
        message[name] = value
    return message


async def send(server: SmtpServer, recipient: str = ADA) -> None:
    await send_mail(server, letter(), sender="hub@example.org", recipient=recipient, name="hub.test")


async def failure(server: SmtpServer) -> MailNotTaken:
    with pytest.raises(MailNotTaken) as caught:
        await send(server)
    assert ADA not in str(caught.value)
    assert LOGIN[1] not in str(caught.value)
    return caught.value


def server_at(server: MailServer, *, user: str = "", tls: str = "none", scheme: str = "smtp") -> SmtpServer:
    query = f"?tls={tls}" if scheme == "smtp" else ""
    return SmtpServer.parse(f"{scheme}://{user}127.0.0.1:{server.port}{query}", str(server.ca_file))


async def test_a_letter_is_taken_over_starttls_by_who_is_signed_in() -> None:
    async with taking_mail(tls=authority().server_context(HERE), login=LOGIN) as server:
        await send(server_at(server, user=USER, tls="starttls"))
    (taken,) = server.taken
    assert (taken.sender, taken.recipient, taken.user) == ("hub@example.org", ADA, "hub")
    assert taken.is_over_tls


async def test_a_letter_is_taken_over_tls_from_the_first_byte() -> None:
    async with taking_mail(tls=authority().server_context(HERE), is_implicit=True) as server:
        await send(server_at(server, scheme="smtps"))
    assert len(server.taken) == 1


async def test_this_machine_is_dialled_without_tls() -> None:
    async with taking_mail() as server:
        await send(SmtpServer.parse(f"smtp://127.0.0.1:{server.port}"))
    assert [taken.is_over_tls for taken in server.taken] == [False]


async def test_nothing_goes_to_a_server_without_starttls() -> None:
    """A man in the middle who takes the offer away gets nothing, neither letter nor password."""
    async with taking_mail(login=LOGIN) as server:
        reason = await failure(server_at(server, user=USER, tls="starttls"))
    assert (reason.failure, reason.is_for_good, server.taken) == ("tls_failed", False, [])


@pytest.mark.parametrize(
    ("signed_by", "host"),
    [(Authority("Somebody else"), HERE), (authority(), "other.example.org")],
    ids=["of another authority", "of another host"],
)
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_wrong_certificate_gets_nothing(signed_by: Authority, host: str, scheme: str) -> None:
    async with taking_mail(tls=signed_by.server_context(host), is_implicit=scheme == "smtps") as server:
        reason = await failure(server_at(server, tls="starttls", scheme=scheme))
    assert (reason.failure, reason.is_for_good, server.taken) == ("tls_failed", False, [])
    assert "HUB_SMTP_CA_FILE" in str(reason)


async def test_tls_with_a_port_that_has_none_is_told_as_such() -> None:
    async with taking_mail() as server:
        reason = await failure(server_at(server, scheme="smtps"))
    assert reason.failure == "tls_failed"


async def test_a_wrong_password_is_no_fault_of_the_letter() -> None:
    async with taking_mail(tls=authority().server_context(HERE), login=LOGIN) as server:
        reason = await failure(server_at(server, user="hub:wrong@", tls="starttls"))
    assert (reason.failure, reason.is_for_good) == ("authentication_failed", False)


@pytest.mark.parametrize(
    ("answers", "after_data", "expected"),
    [
        (["450 4.7.1 greylisted, ada@example.org"], [], ("deferred", False)),
        (["550 5.1.1 no such mailbox: ada@example.org"], [], ("refused", True)),
        ([], ["451 4.3.0 later"], ("deferred", False)),
        ([], ["554 5.7.1 spam"], ("refused", True)),
    ],
)
async def test_what_the_server_answers_says_whether_it_is_worth_another_try(
    answers: list[str], after_data: list[str], expected: tuple[str, bool]
) -> None:
    async with taking_mail(server=MailServer(answers=answers, after_data=after_data)) as server:
        reason = await failure(server_at(server))
    assert (reason.failure, reason.is_for_good) == expected


async def test_a_server_that_is_killed_before_its_last_word_may_have_the_letter() -> None:
    async with taking_mail(server=MailServer(hangs_up_after=1)) as server:
        reason = await failure(server_at(server))
    assert (reason.failure, reason.is_for_good, len(server.taken)) == ("disconnected", False, 1)


async def test_a_server_that_is_away_is_unreachable() -> None:
    async with taking_mail() as server:
        pass
    assert (await failure(server_at(server))).failure == "unreachable"


@pytest.mark.parametrize("behave", [keeps_silent, drips], ids=["silent", "dripping"])
async def test_a_server_that_hangs_is_left_at_the_deadline(behave: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "DEADLINE_S", 0.3)
    async with serving(behave) as port, asyncio.timeout(5):
        reason = await failure(SmtpServer.parse(f"smtp://127.0.0.1:{port}"))
    assert (reason.failure, reason.is_for_good) == ("timeout", False)


async def test_a_server_that_hangs_up_at_once_is_tried_again() -> None:
    async with serving(hangs_up) as port:
        reason = await failure(SmtpServer.parse(f"smtp://127.0.0.1:{port}"))
    assert (reason.failure, reason.is_for_good) in (("disconnected", False), ("unreachable", False))


async def test_a_server_is_tried_without_sending_anything() -> None:
    async with taking_mail(tls=authority().server_context(HERE), login=LOGIN) as server:
        await try_server(server_at(server, user=USER, tls="starttls"), "hub.test")
        with pytest.raises(MailNotTaken, match="user and password"):
            await try_server(server_at(server, user="hub:wrong@", tls="starttls"), "hub.test")
    assert server.taken == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", ("mail.example.org", 587, "starttls")),
        ("smtps://mail.example.org", ("mail.example.org", 465, "implicit")),
        ("smtp://localhost:25", ("localhost", 25, "none")),
        ("smtp://[::1]:25", ("::1", 25, "none")),
        ("smtp://127.0.0.1?tls=starttls", ("127.0.0.1", 587, "starttls")),
        ("smtp://mail.example.org?tls=none", ("mail.example.org", 587, "none")),
    ],
)
def test_the_url_says_where_and_how(url: str, expected: tuple[str, int, str]) -> None:
    parsed = SmtpServer.parse(url)
    assert (parsed.host, parsed.port, parsed.tls) == expected
    assert parsed.is_exposed == (url == "smtp://mail.example.org?tls=none")


@pytest.mark.parametrize(
    "url",
    [
        *("http://mail.example.org", "smtp://", "smtp://h:0", "smtp://h:99999", "smtp://h/x", "smtp://h?tls=maybe"),
        *("smtps://h?tls=none", "smtp://h?verify=no", "smtp://h#x", "mail.example.org:25"),
    ],
)
def test_what_says_neither_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SmtpServer.parse(url)


def test_the_library_is_imported_with_the_first_letter() -> None:
    """By nothing that a server or a worker imports when it starts."""
    assert "aiosmtplib" not in packages_of_a_start()
