"""Jobs have priorities, are tried again later, and are shared out among tenants, as due tests are (decision 0054);
sources are discovered on a schedule.

Revision ID: 0029
Revises: 0028
"""

from app.core import schema_changes

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

loses = ("priorities of jobs, and when failed ones are tried again", "when sources are discovered by themselves")

LANES = {"well": "=", "doubtful": "<>"}
INDEXES = {
    "data_sources_next_discovery_idx": "data_sources (next_discovery_at)"
    " WHERE next_discovery_at IS NOT NULL AND NOT is_paused",
    "jobs_waiting_idx": "jobs (tenant_id, priority DESC, created_at) WHERE status = 'queued'",
    **{
        f"data_sources_tenant_id_next_test_{lane}_idx": f"data_sources (tenant_id, next_test_at)"
        f" WHERE next_test_at IS NOT NULL AND NOT is_paused AND status {is_so} 'passed'"
        for lane, is_so in LANES.items()
    },
}
# From tenant to tenant along an index: `DISTINCT` would read all that waits.
TENANTS = """
    WITH RECURSIVE found (tenant_id) AS (
      (SELECT tenant_id FROM public.{table} WHERE {condition} ORDER BY tenant_id LIMIT 1)
      UNION ALL
      SELECT (SELECT next.tenant_id FROM public.{table} AS next
              WHERE {condition} AND next.tenant_id > found.tenant_id ORDER BY next.tenant_id LIMIT 1)
      FROM found WHERE found.tenant_id IS NOT NULL
    )
"""
OFTEN = "cardinality(array_positions(busy_tenants, {tenant}))"
"""How much of a tenant goes on at the worker that asks, which has named each tenant as often."""

# What somebody wants first; of that, what is of the tenant of whom least goes on; of that, what has waited longest.
NEXT_JOB = """{tenants}, candidates AS (
      SELECT theirs.* FROM found JOIN public.tenants ON tenants.id = found.tenant_id AND tenants.is_active
      CROSS JOIN LATERAL (
        SELECT job.id, job.tenant_id, job.priority, job.created_at FROM public.jobs AS job
        WHERE job.status = 'queued' AND job.tenant_id = found.tenant_id AND coalesce(job.run_after <= moment, true)
          AND job.kind <> ALL (full_kinds) AND (job.host IS NULL OR job.host <> ALL (full_hosts))
        ORDER BY job.priority DESC, job.created_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS theirs
      WHERE found.tenant_id <> ALL (full_tenants)
      UNION ALL
      SELECT lost.* FROM (
        SELECT job.id, job.tenant_id, job.priority, job.created_at FROM public.jobs AS job
        WHERE job.status = 'running' AND job.lease_until < moment
          AND job.tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))
        ORDER BY job.created_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS lost
    )
    SELECT id, tenant_id FROM candidates
    ORDER BY priority DESC, {often}, created_at LIMIT 1"""
# As many of each tenant, in turn; those of whom less goes on come first.
DUE = """{tenants}, due_tenants AS MATERIALIZED (
      SELECT found.tenant_id FROM found JOIN public.tenants ON tenants.id = found.tenant_id AND tenants.is_active
      WHERE EXISTS (SELECT FROM public.data_sources AS source
                    WHERE {lane} AND source.tenant_id = found.tenant_id AND next_test_at <= now())
      ORDER BY {of_found}, random() LIMIT most
    ), due AS (
      SELECT theirs.* FROM due_tenants CROSS JOIN LATERAL (
        SELECT source.id, source.tenant_id, source.host, source.next_test_at FROM public.data_sources AS source
        WHERE {lane} AND source.tenant_id = due_tenants.tenant_id AND next_test_at <= now()
          AND (source.host IS NULL OR source.host <> ALL (full_hosts))
        ORDER BY source.next_test_at LIMIT (SELECT greatest(1, most / greatest(1, count(*))) FROM due_tenants)
        FOR UPDATE SKIP LOCKED) AS theirs
    )
    SELECT id, tenant_id, host, extract(epoch FROM now() - next_test_at)::float8 FROM (
      SELECT due.*, {of_due} + row_number() OVER (PARTITION BY tenant_id ORDER BY next_test_at) AS turn FROM due
    ) AS in_turn ORDER BY turn, next_test_at LIMIT most"""
