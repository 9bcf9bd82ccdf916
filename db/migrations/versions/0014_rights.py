"""Who may do what, to what, until when: data domains, groups, and role assignments in the place of `user_roles`.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

from app.core import schema_changes

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

loses = (
    "data domains and which data sources are in them",
    "groups and their members",
    "roles that are held by a group, for a part of the tenant or for a time",
    "who held which role in the past",
)

BREAK = "who holds a role stands in `role_assignments`, and `user_roles` is gone"

AUDITED = """
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    created_by uuid,
    updated_by uuid,
    version integer NOT NULL DEFAULT 1
"""
OF_TENANT = "tenant_id uuid NOT NULL REFERENCES tenants (id)"

TABLES = {
    "data_domains": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        name text NOT NULL,
        name_key text NOT NULL,
        description text,
        parent_id uuid REFERENCES data_domains (id),
        lineage uuid[] NOT NULL,
        owner_role_id uuid REFERENCES roles (id),
        {AUDITED},
        CONSTRAINT data_domains_name_key UNIQUE NULLS NOT DISTINCT (tenant_id, parent_id, name_key)
    """,
    "groups": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        name text NOT NULL,
        name_key text NOT NULL,
        description text,
        managed_by text,
        {AUDITED},
        CONSTRAINT groups_name_key UNIQUE (tenant_id, name_key)
    """,
    "group_members": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        group_id uuid NOT NULL,
        user_id uuid NOT NULL,
        created_at timestamptz NOT NULL,
        created_by uuid,
        ended_at timestamptz,
        ended_by uuid,
        user_email_key text NOT NULL,
        user_created_at timestamptz NOT NULL,
        user_updated_at timestamptz NOT NULL
    """,
    "role_assignments": f"""
        id uuid PRIMARY KEY,
        {OF_TENANT},
        subject_type text NOT NULL CHECK (subject_type IN ('user', 'group', 'service_account')),
        subject_id uuid NOT NULL,
        role_id uuid NOT NULL,
        scope_type text NOT NULL CHECK (scope_type IN ('tenant', 'data_domain', 'data_source')),
        scope_id uuid CHECK ((scope_id IS NULL) = (scope_type = 'tenant')),
        starts_at timestamptz NOT NULL,
        expires_at timestamptz CHECK (expires_at > starts_at),
        reason text,
        via_type text,
        via_id uuid,
        ended_at timestamptz,
        ended_by uuid,
        user_email_key text NOT NULL DEFAULT '',
        user_created_at timestamptz NOT NULL DEFAULT '-infinity',
        user_updated_at timestamptz NOT NULL DEFAULT '-infinity',
        {AUDITED}
    """,
    "rights_history": f"""
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        {OF_TENANT},
        kind text NOT NULL,
        row_id uuid NOT NULL,
        valid_from timestamptz NOT NULL,
        valid_to timestamptz NOT NULL,
        data jsonb NOT NULL
    """,
}
APPEND_ONLY = ("rights_history",)

OPEN = "ended_at IS NULL"
WHOLE_TENANT = f"scope_id IS NULL AND subject_type = 'user' AND {OPEN}"
"""What `/users/{id}/roles` and `/roles/{id}/members` tell of."""

