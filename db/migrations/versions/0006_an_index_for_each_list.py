"""An index for each sort, filter and search of each list, and what a membership has to know of its user for that.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

from app.core import schema_changes

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

loses = ()
"""Indexes, and copies of columns of `users`."""

# Named `<table>_<filter>_<sort>_idx`, as the lists in the repositories say them. The sort stands behind the filter, so
# that a page of few rows among many costs what a page of many does.
SORTED_BY_TENANT = {
    "users": (
        {"is_active": "is_active"},
        {"created_at": "created_at", "updated_at": "updated_at", "email": "email_key"},
    ),
    "roles": (
        {"is_system": "is_system", "owner_role_id": "owner_role_id"},
        {"created_at": "created_at", "updated_at": "updated_at", "name": "name_key"},
    ),
    "data_sources": (
        {
            "type": "type",
            "category": "category",
            "status": "status",
            "is_paused": "is_paused",
            "owner_role_id": "owner_role_id",
        },
        {"created_at": "created_at", "updated_at": "updated_at", "name": "name_key"},
    ),
    "jobs": (
        {"status": "status", "kind": "kind", "subject_id": "subject_id"},
        {"created_at": "created_at"},
    ),
    "audit_events": (
        {"actor_id": "actor_id", "action": "action", "resource_type": "resource_type", "outcome": "outcome"},
        {"occurred_at": "occurred_at"},
    ),
}
SPARSE = ("owner_role_id", "subject_id", "actor_id")
"""Many rows have none."""

INDEXES = {
    f"{table}_{filter_name}_{sort}_idx": f"{table} (tenant_id, {column}, {sort_column}, id)"
    + (f" WHERE {column} IS NOT NULL" if column in SPARSE else "")
    for table, (filters, sorts) in SORTED_BY_TENANT.items()
    for filter_name, column in filters.items()
    for sort, sort_column in sorts.items()
} | {
    "data_source_tests_status_created_at_idx": "data_source_tests (data_source_id, status, created_at, id)",
    "source_objects_discovered_at_idx": "source_objects (data_source_id, discovered_at, id)",
    "source_objects_kind_qualified_name_idx": "source_objects (data_source_id, kind, qualified_name, id)",
    "source_objects_kind_discovered_at_idx": "source_objects (data_source_id, kind, discovered_at, id)",
    "source_objects_is_active_qualified_name_idx": "source_objects (data_source_id, is_active, qualified_name, id)",
    "source_objects_is_active_discovered_at_idx": "source_objects (data_source_id, is_active, discovered_at, id)",
    "sessions_live_idx": "sessions (user_id, idle_expires_at) WHERE revoked_at IS NULL",
    "sessions_live_created_at_idx": "sessions (user_id, created_at, id) WHERE revoked_at IS NULL",
    "sessions_live_last_seen_at_idx": "sessions (user_id, last_seen_at, id) WHERE revoked_at IS NULL",
    "user_roles_created_at_idx": "user_roles (tenant_id, role_id, user_created_at, user_id)",
    "user_roles_updated_at_idx": "user_roles (tenant_id, role_id, user_updated_at, user_id)",
    "user_roles_email_idx": "user_roles (tenant_id, role_id, user_email_key, user_id)",
    "data_source_secrets_key_id_idx": (
        "data_source_secrets (key_id, updated_at, data_source_id, name) WHERE sealed IS NOT NULL"
    ),
}  # fmt: skip

# Texts begin with a space, as each word in them does: so one letter can be looked for at the beginning of words.
SEARCHED = {
    "users": "lower(' ' || email || ' ' || first_name || ' ' || last_name)",
    "roles": "lower(' ' || name || ' ' || coalesce(description, ''))",
    "data_sources": "lower(' ' || name || ' ' || coalesce(description, ''))",
    "source_objects": "lower(' ' || name || ' ' || qualified_name)",
}
SYMBOLS = "string_to_array(regexp_replace({text}, '[[:alnum:][:space:]]+', '', 'g'), NULL)"
SEARCHES = {
    f"{table}_search_idx": f"{table} USING gin ({text} gin_trgm_ops, ({SYMBOLS.format(text=text)}))"
    for table, text in SEARCHED.items()
}
SAMPLES = 500
"""Five times PostgreSQL's own: by them it tells a text that every hundredth row holds from one that hardly any has."""

