"""Access reviews: who holds what, looked at line by line.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

from app.core import schema_changes

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

loses = ("access reviews and their reports",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"
TABLES = {
    "access_reviews": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        name text NOT NULL,
        role_id uuid,
        scope_type text CHECK (scope_type IN ('data_domain', 'data_source')),
        scope_id uuid CHECK ((scope_id IS NULL) = (scope_type IS NULL) AND (scope_id IS NULL) <> (role_id IS NULL)),
        due_at timestamptz NOT NULL,
        on_no_answer text NOT NULL CHECK (on_no_answer IN ('keep', 'end')),
        closed_at timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1
    """,
    "access_review_items": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        review_id uuid NOT NULL REFERENCES access_reviews (id),
        assignment_id uuid NOT NULL,
        subject_type text NOT NULL,
        subject_id uuid NOT NULL,
        subject_name text NOT NULL,
        role_id uuid NOT NULL,
        role_name text NOT NULL,
        scope_type text NOT NULL,
        scope_id uuid,
        since timestamptz NOT NULL,
        expires_at timestamptz,
        via_type text,
        via_id uuid,
        last_active_at timestamptz,
        state text NOT NULL CHECK (state IN ('open', 'kept', 'ended', 'gone')),
        answered_at timestamptz,
        answered_by uuid,
        reason text
    """,
}
INDEXES = {
    "access_reviews_created_at_idx": "access_reviews (tenant_id, created_at, id)",
    "access_reviews_due_at_idx": "access_reviews (due_at) WHERE closed_at IS NULL",
    "access_review_items_since_idx": "access_review_items (review_id, since, id)",
    "access_review_items_state_since_idx": "access_review_items (review_id, state, since, id)",
}
VALUES = 20
"""As in 0006: a filter's index is the cheaper way."""


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
    op.execute(f"ALTER TABLE access_review_items ALTER state SET (n_distinct = {VALUES})")
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
