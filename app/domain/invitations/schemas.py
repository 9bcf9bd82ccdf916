"""Invitations on the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta

from app.core.lookalikes import written_alike
from app.core.schemas import EntityOut, Input, Rule, tag_with
from app.domain.letters.schemas import LetterStatus, LinkToken
from app.domain.users.schemas import RULES, Email, Password, PersonName

NAMES: Mapping[str, Rule] = {"first_name": written_alike, "last_name": written_alike}


class InvitationOut(EntityOut):
    email: str
    first_name: str
    last_name: str
    role_ids: list[UUID]
    expires_at: datetime
    letter: LetterStatus | None
    """How the newest letter gets on; `shown` where the hub sends no mail."""

    def entity_tag(self) -> str:
        return tag_with(self.version, self.letter)


class InvitationSent(InvitationOut):
    link: str | None
    """Where the hub sends no mail: give it to whoever is invited. Shown now and never again; else null."""


class InvitationCreate(Input):
    rules = RULES

    email: Email
    role_ids: Annotated[list[UUID], Meta(max_length=50)] = []
    """Whose permissions one holds oneself; everyone holds the role `public`."""
    first_name: PersonName = ""
    last_name: PersonName = ""


class AcceptInvitation(Input):
    rules = NAMES

    token: LinkToken
    password: Password
    first_name: PersonName | None = None
    """Null: as the invitation has it."""
    last_name: PersonName | None = None
