"""What a reader should know of an object that discovery found.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

loses = ("the notes on objects",)


def upgrade() -> None:
    # A constant default: no row is written. A hub that does not know the column leaves it as it is.
    op.execute("ALTER TABLE source_objects ADD COLUMN notes text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    op.execute("ALTER TABLE source_objects DROP COLUMN notes")
