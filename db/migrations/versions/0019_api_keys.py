"""API keys, and which of them somebody came with on record.

Revision ID: 0019
Revises: 0018
"""

from app.core import schema_changes

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

loses = ("API keys", "with which API key something was done")

# Both references follow from the owner, so that a key goes with whichever it is.
TABLE = """
    CREATE TABLE IF NOT EXISTS api_keys (
      id uuid PRIMARY KEY,
      tenant_id uuid NOT NULL REFERENCES tenants (id),
      name text NOT NULL,
      prefix text NOT NULL,
      digest bytea NOT NULL,
      owner_type text NOT NULL CHECK (owner_type IN ('user', 'service_account')),
      owner_id uuid NOT NULL,
      permissions text[],
      expires_at timestamptz NOT NULL,
      last_used_at timestamptz,
      user_id uuid GENERATED ALWAYS AS (CASE WHEN owner_type = 'user' THEN owner_id END) STORED
        REFERENCES users (id) ON DELETE CASCADE,
      service_account_id uuid GENERATED ALWAYS AS (CASE WHEN owner_type = 'service_account' THEN owner_id END) STORED
        REFERENCES service_accounts (id) ON DELETE CASCADE,
      created_at timestamptz NOT NULL,
      updated_at timestamptz NOT NULL,
      created_by uuid,
      updated_by uuid,
      version integer NOT NULL DEFAULT 1,
      CONSTRAINT api_keys_prefix_key UNIQUE (tenant_id, prefix))
"""
TENANT_OF_KEY = """
    CREATE OR REPLACE FUNCTION tenant_of_api_key(key_id uuid) RETURNS uuid
      LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
      AS 'SELECT tenant_id FROM public.api_keys WHERE id = key_id'
"""
"""A key does not say whose it is, so that this one read knows no tenant before it has read."""
SORTS = ("created_at", "expires_at", "name")
INDEXES = (
    {f"api_keys_{sort}_idx": f"api_keys (tenant_id, {sort}, id)" for sort in SORTS}
    | {f"api_keys_owner_id_{sort}_idx": f"api_keys (tenant_id, owner_id, {sort}, id)" for sort in SORTS}
    | {
        "api_keys_user_id_idx": "api_keys (user_id) WHERE user_id IS NOT NULL",
        "api_keys_service_account_id_idx": "api_keys (service_account_id) WHERE service_account_id IS NOT NULL",
        "api_keys_expired_idx": "api_keys (expires_at)",
        "audit_events_api_key_id_occurred_at_idx": (
            "audit_events (tenant_id, api_key_id, occurred_at, id) WHERE api_key_id IS NOT NULL"
        ),
    }
)
VALUES = 20
"""As in 0006: a filter's index is the cheaper way, whatever the statistics have seen of its values."""


def upgrade() -> None:
    schema_changes.in_steps(
        "audit_events",
        TABLE,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys TO hub_app",
        f"ALTER TABLE api_keys ALTER owner_id SET (n_distinct = {VALUES})",
        TENANT_OF_KEY,
        "REVOKE ALL ON FUNCTION tenant_of_api_key FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION tenant_of_api_key TO hub_app",
        "ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS api_key_id uuid",
        f"ALTER TABLE audit_events ALTER api_key_id SET (n_distinct = {VALUES})",
    )
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    schema_changes.drop_indexes(["audit_events_api_key_id_occurred_at_idx"])
    schema_changes.in_steps(
        "audit_events",
        "ALTER TABLE audit_events DROP COLUMN IF EXISTS api_key_id",
        "DROP FUNCTION IF EXISTS tenant_of_api_key",
        "DROP TABLE IF EXISTS api_keys",
    )
