"""SCIM: keys of directories, what a directory says of the users that it manages, and when users last signed in.

Revision ID: 0038
Revises: 0037
"""

from alembic import op

from app.core import schema_changes

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

loses = (
    "the keys of directories",
    "which users a directory manages, and what it says of them",
    "when users have last signed in",
)

KEYS = """
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL,
    digest bytea NOT NULL,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    created_by uuid,
    updated_by uuid,
    version integer NOT NULL DEFAULT 1
"""
OF_USERS = {
    "managed_by": "text",
    "external_id": "text",
    "user_name_key": "text",
    "display_name_key": "text",
    "address_keys": "text[]",
    "directory": "jsonb",
    "last_sign_in_at": "timestamptz",
}
INDEXES = {
    "scim_keys_created_at_idx": "scim_keys (tenant_id, created_at, id)",
    "scim_keys_name_idx": "scim_keys (tenant_id, name, id)",
    "users_managed_by_idx": "users (tenant_id, managed_by, created_at, id) WHERE managed_by IS NOT NULL",
    "users_external_id_idx": "users (tenant_id, external_id) WHERE external_id IS NOT NULL",
    "users_display_name_key_idx": "users (tenant_id, display_name_key) WHERE display_name_key IS NOT NULL",
    "users_address_keys_idx": "users USING gin (address_keys) WHERE address_keys IS NOT NULL",
    "groups_managed_by_idx": "groups (tenant_id, managed_by, created_at, id) WHERE managed_by IS NOT NULL",
    "groups_external_id_idx": "groups (tenant_id, external_id) WHERE external_id IS NOT NULL",
}
UNIQUE_INDEXES = {"users_user_name_key": "users (tenant_id, user_name_key) WHERE user_name_key IS NOT NULL"}
NOTE_USES = (
    "note_uses_of_scim_keys(ids uuid[], hours timestamptz[])",
    "RETURNS void",
    """WITH noted AS (SELECT * FROM unnest(ids, hours) AS each (id, at)),
             locked AS (SELECT scim_keys.id, noted.at FROM public.scim_keys JOIN noted ON noted.id = scim_keys.id
                        WHERE coalesce(last_used_at < noted.at, true) ORDER BY scim_keys.id FOR UPDATE OF scim_keys)
       UPDATE public.scim_keys SET last_used_at = locked.at FROM locked WHERE locked.id = scim_keys.id""",
)


def upgrade() -> None:
    op.execute(f"CREATE TABLE scim_keys ({KEYS})")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON scim_keys TO hub_app")
    schema_changes.wall_off("scim_keys")
    columns = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in OF_USERS.items())
    schema_changes.in_steps("users", f"ALTER TABLE users {columns}")
    schema_changes.in_steps("groups", "ALTER TABLE groups ADD COLUMN IF NOT EXISTS external_id text")
    schema_changes.create_indexes(INDEXES)
    schema_changes.create_indexes(UNIQUE_INDEXES, unique=True)
    schema_changes.create_owners_function(*NOTE_USES)
    schema_changes.make_findable("users", "users_address_keys_idx", "asked text", "address_keys @> ARRAY[asked]")


def downgrade() -> None:
    schema_changes.drop_owners_functions(
        "note_uses_of_scim_keys", "found_by_users_address_keys_idx", "share_by_users_address_keys_idx"
    )
    op.execute("DROP TABLE scim_keys")
    schema_changes.drop_indexes([name for name in (*INDEXES, *UNIQUE_INDEXES) if not name.startswith("scim_keys")])
    schema_changes.in_steps("groups", "ALTER TABLE groups DROP COLUMN external_id")
    columns = ", ".join(f"DROP COLUMN {name}" for name in OF_USERS)
    schema_changes.in_steps("users", f"ALTER TABLE users {columns}")
