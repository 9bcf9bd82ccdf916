"""Seals over the audit log (decision 0047).

Revision ID: 0025
Revises: 0024
"""

from alembic import op

from app.core import schema_changes

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

loses = ("the seals of the audit log",)

# To be read by the application, of its own tenant, and written by functions of the owner alone. No seal without its
# leaves: a transaction that takes rows and gives no seal cannot be committed.
SEALS = """
    CREATE TABLE audit_seals (
      tenant_id uuid NOT NULL REFERENCES tenants (id),
      number bigint NOT NULL,
      id uuid GENERATED ALWAYS AS (last_id) STORED NOT NULL,
      ordinal bigint NOT NULL GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_seals_ordinal_key UNIQUE,
      first_position bigint NOT NULL,
      last_position bigint NOT NULL,
      first_id uuid NOT NULL,
      last_id uuid NOT NULL,
      count bigint NOT NULL,
      root text NOT NULL,
      previous_hash text NOT NULL,
      sealed_at timestamptz NOT NULL,
      kid text NOT NULL,
      signature text NOT NULL,
      hash text NOT NULL,
      written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      PRIMARY KEY (tenant_id, number)
    )"""
LEAVES = """
    CREATE TABLE audit_leaves (
      tenant_id uuid NOT NULL REFERENCES tenants (id),
      position bigint NOT NULL,
      event_id uuid NOT NULL,
      leaf_hash bytea NOT NULL,
      seal_number bigint NOT NULL,
      PRIMARY KEY (tenant_id, position),
      CONSTRAINT audit_leaves_event_id_key UNIQUE (tenant_id, event_id),
      CONSTRAINT audit_leaves_seal_fkey FOREIGN KEY (tenant_id, seal_number)
        REFERENCES audit_seals (tenant_id, number) DEFERRABLE INITIALLY DEFERRED
    )"""
WATERMARK = """
    CREATE TABLE audit_watermark (
      is_it boolean PRIMARY KEY DEFAULT true CONSTRAINT audit_watermark_one_row CHECK (is_it),
      transaction_id xid8 NOT NULL,
      sequence bigint NOT NULL,
      event_id uuid
    )"""
KEYS = """
    CREATE TABLE sealing_keys (kid text PRIMARY KEY, public_key text NOT NULL, first_used_at timestamptz NOT NULL)"""
ANCHORS = """
    CREATE TABLE audit_anchors (
      place text PRIMARY KEY, last_ordinal bigint NOT NULL, updated_at timestamptz NOT NULL
    )"""

# A row of the audit log as it is hashed (openspec/specs/audit-log): compact JSON of texts and nulls.
CANONICAL = """
    to_json(ARRAY[
      event.id::text, event.tenant_id::text, event.transaction_id::text, event.sequence::text,
      to_char(event.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
      event.actor_id::text, event.actor_name, event.api_key_id::text, event.action, event.resource_type,
      event.resource_id::text, event.outcome, event.address, event.request_id, event.detail, event.before::text,
      event.after::text]
      || CASE WHEN event.chain_hash IS NOT NULL THEN ARRAY[encode(event.chain_hash, 'hex')] END)::text
"""

