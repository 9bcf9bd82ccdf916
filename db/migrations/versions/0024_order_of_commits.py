"""Rows of the audit log and of the outbox know their transaction, and events have a position (decision 0046).

Revision ID: 0024
Revises: 0023
"""

from alembic import op

from app.core import schema_changes

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

loses = ("the positions of events",)

INDEXES = {
    "audit_events_transaction_id_sequence_idx": "audit_events (transaction_id, sequence)",
    "outbox_events_without_position_idx": "outbox_events (transaction_id, sequence) WHERE position IS NULL",
    "outbox_events_tenant_id_position_idx": "outbox_events (tenant_id, position) WHERE position IS NOT NULL",
}
NUMBERED = """
    DECLARE
      done integer;
    BEGIN
      IF NOT pg_try_advisory_xact_lock(hashtext('hub positions of events')) THEN
        RETURN -1;
      END IF;
      WITH next AS (
        SELECT id, tenant_id, row_number() OVER (PARTITION BY tenant_id ORDER BY transaction_id, sequence) AS nth
        FROM (SELECT id, tenant_id, transaction_id, sequence FROM public.outbox_events
              WHERE position IS NULL AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
              ORDER BY transaction_id, sequence LIMIT most) AS oldest
      ), counted AS (
        SELECT tenant_id, count(*) AS events FROM next GROUP BY tenant_id
      ), ends AS (
        INSERT INTO public.outbox_ends AS ends (tenant_id, last_position)
        SELECT tenant_id, events FROM counted ORDER BY tenant_id
        ON CONFLICT (tenant_id) DO UPDATE SET last_position = ends.last_position + excluded.last_position
        RETURNING tenant_id, last_position
      ), told AS (
        SELECT pg_notify('hub_positions', tenant_id::text) FROM counted
      ), numbered AS (
        UPDATE public.outbox_events AS event
        SET position = ends.last_position - counted.events + next.nth
        FROM next JOIN ends USING (tenant_id) JOIN counted USING (tenant_id), (SELECT count(*) FROM told) AS all_told
        WHERE event.id = next.id RETURNING 1
      )
      SELECT count(*) INTO done FROM numbered;
      RETURN done;
    END
"""


def upgrade() -> None:
    # The default is no constant, and does not differ from row to row either: what is there already gets the transaction
    # of the migration, without being written anew.
    for table in ("audit_events", "outbox_events"):
        schema_changes.in_steps(
            table,
            f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()",
        )
    schema_changes.in_steps("outbox_events", "ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS position bigint")
    op.execute(
        "CREATE TABLE outbox_ends (tenant_id uuid PRIMARY KEY REFERENCES tenants (id), last_position bigint NOT NULL)"
    )
    op.execute("GRANT SELECT ON outbox_ends TO hub_app")
    schema_changes.wall_off("outbox_ends")
    schema_changes.create_indexes(INDEXES)
    schema_changes.create_owners_function("give_positions_to_events(most integer)", "RETURNS integer", NUMBERED)


def downgrade() -> None:
    schema_changes.drop_owners_functions("give_positions_to_events")
    schema_changes.drop_indexes(INDEXES)
    op.execute("DROP TABLE outbox_ends")
    schema_changes.in_steps("outbox_events", "ALTER TABLE outbox_events DROP COLUMN IF EXISTS position")
    for table in ("audit_events", "outbox_events"):
        schema_changes.in_steps(table, f"ALTER TABLE {table} DROP COLUMN IF EXISTS transaction_id")
