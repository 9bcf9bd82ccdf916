"""The table of events: closed, complete, and true of every event that any call announces."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import msgspec
import pytest

import app.domain
from app.core.event_names import EventName
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.event_types import DATA, IdOnly
from app.domain.events.services import event_row

DOMAIN = Path(app.domain.__path__[0])
SEALS = DOMAIN.parents[1] / "db/migrations/versions/0025_seals.py"
NAMES = frozenset(get_args(EventName))


def row(name: Any, subject: str, data: object, **given: Any) -> Any:
    return event_row(name, subject, data, tenant_id=DEFAULT_TENANT_ID, time=datetime.now(UTC), **given)


def test_an_event_that_is_not_in_the_table_is_none() -> None:
    with pytest.raises(KeyError):
        row("role.forgotten", "roles/1", {"id": str(uuid4())})


def test_the_data_of_another_event_is_refused() -> None:
    for data in (IdOnly(uuid4()), None, "text"):
        with pytest.raises(TypeError, match="RoleOut"):
            row("role.created", "roles/1", data)
    with pytest.raises(msgspec.ValidationError):
        row("role.deleted", "roles/1", {"no": "id"})


def test_where_an_event_happens_is_read_off_what_it_is_about() -> None:
    thing, domain = uuid4(), uuid4()
    gone = {"id": str(thing)}
    places = {
        "data_source.deleted": row("data_source.deleted", f"data-sources/{thing}", gone, domain_id=domain),
        "data_domain.deleted": row("data_domain.deleted", f"data-domains/{thing}", gone, domain_id=domain),
        "user.deleted": row("user.deleted", f"users/{thing}", gone),
    }
    assert {name: (each.data_source_id, each.data_domain_id) for name, each in places.items()} == {
        "data_source.deleted": (thing, domain),
        "data_domain.deleted": (None, domain),
        "user.deleted": (None, None),
    }


def test_every_name_in_the_table_is_announced_somewhere() -> None:
    """mypy finds those that are announced and are not in it. Seals are announced by the database."""
    spoken = {text for path in DOMAIN.rglob("*.py") if path.name != "event_types.py" for text in _texts(path)}
    spoken |= set(re.findall(r"'org\.datafusionhub\.([a-z_.]+)'", SEALS.read_text(encoding="utf-8")))
    assert DATA.keys() == NAMES
    assert NAMES - spoken == set()


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[a-z_.]+", node.value):
            yield node.value
