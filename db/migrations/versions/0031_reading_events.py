"""Events are read: by position, type, subject and time, and by where they happened (decision 0050).

Revision ID: 0031
Revises: 0030
"""

from alembic import op

from app.core import schema_changes

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

loses = ("where events have happened",)

VALUES = 20
FILTERED = ("type", "subject", "data_source_id", "data_domain_id")
IS_PLACED = "WHERE position IS NOT NULL"
INDEXES = {
    "outbox_events_tenant_id_position_id_idx": f"outbox_events (tenant_id, position, id) {IS_PLACED}",
    "outbox_events_type_position_idx": f"outbox_events (tenant_id, type, position, id) {IS_PLACED}",
    "outbox_events_subject_position_idx": f"outbox_events (tenant_id, subject, position, id) {IS_PLACED}",
    "outbox_events_time_position_idx": f'outbox_events (tenant_id, "time", position) {IS_PLACED}',
    "outbox_events_data_source_id_position_idx": f"""outbox_events (tenant_id, data_source_id, position, id)
        {IS_PLACED} AND data_source_id IS NOT NULL""",
    "outbox_events_data_domain_id_position_idx": f"""outbox_events (tenant_id, data_domain_id, position, id)
        {IS_PLACED} AND data_domain_id IS NOT NULL""",
}
OF_BEFORE = {"outbox_events_tenant_id_position_idx": f"outbox_events (tenant_id, position) {IS_PLACED}"}
"""The beginning of one of the others."""


def upgrade() -> None:
    schema_changes.in_steps(
        "outbox_events",
        """ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS data_source_id uuid,
             ADD COLUMN IF NOT EXISTS data_domain_id uuid""",
    )
    schema_changes.fill_in(
        "outbox_events",
        "data_source_id = source.id, data_domain_id = source.data_domain_id",
        "subject = 'data-sources/' || source.id AND outbox_events.data_source_id IS NULL",
        source="data_sources AS source",
    )
    schema_changes.create_indexes(INDEXES)
    schema_changes.drop_indexes(OF_BEFORE)
    op.execute(
        "ALTER TABLE outbox_events " + ", ".join(f"ALTER {column} SET (n_distinct = {VALUES})" for column in FILTERED)
    )
    schema_changes.analyze(["outbox_events"])


def downgrade() -> None:
    op.execute("ALTER TABLE outbox_events " + ", ".join(f"ALTER {column} RESET (n_distinct)" for column in FILTERED))
    schema_changes.create_indexes(OF_BEFORE)
    schema_changes.drop_indexes(INDEXES)
    schema_changes.in_steps(
        "outbox_events",
        "ALTER TABLE outbox_events DROP COLUMN IF EXISTS data_source_id, DROP COLUMN IF EXISTS data_domain_id",
    )
