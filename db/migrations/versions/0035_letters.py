"""Letters: invitations, forgotten passwords, new email addresses, and the queue of what is sent by mail.

Revision ID: 0035
Revises: 0034
"""

from alembic import op

from app.core import schema_changes

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

loses = ("open invitations, and letters that wait to be sent",)

OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"
TABLES = {
    "invitations": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        email text NOT NULL,
        email_key text NOT NULL,
        first_name text NOT NULL,
        last_name text NOT NULL,
        role_ids uuid[] NOT NULL,
        inviter_type text CHECK (inviter_type IN ('user', 'service_account')),
        expires_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by uuid,
        updated_by uuid,
        version integer NOT NULL DEFAULT 1,
        CONSTRAINT invitations_email_key UNIQUE (tenant_id, email_key)
    """,
    "letters": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        kind text NOT NULL,
        email text NOT NULL,
        user_id uuid REFERENCES users (id) ON DELETE CASCADE,
        invitation_id uuid REFERENCES invitations (id) ON DELETE CASCADE,
        words jsonb NOT NULL,
        digest bytea,
        key_id text,
        status text NOT NULL CHECK (status IN ('waiting', 'sent', 'failed', 'shown')),
        attempts integer NOT NULL DEFAULT 0,
        next_attempt_at timestamptz NOT NULL,
        lease_id uuid,
        lease_until timestamptz,
        failure text,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        sent_at timestamptz,
        ended_at timestamptz
    """,
    "forgotten_passwords": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        email text NOT NULL,
        slug text,
        created_at timestamptz NOT NULL
    """,
}
INDEXES = {
    "invitations_tenant_id_created_at_id_idx": "invitations (tenant_id, created_at, id)",
    "invitations_tenant_id_email_key_id_idx": "invitations (tenant_id, email_key, id)",
    "invitations_expires_at_idx": "invitations (expires_at)",
    "letters_user_id_created_at_idx": "letters (user_id, created_at) WHERE user_id IS NOT NULL",
    "letters_invitation_id_created_at_idx": "letters (invitation_id, created_at) WHERE invitation_id IS NOT NULL",
    "letters_waiting_idx": "letters (next_attempt_at) WHERE status = 'waiting'",
    "letters_created_at_idx": "letters (created_at)",
    "forgotten_passwords_created_at_idx": "forgotten_passwords (created_at)",
}
NOT_SUSPENDED = "tenant_id <> ALL (ARRAY(SELECT tenants.id FROM public.tenants WHERE NOT is_active))"
FUNCTIONS = {
    "due_letters(most integer)": (
        "RETURNS TABLE (id uuid, tenant_id uuid)",
        f"""SELECT letter.id, letter.tenant_id FROM public.letters AS letter
            WHERE letter.status = 'waiting' AND letter.next_attempt_at <= now()
              AND coalesce(letter.lease_until < now(), true) AND letter.{NOT_SUSPENDED}
            ORDER BY letter.next_attempt_at LIMIT most FOR UPDATE SKIP LOCKED""",  # noqa: S608 - names of ours
    ),
    "figures_of_letters(most integer)": (
        "RETURNS TABLE (waiting bigint, oldest_s float8) STABLE",
        """SELECT (SELECT count(*) FROM (SELECT FROM public.letters WHERE status = 'waiting' LIMIT most) AS waiting),
                  (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
                   FROM public.letters WHERE status = 'waiting')""",
    ),
}
# What a letter's link would change has changed, or whoever it was for may not sign in any more.
END_LETTERS = """
    CREATE OR REPLACE FUNCTION end_letters_of_user() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE public.letters SET ended_at = now()
      WHERE user_id = NEW.id AND tenant_id = NEW.tenant_id AND digest IS NOT NULL AND ended_at IS NULL;
      RETURN NULL;
    END $$
"""
TRIGGER = """
    CREATE OR REPLACE TRIGGER end_letters AFTER UPDATE OF is_active, password_hash, email_key ON users FOR EACH ROW
    WHEN ((OLD.is_active AND NOT NEW.is_active) OR OLD.password_hash IS DISTINCT FROM NEW.password_hash
      OR OLD.email_key <> NEW.email_key)
    EXECUTE FUNCTION end_letters_of_user()
"""


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO hub_app")
        schema_changes.wall_off(table)
    schema_changes.create_indexes(INDEXES)
    for signature, (answers, body) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body)
    schema_changes.make_removable("letters", "created_at")
    schema_changes.make_removable("invitations", "expires_at")
    op.execute(END_LETTERS)
    schema_changes.in_steps("users", TRIGGER)


def downgrade() -> None:
    schema_changes.in_steps("users", "DROP TRIGGER IF EXISTS end_letters ON users")
    op.execute("DROP FUNCTION IF EXISTS end_letters_of_user()")
    names = [signature.partition("(")[0] for signature in FUNCTIONS]
    schema_changes.drop_owners_functions(*names, "remove_outdated_letters", "remove_outdated_invitations")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
