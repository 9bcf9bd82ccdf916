"""Rows from what somebody said: no column is forgotten without a word, and new and changed rows follow one rule."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from msgspec import UNSET, UnsetType
from sqlalchemy.orm import DeclarativeBase

from app.core.rows import ForgottenColumn, Normaliser, complete, in_json, inserted_columns, refuse_gaps, values_of_row
from app.core.schemas import Input, Output, patch_of
from app.domain.models import TABLES
from app.domain.roles.models import Role
from app.domain.sources.columns import COLUMNS as SOURCES
from app.domain.sources.models import DataSource
from app.domain.sources.schemas import DataSourceBase, DataSourceOut, DataSourcePatch
from app.domain.tenants.models import DEFAULT_TENANT_ID
from tests.conftest import Hub

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Taken(Input, kw_only=True):
    name: str
    tags: list[str] = []
    description: str | None = None
    is_paused: bool = False


TakenPatch: Any = patch_of(Taken, "TakenPatch", "A patch.")


class Shown(Output):
    name: str
    tags: list[str]
    description: str | None
    is_paused: bool


def stamp() -> dict[str, Any]:
    return {
        "tenant_id": DEFAULT_TENANT_ID,
        "created_at": NOW,
        "updated_at": NOW,
        "created_by": None,
        "updated_by": None,
    }


def needed_by(model: type[DeclarativeBase]) -> list[str]:
    with pytest.raises(ForgottenColumn) as caught:
        refuse_gaps(model())
    return str(caught.value).partition("says nothing of ")[2].rstrip(".").split(", ")


# --- what is inserted ---


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_a_column_of_any_table_that_is_left_out_is_named(model: type[DeclarativeBase]) -> None:
    needed = needed_by(model)
    assert ("tenant_id" in needed) == ("tenant_id" in model.__table__.columns)
    for forgotten in needed:
        row = model(**dict.fromkeys(set(needed) - {forgotten}, NOW))
        with pytest.raises(ForgottenColumn, match=rf"A new {model.__name__} says nothing of {forgotten}\."):
            refuse_gaps(row)
    refuse_gaps(model(**dict.fromkeys(needed, NOW)))


async def test_the_session_refuses_the_gap_before_anything_is_sent(hub: Hub) -> None:
    async with hub.parts.sessions(DEFAULT_TENANT_ID) as session:
        session.add(Role(**stamp(), name="a", name_key="a", permissions=[], owner_role_id=None))
        with pytest.raises(ForgottenColumn, match="A new Role says nothing of description"):
            await session.flush()


def said_of_a_role() -> dict[str, Any]:
    return {**stamp(), "name": "a", "name_key": "a", "description": None, "permissions": [], "owner_role_id": None}


def test_defaults_fill_what_may_be_left_out() -> None:
    columns = complete(Role, said_of_a_role() | {"id": uuid4()})
    assert (columns["version"], columns["is_system"]) == (1, False)
    assert set(columns) == set(inserted_columns(Role)) == set(Role.__mapper__.column_attrs.keys())


def test_a_row_gets_the_defaults_that_are_stored() -> None:
    role = Role(id=uuid4(), **said_of_a_role())
    values = values_of_row(role)
    assert (role.version, role.is_system) == (1, False)
    assert values == {name: getattr(role, name) for name in inserted_columns(Role)}


def test_ids_are_made_where_none_is_given() -> None:
    assert UUID(str(complete(Role, said_of_a_role())["id"])).version == 7


def test_what_is_no_column_is_named() -> None:
    with pytest.raises(ForgottenColumn, match=r"A new Role has no colour, shape\."):
        complete(Role, said_of_a_role() | {"colour": "red", "shape": None})


def test_bytes_are_said_as_postgresql_reads_them() -> None:
    assert in_json({"fingerprint": b"\x00\xff", "name": "a"}) == {"fingerprint": "\\x00ff", "name": "a"}


# --- from a request to columns ---


def test_a_field_that_the_model_lacks_stops_the_import_and_is_named() -> None:
    class More(Taken, kw_only=True):
        colour: str = "red"

    with pytest.raises(ForgottenColumn, match=r"More\.colour is no column of DataSource"):
        Normaliser(More, patch_of(More, "P", ""), DataSource, Shown)
    Normaliser(More, patch_of(More, "P", ""), DataSource, Shown, apart={"colour": "kept elsewhere"})


def test_a_field_that_is_never_shown_stops_the_import_and_is_named() -> None:
    class Less(Output):
        name: str
        tags: list[str]
        is_paused: bool

    with pytest.raises(ForgottenColumn, match=r"Taken\.description is taken, and Less does not show it"):
        Normaliser(Taken, TakenPatch, DataSource, Less)


def test_a_field_that_only_a_patch_has_stops_the_import_and_is_named() -> None:
    more = patch_of(Taken, "MorePatch", "A patch.", colour=str)
    with pytest.raises(ForgottenColumn, match=r"MorePatch has colour, and Taken has not"):
        Normaliser(Taken, more, DataSource, Shown)
    with pytest.raises(ForgottenColumn, match=r"Taken has description, and Less has not"):

        class Less(Input, kw_only=True):
            name: str | UnsetType = UNSET
            tags: list[str] | UnsetType = UNSET
            is_paused: bool | UnsetType = UNSET

        Normaliser(Taken, Less, DataSource, Shown)


def test_new_and_changed_rows_get_their_columns_by_one_rule() -> None:
    normaliser = Normaliser(
        Taken, TakenPatch, DataSource, Shown, rules={"name": lambda name: {"name": name.strip(), "name_key": "k"}}
    )
    new = normaliser.columns_of_new(Taken(name=" a ", tags=["x"]))
    assert new == {"name": "a", "name_key": "k", "tags": ["x"], "description": None, "is_paused": False}
    assert normaliser.columns_of_changes(TakenPatch(name=" a ", tags=["x"])) == {
        "name": "a",
        "name_key": "k",
        "tags": ["x"],
    }
    assert normaliser.columns_of_changes(TakenPatch()) == {}


def test_null_in_a_patch_is_the_default_of_the_field() -> None:
    normaliser = Normaliser(Taken, TakenPatch, DataSource, Shown)
    cleared = msgspec.convert({"tags": None, "description": None, "is_paused": None}, TakenPatch)
    assert normaliser.columns_of_changes(cleared) == {"tags": [], "description": None, "is_paused": False}
    with pytest.raises(msgspec.ValidationError, match="name"):
        msgspec.convert({"name": None}, TakenPatch)


# --- sources ---


def test_a_patch_of_a_source_takes_what_its_registration_takes() -> None:
    further = {"config", "secrets"}
    assert set(DataSourcePatch.__struct_fields__) == set(DataSourceBase.__struct_fields__) | further
    for field in msgspec.structs.fields(DataSourcePatch):
        assert field.default is UNSET
        assert UnsetType in getattr(field.type, "__args__", ())


def test_every_column_of_a_source_that_is_shown_can_be_set_or_is_the_hubs_own() -> None:
    """A field that was added to the answer and is never written would be shown as null for good."""
    own = {"id", "created_at", "updated_at", "created_by", "updated_by", "version"}  # `UnitOfWork.stamp`, `touch`
    own |= {"type", "category", "config", "secrets"}  # by the type, and by their own tables
    own |= {"status", "status_since", "last_tested_at"}  # by tests
    own |= {"next_discovery_at"}  # by the schedule
    assert set(DataSourceOut.__struct_fields__) - set(SOURCES.fields) == own
