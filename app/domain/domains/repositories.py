"""Which rows make a data domain on the wire, and which lists of them there are."""

from sqlalchemy import ColumnElement, Uuid, column, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.core.database import Repository
from app.core.extent import Scoped
from app.core.lists.filters import search_filter, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.domains.models import DataDomain
from app.domain.domains.schemas import DataDomainOut


def _path() -> ColumnElement[list[str]]:
    """The names of the lineage, in its order. An alias of the table: one of the model has every model configured."""
    above = DataDomain.__table__.alias("above")
    unnested = func.unnest(DataDomain.lineage).table_valued(column("id", Uuid()), with_ordinality="depth", name="place")
    place = unnested.render_derived()
    names = select(func.array_agg(aggregate_order_by(above.c.name, place.c.depth)))
    is_above = (above.c.id == place.c.id) & (above.c.tenant_id == DataDomain.tenant_id)
    return names.where(is_above).correlate(DataDomain).scalar_subquery()


class DataDomainRepository(Repository[DataDomain]):
    model_type = DataDomain
    computed = {"path": _path()}


DATA_DOMAIN = DataDomainRepository.selection_by_id(DataDomainOut)
DATA_DOMAINS = Listing(
    DataDomainRepository.selection(DataDomainOut),
    name="data domains",
    id_column=DataDomain.id,
    sorts={
        "created_at": Sort(DataDomain.created_at, "data_domains_tenant_id_created_at_id_idx"),
        "updated_at": Sort(DataDomain.updated_at, "data_domains_tenant_id_updated_at_id_idx"),
        "name": Sort(DataDomain.name_key, "data_domains_tenant_id_name_key_id_idx"),
    },
    default_sort="created_at",
    scoped=Scoped(domain_id=DataDomain.id),
    filters={
        "parent_id": uuid_filter(
            DataDomain.parent_id, index="data_domains_parent_id_{sort}_idx", description="Domains right below this one."
        ),
        "owner_role_id": uuid_filter(DataDomain.owner_role_id, index="data_domains_owner_role_id_{sort}_idx"),
        "q": search_filter(DataDomain.name, DataDomain.description, index="data_domains_search_idx"),
    },
)
