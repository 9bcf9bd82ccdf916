"""How users and groups look in SCIM."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from app.core.schemas import tag_with
from app.domain.scim.conditional import written_tag
from app.domain.scim.definitions import CORE_GROUP, CORE_USER, ENTERPRISE
from app.domain.scim.documents import Document


class GroupRef(NamedTuple):
    id: UUID
    name: str


class Shown(Protocol):
    @property
    def id(self) -> Any: ...
    @property
    def created_at(self) -> Any: ...
    @property
    def updated_at(self) -> Any: ...
    @property
    def version(self) -> Any: ...


class ShownUser(Shown, Protocol):
    @property
    def is_active(self) -> Any: ...
    @property
    def directory(self) -> Any: ...


class ShownGroup(Shown, Protocol):
    @property
    def name(self) -> Any: ...
    @property
    def external_id(self) -> Any: ...


def tag_of_user(user: ShownUser, groups: Sequence[GroupRef]) -> str:
    """With a hash of the groups, which come and go without a change of the user."""
    return tag_with(user.version, [(group.id, group.name) for group in groups])


def tag_of_group(group: ShownGroup) -> str:
    return f"v{group.version}"


def user_resource(base: str, user: ShownUser, groups: Sequence[GroupRef]) -> Document:
    """`base` is where clients find `/scim/v2`."""
    document = dict(user.directory or {})
    schemas = [CORE_USER, *([ENTERPRISE] if ENTERPRISE in document else [])]
    found: Document = {"schemas": schemas, "id": str(user.id)} | document
    if "active" in found:
        found["active"] = user.is_active
    if groups:
        found["groups"] = [
            {"value": str(group.id), "$ref": f"{base}/Groups/{group.id}", "display": group.name, "type": "direct"}
            for group in groups
        ]
    return found | {"meta": _meta("User", user, f"{base}/Users/{user.id}", tag_of_user(user, groups))}


def group_resource(base: str, group: ShownGroup, members: Sequence[UUID] | None) -> Document:
    """Without members where those are not looked up."""
    found: Document = {"schemas": [CORE_GROUP], "id": str(group.id), "displayName": group.name}
    if group.external_id is not None:
        found["externalId"] = group.external_id
    if members:
        found["members"] = [
            {"value": (text := str(each)), "$ref": f"{base}/Users/{text}", "type": "User"} for each in members
        ]
    return found | {"meta": _meta("Group", group, f"{base}/Groups/{group.id}", tag_of_group(group))}


def _meta(kind: str, row: Shown, location: str, tag: str) -> Document:
    return {
        "resourceType": kind,
        "created": _moment(row.created_at),
        "lastModified": _moment(row.updated_at),
        "location": location,
        "version": written_tag(tag),
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
