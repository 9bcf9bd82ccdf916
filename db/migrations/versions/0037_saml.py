"""Sign-in by SAML: the hub's own keys to providers, copies of their metadata, and who has arrived.

Revision ID: 0037
Revises: 0036
"""

from alembic import op

from app.core import schema_changes

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

loses = ("the hub's keys to SAML providers, each of which has to be told of a new one",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"
TABLES = {
    "saml_keys": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        provider_id uuid NOT NULL,
        certificate bytea NOT NULL,
        sealed bytea NOT NULL,
        key_id text NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT saml_keys_provider_key UNIQUE (tenant_id, provider_id)
    """,
    "saml_metadata": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        provider_id uuid NOT NULL,
        url text NOT NULL,
        document text NOT NULL,
        fetched_at timestamptz NOT NULL,
        CONSTRAINT saml_metadata_provider_key UNIQUE (tenant_id, provider_id)
    """,
    "saml_arrivals": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        digest bytea NOT NULL,
        provider_id uuid NOT NULL,
        request_id text NOT NULL,
        said jsonb NOT NULL,
        expires_at timestamptz NOT NULL
    """,
}
INDEXES = {
    "saml_keys_key_id_idx": "saml_keys (key_id, created_at, id)",
    "saml_arrivals_expires_at_idx": "saml_arrivals (expires_at)",
    "saml_arrivals_tenant_id_idx": "saml_arrivals (tenant_id)",
}
FUNCTIONS = {
    "saml_keys_of_each_key()": (
        "RETURNS TABLE (key_id text, stored bigint) STABLE",
        "SELECT key_id, count(*) FROM public.saml_keys GROUP BY key_id",
    ),
    "oldest_saml_key_of_each_key()": (
        "RETURNS TABLE (key_id text, tenant_id uuid, id uuid, sealed bytea) STABLE",
        """SELECT DISTINCT ON (key_id) key_id, tenant_id, id, sealed FROM public.saml_keys
           ORDER BY key_id, created_at, id""",
    ),
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
    schema_changes.create_indexes(INDEXES)
    for signature, (answers, body) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body)
    schema_changes.make_removable("saml_arrivals", "expires_at")


def downgrade() -> None:
    names = [signature.partition("(")[0] for signature in FUNCTIONS]
    schema_changes.drop_owners_functions(*names, "remove_outdated_saml_arrivals")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
