"""Service accounts: what programs act as.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

from app.core import schema_changes

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

loses = ("service accounts",)

TABLE = """
    CREATE TABLE service_accounts (
      id uuid PRIMARY KEY,
      tenant_id uuid NOT NULL REFERENCES tenants (id),
      name text NOT NULL,
      name_key text NOT NULL,
      description text,
      is_active boolean NOT NULL,
      created_at timestamptz NOT NULL,
      updated_at timestamptz NOT NULL,
      created_by uuid,
      updated_by uuid,
      version integer NOT NULL DEFAULT 1,
      CONSTRAINT service_accounts_name_key UNIQUE (tenant_id, name_key))
"""
SEARCHED = "lower(' ' || name || ' ' || coalesce(description, ''))"
SYMBOLS = f"string_to_array(regexp_replace({SEARCHED}, '[[:alnum:][:space:]]+', '', 'g'), NULL)"
SORTS = {"created_at": "created_at", "updated_at": "updated_at", "name": "name_key"}
INDEXES = (
    {f"service_accounts_{sort}_idx": f"service_accounts (tenant_id, {column}, id)" for sort, column in SORTS.items()}
    | {
        f"service_accounts_is_active_{sort}_idx": f"service_accounts (tenant_id, is_active, {column}, id)"
        for sort, column in SORTS.items()
    }
    | {"service_accounts_search_idx": f"service_accounts USING gin ({SEARCHED} gin_trgm_ops, ({SYMBOLS}))"}
)
SAMPLES, VALUES = 500, 20
"""As in 0006: texts that many rows hold are told from rare ones, and a filter's index is the cheaper way."""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON service_accounts TO hub_app")
    schema_changes.create_indexes(INDEXES)
    op.execute(f"ALTER INDEX service_accounts_search_idx ALTER COLUMN 1 SET STATISTICS {SAMPLES}")
    op.execute(f"ALTER TABLE service_accounts ALTER is_active SET (n_distinct = {VALUES})")


def downgrade() -> None:
    op.execute("DROP TABLE service_accounts")
