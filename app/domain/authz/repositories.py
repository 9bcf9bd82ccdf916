"""The questions about rights, as PostgreSQL is asked them: all of the rights of a moment (`rights_at`), be that the
present one or one of the past."""

from typing import Final

from app.core.reads import written

TABLE: Final = "role_assignments"

_GROUND = """json_build_array(held.is_owner, held.role_id, held.assignment_id, held.group_id, held.scope_type,
     held.scope_id, held.request_id)"""

OWN: Final = written(
    """SELECT held.is_owner, held.role_id, held.assignment_id, held.group_id, held.scope_type, held.scope_id,
         held.request_id, held.permissions,
         EXISTS (SELECT FROM roles WHERE roles.id = held.role_id AND roles.is_owner)
       FROM rights_at($1, $2, now(), '{}') AS held WHERE NOT held.is_owner""",
    "tenant_id",
    "user_id",
    table=TABLE,
)
"""What somebody's assignments bring now, but for what their roles own, of which there may be any number."""

CHECKED: Final = written(
    f"""SELECT place.source_id, place.domain_id, place.owner_role_id,
         CASE WHEN asked.resource_id IS NULL OR coalesce(place.source_id, place.domain_id) IS NOT NULL THEN (
           SELECT json_agg({_GROUND} ORDER BY held.scope_type DESC, held.scope_id, held.assignment_id)
           FROM rights_at($1, asked.user_id, asked.moment, $2) AS held
           WHERE (held.scope_id IS NULL OR held.scope_id = ANY (place.reach)) AND asked.action = ANY (held.permissions))
         END
       FROM (
         SELECT user_id, action, resource_type, resource_id, least(coalesce(at::timestamptz, now()), now()) AS moment,
           number
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[]) WITH ORDINALITY
           AS each (user_id, action, resource_type, resource_id, at, number)) AS asked
       LEFT JOIN LATERAL place_at($1, asked.resource_type, asked.resource_id, asked.moment) AS place ON true
       ORDER BY asked.number""",  # noqa: S608 - a constant of ours
    "tenant_id",
    "owner_brings",
    "user_ids",
    "actions",
    "resource_types",
    "resource_ids",
    "moments",
    table=TABLE,
)
"""For each of the checks where its resource stands, and what the right comes from."""