FUNCTIONS = {
    "next_waiting_job(moment timestamptz, full_kinds text[], full_tenants uuid[], full_hosts text[],"
    " busy_tenants uuid[])": (
        "RETURNS TABLE (id uuid, tenant_id uuid) ROWS 1",
        NEXT_JOB.format(
            tenants=TENANTS.format(table="jobs", condition="status = 'queued'"), often=OFTEN.format(tenant="tenant_id")
        ),
    )
}
FUNCTIONS["due_discoveries(most integer)"] = (
    "RETURNS TABLE (id uuid, tenant_id uuid) STABLE",
    """SELECT source.id, source.tenant_id FROM public.data_sources AS source
       WHERE source.next_discovery_at <= now() AND NOT source.is_paused
         AND source.tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))
       ORDER BY source.next_discovery_at LIMIT most""",
)
for name, is_so in LANES.items():
    of_lane = f"next_test_at IS NOT NULL AND NOT is_paused AND status {is_so} 'passed'"
    FUNCTIONS[f"due_in_turn_{name}(full_hosts text[], busy_tenants uuid[], most integer)"] = (
        "RETURNS TABLE (id uuid, tenant_id uuid, host text, lag_s float8)",
        DUE.format(
            tenants=TENANTS.format(table="data_sources", condition=of_lane),
            lane=of_lane,
            of_found=OFTEN.format(tenant="found.tenant_id"),
            of_due=OFTEN.format(tenant="tenant_id"),
        ),
    )
# Workers of the release before ask this one: they too leave a job alone until it is to be tried again.
OLDEST_JOB = """SELECT job.id, job.tenant_id FROM public.jobs AS job
   WHERE ((job.status = 'queued'{is_time}) OR (job.status = 'running' AND job.lease_until < $1))
     AND job.tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))
   ORDER BY job.created_at LIMIT 1 FOR UPDATE SKIP LOCKED"""


def upgrade() -> None:
    schema_changes.in_steps(
        "jobs",
        """ALTER TABLE jobs ADD COLUMN IF NOT EXISTS priority smallint NOT NULL DEFAULT 0,
             ADD COLUMN IF NOT EXISTS host text, ADD COLUMN IF NOT EXISTS retries integer NOT NULL DEFAULT 0,
             ADD COLUMN IF NOT EXISTS run_after timestamptz""",
    )
    schema_changes.in_steps(
        "data_sources",
        """ALTER TABLE data_sources ADD COLUMN IF NOT EXISTS discover_schedule text,
             ADD COLUMN IF NOT EXISTS discover_time_zone text NOT NULL DEFAULT 'UTC',
             ADD COLUMN IF NOT EXISTS next_discovery_at timestamptz""",
    )
    schema_changes.create_indexes(INDEXES)
    for signature, (answers, body) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body)
    _let_workers_of_before(is_time=" AND coalesce(job.run_after <= $1, true)")


def _let_workers_of_before(*, is_time: str) -> None:
    schema_changes.create_owners_function(
        "next_job(now timestamptz)",
        "RETURNS TABLE (id uuid, tenant_id uuid) ROWS 1",
        OLDEST_JOB.format(is_time=is_time),
    )


def downgrade() -> None:
    _let_workers_of_before(is_time="")
    schema_changes.drop_owners_functions(*(signature.partition("(")[0] for signature in FUNCTIONS))
    schema_changes.drop_indexes(INDEXES)
    schema_changes.in_steps(
        "jobs",
        """ALTER TABLE jobs DROP COLUMN IF EXISTS run_after, DROP COLUMN IF EXISTS retries, DROP COLUMN IF EXISTS host,
             DROP COLUMN IF EXISTS priority""",
    )
    schema_changes.in_steps(
        "data_sources",
        """ALTER TABLE data_sources DROP COLUMN IF EXISTS next_discovery_at,
             DROP COLUMN IF EXISTS discover_time_zone, DROP COLUMN IF EXISTS discover_schedule""",
    )
