"""Second factors: one-time passwords, passkeys and recovery codes, and roles that ask for one.

Revision ID: 0034
Revises: 0033
"""

from alembic import op

from app.core import schema_changes

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

loses = ("second factors and recovery codes, and which roles ask for one",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"
OF_USER = "user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE"

TABLES = {
    "factors": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        {OF_USER},
        type text NOT NULL CHECK (type IN ('totp', 'passkey')),
        name text NOT NULL,
        confirmed_at timestamptz,
        expires_at timestamptz,
        last_used_at timestamptz,
        sealed bytea,
        key_id text,
        last_step bigint NOT NULL DEFAULT 0,
        challenge bytea,
        credential_id bytea,
        credential bytea,
        sign_count bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1,
        CONSTRAINT factors_credential_id_key UNIQUE (tenant_id, credential_id)
    """,
    "recovery_codes": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        {OF_USER},
        digest bytea NOT NULL,
        created_at timestamptz NOT NULL
    """,
}
INDEXES = {
    "factors_user_id_created_at_idx": "factors (user_id, created_at, id)",
    "factors_key_id_idx": "factors (key_id) WHERE sealed IS NOT NULL",
    "factors_expires_at_idx": "factors (expires_at) WHERE expires_at IS NOT NULL",
    "recovery_codes_user_id_idx": "recovery_codes (user_id)",
}


def upgrade() -> None:
    schema_changes.in_steps("users", "ALTER TABLE users ADD COLUMN IF NOT EXISTS factors text[] NOT NULL DEFAULT '{}'")
    schema_changes.in_steps(
        "roles", "ALTER TABLE roles ADD COLUMN IF NOT EXISTS requires_mfa boolean NOT NULL DEFAULT false"
    )
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
    schema_changes.create_indexes(INDEXES)
    schema_changes.create_owners_function(
        "factors_of_each_key()",
        "RETURNS TABLE (key_id text, stored bigint) STABLE",
        "SELECT key_id, count(*) FROM public.factors WHERE sealed IS NOT NULL GROUP BY key_id",
    )
    schema_changes.make_removable("factors", "expires_at")


def downgrade() -> None:
    schema_changes.drop_owners_functions("factors_of_each_key", "remove_outdated_factors")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    schema_changes.in_steps("roles", "ALTER TABLE roles DROP COLUMN requires_mfa")
    schema_changes.in_steps("users", "ALTER TABLE users DROP COLUMN factors")