FILTERED = {table: tuple(filters) for table, (filters, _) in SORTED_BY_TENANT.items()} | {
    "data_source_tests": ("status",),
    "source_objects": ("kind", "is_active"),
}
VALUES = 20
"""What the planner is told that such a column has, whatever it finds in it. Where it has seen one value only, it would
take the filter for no filter, and walk through all rows by the sort's index for a value that few of them have."""

# Whoever gives a role holds the user's row: no change of it can come between.
COPY_USER = """
    CREATE OR REPLACE FUNCTION copy_user_into_user_roles() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      SELECT email_key, created_at, updated_at INTO NEW.user_email_key, NEW.user_created_at, NEW.user_updated_at
      FROM public.users WHERE id = NEW.user_id;
      RETURN NEW;
    END $$
"""
COPY_CHANGED_USER = """
    CREATE OR REPLACE FUNCTION copy_changed_user_into_user_roles() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE public.user_roles SET user_email_key = NEW.email_key, user_created_at = NEW.created_at,
        user_updated_at = NEW.updated_at
      WHERE user_id = NEW.id;
      RETURN NULL;
    END $$
"""


def upgrade() -> None:
    _copy_users_into_user_roles()
    schema_changes.create_indexes(INDEXES | SEARCHES)
    for name in SEARCHES:
        op.execute(f"ALTER INDEX {name} ALTER COLUMN 1 SET STATISTICS {SAMPLES}")
    for table, columns in FILTERED.items():
        op.execute(
            f"ALTER TABLE {table} " + ", ".join(f"ALTER {column} SET (n_distinct = {VALUES})" for column in columns)
        )
    schema_changes.analyze(sorted({definition.split()[0] for definition in (INDEXES | SEARCHES).values()}))


def _copy_users_into_user_roles() -> None:
    """The members of a role are sorted by what stands in their memberships: an index cannot reach over to `users`. The
    database itself keeps the copies, whichever release of the hub writes."""
    schema_changes.in_steps(
        "user_roles",
        """ALTER TABLE user_roles ADD COLUMN IF NOT EXISTS user_email_key text,
             ADD COLUMN IF NOT EXISTS user_created_at timestamptz,
             ADD COLUMN IF NOT EXISTS user_updated_at timestamptz""",
        COPY_USER,
        COPY_CHANGED_USER,
        """CREATE OR REPLACE TRIGGER copy_user BEFORE INSERT ON user_roles
             FOR EACH ROW EXECUTE FUNCTION copy_user_into_user_roles()""",
        """CREATE OR REPLACE TRIGGER copy_changed_user AFTER UPDATE ON users FOR EACH ROW
             WHEN ((OLD.email_key, OLD.created_at, OLD.updated_at)
                   IS DISTINCT FROM (NEW.email_key, NEW.created_at, NEW.updated_at))
             EXECUTE FUNCTION copy_changed_user_into_user_roles()""",
    )
    schema_changes.fill_in(
        "user_roles",
        "user_email_key = users.email_key, user_created_at = users.created_at, user_updated_at = users.updated_at",
        "users.id = user_roles.user_id AND user_roles.user_email_key IS NULL",
        source="users",
    )
    schema_changes.set_not_null("user_roles", "user_email_key", "user_created_at", "user_updated_at")


def downgrade() -> None:
    for table, columns in FILTERED.items():
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"ALTER {column} RESET (n_distinct)" for column in columns))
    schema_changes.drop_indexes([*INDEXES, *SEARCHES])
    schema_changes.in_steps(
        "user_roles",
        "DROP TRIGGER IF EXISTS copy_changed_user ON users",
        "DROP TRIGGER IF EXISTS copy_user ON user_roles",
        "DROP FUNCTION IF EXISTS copy_changed_user_into_user_roles, copy_user_into_user_roles",
        """ALTER TABLE user_roles DROP COLUMN IF EXISTS user_email_key, DROP COLUMN IF EXISTS user_created_at,
             DROP COLUMN IF EXISTS user_updated_at""",
    )
