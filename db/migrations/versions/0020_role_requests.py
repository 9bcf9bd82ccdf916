"""Role requests: assignments that somebody asks for, with all that was said and decided about each.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

from app.core import schema_changes

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

loses = ("role requests, and what was decided on them",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"
TABLES = {
    "role_requests": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        user_id uuid NOT NULL,
        role_id uuid NOT NULL,
        scope_type text NOT NULL CHECK (scope_type IN ('tenant', 'data_domain', 'data_source')),
        scope_id uuid CHECK ((scope_id IS NULL) = (scope_type = 'tenant')),
        justification text NOT NULL,
        expires_at timestamptz,
        renews uuid,
        status text NOT NULL
          CHECK (status IN ('pending', 'approved', 'denied', 'cancelled', 'expired', 'revoked')),
        pending_until timestamptz NOT NULL,
        slots uuid[] NOT NULL,
        awaits uuid[] NOT NULL,
        decided_at timestamptz,
        decided_by uuid,
        assignment_id uuid,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1
    """,
    "role_request_entries": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        request_id uuid NOT NULL REFERENCES role_requests (id),
        kind text NOT NULL,
        actor_id uuid,
        on_behalf_of uuid,
        text text,
        role_ids uuid[] NOT NULL,
        is_void boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL
    """,
}
UNIQUE_INDEXES = {
    "role_requests_pending_key": (
        "role_requests (tenant_id, user_id, role_id, scope_id) NULLS NOT DISTINCT WHERE status = 'pending'"
    ),
    "role_request_entries_approved_key": (
        "role_request_entries (request_id, actor_id) WHERE kind = 'approved' AND NOT is_void"
    ),
}
ORDER = "created_at, id"
INDEXES = (
    {"role_requests_created_at_idx": f"role_requests (tenant_id, {ORDER})"}
    | {
        f"role_requests_{column}_created_at_idx": f"role_requests (tenant_id, {column}, {ORDER})"
        for column in ("user_id", "role_id")
    }
    | {
        f"role_requests_{status}_created_at_idx": f"role_requests (tenant_id, {ORDER}) WHERE status = '{status}'"
        for status in ("pending", "approved", "denied", "cancelled", "revoked")
    }
    | {
        "role_requests_expired_created_at_idx": (
            f"role_requests (tenant_id, {ORDER}) WHERE status IN ('pending', 'expired')"
        ),
        "role_requests_pending_until_idx": "role_requests (pending_until) WHERE status = 'pending'",
        "role_requests_scope_id_idx": "role_requests (scope_id) WHERE status = 'pending' AND scope_id IS NOT NULL",
        "role_request_entries_request_id_created_at_idx": f"role_request_entries (request_id, {ORDER})",
    }
)
VALUES = 20
"""As in 0006: a filter's index is the cheaper way."""


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
    for name, definition in UNIQUE_INDEXES.items():
        op.execute(f"CREATE UNIQUE INDEX {name} ON {definition}")
    for column in ("user_id", "role_id"):
        op.execute(f"ALTER TABLE role_requests ALTER {column} SET (n_distinct = {VALUES})")
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
