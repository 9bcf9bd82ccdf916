"""The hub as authorization server: clients, public keys of service accounts, and the tokens of programs.

Revision ID: 0033
Revises: 0032
"""

from alembic import op

from app.core import schema_changes

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

loses = ("OAuth clients, public keys of service accounts, and the access tokens that those have",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"

TABLES = {
    "oauth_clients": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        client_id text NOT NULL,
        name text NOT NULL,
        name_key text NOT NULL,
        redirect_uris text[] NOT NULL,
        is_confidential boolean NOT NULL,
        secret_digest bytea CHECK ((secret_digest IS NOT NULL) = is_confidential),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1,
        CONSTRAINT oauth_clients_name_key UNIQUE (tenant_id, name_key)
    """,
    "service_tokens": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        service_account_id uuid NOT NULL REFERENCES service_accounts (id) ON DELETE CASCADE,
        api_key_id uuid REFERENCES api_keys (id) ON DELETE CASCADE,
        jwk_id uuid,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        revoked_at timestamptz,
        CHECK ((api_key_id IS NULL) <> (jwk_id IS NULL))
    """,
}
INDEXES = {
    "oauth_clients_created_at_idx": "oauth_clients (tenant_id, created_at, id)",
    "oauth_clients_name_idx": "oauth_clients (tenant_id, name_key, id)",
    "service_tokens_service_account_id_idx": "service_tokens (service_account_id)",
    "service_tokens_api_key_id_idx": "service_tokens (api_key_id) WHERE api_key_id IS NOT NULL",
    "service_tokens_expires_at_idx": "service_tokens (expires_at)",
    "sessions_client_id_idx": "sessions (tenant_id, client_id) WHERE client_id IS NOT NULL AND revoked_at IS NULL",
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
    schema_changes.in_steps("service_accounts", "ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS jwks jsonb")
    schema_changes.create_indexes(INDEXES)
    schema_changes.create_owners_function(
        "tenant_of_service_account(account uuid)",
        "RETURNS uuid STABLE",
        "SELECT tenant_id FROM public.service_accounts WHERE id = account",
    )
    schema_changes.make_removable("service_tokens", "expires_at")


def downgrade() -> None:
    schema_changes.drop_owners_functions("tenant_of_service_account", "remove_outdated_service_tokens")
    schema_changes.drop_indexes(["sessions_client_id_idx"])
    schema_changes.in_steps("service_accounts", "ALTER TABLE service_accounts DROP COLUMN IF EXISTS jwks")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