# What is sealed already, though its transaction lies above the watermark, came with a backup of another cluster.
TAKEN = f"""
    DECLARE
      mark public.audit_watermark;
    BEGIN
      IF NOT pg_try_advisory_xact_lock(hashtext('hub seals of the audit log')) THEN
        RETURN;
      END IF;
      SELECT * INTO STRICT mark FROM public.audit_watermark;
      RETURN QUERY
      WITH looked_at AS MATERIALIZED (
        SELECT event.* FROM public.audit_events AS event
        WHERE (event.transaction_id, event.sequence) > (mark.transaction_id, mark.sequence)
          AND event.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY event.transaction_id, event.sequence LIMIT most
      ), moved AS (
        UPDATE public.audit_watermark SET transaction_id = last.transaction_id, sequence = last.sequence,
          event_id = last.id
        FROM (SELECT id, transaction_id, sequence FROM looked_at
              ORDER BY transaction_id DESC, sequence DESC LIMIT 1) AS last
      ), taken AS (
        SELECT event.tenant_id, event.id, sha256('\\x00'::bytea || convert_to({CANONICAL}, 'UTF8')) AS hash,
          row_number() OVER (PARTITION BY event.tenant_id ORDER BY event.transaction_id, event.sequence) AS nth
        FROM looked_at AS event
        WHERE NOT EXISTS (SELECT FROM public.audit_leaves AS leaf
                          WHERE leaf.tenant_id = event.tenant_id AND leaf.event_id = event.id)
      ), chains AS (
        SELECT chain.tenant_id, coalesce(last.number, 0) AS number, coalesce(last.last_position, 0) AS position,
          last.hash
        FROM (SELECT DISTINCT tenant_id FROM taken) AS chain LEFT JOIN LATERAL (
          SELECT seal.number, seal.last_position, seal.hash FROM public.audit_seals AS seal
          WHERE seal.tenant_id = chain.tenant_id ORDER BY seal.number DESC LIMIT 1) AS last ON true
      ), kept AS (
        INSERT INTO public.audit_leaves (tenant_id, position, event_id, leaf_hash, seal_number)
        SELECT taken.tenant_id, chains.position + taken.nth, taken.id, taken.hash, chains.number + 1
        FROM taken JOIN chains ON chains.tenant_id = taken.tenant_id
      )
      SELECT taken.tenant_id, chains.number + 1, chains.position + 1, chains.position + count(*),
        (array_agg(taken.id ORDER BY taken.nth))[1], (array_agg(taken.id ORDER BY taken.nth DESC))[1],
        string_agg(taken.hash, ''::bytea ORDER BY taken.nth), chains.hash
      FROM taken JOIN chains ON chains.tenant_id = taken.tenant_id
      GROUP BY taken.tenant_id, chains.number, chains.position, chains.hash;
    END
"""  # noqa: S608 - of nothing but what stands here
# It believes nothing of what it is told: a seal follows from the one before it and covers the leaves that are there for
# it. Its event goes with it, made of the seal; no audit row does, or sealing would never end.
WRITTEN = """
    BEGIN
      IF EXISTS (
        SELECT FROM jsonb_to_recordset(seals) AS seal (
          tenant_id uuid, number bigint, first_position bigint, last_position bigint, count bigint, previous_hash text,
          sealed_at timestamptz)
        LEFT JOIN LATERAL (
          SELECT before.number, before.last_position, before.hash FROM public.audit_seals AS before
          WHERE before.tenant_id = seal.tenant_id ORDER BY before.number DESC LIMIT 1) AS last ON true
        WHERE (seal.number = coalesce(last.number, 0) + 1
           AND seal.first_position = coalesce(last.last_position, 0) + 1
           AND seal.count = seal.last_position - seal.first_position + 1
           AND seal.previous_hash = coalesce(last.hash, repeat('0', 64))
           AND seal.sealed_at BETWEEN '2020-01-01' AND now() + interval '1 hour'
           AND seal.count = (
             SELECT count(*) FROM public.audit_leaves AS leaf
             WHERE leaf.tenant_id = seal.tenant_id AND leaf.seal_number = seal.number
               AND leaf.position BETWEEN seal.first_position AND seal.last_position)) IS NOT TRUE
      ) THEN
        RAISE insufficient_privilege USING MESSAGE = 'a seal follows from the one before it, and covers its rows';
      END IF;
      INSERT INTO public.audit_seals (tenant_id, number, first_position, last_position, first_id, last_id, count, root,
                                      previous_hash, sealed_at, kid, signature, hash)
      SELECT * FROM jsonb_to_recordset(seals) AS seal (
        tenant_id uuid, number bigint, first_position bigint, last_position bigint, first_id uuid, last_id uuid,
        count bigint, root text, previous_hash text, sealed_at timestamptz, kid text, signature text, hash text);
      INSERT INTO public.outbox_events (id, tenant_id, type, source, subject, "time", data)
      SELECT (seal ->> 'event_id')::uuid, (seal ->> 'tenant_id')::uuid, 'org.datafusionhub.audit.sealed', '/api/v1',
        'audit-seals/' || (seal ->> 'number'), (seal ->> 'sealed_at')::timestamptz,
        seal - 'tenant_id' - 'event_id' - 'kind' || jsonb_build_object('id', seal -> 'last_id')
      FROM jsonb_array_elements(seals) AS seal;
    END
"""
# From the beginning of one chain, as many whole seals as are old enough; one at least, of however many rows.
DUE = """
    SELECT tenants.id, due.number, due.last_position, due.hash
    FROM public.tenants CROSS JOIN LATERAL (
      SELECT leaf.seal_number AS number FROM public.audit_leaves AS leaf
      WHERE leaf.tenant_id = tenants.id ORDER BY leaf.position LIMIT 1) AS first
    CROSS JOIN LATERAL (
      SELECT next.number, next.last_position, next.hash FROM (
        SELECT seal.number, seal.last_position, seal.hash, sum(seal.count) OVER in_order AS rows,
          bool_and(seal.sealed_at < before) OVER in_order AS is_old
        FROM (SELECT * FROM public.audit_seals AS seal WHERE seal.tenant_id = tenants.id AND seal.number >= first.number
              ORDER BY seal.number LIMIT most) AS seal
        WINDOW in_order AS (ORDER BY seal.number)) AS next
      WHERE next.is_old AND (next.rows <= most OR next.number = first.number) ORDER BY next.number DESC LIMIT 1) AS due
    WHERE (SELECT seal.sealed_at < before FROM public.audit_seals AS seal
           WHERE seal.tenant_id = tenants.id AND seal.number = first.number)
    LIMIT 1
"""
YOUNGEST = "30 days"
# Whatever somebody asks of it: no row goes that is younger than that, nor one of the middle, and none without a row
# that tells of it.
DROPPED = f"""
    DECLARE
      gone bigint;
      through bigint;
    BEGIN
      SELECT seal.last_position INTO STRICT through FROM public.audit_seals AS seal
      WHERE seal.tenant_id = tenant AND seal.number = last_seal;
      IF EXISTS (SELECT FROM public.audit_seals AS seal
                 WHERE seal.tenant_id = tenant AND seal.number <= last_seal
                   AND seal.written_at > now() - interval '{YOUNGEST}') THEN
        RAISE insufficient_privilege USING MESSAGE = 'rows of the audit log are kept for {YOUNGEST} at least';
      END IF;
      WITH leaves AS (
        DELETE FROM public.audit_leaves AS leaf
        WHERE leaf.tenant_id = tenant AND leaf.position <= through AND leaf.seal_number <= last_seal
        RETURNING leaf.event_id
      ), events AS (
        DELETE FROM public.audit_events AS event USING leaves
        WHERE event.tenant_id = tenant AND event.id = leaves.event_id RETURNING 1
      )
      SELECT count(*) INTO gone FROM events;
      INSERT INTO public.audit_events (id, tenant_id, occurred_at, actor_name, action, resource_type, outcome, after)
      VALUES (record, tenant, now(), 'system', 'audit.drop', 'audit_seal', 'success',
              jsonb_build_object('last_seal', last_seal, 'last_position', through, 'rows', gone, 'kid', kid,
                                 'signature', signature));
      RETURN gone;
    END
"""  # noqa: S608
FUNCTIONS = {
    "take_audit_rows(most integer)": (
        "RETURNS TABLE (tenant uuid, seal_number bigint, first_at bigint, last_at bigint, first_event uuid,"
        " last_event uuid, hashes bytea, previous text)",
        TAKEN,
        "SET plan_cache_mode = force_custom_plan",
    ),
    "write_audit_seals(seals jsonb)": ("RETURNS void", WRITTEN, ""),
    "audit_sealed_until()": (
        "RETURNS TABLE (transaction_id xid8, sequence bigint, event_id uuid) STABLE ROWS 1",
        "SELECT transaction_id, sequence, event_id FROM public.audit_watermark",
        "",
    ),
    "audit_seals_after(last_ordinal bigint, most integer)": (
        "RETURNS SETOF public.audit_seals STABLE",
        "SELECT * FROM public.audit_seals WHERE ordinal > last_ordinal ORDER BY ordinal LIMIT most",
        "",
    ),
    "audit_rows_to_drop(before timestamptz, most integer)": (
        "RETURNS TABLE (tenant uuid, last_seal bigint, last_position bigint, hash text) STABLE ROWS 1",
        DUE,
        "",
    ),
    "drop_audit_rows(tenant uuid, last_seal bigint, record uuid, kid text, signature text)": (
        "RETURNS bigint",
        DROPPED,
        "",
    ),
}


def upgrade() -> None:
    for table in (SEALS, LEAVES, WATERMARK, KEYS, ANCHORS):
        op.execute(table)
    op.execute("INSERT INTO audit_watermark (transaction_id, sequence) VALUES ('0', 0)")
    op.execute("GRANT SELECT ON audit_seals, audit_leaves TO hub_app")
    op.execute("GRANT SELECT, INSERT ON sealing_keys TO hub_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON audit_anchors TO hub_app")
    for table in ("audit_seals", "audit_leaves"):
        schema_changes.wall_off(table)
    schema_changes.create_indexes({"audit_seals_tenant_id_number_id_idx": "audit_seals (tenant_id, number, id)"})
    for signature, (answers, body, settings) in FUNCTIONS.items():
        schema_changes.create_owners_function(signature, answers, body, settings=settings)


def downgrade() -> None:
    schema_changes.drop_owners_functions(*(signature.partition("(")[0] for signature in FUNCTIONS))
    for table in ("audit_anchors", "sealing_keys", "audit_watermark", "audit_leaves", "audit_seals"):
        op.execute(f"DROP TABLE {table}")
