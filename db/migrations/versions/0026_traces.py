"""Jobs and events know the trace that they came of, and how long events wait for a position is told.

Revision ID: 0026
Revises: 0025
"""

from app.core import schema_changes

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

loses = ("the traces of jobs and events",)

TABLES = ("jobs", "outbox_events")
FIGURES = """
    SELECT (SELECT count(*) FROM (SELECT FROM public.outbox_events WHERE position IS NULL LIMIT most) AS counted),
           coalesce((SELECT extract(epoch FROM now() - "time") FROM public.outbox_events
                     WHERE position IS NULL ORDER BY transaction_id, sequence LIMIT 1), 0)::float8
"""


def upgrade() -> None:
    for table in TABLES:
        schema_changes.in_steps(table, f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS traceparent text")
    schema_changes.create_owners_function(
        "figures_of_events(most integer)", "RETURNS TABLE (waiting bigint, oldest_s float8) STABLE", FIGURES
    )


def downgrade() -> None:
    schema_changes.drop_owners_functions("figures_of_events")
    for table in TABLES:
        schema_changes.in_steps(table, f"ALTER TABLE {table} DROP COLUMN IF EXISTS traceparent")
