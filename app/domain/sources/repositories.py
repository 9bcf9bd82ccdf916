"""Which rows make data sources, tests and objects on the wire, and which lists of them there are."""

from sqlalchemy import ColumnElement, and_, bindparam

from app.connectors import registry
from app.core.database import Repository
from app.core.extent import Scoped
from app.core.lists.filters import (
    Filter,
    OrderOfFilter,
    boolean_filter,
    choice_filter,
    search_filter,
    text_filter,
    uuid_filter,
)
from app.core.lists.listing import Listing, Sort
from app.core.lists.parameters import STRING
from app.domain.sources.models import DataSource, DataSourceTag
from app.domain.sources.schemas import DataSourceOut

STATUSES = ("untested", "passed", "failed", "unsupported")


class DataSourceRepository(Repository[DataSource]):
    model_type = DataSource
    computed = {"secrets": DataSource.secret_states}


SCOPED = Scoped(DataSource.id, DataSource.data_domain_id, DataSource.owner_role_id)
"""Where a source stands."""


def _has_tag(name: str) -> ColumnElement[bool]:
    """Joins the one row of the tag that a source can have, for whose order see `DataSourceTag`."""
    return and_(
        DataSourceTag.data_source_id == DataSource.id,
        DataSourceTag.tag == bindparam(name, type_=DataSourceTag.tag.type),
        DataSourceTag.tenant_id == DataSource.tenant_id,
    )


TAGS = OrderOfFilter(
    {
        "created_at": DataSourceTag.source_created_at,
        "updated_at": DataSourceTag.source_updated_at,
        "name": DataSourceTag.source_name_key,
    },
    DataSourceTag.data_source_id,
)
DATA_SOURCE = DataSourceRepository.selection_by_id(DataSourceOut)
DATA_SOURCES = Listing(
    DataSourceRepository.selection(DataSourceOut),
    name="data sources",
    id_column=DataSource.id,
    sorts={
        "created_at": Sort(DataSource.created_at, "data_sources_tenant_id_created_at_id_idx", never_changes=True),
        "updated_at": Sort(DataSource.updated_at, "data_sources_tenant_id_updated_at_id_idx"),
        "name": Sort(DataSource.name_key, "data_sources_tenant_id_name_key_id_idx"),
    },
    default_sort="created_at",
    scoped=SCOPED,
    filters={
        "name": text_filter(
            DataSource.name_key,
            name_key=True,
            index="data_sources_tenant_id_name_key_id_idx",
            description="This name, in any case.",
        ),
        "type": choice_filter(DataSource.type, tuple(registry.find()), index="data_sources_type_{sort}_idx"),
        "category": choice_filter(
            DataSource.category,
            tuple(sorted({connector.category for connector in registry.all()})),
            index="data_sources_category_{sort}_idx",
        ),
        "status": choice_filter(
            DataSource.status,
            STATUSES,
            index="data_sources_status_{sort}_idx",
            description="How the last saved test ended.",
        ),
        "tag": Filter(
            where=_has_tag,
            parse=str,
            schema=STRING,
            index="data_source_tags_{sort}_idx",
            description="Sources that carry this tag.",
            order=TAGS,
        ),
        "owner_role_id": uuid_filter(DataSource.owner_role_id, index="data_sources_owner_role_id_{sort}_idx"),
        "data_domain_id": uuid_filter(
            DataSource.data_domain_id,
            index="data_sources_data_domain_id_{sort}_idx",
            description="Sources right in this data domain.",
        ),
        "is_paused": boolean_filter(DataSource.is_paused, index="data_sources_is_paused_{sort}_idx"),
        "q": search_filter(DataSource.name, DataSource.description, index="data_sources_search_idx"),
    },
)
