"""How what a directory says is made into what is compared."""

from app.core.schemas import canonical_name, folded
from app.domain.users.identity import email_key

MAX_KEY = 1000
"""Characters of a name that are compared: PostgreSQL's indexes take no longer rows."""


def user_name_key(name: str) -> str:
    """Of a user name that is an address, as addresses are compared."""
    return email_key(name)


def address_key(address: str) -> str:
    return email_key(address)


def display_key(name: str) -> str:
    return folded(name)[:MAX_KEY]


def group_key(name: str) -> str:
    return canonical_name(name)