UNIQUE_INDEXES = {
    "role_assignments_open_key": (
        f"role_assignments (tenant_id, subject_id, role_id, scope_id) NULLS NOT DISTINCT WHERE {OPEN}"
    ),
    "group_members_open_key": f"group_members (group_id, user_id) WHERE {OPEN}",
}
SORTS_OF_USERS = {"email": "user_email_key", "created_at": "user_created_at", "updated_at": "user_updated_at"}
SORTS_OF_NAMED = {"created_at": "created_at", "updated_at": "updated_at", "name": "name_key"}
SORTS_OF_SOURCES = {"created_at": "created_at", "updated_at": "updated_at", "name": "name_key"}
INDEXES = (
    {
        f"role_assignments_members_{sort}_idx": (
            f"role_assignments (tenant_id, role_id, {column}, subject_id) WHERE {WHOLE_TENANT}"
        )
        for sort, column in SORTS_OF_USERS.items()
    }
    | {
        f"group_members_{sort}_idx": f"group_members (tenant_id, group_id, {column}, user_id) WHERE {OPEN}"
        for sort, column in SORTS_OF_USERS.items()
    }
    | {
        f"data_sources_data_domain_id_{sort}_idx": (
            f"data_sources (tenant_id, data_domain_id, {column}, id) WHERE data_domain_id IS NOT NULL"
        )
        for sort, column in SORTS_OF_SOURCES.items()
    }
    | {
        f"{table}_tenant_id_{column}_id_idx": f"{table} (tenant_id, {column}, id)"
        for table in ("data_domains", "groups")
        for column in SORTS_OF_NAMED.values()
    }
    | {
        f"data_domains_{filter_name}_{sort}_idx": (
            f"data_domains (tenant_id, {filter_name}, {column}, id) WHERE {filter_name} IS NOT NULL"
        )
        for filter_name in ("parent_id", "owner_role_id")
        for sort, column in SORTS_OF_NAMED.items()
    }
    | {
        "data_domains_lineage_idx": "data_domains USING gin (lineage)",
        "group_members_user_id_idx": f"group_members (user_id) WHERE {OPEN}",
        "role_assignments_subject_id_idx": f"role_assignments (subject_id) WHERE {OPEN}",
        "role_assignments_tenant_id_created_at_id_idx": "role_assignments (tenant_id, created_at, id)",
        "rights_history_row_id_idx": "rights_history (row_id, valid_to)",
    }
    | {
        f"role_assignments_{column}_created_at_idx": f"role_assignments (tenant_id, {column}, created_at, id)"
        for column in ("subject_id", "role_id", "scope_id", "subject_type", "scope_type")
    }
)
SEARCHED = dict.fromkeys(("data_domains", "groups"), "lower(' ' || name || ' ' || coalesce(description, ''))")
SYMBOLS = "string_to_array(regexp_replace({text}, '[[:alnum:][:space:]]+', '', 'g'), NULL)"
SEARCHES = {
    f"{table}_search_idx": f"{table} USING gin ({text} gin_trgm_ops, ({SYMBOLS.format(text=text)}))"
    for table, text in SEARCHED.items()
}
SAMPLES = 500
FILTERED = {
    "data_sources": ("data_domain_id",),
    "data_domains": ("parent_id", "owner_role_id"),
    "role_assignments": ("subject_id", "role_id", "scope_id", "subject_type", "scope_type"),
}
VALUES = 20
"""As in 0006, for searches and filters alike."""

COPY_USER = """
    CREATE OR REPLACE FUNCTION copy_user_into_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      SELECT email_key, created_at, updated_at INTO NEW.user_email_key, NEW.user_created_at, NEW.user_updated_at
      FROM public.users WHERE id = NEW.{user_id};
      RETURN NEW;
    END $$
"""
COPY_CHANGED_USER = """
    CREATE OR REPLACE FUNCTION copy_changed_user() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      UPDATE public.role_assignments SET user_email_key = NEW.email_key, user_created_at = NEW.created_at,
        user_updated_at = NEW.updated_at
      WHERE subject_id = NEW.id AND ended_at IS NULL;
      UPDATE public.group_members SET user_email_key = NEW.email_key, user_created_at = NEW.created_at,
        user_updated_at = NEW.updated_at
      WHERE user_id = NEW.id AND ended_at IS NULL;
      RETURN NULL;
    END $$
"""
TRIGGER_OF_CHANGED_USER = """
    CREATE TRIGGER copy_changed_user AFTER UPDATE ON users FOR EACH ROW
    WHEN ((OLD.email_key, OLD.created_at, OLD.updated_at)
          IS DISTINCT FROM (NEW.email_key, NEW.created_at, NEW.updated_at))
    EXECUTE FUNCTION copy_changed_user()
"""
OF_THE_PAST = {
    "roles": ("role", ("name", "permissions")),
    "data_domains": ("data_domain", ("lineage", "owner_role_id")),
    "data_sources": ("data_source", ("data_domain_id", "owner_role_id")),
}
"""By table how its rows are called in `rights_history`, and the columns on which rights hang."""
REMEMBER = """
    CREATE OR REPLACE FUNCTION remember_{kind}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO public.rights_history (tenant_id, kind, row_id, valid_from, valid_to, data)
      SELECT OLD.tenant_id, '{kind}', OLD.id,
        coalesce((SELECT max(valid_to) FROM public.rights_history WHERE row_id = OLD.id), OLD.created_at),
        statement_timestamp(),
        jsonb_build_object({members});
      RETURN NULL;
    END $$
"""

