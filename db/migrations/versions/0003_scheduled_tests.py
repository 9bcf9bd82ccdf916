"""Tests on a schedule.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

loses = ("how often sources are tested, and when next",)


def upgrade() -> None:
    op.execute("ALTER TABLE data_sources ADD COLUMN test_interval_s integer, ADD COLUMN next_test_at timestamptz")
    op.execute(
        "CREATE INDEX data_sources_next_test_idx ON data_sources (next_test_at)"
        " WHERE next_test_at IS NOT NULL AND NOT is_paused"
    )
    op.execute("CREATE INDEX data_source_tests_created_idx ON data_source_tests (created_at)")
    op.execute("CREATE INDEX jobs_finished_idx ON jobs (finished_at) WHERE finished_at IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX jobs_finished_idx")
    op.execute("DROP INDEX data_source_tests_created_idx")
    op.execute("DROP INDEX data_sources_next_test_idx")
    op.execute("ALTER TABLE data_sources DROP COLUMN next_test_at, DROP COLUMN test_interval_s")
