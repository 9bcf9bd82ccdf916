"""Webhooks: where events are sent to, the secrets that sign them, and what came of each.

Revision ID: 0028
Revises: 0027
"""

from alembic import op

from app.core import schema_changes

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

loses = ("webhooks, their secrets and what was delivered to them",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"

TABLES = {
    "webhooks": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        url text NOT NULL,
        event_types text[] NOT NULL,
        data_domain_id uuid REFERENCES data_domains (id),
        description text,
        is_active boolean NOT NULL,
        disabled_because text CHECK (disabled_because IN ('gone', 'failing')),
        disabled_at timestamptz,
        position bigint NOT NULL,
        dispatch_at timestamptz NOT NULL DEFAULT now(),
        due_at timestamptz,
        paused_until timestamptz,
        lease_id uuid,
        lease_until timestamptz,
        failures integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        last_failure_at timestamptz,
        last_success_at timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1
    """,
    "webhook_secrets": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        webhook_id uuid NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
        sealed bytea NOT NULL,
        key_id text NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz
    """,
    # Without a reference: a webhook that was used for months would take as long to delete as it has rows.
    "webhook_deliveries": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        webhook_id uuid NOT NULL,
        event_id uuid NOT NULL,
        event_type text NOT NULL,
        subject text NOT NULL,
        position bigint,
        status text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
        attempts integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        next_attempt_at timestamptz,
        last_attempt_at timestamptz,
        response_status integer,
        duration_ms double precision,
        failure text
    """,
}
INDEXES = {
    "webhooks_tenant_id_created_at_id_idx": "webhooks (tenant_id, created_at, id)",
    "webhooks_data_domain_id_idx": "webhooks (data_domain_id) WHERE data_domain_id IS NOT NULL",
    "webhooks_due_at_idx": "webhooks (due_at) WHERE due_at IS NOT NULL",
    "webhook_secrets_webhook_id_idx": "webhook_secrets (webhook_id)",
    "webhook_secrets_key_id_idx": "webhook_secrets (key_id, created_at, id)",
    "webhook_deliveries_webhook_id_created_at_idx": "webhook_deliveries (tenant_id, webhook_id, created_at, id)",
    "webhook_deliveries_status_created_at_idx": "webhook_deliveries (tenant_id, webhook_id, status, created_at, id)",
    "webhook_deliveries_next_attempt_idx": "webhook_deliveries (webhook_id, next_attempt_at) WHERE status = 'pending'",
    "webhook_deliveries_pending_idx": "webhook_deliveries (created_at) WHERE status = 'pending'",
    "webhook_deliveries_created_at_idx": "webhook_deliveries (created_at)",
}
VALUES = 20
"""As in 0006: a filter's index is the cheaper way, whatever the statistics have seen of its values."""

NOT_SUSPENDED = "tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))"
FUNCTIONS = {
    # Those that were looked at longest ago come first: one of whose events there is no end keeps no other waiting.
    "webhooks_behind(most integer)": (
        "RETURNS TABLE (id uuid, tenant_id uuid)",
        f"""SELECT webhook.id, webhook.tenant_id FROM public.webhooks AS webhook
              JOIN public.outbox_ends AS ends ON ends.tenant_id = webhook.tenant_id
            WHERE webhook.is_active AND webhook.position < ends.last_position
              AND webhook.dispatch_at <= clock_timestamp() AND webhook.{NOT_SUSPENDED}
            ORDER BY webhook.dispatch_at LIMIT most FOR UPDATE OF webhook SKIP LOCKED""",  # noqa: S608 - names of ours
    ),
    # Those whose circuit is open come last: a new one need not wait for the probes of a hundred others.
    "due_webhooks(is_well boolean, full_tenants uuid[], most integer)": (
        "RETURNS TABLE (id uuid, tenant_id uuid)",
        f"""SELECT webhook.id, webhook.tenant_id FROM public.webhooks AS webhook
            WHERE webhook.due_at <= now() AND webhook.is_active AND coalesce(webhook.lease_until < now(), true)
              AND (webhook.failures = 0 AND webhook.last_success_at IS NOT NULL) = is_well
              AND webhook.tenant_id <> ALL (full_tenants) AND webhook.{NOT_SUSPENDED}
            ORDER BY webhook.paused_until IS NOT NULL, webhook.due_at LIMIT most FOR UPDATE SKIP LOCKED""",  # noqa: S608
    ),
    "figures_of_webhooks(most integer)": (
        """RETURNS TABLE (active bigint, failing bigint, disabled bigint, oldest_due_s float8, pending bigint,
             oldest_pending_s float8) STABLE""",
        f"""SELECT count(*) FILTER (WHERE is_active AND failures = 0),
                   count(*) FILTER (WHERE is_active AND failures > 0),
                   count(*) FILTER (WHERE disabled_because IS NOT NULL),
                   coalesce(extract(epoch FROM now() - min(due_at) FILTER (
                     WHERE is_active AND due_at <= now() AND coalesce(lease_until < now(), true))), 0)::float8,
                   (SELECT count(*) FROM (SELECT FROM public.webhook_deliveries WHERE status = 'pending' LIMIT most)
                      AS pending),
                   (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
                    FROM public.webhook_deliveries WHERE status = 'pending')
            FROM public.webhooks WHERE {NOT_SUSPENDED}""",  # noqa: S608
    ),
    "webhook_secrets_of_each_key()": (
        "RETURNS TABLE (key_id text, stored bigint) STABLE",
        "SELECT key_id, count(*) FROM public.webhook_secrets GROUP BY key_id",
    ),
    "oldest_webhook_secret_of_each_key()": (
        "RETURNS TABLE (key_id text, tenant_id uuid, id uuid, sealed bytea) STABLE",
        """WITH RECURSIVE oldest AS (
             (SELECT key_id, tenant_id, id, sealed FROM public.webhook_secrets ORDER BY key_id, created_at, id LIMIT 1)
             UNION ALL
             SELECT next.* FROM oldest CROSS JOIN LATERAL (
               SELECT key_id, tenant_id, id, sealed FROM public.webhook_secrets WHERE key_id > oldest.key_id
               ORDER BY key_id, created_at, id LIMIT 1) AS next)
           SELECT * FROM oldest""",
    ),
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
    op.execute(
        f"""ALTER TABLE webhook_deliveries ALTER webhook_id SET (n_distinct = {VALUES}),
              ALTER status SET (n_distinct = {VALUES})"""
    )
    schema_changes.create_indexes(INDEXES)
    for signature, (answers, body) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body)
    schema_changes.make_removable("webhook_deliveries", "created_at")
    schema_changes.make_removable("webhook_secrets", "expires_at")


def downgrade() -> None:
    names = [signature.partition("(")[0] for signature in FUNCTIONS]
    removals = ("remove_outdated_webhook_deliveries", "remove_outdated_webhook_secrets")
    schema_changes.drop_owners_functions(*names, *removals)
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
