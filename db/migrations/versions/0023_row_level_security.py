"""Row-level security: the second wall between tenants (decision 0045).

Revision ID: 0023
Revises: 0022
"""

from app.core import schema_changes

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

loses = ("the wall in the database between tenants",)

DEFAULT_TENANT = "'00000000-0000-7000-8000-000000000001'::uuid"

# Each answers one question that is asked before it is known whose it is, or about all tenants.
FUNCTIONS = {
    "tenant_ids()": ("RETURNS SETOF uuid STABLE", "SELECT id FROM public.tenants ORDER BY id"),
    "tenant_of_slug(slug text)": (
        "RETURNS uuid STABLE",
        "SELECT id FROM public.tenants WHERE tenants.slug = $1 AND is_active AND deleted_at IS NULL",
    ),
    # In the collation of the index over the addresses of all tenants.
    "tenants_of_address(address text)": (
        "RETURNS SETOF uuid STABLE",
        """SELECT tenant_id FROM public.users JOIN public.tenants ON tenants.id = tenant_id
           WHERE email_key COLLATE "C" = address AND tenants.is_active LIMIT 2""",
    ),
    "tenant_of_session(session_id uuid)": (
        "RETURNS uuid STABLE",
        "SELECT tenant_id FROM public.sessions WHERE id = session_id",
    ),
    "next_job(now timestamptz)": (
        "RETURNS TABLE (id uuid, tenant_id uuid) ROWS 1",
        """SELECT job.id, job.tenant_id FROM public.jobs AS job
           WHERE (job.status = 'queued' OR (job.status = 'running' AND job.lease_until < $1))
             AND job.tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))
           ORDER BY job.created_at LIMIT 1 FOR UPDATE SKIP LOCKED""",
    ),
    "sources_without_fingerprint(most integer)": (
        "RETURNS TABLE (id uuid, tenant_id uuid)",
        """SELECT source.id, source.tenant_id FROM public.data_sources AS source WHERE source.fingerprint IS NULL
           ORDER BY source.id LIMIT most FOR UPDATE""",
    ),
    "unfinished_jobs(most integer)": (
        "RETURNS TABLE (kind text, status text, jobs bigint, oldest_age_s float8) STABLE",
        """SELECT kind, status, count(*), extract(epoch FROM now() - min(created_at))::float8
           FROM (SELECT kind, status, created_at FROM public.jobs WHERE status IN ('queued', 'running')
                 ORDER BY created_at LIMIT most) AS unfinished
           GROUP BY kind, status""",
    ),
    # The first by an index of its own, the second by the one of the list: an index on failed sources alone would be
    # taken for pages of the list, too, and walked through for each.
    "figures_of_sources(most integer)": (
        "RETURNS TABLE (oldest_due_s float8, failing bigint) STABLE",
        """SELECT (SELECT coalesce(extract(epoch FROM now() - min(next_test_at)), 0)::float8 FROM public.data_sources
                   WHERE next_test_at <= now() AND NOT is_paused
                     AND tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))),
                  (SELECT count(*) FROM (SELECT FROM public.tenants CROSS JOIN LATERAL (
                     SELECT FROM public.data_sources WHERE tenant_id = tenants.id AND status = 'failed') AS theirs
                   WHERE tenants.is_active LIMIT most) AS failing)""",
    ),
    "secrets_of_each_key()": (
        "RETURNS TABLE (key_id text, stored bigint) STABLE",
        """SELECT key_id, count(*) FROM public.data_source_secrets WHERE sealed IS NOT NULL GROUP BY key_id""",
    ),
    "sessions_of_each_key()": (
        "RETURNS TABLE (key_id text, live bigint, last_ends_at timestamptz) STABLE",
        """SELECT key_id, count(*), max(least(expires_at, idle_expires_at)) FROM public.sessions
           WHERE revoked_at IS NULL AND least(expires_at, idle_expires_at) > now() GROUP BY key_id""",
    ),
    # In the order of their ids: of two workers that write the same ones neither waits for the other for ever.
    "note_uses_of_api_keys(ids uuid[], hours timestamptz[])": (
        "RETURNS void",
        """WITH noted AS (SELECT * FROM unnest(ids, hours) AS each (id, at)),
             locked AS (SELECT api_keys.id, noted.at FROM public.api_keys JOIN noted ON noted.id = api_keys.id
                        WHERE coalesce(last_used_at < noted.at, true) ORDER BY api_keys.id FOR UPDATE OF api_keys)
           UPDATE public.api_keys SET last_used_at = locked.at FROM locked WHERE locked.id = api_keys.id""",
    ),
    "tenant_of_expired_role_request()": (
        "RETURNS uuid STABLE",
        """SELECT tenant_id FROM public.role_requests
           WHERE status = 'pending' AND pending_until <= statement_timestamp() ORDER BY pending_until LIMIT 1""",
    ),
    "due_access_review()": (
        "RETURNS TABLE (id uuid, tenant_id uuid) STABLE ROWS 1",
        """SELECT review.id, review.tenant_id FROM public.access_reviews AS review
           WHERE review.closed_at IS NULL AND review.due_at <= statement_timestamp() ORDER BY review.due_at LIMIT 1""",
    ),
    "end_expired_assignments(most integer)": (
        "RETURNS integer",
        """WITH ended AS (
             UPDATE public.role_assignments
             SET ended_at = expires_at, updated_at = now(), updated_by = NULL, version = version + 1
             WHERE id = ANY (ARRAY(
               SELECT id FROM public.role_assignments WHERE ended_at IS NULL AND expires_at < statement_timestamp()
               ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED)) RETURNING id)
           SELECT count(*)::integer FROM ended""",
    ),
    # From key to key along their index: `DISTINCT` would read every secret, at every start.
    "oldest_secret_of_each_key()": (
        "RETURNS TABLE (key_id text, tenant_id uuid, data_source_id uuid, name text, sealed bytea) STABLE",
        """WITH RECURSIVE oldest AS (
             (SELECT key_id, tenant_id, data_source_id, name, sealed FROM public.data_source_secrets
              WHERE sealed IS NOT NULL ORDER BY key_id, updated_at, data_source_id, name LIMIT 1)
             UNION ALL
             SELECT next.* FROM oldest CROSS JOIN LATERAL (
               SELECT key_id, tenant_id, data_source_id, name, sealed FROM public.data_source_secrets
               WHERE sealed IS NOT NULL AND key_id > oldest.key_id
               ORDER BY key_id, updated_at, data_source_id, name LIMIT 1) AS next)
           SELECT * FROM oldest""",
    ),
}
DUE = """SELECT source.id, source.tenant_id, source.host,
             extract(epoch FROM now() - source.next_test_at)::float8
           FROM public.data_sources AS source
           WHERE source.next_test_at <= now() AND NOT source.is_paused AND source.status {is_so} 'passed'
             AND (source.host IS NULL OR source.host <> ALL(full_hosts))
             AND source.tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT tenants.is_active))
           ORDER BY source.next_test_at LIMIT most FOR UPDATE SKIP LOCKED"""
