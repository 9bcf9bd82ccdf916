"""Which rows make jobs on the wire, and which lists of jobs there are."""

from sqlalchemy import ColumnElement, Integer, Text, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from app.core.database import Repository, json_object
from app.core.extent import Scoped
from app.core.lists.filters import choice_filter, text_filter, uuid_filter
from app.core.lists.listing import Listing, Sort
from app.domain.jobs.models import Job
from app.domain.jobs.schemas import JobOut
from app.domain.sources.models import DataSource

STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")


class JobRepository(Repository[Job]):
    model_type = Job
    computed = {"progress": json_object({"done": Job.progress_done, "total": Job.progress_total})}


def _about_sources(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return Job.subject_id.in_(select(DataSource.id).where(DataSource.tenant_id == Job.tenant_id, condition))


JOB = JobRepository.selection_by_id(JobOut)
SHOWN_JOBS = JobRepository.selection(JobOut).where(Job.id == any_(bindparam("ids", type_=ARRAY(Job.id.type))))
OWN_UNFINISHED = (
    select(Job.id)
    .where(
        Job.tenant_id == bindparam("tenant_id", type_=Job.tenant_id.type),
        Job.created_by == bindparam("principal_id", type_=Job.id.type),
        Job.status == any_(bindparam("unfinished", type_=ARRAY(Text))),
    )
    .order_by(Job.created_at.desc())
    .limit(bindparam("most", type_=Integer))
)
PLACES = select(DataSource.id, DataSource.data_domain_id, DataSource.owner_role_id).where(
    DataSource.tenant_id == bindparam("tenant_id", type_=DataSource.tenant_id.type),
    DataSource.id == any_(bindparam("ids", type_=ARRAY(DataSource.id.type))),
)
"""Of the sources that jobs are about."""
VERSIONS = select(Job.id, Job.version).where(
    Job.tenant_id == bindparam("tenant_id", type_=Job.tenant_id.type),
    Job.id == any_(bindparam("ids", type_=ARRAY(Job.id.type))),
)
JOBS = Listing(
    JobRepository.selection(JobOut),
    name="jobs",
    id_column=Job.id,
    sorts={"created_at": Sort(Job.created_at, "jobs_tenant_id_created_at_id_idx")},
    default_sort="-created_at",
    scoped=Scoped(DataSource.id, DataSource.data_domain_id, DataSource.owner_role_id, through=_about_sources),
    filters={
        "status": choice_filter(Job.status, STATUSES, index="jobs_status_{sort}_idx"),
        "kind": text_filter(Job.kind, index="jobs_kind_{sort}_idx"),
        "subject_id": uuid_filter(
            Job.subject_id, index="jobs_subject_id_{sort}_idx", description="Jobs about this resource."
        ),
    },
)
