"""The planner is told of one more column that is narrowed by, as 0006 tells it of all others.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

from app.core import schema_changes

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

loses = ()

VALUES = 20


def upgrade() -> None:
    op.execute(f"ALTER TABLE audit_events ALTER resource_id SET (n_distinct = {VALUES})")
    schema_changes.analyze(["audit_events"])


def downgrade() -> None:
    op.execute("ALTER TABLE audit_events ALTER resource_id RESET (n_distinct)")
