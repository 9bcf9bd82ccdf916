"""Where each event has been published already, and what could not be (decision 0049).

Revision ID: 0027
Revises: 0026
"""

from alembic import op

from app.core import schema_changes

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

loses = ("which events were published to a Redis stream or set aside",)

COLUMNS = {"broker": ("published_at", "set_aside_at"), "stream": ("streamed_at", "stream_set_aside_at")}
"""By destination when an event was published there, and when that was given up."""


def _waits(destination: str) -> str:
    done, given_up = COLUMNS[destination]
    return f"{done} IS NULL AND {given_up} IS NULL"


INDEXES = {
    f"outbox_events_waiting_for_{destination}_idx": "outbox_events (tenant_id, position) "
    f"WHERE position IS NOT NULL AND {_waits(destination)}"
    for destination in COLUMNS
}
TABLES = (
    """CREATE TABLE event_attempts (
         tenant_id uuid NOT NULL REFERENCES tenants (id),
         event_id uuid NOT NULL REFERENCES outbox_events (id) ON DELETE CASCADE,
         destination text NOT NULL,
         subject text NOT NULL,
         attempts integer NOT NULL,
         retry_at timestamptz NOT NULL,
         reason text NOT NULL,
         PRIMARY KEY (event_id, destination))""",
    """CREATE INDEX event_attempts_subject_idx ON event_attempts (destination, tenant_id, subject)""",
    """CREATE TABLE relays (
         destination text PRIMARY KEY,
         sent bigint NOT NULL DEFAULT 0,
         failed bigint NOT NULL DEFAULT 0,
         set_aside bigint NOT NULL DEFAULT 0,
         away_since timestamptz,
         reason text)""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON event_attempts, relays TO hub_app",
    "INSERT INTO relays (destination) VALUES ('broker'), ('stream')",
)

# From one tenant after the other, beginning behind the one that was served last, so that nobody waits for what somebody
# else has thousands of. A subject of which an event waits for its next attempt waits with it. As many as fit into so
# many bytes, but one in any case. Only which ones: what they say is read in their tenants.
WAITING = """
    DECLARE
      waiting uuid[] := '{{}}';
      next uuid := behind;
      has_wrapped boolean := false;
      found record;
      taken integer := 0;
      bytes bigint := 0;
    BEGIN
      WHILE cardinality(waiting) < most LOOP
        SELECT event.tenant_id INTO next FROM public.outbox_events AS event
        WHERE event.tenant_id > next AND event.position IS NOT NULL AND {waits} ORDER BY event.tenant_id LIMIT 1;
        IF next IS NULL OR (has_wrapped AND next > behind) THEN
          EXIT WHEN has_wrapped;
          has_wrapped := true;
          next := '00000000-0000-0000-0000-000000000000';
        ELSE
          waiting := waiting || next;
        END IF;
      END LOOP;
      FOREACH next IN ARRAY waiting LOOP
        FOR found IN
          SELECT event.id, octet_length(event.data::text) AS size FROM public.outbox_events AS event
          WHERE event.tenant_id = next AND event.position IS NOT NULL AND {waits} AND NOT EXISTS (
            SELECT FROM public.event_attempts AS blocking
            WHERE blocking.destination = '{destination}' AND blocking.tenant_id = event.tenant_id
              AND blocking.subject = event.subject AND blocking.retry_at > clock_timestamp())
          ORDER BY event.position LIMIT ceil(most::float8 / cardinality(waiting))
        LOOP
          bytes := bytes + found.size;
          IF taken > 0 AND (taken >= most OR bytes > most_bytes) THEN
            RETURN;
          END IF;
          taken := taken + 1;
          tenant_id := next;
          id := found.id;
          RETURN NEXT;
        END LOOP;
      END LOOP;
    END
"""
PUBLISHED = """
    WITH done AS (
      UPDATE public.outbox_events SET {done} = clock_timestamp() WHERE id = ANY (ids) RETURNING id
    ), tried AS (
      DELETE FROM public.event_attempts WHERE event_id = ANY (ids) AND destination = '{destination}'
    )
    UPDATE public.relays SET sent = sent + cardinality(ids), away_since = NULL, reason = NULL
    WHERE destination = '{destination}'
"""
FAILED = """
    WITH counted AS (
      UPDATE public.relays SET failed = failed + 1 WHERE destination = '{destination}'
    )
    INSERT INTO public.event_attempts (tenant_id, event_id, destination, subject, attempts, retry_at, reason)
    SELECT tenant_id, id, '{destination}', subject, so_far, clock_timestamp() + make_interval(secs => retry_s), why
    FROM public.outbox_events WHERE id = failed
    ON CONFLICT (event_id, destination) DO UPDATE
      SET attempts = excluded.attempts, retry_at = excluded.retry_at, reason = excluded.reason
"""
SET_ASIDE = """
    WITH given_up AS (
      UPDATE public.outbox_events SET {given_up} = clock_timestamp() WHERE id = failed
    ), tried AS (
      DELETE FROM public.event_attempts WHERE event_id = failed AND destination = '{destination}'
    )
    UPDATE public.relays SET failed = failed + 1, set_aside = set_aside + 1 WHERE destination = '{destination}'
"""
# How many wait, at most so many, and for how long the first of each tenant's has waited that has waited for longest.
FIGURES = """
    DECLARE
      next uuid := '00000000-0000-0000-0000-000000000000';
      since timestamptz;
    BEGIN
      SELECT count(*) INTO waiting FROM (
        SELECT FROM public.outbox_events AS event WHERE event.position IS NOT NULL AND {waits} LIMIT most) AS found;
      oldest_s := 0;
      LOOP
        SELECT event.tenant_id, event."time" INTO next, since FROM public.outbox_events AS event
        WHERE event.tenant_id > next AND event.position IS NOT NULL AND {waits}
        ORDER BY event.tenant_id, event.position LIMIT 1;
        EXIT WHEN next IS NULL;
        oldest_s := greatest(oldest_s, extract(epoch FROM clock_timestamp() - since));
      END LOOP;
      RETURN NEXT;
    END
"""
REMOVED = """
    WITH removed AS (
      DELETE FROM public.outbox_events WHERE id = ANY (ARRAY(
        SELECT id FROM public.outbox_events WHERE "time" < before
          AND NOT ('broker' = ANY (unpublished_to) AND published_at IS NULL AND set_aside_at IS NULL)
          AND NOT ('stream' = ANY (unpublished_to) AND streamed_at IS NULL AND stream_set_aside_at IS NULL)
        ORDER BY "time" LIMIT most FOR UPDATE SKIP LOCKED)) RETURNING id)
    SELECT count(*)::integer FROM removed
"""


def upgrade() -> None:
    for column in ("set_aside_at", "streamed_at", "stream_set_aside_at"):
        schema_changes.in_steps(
            "outbox_events", f"ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS {column} timestamptz"
        )
    schema_changes.create_indexes(INDEXES)
    # From here on all or nothing.
    for statement in TABLES:
        op.execute(statement)
    schema_changes.wall_off("event_attempts")
    for destination in COLUMNS:
        _create_functions(destination)
    schema_changes.create_owners_function(
        "remove_outdated_outbox_events(before timestamptz, most integer, unpublished_to text[])",
        "RETURNS integer",
        REMOVED,
    )


def _create_functions(destination: str) -> None:
    done, given_up = COLUMNS[destination]
    words = {"destination": destination, "waits": _waits(destination), "done": done, "given_up": given_up}
    for signature, answers, body in (
        (
            f"events_waiting_for_{destination}(behind uuid, most integer, most_bytes bigint)",
            "RETURNS TABLE (tenant_id uuid, id uuid)",
            WAITING,
        ),
        (f"note_published_to_{destination}(ids uuid[])", "RETURNS void", PUBLISHED),
        (
            f"note_failed_at_{destination}(failed uuid, so_far integer, retry_s float8, why text)",
            "RETURNS void",
            FAILED,
        ),
        (f"set_aside_for_{destination}(failed uuid)", "RETURNS void", SET_ASIDE),
        (
            f"figures_of_{destination}(most integer)",
            "RETURNS TABLE (waiting bigint, oldest_s float8) STABLE",
            FIGURES,
        ),
    ):
        schema_changes.create_owners_function(signature, answers, body.format_map(words))


def downgrade() -> None:
    schema_changes.drop_owners_functions(
        *(
            f"{name}_{destination}"
            for destination in COLUMNS
            for name in ("events_waiting_for", "note_published_to", "note_failed_at", "set_aside_for", "figures_of")
        ),
        "remove_outdated_outbox_events(timestamptz, integer, text[])",
    )
    schema_changes.drop_indexes(INDEXES)
    op.execute("DROP TABLE event_attempts, relays")
    for column in ("stream_set_aside_at", "streamed_at", "set_aside_at"):
        schema_changes.in_steps("outbox_events", f"ALTER TABLE outbox_events DROP COLUMN IF EXISTS {column}")
