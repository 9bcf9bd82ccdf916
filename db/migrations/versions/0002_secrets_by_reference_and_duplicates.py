"""Secrets by reference, who gave a secret, which versions a test used, and where a source leads.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

loses = (
    "secrets that are given by reference",
    "who gave a secret",
    "which versions of secrets a test used",
)

INDEX = "data_sources_fingerprint_idx"


def upgrade() -> None:
    op.execute(
        """ALTER TABLE data_source_secrets
             ALTER COLUMN sealed DROP NOT NULL,
             ALTER COLUMN key_id DROP NOT NULL,
             ADD COLUMN reference text,
             ADD COLUMN updated_by uuid,
             ADD CONSTRAINT data_source_secrets_value_check CHECK (
               (sealed IS NULL) = (key_id IS NULL) AND (sealed IS NULL) <> (reference IS NULL))"""
    )
    op.execute("ALTER TABLE data_source_tests ADD COLUMN secret_versions jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE data_sources ADD COLUMN fingerprint bytea")
    op.execute(f"CREATE INDEX {INDEX} ON data_sources (tenant_id, fingerprint, id) WHERE fingerprint IS NOT NULL")
    # Sources of before get theirs from the worker: which place a config means is known to its type alone.
    op.execute("CREATE INDEX data_sources_without_fingerprint_idx ON data_sources (id) WHERE fingerprint IS NULL")


def downgrade() -> None:
    """References go with the column that held them: there is no value that could take their place."""
    op.execute("DROP INDEX data_sources_without_fingerprint_idx")
    op.execute(f"DROP INDEX {INDEX}")
    op.execute("ALTER TABLE data_sources DROP COLUMN fingerprint")
    op.execute("ALTER TABLE data_source_tests DROP COLUMN secret_versions")
    op.execute("DELETE FROM data_source_secrets WHERE reference IS NOT NULL")
    op.execute(
        """ALTER TABLE data_source_secrets
             DROP CONSTRAINT data_source_secrets_value_check,
             DROP COLUMN updated_by,
             DROP COLUMN reference,
             ALTER COLUMN key_id SET NOT NULL,
             ALTER COLUMN sealed SET NOT NULL"""
    )
