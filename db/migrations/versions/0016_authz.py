"""What anybody may do at any moment, asked in one way; and permissions that other services bring.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

from app.core import schema_changes

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

loses = ("permissions of other services, which roles then name in vain", "who could not sign in, and when")

PERMISSIONS = """
    CREATE TABLE permissions (
      id uuid PRIMARY KEY,
      tenant_id uuid NOT NULL REFERENCES tenants (id),
      name text NOT NULL,
      description text NOT NULL,
      created_at timestamptz NOT NULL,
      updated_at timestamptz NOT NULL,
      created_by uuid,
      updated_by uuid,
      version integer NOT NULL DEFAULT 1,
      CONSTRAINT permissions_name_key UNIQUE (tenant_id, name)
    )
"""

REMEMBER = """
    CREATE OR REPLACE FUNCTION remember_{kind}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO public.rights_history (tenant_id, kind, row_id, valid_from, valid_to, data)
      SELECT OLD.tenant_id, '{kind}', OLD.id,
        coalesce((SELECT max(valid_to) FROM public.rights_history WHERE row_id = OLD.id), OLD.created_at),
        statement_timestamp(), jsonb_build_object('is_active', OLD.is_active, 'email', {email});
      RETURN NULL;
    END $$
"""
HOLDERS = {"users": ("user", "OLD.email"), "service_accounts": ("service_account", "NULL")}
"""By table what its rows are called in `rights_history`, and their address. Who is not active has no rights."""


AS_IT_WAS = """
    SELECT {present} FROM public.{table} AS present
    WHERE present.tenant_id = tenant AND {which_present} AND present.created_at <= moment AND NOT EXISTS (
      SELECT FROM public.rights_history AS later WHERE later.row_id = present.id AND later.valid_to > moment)
    UNION ALL
    SELECT {past} FROM public.rights_history AS past
    WHERE past.tenant_id = tenant AND past.kind = '{kind}' AND {which_past}
      AND past.valid_from <= moment AND past.valid_to > moment
