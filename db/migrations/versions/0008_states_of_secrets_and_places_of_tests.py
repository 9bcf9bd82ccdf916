"""States of secrets on the source's row, and what the schedule of tests asks for.

Revision ID: 0008
Revises: 0007
"""

from app.core import schema_changes

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

loses = ()
"""States of secrets follow from the secrets; how often a source failed in a row is counted anew."""

# As `SecretState` shows them. The hub writes them with the source; where another release of it, or a person, writes
# secrets, the triggers put right what differs.
STATES = """
    CREATE OR REPLACE FUNCTION states_of_secrets(source uuid) RETURNS jsonb STABLE LANGUAGE sql AS $$
      SELECT coalesce(jsonb_object_agg(name, jsonb_build_object(
        'set', true, 'version', version, 'updated_by', updated_by, 'ref', reference,
        'updated_at', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'source', CASE WHEN reference IS NULL THEN 'stored' ELSE 'reference' END)), '{}')
      FROM public.data_source_secrets WHERE data_source_id = source
    $$
"""
KEEP_STATES = """
    CREATE OR REPLACE FUNCTION keep_states_of_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE public.data_sources SET secret_states = public.states_of_secrets(id)
      WHERE id IN (SELECT data_source_id FROM changed) AND secret_states <> public.states_of_secrets(id);
      RETURN NULL;
    END $$
"""
TRIGGERS = {"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"}

INDEXES = {
    f"data_sources_next_test_{name}_idx": f"data_sources (next_test_at)"
    f" WHERE next_test_at IS NOT NULL AND NOT is_paused AND status {is_so} 'passed'"
    for name, is_so in {"well": "=", "doubtful": "<>"}.items()
}


def upgrade() -> None:
    schema_changes.in_steps(
        "data_sources",
        """ALTER TABLE data_sources ADD COLUMN IF NOT EXISTS secret_states jsonb NOT NULL DEFAULT '{}',
             ADD COLUMN IF NOT EXISTS test_failures integer NOT NULL DEFAULT 0,
             ADD COLUMN IF NOT EXISTS host text""",
        STATES,
        KEEP_STATES,
        *(
            f"""CREATE OR REPLACE TRIGGER keep_states_{event.lower()} AFTER {event} ON data_source_secrets
                  REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION keep_states_of_secrets()"""
            for event, rows in TRIGGERS.items()
        ),
    )
    schema_changes.fill_in(
        "data_sources",
        "secret_states = states_of_secrets(id)",
        "secret_states = '{}' AND EXISTS (SELECT FROM data_source_secrets WHERE data_source_id = data_sources.id)",
    )
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
    schema_changes.in_steps(
        "data_sources",
        *(f"DROP TRIGGER IF EXISTS keep_states_{event.lower()} ON data_source_secrets" for event in TRIGGERS),
        "DROP FUNCTION IF EXISTS keep_states_of_secrets, states_of_secrets",
        """ALTER TABLE data_sources DROP COLUMN IF EXISTS host, DROP COLUMN IF EXISTS test_failures,
             DROP COLUMN IF EXISTS secret_states""",
    )
