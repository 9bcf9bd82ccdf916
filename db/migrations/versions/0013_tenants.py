"""Tenants that operators make, suspend and delete, with settings of their own; addresses are found over all tenants.

Revision ID: 0013
Revises: 0012
"""

from app.core import schema_changes

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

loses = ("settings of tenants", "which tenants were deleted: they are suspended ones again")

INDEXES = {
    # Of another collation than what lists of one tenant are narrowed by, so that none of them is led here.
    "tenants_created_at_id_idx": "tenants (created_at, id) WHERE deleted_at IS NULL",
    "tenants_slug_id_idx": "tenants (slug, id) WHERE deleted_at IS NULL",
    "tenants_is_active_created_at_idx": "tenants (is_active, created_at, id) WHERE deleted_at IS NULL",
    "tenants_is_active_slug_idx": "tenants (is_active, slug, id) WHERE deleted_at IS NULL",
    "tenants_suspended_idx": "tenants (id) WHERE NOT is_active",
    "users_email_key_of_any_tenant_idx": 'users (email_key COLLATE "C")',
}
SETTINGS = """
    CREATE TABLE IF NOT EXISTS tenant_settings (
      id uuid PRIMARY KEY,
      tenant_id uuid NOT NULL REFERENCES tenants (id) CONSTRAINT tenant_settings_tenant_id_key UNIQUE,
      max_key_days integer NOT NULL,
      is_admin_requestable boolean NOT NULL,
      created_at timestamptz NOT NULL,
      updated_at timestamptz NOT NULL,
      created_by uuid,
      updated_by uuid,
      version integer NOT NULL DEFAULT 1
    )
"""
SETTINGS_OF_TENANTS_OF_BEFORE = """
    INSERT INTO tenant_settings (id, tenant_id, max_key_days, is_admin_requestable, created_at, updated_at)
    SELECT id, id, 366, false, now(), now() FROM tenants ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    schema_changes.in_steps(
        "tenants",
        """ALTER TABLE tenants ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
             ADD COLUMN IF NOT EXISTS emptied_at timestamptz, ALTER is_active SET (n_distinct = 20)""",
        SETTINGS,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON tenant_settings TO hub_app",
        SETTINGS_OF_TENANTS_OF_BEFORE,
    )
    schema_changes.create_indexes(INDEXES)
    schema_changes.analyze(["users"])


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
    schema_changes.in_steps(
        "tenants",
        "DROP TABLE IF EXISTS tenant_settings",
        """ALTER TABLE tenants DROP COLUMN IF EXISTS deleted_at, DROP COLUMN IF EXISTS emptied_at,
             ALTER is_active RESET (n_distinct)""",
    )
