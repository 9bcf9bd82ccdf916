"""One person, one identity: which spellings of an email address are the same address."""

import unicodedata
from collections.abc import Iterator
from contextlib import suppress

import idna
from sqlalchemy import bindparam

from app.core.errors import BadRequest, Fault
from app.core.lists.filters import Column, Filter
from app.core.lists.parameters import STRING
from app.core.lookalikes import written_alike
from app.core.schemas import folded


def email_key(email: str) -> str:
    """The form under which addresses are compared: case, width, Unicode and IDNA variants are one address."""
    key = folded(email)
    local, at, domain = key.rpartition("@")
    if "xn--" in domain:
        with suppress(UnicodeError):
            key = f"{local}{at}{folded(idna.decode(domain))}"
    return key


def checked_email(email: str, path: str = "email") -> str:
    """The address as it is stored. Raises BadRequest where it is none (RFC 5322, RFC 6531; nothing is looked up)."""
    from email_validator import EmailNotValidError, validate_email  # not above: 20 ms of every start

    try:
        checked = validate_email(
            unicodedata.normalize("NFKC", email.strip()), check_deliverability=False, test_environment=True
        )
    except EmailNotValidError:
        raise BadRequest(errors=[Fault(path, "invalid_email", "is not an email address")]) from None
    return checked.normalized


def is_email(value: str, path: str) -> Iterator[Fault]:
    """Rule: as `checked_email`, and in letters that cannot be taken for another address."""
    try:
        checked_email(value, path)
    except BadRequest as error:
        yield from error.errors
    else:
        yield from written_alike(value, path)


def email_filter(column: Column, *, index: str) -> Filter:
    return Filter(
        where=lambda name: column == bindparam(name, type_=column.type),
        parse=email_key,
        schema=STRING,
        index=index,
        description="This address, in any spelling.",
    )
