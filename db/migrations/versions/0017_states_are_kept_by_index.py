"""States of secrets are held against the secrets of the sources concerned, and of no others.

Revision ID: 0017
Revises: 0016
"""

from app.core import schema_changes

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

loses = ()

# A connection that planned the UPDATE while there were few sources went on to walk through all of them, and worked out
# the states of each before it looked whether that one was concerned: 50 ms for each statement among 5,000 sources. A
# plan without walks, hashes and merges is the right one for any number of them.
BY_INDEX = """
    CREATE OR REPLACE FUNCTION keep_states_of_secrets() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    BEGIN
      UPDATE public.data_sources AS source SET secret_states = kept.states
      FROM (SELECT data_source_id, public.states_of_secrets(data_source_id) AS states
            FROM (SELECT DISTINCT data_source_id FROM changed) AS concerned) AS kept
      WHERE source.id = kept.data_source_id AND source.secret_states <> kept.states;
      RETURN NULL;
    END $$
"""
AS_PLANNED = """
    CREATE OR REPLACE FUNCTION keep_states_of_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE public.data_sources SET secret_states = public.states_of_secrets(id)
      WHERE id IN (SELECT data_source_id FROM changed) AND secret_states <> public.states_of_secrets(id);
      RETURN NULL;
    END $$
"""


def upgrade() -> None:
    schema_changes.in_steps("data_sources", BY_INDEX)


def downgrade() -> None:
    schema_changes.in_steps("data_sources", AS_PLANNED)
