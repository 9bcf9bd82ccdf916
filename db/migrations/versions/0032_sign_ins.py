"""Sign-ins by other ways than the hub's own form: how a session was opened and by which client, and one-time codes.

Revision ID: 0032
Revises: 0031
"""

from alembic import op

from app.core import schema_changes

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

loses = ("which sessions belong to other clients than the hub's own, and how their users have signed in",)

OF_SESSIONS = {
    "client_id": "text",
    "amr": "text[] NOT NULL DEFAULT '{pwd}'",
    "authenticated_at": "timestamptz NOT NULL DEFAULT now()",
    "stepped_up_at": "timestamptz",
    "provider": "text",
    "provider_subject": "text",
    "provider_session": "text",
}
"""The defaults are what a hub of the release before means."""

CODES = """
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    digest bytea NOT NULL,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id text,
    redirect_uri text NOT NULL,
    code_challenge text NOT NULL,
    scope text,
    amr text[] NOT NULL,
    provider text,
    provider_subject text,
    provider_session text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    session_id uuid
"""
SPENT = """
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    expires_at timestamptz NOT NULL
"""
INDEXES = {
    "spent_tokens_expires_at_idx": "spent_tokens (expires_at)",
    "spent_tokens_tenant_id_idx": "spent_tokens (tenant_id)",
    "sign_in_codes_user_id_idx": "sign_in_codes (user_id)",
    "sign_in_codes_expires_at_idx": "sign_in_codes (expires_at)",
    "sessions_provider_subject_idx": """sessions (tenant_id, provider, provider_subject)
        WHERE provider IS NOT NULL AND revoked_at IS NULL""",
}
TABLES = {"sign_in_codes": CODES, "spent_tokens": SPENT}


def upgrade() -> None:
    columns = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in OF_SESSIONS.items())
    schema_changes.in_steps("sessions", f"ALTER TABLE sessions {columns}")
    for table, definition in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({definition})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
        schema_changes.make_removable(table, "expires_at")
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    for table in TABLES:
        schema_changes.drop_owners_functions(f"remove_outdated_{table}")
        op.execute(f"DROP TABLE {table}")
    schema_changes.drop_indexes(["sessions_provider_subject_idx"])
    columns = ", ".join(f"DROP COLUMN {name}" for name in OF_SESSIONS)
    schema_changes.in_steps("sessions", f"ALTER TABLE sessions {columns}")
