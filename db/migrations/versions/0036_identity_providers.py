"""Identity providers of tenants, whom they have vouched for, and how a tenant wants its members to sign in.

Revision ID: 0036
Revises: 0035
"""

from alembic import op

from app.core import schema_changes

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

loses = ("tenants' identity providers, who signs in by them, and tenants' rules for signing in",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"
TABLES = {
    "identity_providers": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        kind text NOT NULL CHECK (kind IN ('oidc', 'saml')),
        name text NOT NULL,
        label text NOT NULL,
        is_active boolean NOT NULL,
        issuer text,
        client_id text,
        scopes text[] NOT NULL,
        groups_claim text,
        allowed_domains text[] NOT NULL,
        metadata_xml text,
        metadata_url text,
        attribute_email text,
        attribute_first_name text,
        attribute_last_name text,
        attribute_groups text,
        sealed bytea,
        key_id text CHECK ((key_id IS NULL) = (sealed IS NULL)),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1,
        CONSTRAINT identity_providers_name_key UNIQUE (tenant_id, name)
    """,
    "user_identities": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        kind text NOT NULL CHECK (kind IN ('oidc', 'saml')),
        provider text NOT NULL,
        issuer text NOT NULL,
        subject text NOT NULL,
        created_at timestamptz NOT NULL,
        last_used_at timestamptz,
        CONSTRAINT user_identities_subject_key UNIQUE (tenant_id, kind, issuer, subject)
    """,
}
INDEXES = {
    "identity_providers_key_id_idx": "identity_providers (key_id, created_at, id) WHERE key_id IS NOT NULL",
    "user_identities_user_id_idx": "user_identities (user_id)",
}
FUNCTIONS = {
    "identity_provider_secrets_of_each_key()": (
        "RETURNS TABLE (key_id text, stored bigint) STABLE",
        "SELECT key_id, count(*) FROM public.identity_providers WHERE key_id IS NOT NULL GROUP BY key_id",
    ),
    "oldest_identity_provider_secret_of_each_key()": (
        "RETURNS TABLE (key_id text, tenant_id uuid, id uuid, sealed bytea) STABLE",
        """SELECT DISTINCT ON (key_id) key_id, tenant_id, id, sealed FROM public.identity_providers
           WHERE key_id IS NOT NULL ORDER BY key_id, created_at, id""",
    ),
}
OF_SETTINGS = {
    "password_min_length": "integer",
    "requires_mfa": "boolean NOT NULL DEFAULT false",
    "allowed_email_domains": "text[] NOT NULL DEFAULT '{}'",
    "session_idle_days": "integer NOT NULL DEFAULT 7",
    "session_days": "integer NOT NULL DEFAULT 30",
}
"""The defaults are what a hub of the release before does."""


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
    schema_changes.create_indexes(INDEXES)
    for signature, (answers, body) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body)
    columns = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in OF_SETTINGS.items())
    schema_changes.in_steps("tenant_settings", f"ALTER TABLE tenant_settings {columns}")


def downgrade() -> None:
    names = [signature.partition("(")[0] for signature in FUNCTIONS]
    schema_changes.drop_owners_functions(*names)
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    columns = ", ".join(f"DROP COLUMN {name}" for name in OF_SETTINGS)
    schema_changes.in_steps("tenant_settings", f"ALTER TABLE tenant_settings {columns}")