"""Of one lane; each has an index of its own."""
FUNCTIONS |= {
    f"due_sources_{lane}(full_hosts text[], most integer)": (
        "RETURNS TABLE (id uuid, tenant_id uuid, host text, lag_s float8)",
        DUE.format(is_so=is_so),
    )
    for lane, is_so in {"well": "=", "doubtful": "<>"}.items()
}
OUTDATED = {
    "idempotency_keys": "created_at",
    "sessions": "least(expires_at, idle_expires_at, coalesce(revoked_at, expires_at))",
    "api_keys": "expires_at",
    "data_source_tests": "created_at",
    "jobs": "finished_at",
    "outbox_events": '"time"',
}
"""By table since when a row is of no more use, as its index has it."""
SEARCHED = {
    "users": "lower(' ' || email || ' ' || first_name || ' ' || last_name)",
    "roles": "lower(' ' || name || ' ' || coalesce(description, ''))",
    "data_sources": "lower(' ' || name || ' ' || coalesce(description, ''))",
    "source_objects": "lower(' ' || name || ' ' || qualified_name)",
    "service_accounts": "lower(' ' || name || ' ' || coalesce(description, ''))",
    "groups": "lower(' ' || name || ' ' || coalesce(description, ''))",
    "data_domains": "lower(' ' || name || ' ' || coalesce(description, ''))",
}
"""As the indexes have it."""
SEARCHES = [f"{table}_search_idx" for table in SEARCHED]
VALIDITY = "role_assignments_validity_idx"
IN_FORCE = (
    "tstzrange(starts_at, greatest(starts_at, least(coalesce(expires_at, 'infinity'), coalesce(ended_at, 'infinity'))))"
)


def upgrade() -> None:
    schema_changes.wait_for_hubs_to_stop()  # 0014 declares the break
    for table in schema_changes.tables_of_tenants():
        schema_changes.wall_off(table)
    # Operators are members of the default tenant: they see that others are there, and nothing inside of them.
    schema_changes.wall_off("tenants", f"{schema_changes.CURRENT_TENANT} IN (id, {DEFAULT_TENANT})")
    for signature, (answers, body) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body)
    for table, since in OUTDATED.items():
        schema_changes.make_removable(table, since)
    for table, searched in SEARCHED.items():
        schema_changes.make_searchable(table, searched)
    schema_changes.make_findable("role_assignments", VALIDITY, "moment timestamptz", f"{IN_FORCE} @> moment")


def downgrade() -> None:
    schema_changes.drop_owners_functions(
        *(signature.partition("(")[0] for signature in FUNCTIONS),
        *(f"remove_outdated_{table}" for table in OUTDATED),
        *(f"{kind}_by_{index}" for index in (*SEARCHES, VALIDITY) for kind in ("found", "share")),
    )
    for table in ["tenants", *schema_changes.tables_of_tenants()]:
        schema_changes.take_wall_down(table)
