"""How upkeep goes, and indexes by which it finds what is over.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

from app.core import schema_changes

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

loses = ("what upkeep has counted",)

INDEXES = {
    "sessions_ended_idx": "sessions (least(expires_at, idle_expires_at, coalesce(revoked_at, expires_at)))",
    "outbox_events_time_idx": 'outbox_events ("time")',
}


def upgrade() -> None:
    op.execute(
        """CREATE TABLE upkeep (
             kind text PRIMARY KEY,
             rows_done bigint NOT NULL,
             failures bigint NOT NULL,
             last_success_at timestamptz)"""
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON upkeep TO hub_app")
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
    op.execute("DROP TABLE upkeep")
