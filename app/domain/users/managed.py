"""Users that a directory keeps: what is not to be changed elsewhere, and how one is handed over and taken back."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from app.core.errors import Conflict
from app.domain.users.models import User

DIRECTORY: Final = "scim"
KEPT: Final = ("email", "first_name", "last_name", "is_active")
"""What the directory decides. Passwords, roles and sessions stay the hub's own business."""


class Managed(Protocol):
    managed_by: Any


def refuse_managed(row: Managed) -> None:
    """Raises Conflict for a user or group that a directory keeps."""
    if row.managed_by is not None:
        raise Conflict(code="managed_externally")


def refuse_changes_of_managed(user: User, changes: Mapping[str, object]) -> None:
    """Raises Conflict for those that are the directory's, unless the user is taken back with them."""
    is_kept = changes.get("managed_by", user.managed_by) is not None and user.managed_by is not None
    if is_kept and any(name in changes and changes[name] != getattr(user, name) for name in KEPT):
        raise Conflict(code="managed_externally")


def columns_of_hand_over(user: User, changes: Mapping[str, object]) -> dict[str, object]:
    """To the directory, which finds the user by the address as its user name; or back from it, which it is not told.
    Nothing where that is as it was."""
    managed_by = changes.get("managed_by", user.managed_by)
    if managed_by == user.managed_by:
        return {}
    none: dict[str, object] = dict.fromkeys(
        ("external_id", "user_name_key", "display_name_key", "address_keys", "directory")
    )
    if managed_by is None:
        return none | {"managed_by": None}
    kept: dict[str, Any] = {name: changes.get(name, getattr(user, name)) for name in (*KEPT, "email_key")}
    found = {"user_name_key": kept["email_key"], "address_keys": [kept["email_key"]], "directory": _attributes(kept)}
    return none | {"managed_by": managed_by} | found


def _attributes(kept: Mapping[str, Any]) -> dict[str, Any]:
    """As the directory would have written them."""
    name = {"givenName": kept["first_name"], "familyName": kept["last_name"]}
    return {
        "userName": kept["email"],
        "active": kept["is_active"],
        "emails": [{"value": kept["email"], "type": "work", "primary": True}],
    } | ({"name": given} if (given := {part: text for part, text in name.items() if text}) else {})
