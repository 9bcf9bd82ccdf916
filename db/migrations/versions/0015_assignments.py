"""When role assignments are in force: found by the moment, and by when they begin and end.

Revision ID: 0015
Revises: 0014
"""

from app.core import schema_changes

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

loses = ()

ENDS_AT = "least(coalesce(expires_at, 'infinity'), coalesce(ended_at, 'infinity'))"
INDEXES = {
    "role_assignments_validity_idx": (
        f"role_assignments USING gist (tstzrange(starts_at, greatest(starts_at, {ENDS_AT})))"
    ),
    "role_assignments_ends_at_idx": f"role_assignments (tenant_id, ({ENDS_AT}))",
    "role_assignments_starts_at_idx": "role_assignments (tenant_id, starts_at)",
    "role_assignments_expired_idx": "role_assignments (expires_at) WHERE ended_at IS NULL AND expires_at IS NOT NULL",
}


def upgrade() -> None:
    schema_changes.create_indexes(INDEXES)
    schema_changes.analyze(["role_assignments"])


def downgrade() -> None:
    schema_changes.drop_indexes(INDEXES)
