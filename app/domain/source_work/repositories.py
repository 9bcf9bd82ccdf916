"""Which rows make tests and objects of a source on the wire, and which lists of them there are."""

from typing import Any

from sqlalchemy import bindparam

from app.core.database import Repository
from app.core.lists.filters import boolean_filter, choice_filter, search_filter, text_filter
from app.core.lists.listing import Listing, Sort
from app.domain.source_work.models import DataSourceTest, SourceObject
from app.domain.source_work.schemas import ObjectOut, TestOut
from app.domain.sources.models import DataSource
from app.domain.sources.repositories import STATUSES


class TestRepository(Repository[DataSourceTest]):
    __test__ = False
    model_type = DataSourceTest


class ObjectRepository(Repository[SourceObject]):
    model_type = SourceObject


def _of_source(repository: type[Repository[Any]], struct: Any) -> Any:
    model: Any = repository.model_type
    return repository.selection(struct).where(
        model.data_source_id == bindparam("data_source_id", type_=DataSource.id.type)
    )


TESTS = Listing(
    _of_source(TestRepository, TestOut),
    name="tests",
    id_column=DataSourceTest.id,
    sorts={"created_at": Sort(DataSourceTest.created_at, "data_source_tests_data_source_id_created_at_id_idx")},
    default_sort="-created_at",
    filters={"status": choice_filter(DataSourceTest.status, STATUSES[1:], index="data_source_tests_status_{sort}_idx")},
)
OBJECT = _of_source(ObjectRepository, ObjectOut).where(SourceObject.id == bindparam("id", type_=SourceObject.id.type))
OBJECTS = Listing(
    _of_source(ObjectRepository, ObjectOut),
    name="objects",
    id_column=SourceObject.id,
    sorts={
        "qualified_name": Sort(SourceObject.qualified_name, "source_objects_data_source_id_qualified_name_id_idx"),
        "discovered_at": Sort(SourceObject.discovered_at, "source_objects_discovered_at_idx"),
    },
    default_sort="qualified_name",
    filters={
        "kind": text_filter(SourceObject.kind, index="source_objects_kind_{sort}_idx"),
        "is_active": boolean_filter(SourceObject.is_active, index="source_objects_is_active_{sort}_idx"),
        "q": search_filter(SourceObject.name, SourceObject.qualified_name, index="source_objects_search_idx"),
    },
)
