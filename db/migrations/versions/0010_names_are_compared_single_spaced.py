"""Names are compared with one space for each run of blanks.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

loses = ()
"""How many blanks a name was compared with; the names themselves stay as they were given."""

BLANKS = r"[\s\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
SPACED = f"btrim(regexp_replace(name_key, '{BLANKS}+', ' ', 'g'))"


def upgrade() -> None:
    """Few names have such blanks. Of two that differ in nothing else, the other one keeps the key that it had: both
    stay as they are, and no third one is made."""
    for table in ("roles", "data_sources"):
        op.execute(f"""
            DO $spaced$
            DECLARE named record;
            BEGIN
              FOR named IN
                SELECT id, {SPACED} AS spaced FROM {table} WHERE name_key ~ '{BLANKS}{{2}}|(?! ){BLANKS}' ORDER BY id
              LOOP
                BEGIN
                  UPDATE {table} SET name_key = named.spaced WHERE id = named.id;
                EXCEPTION WHEN unique_violation THEN NULL;
                END;
              END LOOP;
            END $spaced$
        """)  # noqa: S608 - names of ours


def downgrade() -> None:
    """A hub of before compares a name that it reads by the key that is there."""
