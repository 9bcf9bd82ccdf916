"""The audit log is asked for what one request did, and for what came from one address.

Revision ID: 0025
Revises: 0024
"""

from app.core import schema_changes

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

loses = ()
"""Indexes."""

# What the hub does by itself has neither, and costs these two nothing.
COLUMNS = ("request_id", "address")
INDEXES = {
    f"audit_events_{column}_occurred_at_idx": (
        f"audit_events (tenant_id, {column}, occurred_at, id) WHERE {column} IS NOT NULL"
    )
    for column in COLUMNS
}
VALUES = 20
"""As in 0006: a filter's index is the cheaper way, whatever the statistics have seen of its values."""


def upgrade() -> None:
    schema_changes.in_steps(
        "audit_events",
        *(f"ALTER TABLE audit_events ALTER {column} SET (n_distinct = {VALUES})" for column in COLUMNS),
    )
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
    schema_changes.in_steps(
        "audit_events",
        *(f"ALTER TABLE audit_events ALTER {column} RESET (n_distinct)" for column in COLUMNS),
    )
