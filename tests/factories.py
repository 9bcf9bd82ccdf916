"""Data for tests by polyfactory: whatever a test does not care about is filled in with something valid.

Values come from one random generator with a fixed beginning, so that a failure can be seen again; names are unique.
"""

from typing import Any
from uuid import uuid4

import msgspec
from polyfactory.factories.msgspec_factory import MsgspecFactory

from app.core.security import Principal
from app.domain.roles.schemas import RoleCreate
from app.domain.service_accounts.schemas import ServiceAccountCreate
from app.domain.users.schemas import UserCreate


class PrincipalFactory(MsgspecFactory[Principal]):
    __random_seed__ = 1


class UserFactory(MsgspecFactory[UserCreate]):
    """People who cannot sign in unless a password is given: hashing one costs more than most tests."""

    __random_seed__ = 1
    password = None
    is_active = True

    @classmethod
    def email(cls) -> str:
        return f"{uuid4().hex}@example.org"

    @classmethod
    def first_name(cls) -> str:
        return cls.__faker__.first_name()

    @classmethod
    def last_name(cls) -> str:
        return cls.__faker__.last_name()


class RoleFactory(MsgspecFactory[RoleCreate]):
    """Roles without permissions and owner."""

    __random_seed__ = 1
    owner_role_id = None
    is_requestable = False
    requires_mfa = False
    permissions: list[str] = []

    @classmethod
    def name(cls) -> str:
        return f"{cls.__faker__.job()} {uuid4().hex}"[:100]

    @classmethod
    def description(cls) -> str:
        return cls.__faker__.sentence()


class ServiceAccountFactory(MsgspecFactory[ServiceAccountCreate]):
    __random_seed__ = 1
    is_active = True
    jwks = None  # whatever is made up is no key

    @classmethod
    def name(cls) -> str:
        return f"{cls.__faker__.word()} {uuid4().hex}"

    @classmethod
    def description(cls) -> str:
        return cls.__faker__.sentence()


def body_of(struct: msgspec.Struct, **given: Any) -> dict[str, Any]:
    """As a client sends it; what is given goes out as it is, valid or not."""
    body: dict[str, Any] = msgspec.to_builtins(struct)
    return body | given
