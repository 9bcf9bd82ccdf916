"""Where a schema says that hubs of before can no longer work with it.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

loses = ("which releases of the hub can work with the schema",)


def upgrade() -> None:
    op.execute(
        """CREATE TABLE schema_breaks (
             revision text PRIMARY KEY,
             reason text NOT NULL,
             declared_at timestamptz NOT NULL DEFAULT now())"""
    )
    op.execute("GRANT SELECT ON schema_breaks TO hub_app")


def downgrade() -> None:
    op.execute("DROP TABLE schema_breaks")