FROM_USER_ROLES = """
    INSERT INTO role_assignments (id, tenant_id, subject_type, subject_id, role_id, scope_type, starts_at, created_at,
      updated_at, created_by, updated_by, via_type, via_id, user_email_key, user_created_at, user_updated_at)
    SELECT overlay(overlay(md5(user_id::text || role_id) PLACING '7' FROM 13) PLACING '8' FROM 17)::uuid, tenant_id,
      'user', user_id, role_id, 'tenant', created_at, created_at, created_at, created_by, created_by,
      CASE WHEN created_by IS NOT NULL THEN 'person' END, created_by, user_email_key, user_created_at, user_updated_at
    FROM user_roles
"""
"""In the transaction that drops the table: the hubs of before stop with its commit, and write nothing in between."""


def upgrade() -> None:
    op.execute(f"INSERT INTO schema_breaks (revision, reason) VALUES ('{revision}', '{BREAK}')")  # noqa: S608
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE {table} ({columns})")
        rights = "SELECT, INSERT" if table in APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
        op.execute(f"GRANT {rights} ON {table} TO hub_app")
    op.execute("ALTER TABLE data_sources ADD COLUMN data_domain_id uuid REFERENCES data_domains (id)")
    op.execute("ALTER TABLE roles ADD COLUMN is_owner boolean NOT NULL DEFAULT false")
    op.execute("UPDATE roles SET is_owner = true WHERE id IN (SELECT owner_role_id FROM data_sources)")
    op.execute("LOCK TABLE user_roles IN SHARE MODE")
    op.execute(FROM_USER_ROLES)
    op.execute("DROP TRIGGER copy_changed_user ON users")
    op.execute("DROP TABLE user_roles")
    op.execute("DROP FUNCTION copy_changed_user_into_user_roles, copy_user_into_user_roles")
    _copy_users()
    _remember()
    for name, definition in UNIQUE_INDEXES.items():
        op.execute(f"CREATE UNIQUE INDEX {name} ON {definition}")
    schema_changes.create_indexes(INDEXES | SEARCHES)
    for name in SEARCHES:
        op.execute(f"ALTER INDEX {name} ALTER COLUMN 1 SET STATISTICS {SAMPLES}")
    for table, filtered in FILTERED.items():
        op.execute(
            f"ALTER TABLE {table} " + ", ".join(f"ALTER {name} SET (n_distinct = {VALUES})" for name in filtered)
        )
    schema_changes.analyze(["role_assignments", "data_sources"])


def _copy_users() -> None:
    """The members of roles and groups are sorted by what stands in their memberships, as 0006 says."""
    op.execute(COPY_USER.format(table="role_assignments", user_id="subject_id"))
    op.execute(COPY_USER.format(table="group_members", user_id="user_id"))
    op.execute(COPY_CHANGED_USER)
    op.execute(
        """CREATE TRIGGER copy_user BEFORE INSERT ON role_assignments FOR EACH ROW WHEN (NEW.subject_type = 'user')
             EXECUTE FUNCTION copy_user_into_role_assignments()"""
    )
    op.execute(
        """CREATE TRIGGER copy_user BEFORE INSERT ON group_members FOR EACH ROW
             EXECUTE FUNCTION copy_user_into_group_members()"""
    )
    op.execute(TRIGGER_OF_CHANGED_USER)