"""
"""A row as it was at a moment: the present one where nothing was written of it since, or else what was."""
ROLE, DOMAIN = ("role", "roles"), ("data_domain", "data_domains")
SOURCE = ("data_source", "data_sources")
USER, ACCOUNT = ("user", "users"), ("service_account", "service_accounts")


def _as_it_was(of: tuple[str, str], *, present: str, past: str) -> str:
    """Of the one whose id is `thing`."""
    which = {"which_present": "present.id = thing", "which_past": "past.row_id = thing"}
    return AS_IT_WAS.format(kind=of[0], table=of[1], present=present, past=past, **which)


def _owned(of: tuple[str, str]) -> str:
    """All that belong to the role `owner`."""
    which = {
        "which_present": "present.owner_role_id = owner",
        "which_past": "(past.data ->> 'owner_role_id')::uuid = owner",
    }
    shown = {"present": f"'{of[0]}', present.id", "past": f"'{of[0]}', past.row_id"}
    return AS_IT_WAS.format(kind=of[0], table=of[1], **shown, **which)


FUNCTIONS = {
    "role_at(tenant uuid, thing uuid, moment timestamptz)": (
        "permissions text[]",
        _as_it_was(
            ROLE,
            present="present.permissions",
            past="ARRAY(SELECT jsonb_array_elements_text(past.data -> 'permissions'))",
        ),
    ),
    "domain_at(tenant uuid, thing uuid, moment timestamptz)": (
        "id uuid, lineage uuid[], owner_role_id uuid",
        _as_it_was(
            DOMAIN,
            present="present.id, present.lineage, present.owner_role_id",
            past="past.row_id, ARRAY(SELECT jsonb_array_elements_text(past.data -> 'lineage'))::uuid[], "
            "(past.data ->> 'owner_role_id')::uuid",
        ),
    ),
    "source_at(tenant uuid, thing uuid, moment timestamptz)": (
        "id uuid, data_domain_id uuid, owner_role_id uuid",
        _as_it_was(
            SOURCE,
            present="present.id, present.data_domain_id, present.owner_role_id",
            past="past.row_id, (past.data ->> 'data_domain_id')::uuid, (past.data ->> 'owner_role_id')::uuid",
        ),
    ),
    "holder_at(tenant uuid, thing uuid, moment timestamptz)": (
        "is_active boolean, email text",
        " UNION ALL ".join(
            _as_it_was(
                of,
                present=f"present.is_active, {email}",
                past="(past.data ->> 'is_active')::boolean, past.data ->> 'email'",
            )
            for of, email in ((USER, "present.email"), (ACCOUNT, "NULL::text"))
        ),
    ),
    "owned_at(tenant uuid, owner uuid, moment timestamptz)": (
        "scope_type text, scope_id uuid",
        f"{_owned(SOURCE)} UNION ALL {_owned(DOMAIN)}",
    ),
    "assignments_at(tenant uuid, moment timestamptz)": (
        "id uuid, subject_type text, subject_id uuid, role_id uuid, scope_type text, scope_id uuid, request_id uuid",
        """SELECT given.id, given.subject_type, given.subject_id, given.role_id, given.scope_type, given.scope_id,
             CASE WHEN given.via_type = 'request' THEN given.via_id END
           FROM public.role_assignments AS given
           WHERE given.tenant_id = tenant AND given.starts_at <= moment
             AND (given.ended_at IS NULL OR given.ended_at > moment)
             AND (given.expires_at IS NULL OR given.expires_at > moment)""",
    ),
    "members_at(tenant uuid, moment timestamptz)": (
        "group_id uuid, user_id uuid",
        """SELECT member.group_id, member.user_id FROM public.group_members AS member
           WHERE member.tenant_id = tenant AND member.created_at <= moment
             AND (member.ended_at IS NULL OR member.ended_at > moment)""",
    ),
    "held_at(tenant uuid, holder uuid, moment timestamptz)": (
        "assignment_id uuid, group_id uuid, role_id uuid, scope_type text, scope_id uuid, request_id uuid",
        """SELECT given.id, NULL::uuid, given.role_id, given.scope_type, given.scope_id, given.request_id
           FROM public.assignments_at(tenant, moment) AS given
           WHERE given.subject_id = holder AND given.subject_type <> 'group'
           UNION ALL
           SELECT given.id, given.subject_id, given.role_id, given.scope_type, given.scope_id, given.request_id
           FROM public.members_at(tenant, moment) AS member
           JOIN public.assignments_at(tenant, moment) AS given
             ON given.subject_id = member.group_id AND given.subject_type = 'group'
           WHERE member.user_id = holder""",
    ),
    "rights_at(tenant uuid, holder uuid, moment timestamptz, owner_brings text[])": (
        "is_owner boolean, assignment_id uuid, group_id uuid, role_id uuid, request_id uuid, "
        "scope_type text, scope_id uuid, permissions text[]",
        """SELECT false, held.assignment_id, held.group_id, held.role_id, held.request_id,
             held.scope_type, held.scope_id, role.permissions
           FROM public.held_at(tenant, holder, moment) AS held
           CROSS JOIN LATERAL public.role_at(tenant, held.role_id, moment) AS role
           WHERE NOT EXISTS (SELECT FROM public.holder_at(tenant, holder, moment) AS gone WHERE NOT gone.is_active)
           UNION ALL
           SELECT true, held.assignment_id, held.group_id, held.role_id, held.request_id,
             owned.scope_type, owned.scope_id, owner_brings
           FROM public.held_at(tenant, holder, moment) AS held
           CROSS JOIN LATERAL public.owned_at(tenant, held.role_id, moment) AS owned
           WHERE held.scope_type = 'tenant'
             AND NOT EXISTS (SELECT FROM public.holder_at(tenant, holder, moment) AS gone WHERE NOT gone.is_active)""",
    ),
    "place_at(tenant uuid, kind text, thing uuid, moment timestamptz)": (
        "source_id uuid, domain_id uuid, owner_role_id uuid, reach uuid[]",
        """SELECT source.id, source.data_domain_id, source.owner_role_id, domain.lineage || source.id
           FROM public.source_at(tenant, thing, moment) AS source
           LEFT JOIN LATERAL public.domain_at(tenant, source.data_domain_id, moment) AS domain ON true
           WHERE kind = 'data_source'
           UNION ALL
           SELECT NULL::uuid, domain.id, NULL::uuid, domain.lineage
           FROM public.domain_at(tenant, thing, moment) AS domain
           WHERE kind = 'data_domain'""",
    ),
}
"""By signature the columns and the one statement: PostgreSQL puts it in the place of the call, so that it is planned
with all that surrounds it and finds its rows by their indexes (PostgreSQL manual, 36.5; the wiki's "Inlining of SQL
functions"). So none of them has a `search_path` of its own, and whatever they name they name with its schema. What has
to be found by an id takes that as a parameter: a join would not reach through the UNION."""

INDEXES = {
    "role_assignments_role_subject_idx": (
        "role_assignments (tenant_id, role_id, subject_type, subject_id) WHERE scope_id IS NULL"
    ),
    "role_assignments_scope_subject_idx": (
        "role_assignments (tenant_id, scope_id, subject_type, subject_id) WHERE scope_id IS NOT NULL"
    ),
    "role_assignments_subject_idx": "role_assignments (tenant_id, subject_id, scope_id)",
    "group_members_group_id_idx": "group_members (group_id, user_id)",
    "group_members_ever_user_id_idx": "group_members (user_id)",
    "data_sources_owner_role_id_id_idx": (
        "data_sources (tenant_id, owner_role_id, id) WHERE owner_role_id IS NOT NULL"
    ),
    "rights_history_owner_role_id_idx": (
        "rights_history (tenant_id, ((data ->> 'owner_role_id')::uuid)) WHERE (data ->> 'owner_role_id') IS NOT NULL"
    ),
    "rights_history_of_roles_idx": "rights_history (tenant_id, valid_to) WHERE kind = 'role'",
}


def upgrade() -> None:
    op.execute(PERMISSIONS)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON permissions TO hub_app")
    for table, (kind, email) in HOLDERS.items():
        op.execute(REMEMBER.format(kind=kind, email=email))
        op.execute(
            f"""CREATE TRIGGER remember AFTER UPDATE ON {table} FOR EACH ROW
                  WHEN (OLD.is_active IS DISTINCT FROM NEW.is_active) EXECUTE FUNCTION remember_{kind}()"""
        )
        op.execute(
            f"CREATE TRIGGER remember_deleted AFTER DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION remember_{kind}()"
        )
    for signature, (columns, statement) in FUNCTIONS.items():
        op.execute(f"CREATE FUNCTION {signature} RETURNS TABLE ({columns}) LANGUAGE sql STABLE AS $$ {statement} $$")
    schema_changes.create_indexes(INDEXES)


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
    for signature in reversed(FUNCTIONS):
        name, _, parameters = signature.partition("(")
        types = ", ".join(parameter.split()[1] for parameter in parameters.removesuffix(")").split(", "))
        op.execute(f"DROP FUNCTION {name}({types})")
    for table, (kind, _) in HOLDERS.items():
        op.execute(f"DROP TRIGGER remember ON {table}")
        op.execute(f"DROP TRIGGER remember_deleted ON {table}")
        op.execute(f"DROP FUNCTION remember_{kind}")
    op.execute("DROP TABLE permissions")
