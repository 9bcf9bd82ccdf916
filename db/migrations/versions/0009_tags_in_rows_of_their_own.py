"""Tags in rows of their own, in every order that the list of data sources has.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

from app.core import schema_changes

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

loses = ()
"""Copies of what stands in `data_sources`."""

TABLE = """
    CREATE TABLE IF NOT EXISTS data_source_tags (
      data_source_id uuid NOT NULL REFERENCES data_sources (id) ON DELETE CASCADE,
      tag text NOT NULL,
      tenant_id uuid NOT NULL REFERENCES tenants (id),
      source_created_at timestamptz NOT NULL,
      source_updated_at timestamptz NOT NULL,
      source_name_key text NOT NULL,
      PRIMARY KEY (data_source_id, tag))
"""
COLUMNS = "data_source_id, tag, tenant_id, source_created_at, source_updated_at, source_name_key"
OF_SOURCE = """
    SELECT DISTINCT source.id, tag, source.tenant_id, source.created_at, source.updated_at, source.name_key
"""
COPY_TAGS_OF_NEW = f"""
    CREATE OR REPLACE FUNCTION copy_tags_of_new_sources() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO public.data_source_tags ({COLUMNS})
      {OF_SOURCE} FROM added AS source, unnest(source.tags) AS tag;
      RETURN NULL;
    END $$
"""
# One after the other: whoever changes a source has its row locked.
COPY_TAGS_OF_CHANGED = f"""
    CREATE OR REPLACE FUNCTION copy_tags_of_changed_source() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      DELETE FROM public.data_source_tags WHERE data_source_id = NEW.id;
      INSERT INTO public.data_source_tags ({COLUMNS})
      {OF_SOURCE} FROM (SELECT NEW.*) AS source, unnest(source.tags) AS tag;
      RETURN NULL;
    END $$
"""  # noqa: S608 - names of ours
TRIGGER_OF_NEW = """
    CREATE OR REPLACE TRIGGER copy_tags_of_new AFTER INSERT ON data_sources
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION copy_tags_of_new_sources()
"""
TRIGGER_OF_CHANGED = """
    CREATE OR REPLACE TRIGGER copy_tags_of_changed AFTER UPDATE ON data_sources FOR EACH ROW
    WHEN ((OLD.tags <> '{}' OR NEW.tags <> '{}')
      AND (OLD.tags, OLD.tenant_id, OLD.created_at, OLD.updated_at, OLD.name_key)
        IS DISTINCT FROM (NEW.tags, NEW.tenant_id, NEW.created_at, NEW.updated_at, NEW.name_key))
    EXECUTE FUNCTION copy_tags_of_changed_source()
"""
FILL = f"""
    INSERT INTO data_source_tags ({COLUMNS})
    {OF_SOURCE} FROM (SELECT * FROM data_sources WHERE {{these}} AND tags <> '{{}}' FOR SHARE) AS source,
      unnest(source.tags) AS tag
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - names of ours
"""Whoever changes one of these sources comes before this statement or after it, never in between: what the triggers
write is not older."""

INDEXES = {
    f"data_source_tags_{sort}_idx": f"data_source_tags (tenant_id, tag, {column}, data_source_id)"
    for sort, column in {
        "created_at": "source_created_at",
        "updated_at": "source_updated_at",
        "name": "source_name_key",
    }.items()
}
VALUES = 20
"""As in 0006: a filter's index is the cheaper way, whatever the statistics have seen of its values."""


def upgrade() -> None:
    schema_changes.in_steps(
        "data_sources",
        TABLE,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON data_source_tags TO hub_app",
        COPY_TAGS_OF_NEW,
        COPY_TAGS_OF_CHANGED,
        TRIGGER_OF_NEW,
        TRIGGER_OF_CHANGED,
    )
    schema_changes.page_by_page("data_sources", FILL)
    schema_changes.create_indexes(INDEXES)
    op.execute(f"ALTER TABLE data_source_tags ALTER tag SET (n_distinct = {VALUES})")
    schema_changes.analyze(["data_source_tags"])


def downgrade() -> None:
    schema_changes.in_steps(
        "data_sources",
        "DROP TRIGGER IF EXISTS copy_tags_of_changed ON data_sources",
        "DROP TRIGGER IF EXISTS copy_tags_of_new ON data_sources",
        "DROP FUNCTION IF EXISTS copy_tags_of_changed_source, copy_tags_of_new_sources",
        "DROP TABLE IF EXISTS data_source_tags",
    )
