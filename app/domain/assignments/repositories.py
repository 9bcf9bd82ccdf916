"""Which assignments are in force, and which of them the short forms of users and roles tell of."""

from sqlalchemy import ColumnElement, and_, func, literal_column, or_

from app.core.database import Repository
from app.domain.assignments.models import RoleAssignment

IS_OPEN = RoleAssignment.ended_at.is_(None)
IN_FORCE: ColumnElement[bool] = and_(
    IS_OPEN,
    RoleAssignment.starts_at <= func.statement_timestamp(),
    or_(RoleAssignment.expires_at.is_(None), RoleAssignment.expires_at > func.statement_timestamp()),
)
"""By the database's clock, read by each statement anew: a transaction that had to wait for a lock began before what it
now finds."""
LASTS: ColumnElement[bool] = and_(
    RoleAssignment.expires_at.is_(None), func.coalesce(RoleAssignment.via_type, "person") == "person"
)
"""Hangs on no date, request, review or directory."""
OF_WHOLE_TENANT: ColumnElement[bool] = and_(
    RoleAssignment.scope_id.is_(None), RoleAssignment.subject_type == literal_column("'user'")
)
"""Given to the users themselves, for the whole tenant: what users and roles are shown with."""


class AssignmentRepository(Repository[RoleAssignment]):
    model_type = RoleAssignment
