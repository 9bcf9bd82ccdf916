"""Foundation: tenants, users, roles, sessions, data sources, jobs, the audit log and the outbox.

Revision ID: 0001
Revises: none
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

loses = ("everything in the database",)

AUDITED = """
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    created_by uuid,
    updated_by uuid,
    version integer NOT NULL DEFAULT 1
"""
OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"

TABLES = {
    "tenants": f"""
        id uuid PRIMARY KEY,
        slug text NOT NULL CONSTRAINT tenants_slug_key UNIQUE,
        name text NOT NULL,
        is_active boolean NOT NULL,
        {AUDITED}
    """,
    "users": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        email text NOT NULL,
        email_key text NOT NULL,
        first_name text NOT NULL,
        last_name text NOT NULL,
        is_active boolean NOT NULL,
        password_hash text,
        failed_logins integer NOT NULL DEFAULT 0,
        locked_until timestamptz,
        {AUDITED},
        CONSTRAINT users_email_key UNIQUE (tenant_id, email_key)
    """,
    "roles": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        name text NOT NULL,
        name_key text NOT NULL,
        description text,
        permissions text[] NOT NULL,
        owner_role_id uuid REFERENCES roles (id),
        is_system boolean NOT NULL,
        {AUDITED},
        CONSTRAINT roles_name_key UNIQUE (tenant_id, name_key)
    """,
    "user_roles": f"""
        user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        role_id uuid NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        {OF_TENANT},
        created_at timestamptz NOT NULL,
        created_by uuid,
        PRIMARY KEY (user_id, role_id)
    """,
    "role_approvers": f"""
        role_id uuid NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        approver_role_id uuid NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        {OF_TENANT},
        PRIMARY KEY (role_id, approver_role_id)
    """,
    "sessions": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        key_id text NOT NULL,
        generation integer NOT NULL,
        rotated_at timestamptz NOT NULL,
        idle_expires_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        revoked_at timestamptz,
        device text,
        address text,
        {AUDITED}
    """,
    "data_sources": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        name text NOT NULL,
        name_key text NOT NULL,
        description text,
        type text NOT NULL,
        category text NOT NULL,
        config jsonb NOT NULL,
        tags text[] NOT NULL,
        owner_role_id uuid REFERENCES roles (id),
        is_paused boolean NOT NULL,
        status text NOT NULL,
        status_since timestamptz,
        last_tested_at timestamptz,
        {AUDITED},
        CONSTRAINT data_sources_name_key UNIQUE (tenant_id, name_key)
    """,
    "data_source_secrets": f"""
        data_source_id uuid NOT NULL REFERENCES data_sources (id) ON DELETE CASCADE,
        name text NOT NULL,
        {OF_TENANT},
        sealed bytea NOT NULL,
        key_id text NOT NULL,
        version integer NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (data_source_id, name)
    """,
    "data_source_tests": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        data_source_id uuid NOT NULL REFERENCES data_sources (id) ON DELETE CASCADE,
        status text NOT NULL,
        steps jsonb NOT NULL,
        server jsonb NOT NULL,
        duration_ms double precision NOT NULL,
        created_at timestamptz NOT NULL,
        created_by uuid
    """,
    "source_objects": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        data_source_id uuid NOT NULL REFERENCES data_sources (id) ON DELETE CASCADE,
        name text NOT NULL,
        path text[] NOT NULL,
        qualified_name text NOT NULL,
        kind text NOT NULL,
        is_active boolean NOT NULL,
        fields jsonb NOT NULL,
        discovered_at timestamptz NOT NULL,
        CONSTRAINT source_objects_name_key UNIQUE (data_source_id, qualified_name)
    """,
    "jobs": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        kind text NOT NULL,
        status text NOT NULL,
        subject_id uuid,
        arguments jsonb NOT NULL,
        progress_done integer NOT NULL DEFAULT 0,
        progress_total integer,
        result jsonb,
        error jsonb,
        attempts integer NOT NULL DEFAULT 0,
        cancel_requested boolean NOT NULL DEFAULT false,
        started_at timestamptz,
        finished_at timestamptz,
        lease_until timestamptz,
        lease_id uuid,
        {AUDITED}
    """,
    "audit_events": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        sequence bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        occurred_at timestamptz NOT NULL,
        actor_id uuid,
        actor_name text,
        action text NOT NULL,
        resource_type text NOT NULL,
        resource_id uuid,
        outcome text NOT NULL,
        address text,
        request_id text,
        detail text,
        before jsonb,
        after jsonb,
        chain_hash bytea
    """,
    "outbox_events": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        sequence bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        type text NOT NULL,
        source text NOT NULL,
        subject text NOT NULL,
        "time" timestamptz NOT NULL,
        data jsonb NOT NULL,
        published_at timestamptz
    """,
    "idempotency_keys": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        fingerprint bytea NOT NULL,
        answer bytea,
        created_at timestamptz NOT NULL
    """,
}

INDEXES = [
    # One index for each sort of each list: (tenant, sort value, id), so that every page costs the same.
    "users (tenant_id, created_at, id)",
    "users (tenant_id, updated_at, id)",
    "users (tenant_id, email_key, id)",
    "roles (tenant_id, created_at, id)",
    "roles (tenant_id, updated_at, id)",
    "roles (tenant_id, name_key, id)",
    "data_sources (tenant_id, created_at, id)",
    "data_sources (tenant_id, updated_at, id)",
    "data_sources (tenant_id, name_key, id)",
    "data_source_tests (data_source_id, created_at, id)",
    "source_objects (data_source_id, qualified_name, id)",
    "sessions (user_id, created_at, id)",
    "jobs (tenant_id, created_at, id)",
    "audit_events (tenant_id, occurred_at, id)",
    "audit_events (tenant_id, resource_id, occurred_at, id)",
    # Foreign keys and filters.
    "user_roles (role_id)",
    "role_approvers (approver_role_id)",
    "roles (owner_role_id) WHERE owner_role_id IS NOT NULL",
    "data_sources (owner_role_id) WHERE owner_role_id IS NOT NULL",
    "data_sources USING gin (tags)",
    # Queues: only what waits.
    "jobs (created_at) WHERE status IN ('queued', 'running')",
    "outbox_events (sequence) WHERE published_at IS NULL",
    "audit_events (sequence) WHERE chain_hash IS NULL",
    "idempotency_keys (created_at)",
]

APPEND_ONLY = ("audit_events",)


def upgrade() -> None:
    for name, columns in TABLES.items():
        op.execute(f"CREATE TABLE {name} ({columns})")
        rights = "SELECT, INSERT" if name in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        op.execute(f"GRANT {rights} ON {name} TO hub_app")
    for index in INDEXES:
        op.execute(f"CREATE INDEX ON {index}")
    op.execute("GRANT SELECT ON alembic_version TO hub_app")


def downgrade() -> None:
    for name in reversed(TABLES):
        op.execute(f"DROP TABLE {name}")
