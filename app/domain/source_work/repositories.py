"""Which rows make tests and objects of a source on the wire, and which lists of them there are."""

from typing import Any

from sqlalchemy import bindparam

from app.core.database import Repository
from app.core.listing import Listing, boolean_filter, choice_filter, search_filter, text_filter
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
    sorts={"created_at": DataSourceTest.created_at},
    default_sort="-created_at",
    filters={"status": choice_filter(DataSourceTest.status, STATUSES[1:])},
)
OBJECT = _of_source(ObjectRepository, ObjectOut).where(SourceObject.id == bindparam("id", type_=SourceObject.id.type))
OBJECTS = Listing(
    _of_source(ObjectRepository, ObjectOut),
    name="objects",
    id_column=SourceObject.id,
    sorts={"qualified_name": SourceObject.qualified_name, "discovered_at": SourceObject.discovered_at},
    default_sort="qualified_name",
    filters={
        "kind": text_filter(SourceObject.kind),
        "is_active": boolean_filter(SourceObject.is_active),
        "q": search_filter(SourceObject.qualified_name),
    },
)