def _remember() -> None:
    """What rights hung on before a change, so that the past can be asked."""
    for table, (kind, columns) in OF_THE_PAST.items():
        op.execute(REMEMBER.format(kind=kind, members=", ".join(f"'{name}', OLD.{name}" for name in columns)))
        old, new = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
        op.execute(
            f"""CREATE TRIGGER remember AFTER UPDATE ON {table} FOR EACH ROW
                  WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION remember_{kind}()"""
        )
        op.execute(
            f"CREATE TRIGGER remember_deleted AFTER DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION remember_{kind}()"
        )


def downgrade() -> None:
    op.execute(
        """CREATE TABLE user_roles (
             user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
             role_id uuid NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
             tenant_id uuid NOT NULL REFERENCES tenants (id),
             created_at timestamptz NOT NULL,
             created_by uuid,
             user_email_key text NOT NULL,
             user_created_at timestamptz NOT NULL,
             user_updated_at timestamptz NOT NULL,
             PRIMARY KEY (user_id, role_id))"""
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON user_roles TO hub_app")
    op.execute(
        """INSERT INTO user_roles SELECT subject_id, role_id, tenant_id, created_at, created_by, user_email_key,
             user_created_at, user_updated_at
           FROM role_assignments AS held
           WHERE subject_type = 'user' AND scope_type = 'tenant' AND ended_at IS NULL AND starts_at <= now()
             AND (expires_at IS NULL OR expires_at > now())
             AND EXISTS (SELECT FROM roles WHERE roles.id = role_id)
             AND EXISTS (SELECT FROM users WHERE users.id = subject_id)"""
    )
    op.execute("DROP TRIGGER copy_changed_user ON users")
    for table, (kind, _) in OF_THE_PAST.items():
        op.execute(f"DROP TRIGGER remember ON {table}")
        op.execute(f"DROP TRIGGER remember_deleted ON {table}")
        op.execute(f"DROP FUNCTION remember_{kind}() CASCADE")
    op.execute("ALTER TABLE data_sources DROP COLUMN data_domain_id")
    op.execute("ALTER TABLE roles DROP COLUMN is_owner")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION copy_changed_user, copy_user_into_role_assignments, copy_user_into_group_members")
    _bring_back_user_roles()
    op.execute(f"DELETE FROM schema_breaks WHERE revision = '{revision}'")  # noqa: S608


def _bring_back_user_roles() -> None:
    """As 0001 and 0006 made it."""
    op.execute(COPY_USER.format(table="user_roles", user_id="user_id"))
    op.execute(
        """CREATE FUNCTION copy_changed_user_into_user_roles() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             UPDATE public.user_roles SET user_email_key = NEW.email_key, user_created_at = NEW.created_at,
               user_updated_at = NEW.updated_at
             WHERE user_id = NEW.id;
             RETURN NULL;
           END $$"""
    )
    op.execute(
        """CREATE TRIGGER copy_user BEFORE INSERT ON user_roles
             FOR EACH ROW EXECUTE FUNCTION copy_user_into_user_roles()"""
    )
    op.execute(TRIGGER_OF_CHANGED_USER.replace("copy_changed_user()", "copy_changed_user_into_user_roles()"))
    op.execute("CREATE INDEX user_roles_role_id_idx ON user_roles (role_id)")
    for sort, column in SORTS_OF_USERS.items():
        op.execute(f"CREATE INDEX user_roles_{sort}_idx ON user_roles (tenant_id, role_id, {column}, user_id)")
