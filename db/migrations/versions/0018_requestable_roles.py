"""Roles that anybody may ask for.

Revision ID: 0018
Revises: 0017
"""

from app.core import schema_changes

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

loses = ("which roles may be asked for",)

SORTS = {"created_at": "created_at", "updated_at": "updated_at", "name": "name_key"}
INDEXES = {
    f"roles_is_requestable_{sort}_idx": f"roles (tenant_id, is_requestable, {column}, id)"
    for sort, column in SORTS.items()
}
VALUES = 20
"""As in 0006: a filter's index is the cheaper way."""


def upgrade() -> None:
    schema_changes.in_steps(
        "roles",
        f"""ALTER TABLE roles ADD COLUMN IF NOT EXISTS is_requestable boolean NOT NULL DEFAULT false,
              ALTER is_requestable SET (n_distinct = {VALUES})""",
        """UPDATE roles SET is_requestable = true FROM tenant_settings AS settings
           WHERE settings.tenant_id = roles.tenant_id AND settings.is_admin_requestable AND roles.name = 'admin'
             AND roles.is_system""",
    )
    schema_changes.create_indexes(INDEXES)
    schema_changes.analyze(["roles"])


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
    schema_changes.in_steps("roles", "ALTER TABLE roles DROP COLUMN IF EXISTS is_requestable")
