"""The text of a letter: a file for each kind and form, in which names stand for values, and every value is escaped.

No value comes from whom nobody knows: what somebody has registered as their name would be sent to strangers.
"""

from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, parseaddr
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import idna

from app.domain.letters.links import page_at
from app.domain.letters.models import Letter
from app.settings import Settings

TEXTS = Path(__file__).parent / "texts"
_SUBJECT = "Subject: "


NAME_OF_FIRST: Final = "Default"
"""What the first tenant is called until somebody renames it: nobody who gets a letter knows it by that."""
PRODUCT: Final = "Data Fusion Hub"


class Text(NamedTuple):
    subject: Template
    plain: Template
    html: Template


@cache
def text_of(kind: str) -> Text:
    subject, _, plain = (TEXTS / f"{kind}.txt").read_text(encoding="utf-8").partition("\n\n")
    html = (TEXTS / f"{kind}.html").read_text(encoding="utf-8")
    return Text(Template(subject.removeprefix(_SUBJECT)), Template(plain), Template(html))


def message_of(letter: Letter, settings: Settings, *, organisation: str, link: str | None) -> EmailMessage:
    """The same for each attempt, `Message-ID` included: a server that has it already may tell."""
    forgotten = page_at(settings, "forgotten")
    values = {"address": letter.email, "organisation": organisation, "forgotten": forgotten, "link": link or ""}
    values = {name: _in_one_line(str(value)) for name, value in {**values, **letter.words}.items()}
    text, recipient = text_of(letter.kind), envelope_address(letter.email)
    message = EmailMessage(policy=SMTP if recipient.isascii() else SMTPUTF8)
    message["From"] = _sender(settings)
    local, _, domain = recipient.rpartition("@")
    message["To"] = Address(username=local, domain=domain)
    message["Subject"] = text.subject.substitute(values)
    message["Date"] = format_datetime(letter.created_at)
    message["Message-ID"] = f"<{letter.id}@{host_of(settings)}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's vacation answers it
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(text.plain.substitute(values))
    message.add_alternative(text.html.substitute(_escaped(values)), subtype="html")
    return message


def known_as(organisation: str | None) -> str:
    """What letters call the tenant of this name."""
    return PRODUCT if organisation is None or organisation == NAME_OF_FIRST else organisation


def _in_one_line(value: str) -> str:
    """Nothing that is filled in begins a line of its own, be it of the header or of the text."""
    return " ".join("".join(each if each.isprintable() else " " for each in value).split())


def _escaped(values: Mapping[str, str]) -> dict[str, str]:
    return {name: escape(value, quote=True) for name, value in values.items()}


def _sender(settings: Settings) -> Address:
    name, address = parseaddr(settings.smtp_from or "")
    return Address(display_name=name, addr_spec=address)


def envelope_sender(settings: Settings) -> str:
    return _sender(settings).addr_spec


def envelope_address(email: str) -> str:
    """With its domain as DNS has it: only what stands before the @ may need a server that takes Unicode (RFC 6531)."""
    local, _, domain = email.rpartition("@")
    try:
        return f"{local}@{idna.encode(domain).decode()}"
    except idna.IDNAError:
        return email


def host_of(settings: Settings) -> str:
    return urlsplit(settings.url).hostname or "localhost"
